package firecracker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/network"
	"github.com/tangle-network/microvm/vmm"
)

// op is one verb on one VM while its lock is held.
type op struct {
	*record.Locked
	r     *Runtime
	ctx   context.Context
	verb  string
	stage string
	undo  undo
	// since is when the host was told to do what the verb is for: what the record
	// will say is then known before it is done, and written meanwhile.
	since time.Time
	// forward says that there is no way back: the intent stays when the verb
	// fails, and whoever comes next finishes it.
	forward bool
	// How the guest's memory is to be written: see planCapture.
	base      string
	wholeDiff bool
	// saved says that the guest's devices were saved since it stands still, or
	// come from a snapshot: see resetVsock.
	saved bool
	// writing says that the VMM may be at a snapshot.
	writing bool
	// undead says that a VMM could not be ended.
	undead bool
	// slot is the VM's network, if it has one.
	slot *network.Slot
	// log and console are the evidence for an error, read before the undo removes
	// it.
	log, console string
}

// begin takes the VM's lock and brings its record in line with what is. The
// caller must call end.
func (r *Runtime) begin(ctx context.Context, verb, id string) (*op, error) {
	if err := microvm.ValidateID(id); err != nil {
		return nil, &microvm.Error{Verb: verb, VMID: id, Err: err}
	}
	if err := r.enter(); err != nil {
		return nil, &microvm.Error{Verb: verb, VMID: id, Err: err}
	}
	if err := ctx.Err(); err != nil {
		r.leave()
		return nil, &microvm.Error{Verb: verb, VMID: id, Err: err, Retry: true}
	}
	l, err := r.store.Lock(ctx, id)
	if err != nil {
		r.leave()
		return nil, r.lockError(verb, id, err)
	}
	o := &op{Locked: l, r: r, ctx: ctx, verb: verb}
	if err := o.settle(); err != nil {
		err = o.fail(err)
		o.end()
		return nil, err
	}
	return o, nil
}

func (r *Runtime) lockError(verb, id string, err error) error {
	e := &microvm.Error{Verb: verb, VMID: id, Err: err}
	if errors.Is(err, record.ErrUnreadable) {
		e.Err = fmt.Errorf("%w: %w", microvm.ErrHost, err)
		e.Remedy = "put its vm.json right, or end its VMM and move " + r.store.Dir(id) + " away"
		e.Log, e.Console = evidence(r.store.Dir(id))
		return e
	}
	e.Retry, e.Remedy = advice(err)
	if !errors.Is(err, microvm.ErrVMNotFound) {
		if rec, err := r.store.Load(id); err == nil {
			return r.withEvidence(e, rec)
		}
	}
	return e
}

func (o *op) end() {
	o.Unlock()
	o.r.leave()
}

// at passes a stage boundary: the place where a cancelled context or a failpoint
// ends the verb. The name is the verb's and the stage's, as "create.spawned".
func (o *op) at(fp failpoint) error {
	o.stage = string(fp)
	if err := o.ctx.Err(); err != nil {
		return err
	}
	return o.r.fail(o.ctx, fp)
}

// intend records what is about to happen.
func (o *op) intend(change func(*record.Intent)) error {
	in := record.Intent{Verb: o.verb, UID: o.uid()}
	// A restore is a creation: what was said when the name was reserved stays.
	if o.Intent != nil && (o.Intent.Verb == o.verb || o.verb == "restore") {
		in = *o.Intent
	}
	if change != nil {
		change(&in)
	}
	first := o.Intent == nil || o.Intent.Verb != o.verb
	if err := o.SetIntent(in); err != nil || !first {
		return err
	}
	switch {
	case o.verb == "rename", o.verb == "snapshot", o.verb == verbDeleteSnapshot, in.Mode == microvm.StopModeHibernate:
		return o.SyncIntent()
	}
	return nil
}

func (o *op) uid() string {
	if o.Rec != nil {
		return o.Rec.UID
	}
	return o.Intent.UID
}

// commit makes the record and forgets the intent. What was done stays.
func (o *op) commit() error {
	if err := o.Save(); err != nil {
		return err
	}
	o.undo.keep()
	return o.ClearIntent()
}

// fail takes back what the verb did and puts the evidence together.
func (o *op) fail(err error) error {
	o.gather()
	stage := o.stage // the undo has stages, too
	uerr := o.undo.run()
	o.stage = stage
	if uerr != nil {
		err = errors.Join(err, fmt.Errorf("clean up: %w", uerr))
		if in := o.Intent; in != nil && in.Verb == o.verb && slices.Contains([]string{"start", "stop", "snapshot"}, o.verb) {
			o.r.recoverLater(o.ID) // the guest may stand still, or run against the record
		}
	} else if o.Intent != nil && o.Rec != nil && !o.forward {
		if cerr := o.ClearIntent(); cerr != nil {
			err = errors.Join(err, cerr)
		}
	}
	var done *microvm.Error
	if errors.As(err, &done) && done.Verb == o.verb {
		return err
	}
	e := &microvm.Error{Verb: o.verb, VMID: o.ID, Stage: o.stage, Err: hostError(err), Log: o.log, Console: o.console}
	e.Retry, e.Remedy = advice(err)
	var fault *fcapi.Error
	if e.Remedy == "" && errors.As(err, &fault) {
		e.Remedy = o.r.diskAdvice()
	}
	return e
}

// gather reads the ends of the log and of the console before they are removed. A
// verb that is refused at once has none, unless the VM has ended by itself.
func (o *op) gather() {
	if o.log == "" && o.console == "" && (o.stage != "" || o.Rec != nil && o.r.endedUnasked(o.Rec)) {
		o.log, o.console = evidence(o.Dir)
	}
}

// hostError makes what the kernel refused, and a VMM that ends unasked,
// microvm.ErrHost, unless it is something else already.
func hostError(err error) error {
	for _, is := range []error{
		context.Canceled, context.DeadlineExceeded, microvm.ErrVMNotFound, microvm.ErrVMExists, microvm.ErrSnapshotNotFound,
		microvm.ErrSnapshotExists, microvm.ErrInvalidTransition, microvm.ErrInvalidSpec, microvm.ErrUnsupported, microvm.ErrHost,
	} {
		if errors.Is(err, is) {
			return err
		}
	}
	var errno syscall.Errno
	var exited *vmm.ExitedError
	if errors.As(err, &errno) || errors.As(err, &exited) {
		return fmt.Errorf("%w: %w", microvm.ErrHost, err)
	}
	return err
}

// advice says whether a retry can help, and what the operator can do.
func advice(err error) (retry bool, remedy string) {
	var exited *vmm.ExitedError
	var fault *fcapi.Error
	var conn *fcapi.ConnError
	var mute muteError
	switch {
	case errors.As(err, &mute):
		return true, "the VMM is slow or stands still: its log may say why; a longer APITimeout (MICROVM_API_TIMEOUT_MS) gives it time, destroying the VM ends it"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return true, ""
	case errors.Is(err, fcapi.ErrUnsupported):
		return false, "name a Firecracker that has it by MICROVM_FIRECRACKER_BIN, or do without"
	case errors.As(err, &exited):
		return false, "see the VMM's log"
	case errors.As(err, &fault), errors.Is(err, microvm.ErrInvalidSpec):
		return false, ""
	case errors.Is(err, errHungUp):
		return true, "the VMM's log may say why; destroying the VM ends it"
	case errors.As(err, &conn):
		return true, ""
	case errors.Is(err, network.ErrPoolFull):
		return true, "destroy VMs, or open the runtime with a larger Network.Pool (MICROVM_NETWORK_SUBNET)"
	}
	return false, kernelAdvice(err)
}

// names of a VM's files; those in the run directory are what the VMM is told.
const (
	runName       = "run"
	hibernateName = "hibernate"
	consoleFile   = "console.log"
	inputFIFO     = "console.in"
	apiSocket     = "api.sock"
	vsockSocket   = "vsock.sock"
	logFile       = "vmm.log"
	stderrFile    = "stderr.log"
	metricsFile   = "metrics.json"
	sumFile       = "metrics.sum"
	kernelFile    = "vmlinux"
	initrdFile    = "initrd"
	stateFile     = "vmstate"
	memoryFile    = "memory"
	baseFile      = "base" // the memory that dirty tracking goes on from
	draftName     = "snapshot.tmp"
)

func (o *op) runDir() string         { return filepath.Join(o.Dir, runName) }
func (o *op) run(name string) string { return filepath.Join(o.Dir, runName, name) }
func (o *op) consolePath() string    { return filepath.Join(o.Dir, consoleFile) }
func (o *op) hibernatePath() string  { return filepath.Join(o.Dir, hibernateName) }
func (o *op) detached(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(o.ctx), d)
}
