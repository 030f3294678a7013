package firecracker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
)

// CreateVM makes a VM from the provider's defaults.
func (r *Runtime) CreateVM(ctx context.Context, id string) error {
	return r.CreateVMWithSpec(ctx, id, microvm.Spec{})
}

// CreateVMWithSpec makes a VM: it reserves the name, clones or links the disks,
// starts the VMM and configures it. When a step fails or ctx ends, all of it is
// taken back, and the error says which step it was.
func (r *Runtime) CreateVMWithSpec(ctx context.Context, id string, spec microvm.Spec) error {
	verb := "create"
	if spec.RestoreFrom != nil {
		verb = "restore"
	}
	if err := errors.Join(microvm.ValidateID(id), spec.Validate()); err != nil {
		return &microvm.Error{Verb: verb, VMID: id, Err: err}
	}
	if err := r.enter(); err != nil {
		return &microvm.Error{Verb: verb, VMID: id, Err: err}
	}
	defer r.leave()
	if err := ctx.Err(); err != nil {
		return &microvm.Error{Verb: verb, VMID: id, Err: err, Retry: true}
	}
	if spec.RestoreFrom != nil {
		return r.restore(ctx, id, spec)
	}
	resolved, err := r.resolve(spec)
	if err != nil {
		return &microvm.Error{Verb: verb, VMID: id, Err: err}
	}
	p, err := r.ready(ctx)
	if err == nil {
		err = r.checkCreate(resolved, p.release)
	}
	if err != nil {
		return refused(verb, id, err)
	}
	o, err := r.reserve(ctx, verb, id, resolved)
	if err != nil {
		return err
	}
	defer o.Unlock()
	l, err := o.create(p, func() error { return o.stageBoot() })
	if err != nil {
		return o.fail(err)
	}
	return o.created(l)
}

// refused is the error of a verb that has not begun.
func refused(verb, id string, err error) error {
	e := &microvm.Error{Verb: verb, VMID: id, Err: err}
	e.Retry, e.Remedy = advice(err)
	return e
}

// reserve takes the name. The op holds the lock, but is not entered a second
// time: the caller unlocks.
func (r *Runtime) reserve(ctx context.Context, verb, id string, spec microvm.Spec) (*op, error) {
	uid, err := newUID()
	if err != nil {
		return nil, &microvm.Error{Verb: verb, VMID: id, Err: err}
	}
	in := record.Intent{Verb: "create", UID: uid, InPlace: inPlaceFiles(spec)}
	if spec.Vsock != nil {
		in.VsockPath = spec.Vsock.Path
	}
	l, err := r.store.Reserve(ctx, id, in)
	if errors.Is(err, microvm.ErrVMExists) && r.rollBackCreate(id) {
		l, err = r.store.Reserve(ctx, id, in)
	}
	if err != nil {
		e := &microvm.Error{Verb: verb, VMID: id, Stage: "reserve", Err: hostError(err)}
		e.Retry, e.Remedy = advice(err)
		return nil, e
	}
	l.Rec = &record.Record{UID: uid, ID: id, Spec: spec, CreatedAt: time.Now().UTC()}
	o := &op{Locked: l, r: r, ctx: ctx, verb: verb}
	o.undo.push(func() error {
		if o.undead {
			return nil // recovery needs the intent
		}
		return l.Remove()
	})
	o.stage = "reserve"
	if err := o.checkInPlace(); err != nil {
		err = o.fail(err)
		o.Unlock()
		return nil, err
	}
	return o, nil
}

func newUID() (string, error) {
	var b [10]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(b[:]), nil
}

// create brings the VM's files into its directory and starts a configured VMM.
func (o *op) create(p program, stage func() error) (*launched, error) {
	if err := o.at(fpCreateReserved); err != nil {
		return nil, err
	}
	if err := os.Mkdir(o.runDir(), 0o700); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	if err := stage(); err != nil {
		return nil, err
	}
	if err := o.at(fpCreateStaged); err != nil {
		return nil, err
	}
	return o.configure(p, fpCreateSpawned, fpCreateConfigured)
}

// configure starts a VMM and tells it all that comes before InstanceStart. That p
// can boot the spec is known.
func (o *op) configure(p program, spawned, configured failpoint) (*launched, error) {
	o.Rec.Guest = nil // it will be told
	m, err := o.spawn(p)
	if err != nil {
		return nil, err
	}
	if o.Rec.Status == "" { // a new VM
		o.expectCreated(m, p)
	}
	if err := o.meet(m); err != nil {
		return nil, err
	}
	if err := o.at(spawned); err != nil {
		return nil, err
	}
	l, err := o.describe(m, p, func(l release) []fcapi.Request { return bootRequests(o.Rec, l, o.slot, o.r.cfg.SerialBytesPerSecond) })
	if err != nil {
		return nil, err
	}
	return l, o.at(configured)
}

// created makes a configured VM final.
func (o *op) created(l *launched) error {
	o.stage = "save the record"
	o.Rec.Status = microvm.StatusCreated
	o.adoptLaunched(l, false)
	return o.finish(l.machine, fpCreateSaved)
}

// finish commits a verb, and from then on watches the VMM.
func (o *op) finish(m *machine, saved failpoint) error {
	// Known before the record is seen: a query would adopt it otherwise.
	if m != nil {
		o.r.register(o.Rec.UID, m, false)
	}
	save := o.Save
	if saved == fpCreateSaved {
		save = o.SaveNew
	}
	if err := save(); err != nil {
		return o.fail(err)
	}
	o.undo.keep()
	o.forward = false
	if err := o.r.fail(o.ctx, saved); err != nil {
		return o.fail(err)
	}
	if err := o.ClearIntent(); err != nil {
		return o.fail(err)
	}
	return nil
}
