package record

import (
	"bytes"
	"os"
)

// draft is a record on its way to the disk, under a name that nobody reads.
type draft struct {
	contents []byte
	written  chan struct{} // closed when err is set
	err      error
}

// Prepare begins to write the record that the next Save is expected to save,
// while the host does what it says: what takes long, its contents on the disk,
// is then there already. It promises nothing: Save compares, and writes a record
// that has become another one anew.
func (l *Locked) Prepare(rec Record) {
	l.dropDraft()
	rec.Format, rec.ID = Format, l.ID
	b, err := encode(FileName, &rec)
	if err != nil {
		return // Save will say so
	}
	d := &draft{contents: b, written: make(chan struct{})}
	l.draft = d
	dir := l.Dir
	go func() {
		defer close(d.written)
		d.err = l.store.writeNext(dir, FileName, b, true)
	}()
}

// takeDraft says whether these contents are on the disk already.
func (l *Locked) takeDraft(contents []byte) bool {
	d := l.draft
	if d == nil {
		return false
	}
	l.draft = nil
	<-d.written
	return d.err == nil && bytes.Equal(d.contents, contents)
}

// dropDraft waits for a draft that is of no use any more, and removes it.
func (l *Locked) dropDraft() {
	if d := l.draft; d != nil {
		l.draft = nil
		<-d.written
		_ = os.Remove(nextName(l.Dir, FileName)) // the next write replaces it anyway
	}
}
