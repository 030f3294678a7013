package console

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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
	began  int64                                      // what the file occupied when it came

	mu     sync.Mutex // held while the file is worked on
	file   *os.File   // nil once closed, and between two looks at a file in a directory
	in     *place     // nil: the file is held open
	closed bool
	failed bool // an error was reported already
}

// place is where a file that is not held open is found again.
type place struct {
	dir      *os.File
	name     string
	dev, ino uint64
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
	return k.take(path, maxBytes, nil, nil)
}

// AddRead is Add for a file that somebody has to read before it is cut. read is
// called ahead of each cut with the file and with the number of bytes at its head
// that are to go; it says how many of them may. Meanwhile the file grows, but
// not without end: when it occupies 2 * maxBytes more than at the beginning and read
// fails, or 64 * maxBytes more because read does not come after, it is cut all the
// same, and that is reported to the log, the first time for each file. read is called by
// the Keeper's goroutine, and must not call the Keeper. The first look at the file
// is left to that goroutine, too.
func (k *Keeper) AddRead(path string, maxBytes int64, read func(f *os.File, cut int64) (int64, error)) (*Kept, error) {
	return k.take(path, maxBytes, read, nil)
}

// AddIn is AddRead, or Add when read is nil, for the file name in dir, and needs
// no descriptor for it: dir serves any number of files, and has to stay open until
// they are closed. The directory can be renamed and moved. A file that leaves it
// is no longer in care.
func (k *Keeper) AddIn(dir *os.File, name string, maxBytes int64, read func(f *os.File, cut int64) (int64, error)) (*Kept, error) {
	if name == "" || filepath.Base(name) != name {
		return nil, fmt.Errorf("keep console file: name: %q is not that of a file in a directory", name)
	}
	return k.take(filepath.Join(dir.Name(), name), maxBytes, read, &place{dir: dir, name: name})
}

func (k *Keeper) take(path string, maxBytes int64, read func(*os.File, int64) (int64, error), in *place) (*Kept, error) {
	if maxBytes < MinBound {
		return nil, fmt.Errorf("keep console file %s: maxBytes: %d is less than %d", path, maxBytes, MinBound)
	}
	var f *os.File
	var err error
	if in == nil {
		f, err = open(path, os.O_RDWR)
	} else {
		f, err = in.open()
	}
	if err != nil {
		return nil, err
	}
	kept := &Kept{keeper: k, max: maxBytes, read: read, file: f, in: in}
	if in != nil {
		st, err := stat(f)
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		in.dev, in.ino = uint64(st.Dev), st.Ino
	}
	if err := kept.add(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("keep console file %s: %w", path, err)
	}
	if in != nil {
		kept.release()
	}
	return kept, nil
}

// open opens the file, whatever it is by now.
func (p *place) open() (*os.File, error) {
	var fd int
	err := control(p.dir, func(dir int) (err error) {
		fd, err = unix.Openat(dir, p.name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open console file: %w", &os.PathError{Op: "openat", Path: filepath.Join(p.dir.Name(), p.name), Err: err})
	}
	f := os.NewFile(uintptr(fd), filepath.Join(p.dir.Name(), p.name))
	if st, err := stat(f); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = f.Close()
		if err == nil {
			err = fmt.Errorf("open console file: %s is not a regular file", f.Name())
		}
		return nil, err
	}
	return f, nil
}

// look says how big the file in its place is: there is false when it has left.
func (p *place) look() (st unix.Stat_t, there bool, err error) {
	err = control(p.dir, func(dir int) error { return unix.Fstatat(dir, p.name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if errors.Is(err, unix.ENOENT) {
		return st, false, nil
	}
	if err != nil {
		return st, false, fmt.Errorf("stat %s: %w", filepath.Join(p.dir.Name(), p.name), err)
	}
	return st, uint64(st.Dev) == p.dev && st.Ino == p.ino, nil
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
		var st unix.Stat_t
		if st, err = stat(kept.file); err == nil {
			kept.mu.Lock()
			kept.began = st.Blocks * 512
			kept.mu.Unlock()
			// An event for the goroutine: a hole where there is nothing.
			err = tryPunch(kept.file)
		}
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
	var st unix.Stat_t
	switch {
	case kept.file != nil:
		st, err = stat(kept.file)
	case kept.in != nil && !kept.closed:
		var there bool
		if st, there, err = kept.in.look(); err == nil && !there {
			return false, nil
		}
	default:
		return false, nil
	}
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
	if kept.file == nil {
		f, err := kept.in.open()
		if err != nil {
			return false, err
		}
		kept.file = f
		defer func() {
			_ = f.Close()
			kept.file = nil
		}()
		// It may have changed places since.
		if st, err = stat(f); err != nil || uint64(st.Dev) != kept.in.dev || st.Ino != kept.in.ino {
			return false, err
		}
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
	case err != nil && used <= kept.began+2*kept.max:
		return 0, nil // the next look may have more luck
	case err != nil:
		return cut, fmt.Errorf("cut unread: %w", err)
	case done < cut && used > kept.began+behind*kept.max:
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
	kept.end()
}

func (kept *Kept) end() {
	kept.mu.Lock()
	kept.closed = true
	kept.mu.Unlock()
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
		kept.end()
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
