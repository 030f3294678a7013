package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/console"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/network"
	"github.com/tangle-network/microvm/snapshot"
	"github.com/tangle-network/microvm/vmm"
)

// Runtime is the provider. It implements microvm.Runtime and the optional
// interfaces Pruner, SnapshotManager, Forker, ConsoleReader, ConsoleWriter,
// VsockDialer, Waiter, Watcher and MetricsReader. All methods may be called concurrently.
type Runtime struct {
	cfg     Config
	store   *record.Store
	snaps   *snapshot.Store
	watcher *vmm.Watcher
	keeper  *console.Keeper
	feed    *feed

	programs programs

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	token string // tells this runtime from others of the process

	mu       sync.Mutex
	forking  map[string]bool     // snapshots of forks that are being made
	machines map[string]*machine // by uid: VMMs that this program watches
	closed   bool
	netMu    sync.Mutex
	net      *network.Manager // nil until a VM has a network
	busy     sync.WaitGroup   // verbs, and goroutines that watch VMMs
}

var (
	_ microvm.Runtime         = (*Runtime)(nil)
	_ microvm.Pruner          = (*Runtime)(nil)
	_ microvm.SnapshotManager = (*Runtime)(nil)
	_ microvm.Forker          = (*Runtime)(nil)
	_ microvm.ConsoleReader   = (*Runtime)(nil)
	_ microvm.ConsoleWriter   = (*Runtime)(nil)
	_ microvm.VsockDialer     = (*Runtime)(nil)
	_ microvm.Waiter          = (*Runtime)(nil)
	_ microvm.Watcher         = (*Runtime)(nil)
	_ microvm.MetricsReader   = (*Runtime)(nil)
	_ microvm.EgressUpdater   = (*Runtime)(nil)
)

// ErrClosed is what verbs answer after Close.
var ErrClosed = errors.New("the runtime is closed")

// Open opens the state directory, adopts the VMMs that run there and mends what
// a crash has left: see Recover, whose report can be had by calling it again
// with DryRun. What can't be mended now is reported to Config.Log and does not
// keep the rest from working.
func Open(ctx context.Context, cfg Config) (*Runtime, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	r := &Runtime{cfg: cfg, machines: map[string]*machine{}, forking: map[string]bool{}}
	if r.token, err = newUID(); err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	if r.store, err = record.Open(filepath.Join(cfg.StateDir, "vms")); err != nil {
		return nil, fmt.Errorf("open runtime: %w: %w (run as the owner of %s, or set StateDir)", microvm.ErrHost, err, cfg.StateDir)
	}
	r.store.FailWith(cfg.diskFault)
	if r.snaps, err = snapshot.Open(filepath.Join(cfg.StateDir, "snapshots")); err != nil {
		return nil, fmt.Errorf("open runtime: %w: %w", microvm.ErrHost, err)
	}
	if r.watcher, err = vmm.NewWatcher(); err != nil {
		return nil, fmt.Errorf("open runtime: %w: %w", microvm.ErrHost, err)
	}
	if r.keeper, err = console.NewKeeper(cfg.Log); err != nil {
		return nil, errors.Join(fmt.Errorf("open runtime: %w: %w", microvm.ErrHost, err), r.watcher.Close())
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.feed = newFeed(r.store, cfg.Log, func(id string) (microvm.View, error) {
		rec, err := r.store.Load(id)
		if err != nil {
			return microvm.View{}, err
		}
		return r.view(rec)
	})
	if cfg.NoRecovery {
		return r, nil
	}
	report, err := r.Recover(ctx, RecoverOptions{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open runtime: %w", err), r.Close())
	}
	for _, a := range report.SetAside {
		cfg.Log.Error("a VM's record can't be used", "path", a.Path, "err", a.Err)
	}
	if len(report.Deferred) > 0 {
		cfg.Log.Error("more has been cut off than one recovery may repair: look why, then call Recover again", "left", report.Deferred)
	}
	if cfg.TombstoneRetention > 0 {
		if _, err := r.Prune(ctx, time.Now().Add(-cfg.TombstoneRetention)); err != nil {
			cfg.Log.Warn("old tombstones stay", "err", err)
		}
	}
	return r, nil
}

// Close waits for the verbs in flight and stops watching. The VMs live on.
func (r *Runtime) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.busy.Wait()
	r.mu.Lock()
	for uid, m := range r.machines {
		m.release()
		delete(r.machines, uid)
	}
	r.mu.Unlock()
	var nerr error
	if r.net != nil {
		nerr = r.net.Close()
	}
	return errors.Join(r.keeper.Close(), r.watcher.Close(), nerr)
}

// enter keeps Close waiting until leave.
func (r *Runtime) enter() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	r.busy.Add(1)
	return nil
}

func (r *Runtime) leave() { r.busy.Done() }

// machine is a VMM that this program watches.
type machine struct {
	proc  *vmm.Process
	ident record.Process

	mu   sync.Mutex
	id   string // of the VM, as far as this program knows
	api  *fcapi.Client
	path string // of the API socket that api connects to
	kept []*console.Kept
	dir  *os.File // the run directory, for kept

	released chan struct{} // closed by release
	ending   chan struct{} // closed while a destroy ends it: see watchDeath
}

func newMachine(proc *vmm.Process, vmID string, ident record.Process) *machine {
	return &machine{proc: proc, id: vmID, ident: ident, released: make(chan struct{}), ending: make(chan struct{})}
}

func (m *machine) setID(id string) {
	m.mu.Lock()
	m.id = id
	m.mu.Unlock()
}

func (m *machine) vmID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

// client is the connection to the API; the path changes with the VM's name.
func (m *machine) client(path string) *fcapi.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.api == nil || m.path != path {
		if m.api != nil {
			m.api.Close()
		}
		m.api, m.path = fcapi.New(path), path
	}
	return m.api
}

// connected makes a connection to the API that of a new machine's client.
func (m *machine) connected(path string, conn net.Conn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	api, err := fcapi.NewConnected(path, conn)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", path, err)
	}
	m.api, m.path = api, path
	return nil
}

func (m *machine) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.api != nil {
		m.api.Close()
		m.api = nil
	}
	for _, k := range m.kept {
		k.Close()
	}
	m.kept = nil
	if m.dir != nil {
		m.dir.Close()
		m.dir = nil
	}
	m.proc.Close()
	if !m.isReleased() {
		close(m.released)
	}
}

func (m *machine) isReleased() bool {
	select {
	case <-m.released:
		return true
	default:
		return false
	}
}

func (m *machine) dead() bool {
	select {
	case <-m.proc.Done():
		return true
	default:
		return false
	}
}

// identity of a process, as the record has it.
func identity(p *record.Process) vmm.Identity {
	return vmm.Identity{PID: p.PID, StartTime: p.StartTime, BootID: p.BootID}
}

// machine returns the VMM of a record, adopting it if this program does not know
// it yet: vmm.ErrGone when it is dead.
func (r *Runtime) machine(rec *record.Record) (*machine, error) { return r.adopt(rec, true) }

// machine is that of a verb, whose record is the truth.
func (o *op) machine() (*machine, error) { return o.r.adopt(o.Rec, false) }

func (r *Runtime) adopt(rec *record.Record, query bool) (*machine, error) {
	p := rec.Process
	if p == nil {
		return nil, vmm.ErrGone
	}
	r.mu.Lock()
	m := r.machines[rec.UID]
	r.mu.Unlock()
	if m != nil && identity(&m.ident) == identity(p) {
		if m.dead() {
			return m, vmm.ErrGone
		}
		return m, nil
	}
	proc, err := r.openVMM(rec)
	if err != nil {
		return nil, err
	}
	m = newMachine(proc, rec.ID, *p)
	if known := r.register(rec.UID, m, query); known != m {
		return known, nil
	}
	r.keep(m, r.store.Dir(rec.ID))
	return m, nil
}

// openVMM finds the process of a record: pid, start time, boot, working directory,
// program and the listener of the API socket must be those of the VM's VMM.
func (r *Runtime) openVMM(rec *record.Record) (*vmm.Process, error) {
	proc, err := r.watcher.Open(identity(rec.Process))
	if err != nil {
		return nil, err
	}
	runDir := filepath.Join(r.store.Dir(rec.ID), runName)
	own, err := worksIn(proc, runDir, rec.UID)
	switch {
	case err != nil:
	case !own:
		err = vmm.ErrGone // a copy of the state directory has the same record
	default:
		err = errors.Join(runsProgram(proc, rec.Process), ownsSocket(proc, runDir))
	}
	if err != nil {
		proc.Close()
		return nil, err
	}
	return proc, nil
}

// runsProgram fails when a process has become another program since it was
// recorded. Nobody would know what such a process is, nor whether to end it.
func runsProgram(proc *vmm.Process, p *record.Process) error {
	if p.Program == (record.Program{}) {
		return nil // of an earlier release
	}
	dev, inode, err := proc.Program()
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil // its socket must tell
	case err != nil:
		return err
	case p.Program != record.Program{Dev: dev, Inode: inode}:
		return fmt.Errorf("%w: process %d runs another program than %s, which was started (end the process)", microvm.ErrHost, p.PID, p.Binary)
	}
	return nil
}

// ownsSocket fails when another process answers at the VM's API socket: what is
// meant for this VM would be done to another. That nobody answers is no proof of
// anything.
func ownsSocket(proc *vmm.Process, runDir string) error {
	pid, err := vmm.SocketOwner(runDir, apiSocket)
	switch {
	case errors.Is(err, vmm.ErrGone), errors.Is(err, os.ErrPermission), isMissing(err):
		return nil
	case err != nil:
		return err
	case pid != 0 && pid != proc.PID():
		return fmt.Errorf("%w: process %d listens on %s, not VMM %d: end that process or remove the socket", microvm.ErrHost, pid, filepath.Join(runDir, apiSocket), proc.PID())
	}
	return nil
}

// worksIn says whether a VMM is the one of this run directory. Where its /proc
// entries are closed to us (it has capabilities that we have not), its API socket
// tells, and where somebody has removed the directory, its arguments.
func worksIn(proc *vmm.Process, runDir, uid string) (bool, error) {
	own, err := proc.WorksIn(runDir)
	switch {
	case errors.Is(err, os.ErrPermission):
		pid, serr := vmm.SocketOwner(runDir, apiSocket)
		if serr != nil || pid == 0 {
			// Nobody knows: it may be ours. It is not gone, whatever the socket is.
			return false, fmt.Errorf("%w; its API socket: owner %d, %v (end the process)", err, pid, serr)
		}
		return pid == proc.PID(), nil
	case isMissing(err) && !errors.Is(err, vmm.ErrGone) && hasArgument(proc.PID(), uid):
		// A copy of the state directory may lack the run directory.
		parent, perr := filepath.EvalSymlinks(filepath.Dir(runDir))
		cwd, cerr := os.Readlink(fmt.Sprintf("/proc/%d/cwd", proc.PID()))
		if perr == nil && cerr == nil {
			return cwd == filepath.Join(parent, runName)+" (deleted)", nil
		}
	}
	return own, err
}

// keep takes the growing files of a VM into care.
func (r *Runtime) keep(m *machine, dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isReleased() {
		return
	}
	var kept []*console.Kept
	add := func(name string, k *console.Kept, err error) {
		switch {
		case err == nil:
			kept = append(kept, k)
		case isMissing(err):
		default:
			r.cfg.Log.Warn("a file of a VM is not bounded", "vm", m.id, "file", name, "err", err)
		}
	}
	// The console is known by its inode, wherever a user moves it. What the VMM
	// writes beside it stays in the run directory: one descriptor is enough.
	k, err := r.keeper.Add(filepath.Join(dir, consoleFile), r.cfg.ConsoleBytes)
	add(consoleFile, k, err)
	if m.dir, err = os.Open(filepath.Join(dir, runName)); err != nil {
		add(runName, nil, err)
	} else {
		for _, name := range []string{logFile, stderrFile, metricsFile} {
			var read func(*os.File, int64) (int64, error)
			if name == metricsFile {
				read = r.beforeCut(identity(&m.ident))
			}
			k, err := r.keeper.AddIn(m.dir, name, r.cfg.LogBytes, read)
			add(name, k, err)
		}
	}
	m.kept = append(m.kept, kept...)
}

// register makes a VMM known and watches for its death. It returns the one that
// is known, if there is one for the same process, and releases m then. One that
// was adopted for a query never takes the place of a VMM that lives: the query's
// record is an old one.
func (r *Runtime) register(uid string, m *machine, adopted bool) *machine {
	r.mu.Lock()
	old := r.machines[uid]
	switch {
	case old == m:
		r.mu.Unlock()
		return m
	case r.closed:
		// A verb that Close waits for: Close releases it. A query comes too late.
		if !adopted {
			r.machines[uid] = m
		}
		r.mu.Unlock()
		switch {
		case adopted:
			m.release()
		case old != nil:
			old.release()
		}
		return m
	case old != nil && (identity(&old.ident) == identity(&m.ident) || adopted && !old.dead()):
		r.mu.Unlock()
		m.release()
		return old
	}
	r.machines[uid] = m
	r.busy.Add(1)
	r.mu.Unlock()
	if old != nil {
		old.release()
	}
	r.watchDeath(uid, m)
	return m
}

// watchDeath has the death of a VMM recorded, unless it is a destroy that ends it:
// that one records it. The caller has added it to those that Close waits for.
func (r *Runtime) watchDeath(uid string, m *machine) {
	m.mu.Lock()
	ending := m.ending
	m.mu.Unlock()
	go func() {
		defer r.busy.Done()
		select {
		case <-m.proc.Done():
			r.died(uid, m)
		case <-ending:
		case <-m.released:
		case <-r.ctx.Done():
		}
	}()
}

// endDestroyed ends the VMM of a VM that is being destroyed.
func (o *op) endDestroyed(m *machine) error {
	m.mu.Lock()
	close(m.ending)
	m.mu.Unlock()
	err := o.endProcess(m)
	if err == nil {
		return nil
	}
	m.mu.Lock()
	m.ending = make(chan struct{})
	m.mu.Unlock()
	o.r.busy.Add(1) // Close waits for this verb, too
	r, uid := o.r, o.uid()
	if !m.dead() {
		r.watchDeath(uid, m)
		return err
	}
	go func() {
		defer r.busy.Done()
		r.died(uid, m)
	}()
	return err
}

// drop releases a VMM, registered or not.
func (r *Runtime) drop(uid string, m *machine) {
	r.mu.Lock()
	if r.machines[uid] == m {
		delete(r.machines, uid)
	}
	r.mu.Unlock()
	m.release()
}

// forget drops the VMM of a VM.
func (r *Runtime) forget(uid string) {
	r.mu.Lock()
	m := r.machines[uid]
	delete(r.machines, uid)
	r.mu.Unlock()
	if m != nil {
		m.release()
	}
}

// died writes a death into the record; queries show it already. It waits for the
// verb that has the VM in hand, which may have been what ended the VMM.
func (r *Runtime) died(uid string, m *machine) {
	// Another program may have renamed it.
	for _, name := range []func() string{m.vmID, func() string { return r.find(uid) }} {
		id := name()
		if id == "" {
			continue
		}
		o, err := r.begin(r.ctx, "watch", id) // settles
		if err != nil {
			if !errors.Is(err, microvm.ErrVMNotFound) && !errors.Is(err, ErrClosed) && r.ctx.Err() == nil {
				r.cfg.Log.Error("the end of a VMM can't be recorded", "vm", id, "err", err)
			}
			continue
		}
		found := o.uid() == uid
		o.end()
		if found {
			break
		}
	}
	r.drop(uid, m)
}

// find is the id of the VM with this uid.
func (r *Runtime) find(uid string) string {
	ids, err := r.store.IDs()
	if err != nil {
		return ""
	}
	for _, id := range ids {
		if rec, err := r.store.Load(id); err == nil && rec.UID == uid {
			return id
		}
	}
	return ""
}

// isEmulator tells from what a VMM says of its version.
func isEmulator(version string) bool { return strings.Contains(version, "-fcemu") }
