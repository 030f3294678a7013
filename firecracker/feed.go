package firecracker

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/record"
)

// feed learns by inotify(7) which records any program on the state directory
// replaces. All subscribers share one inotify instance (a user has 128 of them),
// which lives as long as there is a subscriber.
type feed struct {
	store *record.Store
	view  func(id string) (microvm.View, error)
	log   *slog.Logger

	mu    sync.Mutex
	subs  map[*subscriber]struct{}
	known map[string]microvm.View // what the subscribers know of each VM
	file  *os.File                // inotify; nil without subscribers
	fd    int
	root  int32            // watches the directory of all VMs
	wd    map[int32]string // watches of VMs' directories
	ended chan struct{}    // of the goroutine that reads file
}

func newFeed(store *record.Store, log *slog.Logger, view func(string) (microvm.View, error)) *feed {
	return &feed{store: store, log: log, view: view, subs: map[*subscriber]struct{}{}}
}

// subscribe begins with what is now: only later changes are delivered. An empty
// id stands for all VMs.
func (f *feed) subscribe(id string) (*subscriber, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		if err := f.open(); err != nil {
			return nil, fmt.Errorf("%w: watch %s: %w (see sysctl fs.inotify.max_user_instances and max_user_watches)", microvm.ErrHost, f.store.Root(), err)
		}
	}
	s := &subscriber{only: id, feed: f, ready: make(chan struct{}, 1)}
	f.subs[s] = struct{}{}
	if id != "" {
		f.begin(id)
		return s, nil
	}
	ids, err := f.store.IDs()
	if err != nil {
		f.remove(s)
		return nil, err
	}
	for _, id := range ids {
		f.begin(id)
	}
	return s, nil
}

func (f *feed) open() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	const names = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE
	root, err := unix.InotifyAddWatch(fd, f.store.Root(), names|unix.IN_ONLYDIR)
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	f.file, f.fd, f.root = os.NewFile(uintptr(fd), "inotify"), fd, int32(root)
	f.wd, f.known, f.ended = map[int32]string{}, map[string]microvm.View{}, make(chan struct{})
	go f.read(f.file, f.ended)
	return nil
}

func (f *feed) unsubscribe(s *subscriber) {
	f.mu.Lock()
	ended := f.remove(s)
	f.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// remove ends the reading with the last subscriber; wait for the channel then,
// without the mutex.
func (f *feed) remove(s *subscriber) (ended chan struct{}) {
	delete(f.subs, s)
	if len(f.subs) > 0 || f.file == nil {
		return nil
	}
	_ = f.file.Close()
	f.file = nil
	return f.ended
}

// wanted says whether some subscriber asks for the VM.
func (f *feed) wanted(id string) bool {
	for s := range f.subs {
		if s.only == "" || s.only == id {
			return true
		}
	}
	return false
}

// watch notices from now on that the VM's record is replaced. After a rename the
// directory has the same descriptor under the new id.
func (f *feed) watch(id string) {
	wd, err := unix.InotifyAddWatch(f.fd, f.store.Dir(id), unix.IN_MOVED_TO|unix.IN_ONLYDIR|unix.IN_DONT_FOLLOW)
	if err == nil {
		f.wd[int32(wd)] = id
	} else if !isMissing(err) {
		f.log.Warn("a VM is not watched", "vm", id, "err", err)
	}
}

// begin watches a VM and notes its present state, which is nobody's news.
func (f *feed) begin(id string) {
	if _, ok := f.known[id]; ok {
		return
	}
	f.watch(id)
	if v, err := f.view(id); err == nil {
		f.known[id] = v
	}
}

// read delivers until the file is closed.
func (f *feed) read(file *os.File, ended chan struct{}) {
	defer close(ended)
	buf := make([]byte, 64<<10)
	for {
		n, err := file.Read(buf)
		if err != nil {
			return
		}
		f.mu.Lock()
		if f.file == file {
			f.deliver(buf[:n])
		}
		f.mu.Unlock()
	}
}

// deliver looks at each VM that the events speak of, once.
func (f *feed) deliver(b []byte) {
	changed, order := map[string]bool{}, []string{}
	note := func(id string) {
		if !changed[id] && f.wanted(id) {
			changed[id] = true
			order = append(order, id)
		}
	}
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		end := min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:])))
		name := unix.ByteSliceToString(b[unix.SizeofInotifyEvent:end])
		b = b[end:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			f.lookAround(note)
		case mask&unix.IN_IGNORED != 0:
			delete(f.wd, wd)
		case wd == f.root:
			if microvm.ValidateID(name) != nil {
				continue
			}
			if mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 && f.wanted(name) {
				f.watch(name)
			}
			note(name)
		case name == record.FileName:
			if id, ok := f.wd[wd]; ok {
				note(id)
			}
		}
	}
	for _, id := range order {
		f.look(id)
	}
}

// lookAround notes all VMs: some events were lost.
func (f *feed) lookAround(note func(id string)) {
	for id := range f.known {
		note(id)
	}
	ids, err := f.store.IDs()
	if err != nil {
		f.log.Error("changes of VMs are missed", "err", err)
		return
	}
	for _, id := range ids {
		if f.wanted(id) {
			f.watch(id)
		}
		note(id)
	}
}

func sameView(a, b microvm.View) bool { return reflect.DeepEqual(a, b) }
