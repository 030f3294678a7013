package console

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// MinBound is the smallest bound of a file, in bytes: what is needed to keep
// some output at all between two blocks of a file system.
const MinBound = 64 << 10

// Keeper keeps files within their bounds on disk, with one goroutine for all of
// them. It is told of each growth by inotify(7). All methods are safe for
// concurrent use.
type Keeper struct {
	log     *slog.Logger
	inotify *os.File
	fd      int
	closing chan struct{}
	ended   chan struct{}

	mu     sync.Mutex
	closed bool
	files  map[int32]*Kept // by inotify watch
}

// Kept is a file in the care of a Keeper.
type Kept struct {
	keeper *Keeper
	watch  int32
	max    int64
	read   func(f *os.File, cut int64) (int64, error) // nil, or asked before each cut

	mu     sync.Mutex // held while the file is worked on
	file   *os.File   // nil once closed
	failed bool       // an error was reported already
}

// coalesce is how long the Keeper rests after a look at files that did not need
// it: a guest that prints byte by byte must not keep a processor busy. A guest
// may print max/4 in that time before it passes its bound for a moment.
const coalesce = 2 * time.Millisecond

// NewKeeper returns a Keeper; Close it. What goes wrong later, in its goroutine,
// is reported to log (nil: nowhere), once for each file.
func NewKeeper(log *slog.Logger) (*Keeper, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("keep console files: %w", os.NewSyscallError("inotify_init1", err))
	}
	k := &Keeper{
		log:     log,
		inotify: os.NewFile(uintptr(fd), "inotify"),
		fd:      fd,
		closing: make(chan struct{}),
		ended:   make(chan struct{}),
		files:   make(map[int32]*Kept),
	}
	go k.run()
	return k, nil
}

// Add takes a regular file into care, new or with contents, and cuts it at once
// if need be. From then on it occupies at most maxBytes of disk (MinBound or
// more) and keeps at least its last maxBytes/2 bytes. A writer that is faster
// than the Keeper can pass the bound for a moment. The file is known by its
// inode: it can be renamed and moved.
//
// ErrNoHoles is reported at once where the file system can't do it; then the
// file is not in care.
func (k *Keeper) Add(path string, maxBytes int64) (*Kept, error) {
	return k.take(path, maxBytes, nil)
}

// AddRead is Add for a file that somebody has to read before it is cut. read is
// called ahead of each cut with the file and with the number of bytes at its head
// that are to go; it says how many of them may. Meanwhile the file grows, but
// not without end: what occupies more than 2 * maxBytes when read fails, or more
// than 64 * maxBytes when it does not come after, is cut all the same, and an
// error of read is reported to the log, the first for each file. read is called by
// the Keeper's goroutine, and must not call the Keeper. The first look at the file
// is left to that goroutine, too.
func (k *Keeper) AddRead(path string, maxBytes int64, read func(f *os.File, cut int64) (int64, error)) (*Kept, error) {
	return k.take(path, maxBytes, read)
}

func (k *Keeper) take(path string, maxBytes int64, read func(*os.File, int64) (int64, error)) (*Kept, error) {
	if maxBytes < MinBound {
		return nil, fmt.Errorf("keep console file %s: maxBytes: %d is less than %d", path, maxBytes, MinBound)
	}
	f, err := open(path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	kept := &Kept{keeper: k, max: maxBytes, read: read, file: f}
	if err := kept.add(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("keep console file %s: %w", path, err)
	}
	return kept, nil
}

func (kept *Kept) add() error {
	if err := tryPunch(kept.file); err != nil {
		return err
	}
	k := kept.keeper
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return fmt.Errorf("keeper: %w", os.ErrClosed)
	}
	// By the descriptor: the file that was opened, whatever its path means now.
	var wd int
	err := control(kept.file, func(fd int) (err error) {
		wd, err = unix.InotifyAddWatch(k.fd, "/proc/self/fd/"+strconv.Itoa(fd), unix.IN_MODIFY|unix.IN_MASK_CREATE)
		return err
	})
	if err == nil {
		kept.watch = int32(wd)
		k.files[kept.watch] = kept
	}
	k.mu.Unlock()
	if errors.Is(err, unix.EEXIST) {
		return errors.New("the file is in care already")
	}
	if err != nil {
		return os.NewSyscallError("inotify_add_watch", err)
	}
	if kept.read != nil {
		// An event for the goroutine: a hole where there is nothing.
		err = tryPunch(kept.file)
	} else {
		_, err = kept.check()
	}
	if err != nil {
		kept.Close()
	}
	return err
}

// tryPunch is ErrNoHoles where holes can't be punched. It tries far behind the
// end of the file, where there is nothing, and not so far that the file system
// refuses the offset before anything else.
func tryPunch(f *os.File) error {
	st, err := stat(f)
	if err != nil {
		return err
	}
	const distance = 1 << 28 // nobody writes that much meanwhile
	for off := int64(1 << 40); off >= st.Size+distance; off /= 2 {
		err := punch(f, off, 4096)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EFBIG):
			return err
		}
	}
	return nil // the first cut will tell
}

// check cuts the file when it nears its bound.
func (kept *Kept) check() (trimmed bool, err error) {
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if kept.file == nil {
		return false, nil
	}
	st, err := stat(kept.file)
	if err != nil {
		return false, err
	}
	if st.Blocks*512 <= kept.max/4*3 {
		return false, nil
	}
	cut := cutAt(st, kept.max/2)
	if cut == 0 {
		return false, nil
	}
	var readErr error
	if kept.read != nil {
		cut, readErr = kept.readAhead(st, cut)
	}
	freed, err := cutHead(kept.file, st, cut)
	return freed > 0, errors.Join(readErr, err)
}

// readAhead says how much may be cut now.
func (kept *Kept) readAhead(st unix.Stat_t, cut int64) (int64, error) {
	done, err := kept.read(kept.file, cut)
	const behind = 64
	switch used := st.Blocks * 512; {
	case err != nil && used <= 2*kept.max:
		return 0, nil // the next look may have more luck
	case err != nil:
		return cut, fmt.Errorf("cut unread: %w", err)
	case done < cut && used > behind*kept.max:
		return cut, fmt.Errorf("cut unread, from %d to %d: it grows faster than it can be read", done, cut)
	}
	return min(cut, wholeBlocks(st, done)), nil
}

// Close ends the care for the file.
func (kept *Kept) Close() {
	k := kept.keeper
	k.mu.Lock()
	if k.files[kept.watch] == kept {
		delete(k.files, kept.watch)
		_, _ = unix.InotifyRmWatch(k.fd, uint32(kept.watch))
	}
	k.mu.Unlock()
	kept.release()
}

func (kept *Kept) release() {
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if kept.file != nil {
		_ = kept.file.Close()
		kept.file = nil
	}
}

// Close ends the care for all files and waits for the goroutine.
func (k *Keeper) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		<-k.ended
		return nil
	}
	k.closed = true
	files := k.files
	k.files = nil
	close(k.closing)
	err := k.inotify.Close()
	k.mu.Unlock()
	<-k.ended
	for _, kept := range files {
		kept.release()
	}
	return err
}

func (k *Keeper) run() {
	defer close(k.ended)
	buf := make([]byte, 64<<10)
	rest := time.NewTimer(coalesce)
	defer rest.Stop()
	for {
		n, err := k.inotify.Read(buf)
		if err != nil {
			return // closed
		}
		trimmed := false
		for _, kept := range k.grown(buf[:n]) {
			did, err := kept.check()
			trimmed = trimmed || did
			if err != nil {
				kept.report(err)
			}
		}
		if trimmed {
			continue // whoever is that fast is looked after without rest
		}
		rest.Reset(coalesce)
		select {
		case <-rest.C:
		case <-k.closing:
			return
		}
	}
}

// grown returns the files that a batch of inotify events is about.
func (k *Keeper) grown(events []byte) map[int32]*Kept {
	found := make(map[int32]*Kept)
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		nameLen := int(binary.NativeEndian.Uint32(events[12:]))
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for wd, kept := range k.files {
				found[wd] = kept
			}
			return found
		}
		if kept := k.files[wd]; kept != nil {
			found[wd] = kept
		}
		events = events[min(len(events), unix.SizeofInotifyEvent+nameLen):]
	}
	return found
}

func (kept *Kept) report(err error) {
	kept.mu.Lock()
	first := !kept.failed
	kept.failed = true
	kept.mu.Unlock()
	if first {
		kept.keeper.log.Error("console file can't be bounded", "err", err)
	}
}
