package fcemu

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"os"

	"github.com/tangle-network/microvm/fcapi"
)

// The state file of a snapshot, all integers little-endian:
//
//	8  magic "FCEMUVM\n"
//	6  format version: major, minor, patch (16 bits each)
//	4  length of the head
//	8  length of the engine's part
//	…  head: JSON of stateHead
//	…  the engine's part
//	8  CRC-64/ECMA of everything before
const (
	stateMagic   = "FCEMUVM\n"
	stateFixed   = 8 + 6 + 4 + 8
	maxStateHead = 4 << 20
	maxStateBlob = 4 << 30
)

// ErrBadState is wrapped by all errors about the contents of a state file.
var ErrBadState = errors.New("not a usable fcemu state file")

// FormatVersion is the version of a snapshot's format.
type FormatVersion struct{ Major, Minor, Patch uint16 }

func (v FormatVersion) version() fcapi.Version {
	return fcapi.Version{Major: int(v.Major), Minor: int(v.Minor), Patch: int(v.Patch)}
}

func (v FormatVersion) String() string {
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
}

type stateHead struct {
	Engine  string `json:"engine"`
	Version string `json:"vmm_version"`
	Config  Config `json:"config"`
}

// WriteState writes a state file at path, replacing what was there: cfg, and
// size bytes of the engine's own state from blob. engine is Engine.Name(). The
// format is that of the emulated release, which the controller's cfg carries.
func WriteState(path, engine string, cfg *Config, blob io.Reader, size int64) (err error) {
	rel := cfg.rel
	if rel == nil {
		r, err := parseRelease("")
		if err != nil {
			return err
		}
		rel = &r
	}
	head, err := json.Marshal(stateHead{Engine: engine, Version: rel.reported(), Config: *cfg})
	if err != nil {
		return fmt.Errorf("encode the configuration: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("open the state file: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close the state file: %w", cerr)
		}
	}()
	sum := crc64.New(crc64.MakeTable(crc64.ECMA))
	w := io.MultiWriter(f, sum)
	fixed := make([]byte, 0, stateFixed)
	fixed = append(fixed, stateMagic...)
	for _, n := range []uint16{rel.format.Major, rel.format.Minor, rel.format.Patch} {
		fixed = binary.LittleEndian.AppendUint16(fixed, n)
	}
	fixed = binary.LittleEndian.AppendUint32(fixed, uint32(len(head)))
	fixed = binary.LittleEndian.AppendUint64(fixed, uint64(size))
	if _, err := w.Write(fixed); err != nil {
		return fmt.Errorf("write the state file: %w", err)
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("write the state file: %w", err)
	}
	if _, err := io.CopyN(w, blob, size); err != nil {
		return fmt.Errorf("write the engine's state: %w", err)
	}
	if _, err := f.Write(binary.LittleEndian.AppendUint64(nil, sum.Sum64())); err != nil {
		return fmt.Errorf("write the state file: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync the state file: %w", err)
	}
	return nil
}

// StateFile is an open, verified state file.
type StateFile struct {
	Format  FormatVersion
	Engine  string // Engine.Name() of the writer
	Version string // vmm_version of the writer
	Config  Config
	Blob    *io.SectionReader // the engine's own part

	f *os.File
}

// Close closes the file; Blob ends with it.
func (s *StateFile) Close() error { return s.f.Close() }

// OpenState opens a state file, checks lengths, checksum and the sanity of the
// configuration in it; which formats fit is the reader's to say. Errors about the
// contents wrap ErrBadState.
func OpenState(path string) (*StateFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the state file: %w", err)
	}
	s, err := readState(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	s.f = f
	return s, nil
}

func readState(f *os.File) (*StateFile, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat the state file: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file", ErrBadState)
	}
	s, blobAt, err := parseState(f, st.Size())
	if err != nil {
		return nil, err
	}
	s.Blob = io.NewSectionReader(f, blobAt, st.Size()-8-blobAt)
	return s, nil
}

// readFormat reads only the version, without looking at the rest.
func readFormat(r io.ReaderAt) (FormatVersion, error) {
	fixed := make([]byte, stateFixed)
	if _, err := r.ReadAt(fixed, 0); err != nil {
		return FormatVersion{}, fmt.Errorf("%w: shorter than its header: %w", ErrBadState, err)
	}
	if string(fixed[:8]) != stateMagic {
		return FormatVersion{}, fmt.Errorf("%w: no fcemu magic at the start", ErrBadState)
	}
	v := FormatVersion{
		binary.LittleEndian.Uint16(fixed[8:]),
		binary.LittleEndian.Uint16(fixed[10:]),
		binary.LittleEndian.Uint16(fixed[12:]),
	}
	return v, nil
}

// parseState checks a state file of the given size and returns where the
// engine's part begins.
func parseState(r io.ReaderAt, size int64) (*StateFile, int64, error) {
	format, err := readFormat(r)
	if err != nil {
		return nil, 0, err
	}
	fixed := make([]byte, stateFixed)
	if _, err := r.ReadAt(fixed, 0); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrBadState, err)
	}
	headLen := int64(binary.LittleEndian.Uint32(fixed[14:]))
	blobLen := binary.LittleEndian.Uint64(fixed[18:])
	if headLen > maxStateHead || blobLen > maxStateBlob {
		return nil, 0, fmt.Errorf("%w: lengths %d and %d are out of bounds", ErrBadState, headLen, blobLen)
	}
	if want := stateFixed + headLen + int64(blobLen) + 8; size != want {
		return nil, 0, fmt.Errorf("%w: %d bytes long, its header says %d", ErrBadState, size, want)
	}
	if err := checkSum(r, size); err != nil {
		return nil, 0, err
	}
	head := make([]byte, headLen)
	if _, err := r.ReadAt(head, stateFixed); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrBadState, err)
	}
	var h stateHead
	if err := json.Unmarshal(head, &h); err != nil {
		return nil, 0, fmt.Errorf("%w: its configuration: %w", ErrBadState, err)
	}
	if err := h.Config.check(); err != nil {
		return nil, 0, fmt.Errorf("%w: its configuration: %w", ErrBadState, err)
	}
	return &StateFile{Format: format, Engine: h.Engine, Version: h.Version, Config: h.Config},
		stateFixed + headLen, nil
}

func checkSum(r io.ReaderAt, size int64) error {
	var sum hash.Hash64 = crc64.New(crc64.MakeTable(crc64.ECMA))
	if _, err := io.Copy(sum, io.NewSectionReader(r, 0, size-8)); err != nil {
		return fmt.Errorf("%w: %w", ErrBadState, err)
	}
	var tail [8]byte
	if _, err := r.ReadAt(tail[:], size-8); err != nil {
		return fmt.Errorf("%w: %w", ErrBadState, err)
	}
	if got := binary.LittleEndian.Uint64(tail[:]); got != sum.Sum64() {
		return fmt.Errorf("%w: checksum %016x, contents have %016x", ErrBadState, got, sum.Sum64())
	}
	return nil
}
