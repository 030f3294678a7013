package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/network"
)

const networksName = "networks"

// networks opens what makes the VMs' networks when the first VM has one.
func (r *Runtime) networks() (*network.Manager, error) {
	r.netMu.Lock()
	defer r.netMu.Unlock()
	if r.net != nil {
		return r.net, nil
	}
	c := r.cfg.Network
	c.Dir, c.Log = filepath.Join(r.cfg.StateDir, networksName), r.cfg.Log
	m, err := network.Open(c)
	if err != nil {
		return nil, err
	}
	r.net = m
	return m, nil
}

// hasNetworks says whether a VM of this state directory ever had one.
func (r *Runtime) hasNetworks() bool { return isThere(filepath.Join(r.cfg.StateDir, networksName)) }

// joinNetwork gets the VM's network, in which its VMM is started. A new VM's goes when
// the verb fails; one that was stopped keeps its own.
func (o *op) joinNetwork() error {
	n := o.Rec.Spec.ManagedNetwork()
	if n == nil {
		return nil
	}
	o.stage = "network"
	m, err := o.r.networks()
	if err != nil {
		return err
	}
	if o.Rec.Status == "" {
		o.undo.push(func() error {
			if o.undead {
				return nil // recovery ends the VMM first
			}
			return o.releaseNetwork()
		})
	}
	s, err := m.Acquire(o.ctx, o.uid(), *n)
	if err != nil {
		return o.r.networkError(err)
	}
	o.slot = &s
	addresses, guest := []netip.Addr{s.Address}, []netip.Prefix{s.Guest}
	if s.Address6.IsValid() {
		addresses, guest = append(addresses, s.Address6), append(guest, s.Guest6)
	}
	if has := o.Rec.Guest; len(has) > 0 && !slices.Equal(has, guest) {
		return &microvm.FieldError{Field: "Network.Guest", Value: fmt.Sprint(guest), Rule: fmt.Sprintf("%v, which the guest has in its memory: open the runtime with that", has)}
	}
	o.Rec.Addresses, o.Rec.Guest = addresses, guest
	return o.at(fpNetworkJoined)
}

// networkError says it in the words of the contract.
func (r *Runtime) networkError(err error) error {
	var taken *network.PortTakenError
	switch {
	case errors.As(err, &taken):
		by := taken.UID
		if rec := r.byUID(taken.UID); rec != nil {
			by = strconv.Quote(rec.ID)
		}
		if by == "" {
			by = taken.By
		} else {
			by = "VM " + by
		}
		rule := "a port of the host that is free: " + by + " has it"
		return &microvm.FieldError{Field: "network.publish", Value: taken.Port.String(), Rule: rule, Err: err}
	case errors.Is(err, network.ErrPoolFull):
		return fmt.Errorf("%w: %w", microvm.ErrHost, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: networks need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN: %w", microvm.ErrHost, err)
	}
	return err
}

// byUID is the record of the VM with that uid, or nil.
func (r *Runtime) byUID(uid string) *record.Record {
	ids, err := r.store.IDs()
	if err != nil {
		return nil
	}
	for _, id := range ids {
		if rec, err := r.store.Load(id); err == nil && rec.UID == uid {
			return rec
		}
	}
	return nil
}

// releaseNetwork takes the VM's network back, whatever ctx says; its VMM is dead.
func (o *op) releaseNetwork() error {
	if !o.r.hasNetworks() {
		return nil
	}
	m, err := o.r.networks()
	if err != nil {
		return err
	}
	ctx, cancel := o.detached(30 * time.Second)
	defer cancel()
	return m.Release(ctx, o.uid())
}

// managedInterface is what the VMM is told of a managed network: the same in each VM,
// so that a snapshot needs no override.
func managedInterface(n *microvm.Network, s *network.Slot) fcapi.Request {
	return fcapi.PutNetworkInterfaceRequest(fcapi.NetworkInterface{
		IfaceID: microvm.ManagedInterface, HostDevName: s.TAP, GuestMAC: s.MAC.String(), MTU: n.MTU,
		RxRateLimiter: limiter(n.RxRateLimit), TxRateLimiter: limiter(n.TxRateLimit),
	})
}

// withAddress adds the guest's address to its kernel's arguments, in the form of
// Documentation/admin-guide/nfs/nfsroot.rst: microvm-init reads it where the kernel
// does not, and alone reads microvm.ip6=. What comes behind a free-standing "--" belongs to init; an ip= that the
// user has written is left alone.
func withAddress(bootArgs string, s *network.Slot) string {
	mask := netip.AddrFrom4([4]byte{}).AsSlice()
	for i := range s.Guest.Bits() {
		mask[i/8] |= 1 << (7 - i%8)
	}
	m, _ := netip.AddrFromSlice(mask)
	ip := fmt.Sprintf("ip=%v::%v:%v::%s:off:%v", s.Guest.Addr(), s.Gateway, m, microvm.ManagedInterface, s.Gateway)
	if s.Guest6.IsValid() {
		ip += fmt.Sprintf(" microvm.ip6=%v,%v", s.Guest6, s.Gateway6) // ip= has no form for it
	}
	head, tail := bootArgs, ""
	if i := initArgs(bootArgs); i >= 0 {
		head, tail = bootArgs[:i], bootArgs[i:]
	}
	for _, a := range strings.Fields(head) {
		if strings.HasPrefix(a, "ip=") {
			return bootArgs
		}
	}
	if head != "" && !strings.HasSuffix(head, " ") {
		head += " "
	}
	if tail != "" {
		ip += " "
	}
	return head + ip + tail
}

// initArgs is where the first free-standing "--" begins, or -1.
func initArgs(bootArgs string) int {
	for i := 0; i < len(bootArgs); {
		j := strings.Index(bootArgs[i:], "--")
		if j < 0 {
			return -1
		}
		j += i
		before := j == 0 || bootArgs[j-1] == ' ' || bootArgs[j-1] == '\t'
		after := j+2 == len(bootArgs) || bootArgs[j+2] == ' ' || bootArgs[j+2] == '\t'
		if before && after {
			return j
		}
		i = j + 1
	}
	return -1
}

// restoredNetwork is the network of a VM that comes from a snapshot: like that of the
// VM that was snapshotted, with the policy and the ports that the restore asks for.
// Without, it has the same policy and publishes nothing: the ports are the other's.
func restoredNetwork(out *microvm.Spec, asked *microvm.Network) error {
	n := out.ManagedNetwork()
	if asked != nil {
		v := asked.Mode != microvm.NetworkNone
		if v != (n != nil) {
			return &microvm.FieldError{Field: "network", Value: fmt.Sprintf("%q", asked.Mode), Rule: "a managed network if the snapshotted VM has one, and only then: its guest has the interface, or has not"}
		}
		out.Network = asked
		return nil
	}
	if n != nil {
		n.Publish = nil
	}
	return nil
}

// UpdateEgress replaces what a VM with a managed network may reach, while it runs:
// every packet meets the old policy or the new one, and flows that the new one does not
// allow end.
func (r *Runtime) UpdateEgress(ctx context.Context, id string, policy microvm.Egress) error {
	if err := policy.Validate(); err != nil {
		return &microvm.Error{Verb: verbEgress, VMID: id, Err: err}
	}
	o, err := r.begin(ctx, verbEgress, id)
	if err != nil {
		return err
	}
	defer o.end()
	if o.Rec.Status == microvm.StatusDestroyed {
		return o.fail(&microvm.TransitionError{VMID: id, From: o.Rec.Status, To: o.Rec.Status})
	}
	if o.Rec.Spec.ManagedNetwork() == nil {
		return o.fail(&microvm.FieldError{Field: "network", Value: "none", Rule: "a managed network: the VM was made without one"})
	}
	m, err := r.networks()
	if err != nil {
		return o.fail(err)
	}
	if err := o.intend(nil); err != nil {
		return o.fail(err)
	}
	if err := o.at(fpEgressIntended); err != nil {
		return o.fail(err)
	}
	before, after := o.Rec.Spec, o.Rec.Spec.Clone()
	after.Network.Egress = policy
	o.Rec.Spec = after
	// The record first: after a crash the rules are brought in line with it.
	o.stage = "save the record"
	if err := o.Save(); err != nil {
		return o.fail(err)
	}
	o.undo.push(func() error {
		ctx, cancel := o.detached(30 * time.Second)
		defer cancel()
		// The rules are what the record says, also where that can't be taken back.
		o.Rec.Spec = before
		err := o.Save()
		if err != nil {
			o.Rec.Spec = after
		}
		return errors.Join(err, m.UpdateEgress(ctx, o.uid(), o.Rec.Spec.Network.Egress))
	})
	if err := o.at(fpEgressSaved); err != nil {
		return o.fail(err)
	}
	o.stage = "write the rules"
	if err := m.UpdateEgress(ctx, o.uid(), policy); err != nil {
		return o.fail(err)
	}
	return o.finish(nil, fpEgressApplied)
}

const verbEgress = "egress"

// Network describes a VM's managed network and what has passed it: ErrVMNotFound, and
// network.ErrNoSlot for a VM that has none.
func (r *Runtime) Network(ctx context.Context, id string) (network.Slot, network.Counters, error) {
	fail := func(err error) (network.Slot, network.Counters, error) {
		return network.Slot{}, network.Counters{}, &microvm.Error{Verb: "network", VMID: id, Err: err}
	}
	rec, err := r.load(ctx, "network", id)
	if err != nil {
		return network.Slot{}, network.Counters{}, err
	}
	if rec.Spec.ManagedNetwork() == nil || rec.Status == microvm.StatusDestroyed {
		return fail(network.ErrNoSlot)
	}
	m, err := r.networks()
	if err != nil {
		return fail(err)
	}
	s, err := m.Find(rec.UID)
	if err != nil {
		return fail(err)
	}
	c, err := m.Counters(rec.UID)
	if err != nil {
		return fail(err)
	}
	return s, c, nil
}

// CleanNetworks removes the networks that no VM has, those that were kept ready too,
// and makes whole those that VMs have.
func (r *Runtime) CleanNetworks(ctx context.Context) (network.Report, error) {
	if err := r.enter(); err != nil {
		return network.Report{}, err
	}
	defer r.leave()
	if !r.hasNetworks() {
		return network.Report{}, nil
	}
	m, err := r.networks()
	if err != nil {
		return network.Report{}, err
	}
	rep, err := m.Reconcile(ctx, r.knowing())
	return rep, errors.Join(err, m.Drain())
}

// finishEgress brings the rules in line with the record.
func (o *op) finishEgress() error {
	n := o.Rec.Spec.ManagedNetwork()
	if n == nil || o.Rec.Status == microvm.StatusDestroyed {
		return nil
	}
	m, err := o.r.networks()
	if err != nil {
		return err
	}
	err = m.UpdateEgress(o.ctx, o.uid(), n.Egress)
	if errors.Is(err, network.ErrNoSlot) {
		return nil // it gets one when it starts
	}
	return err
}

// reconcileNetworks removes the networks of VMs that are no more, and mends those of
// the others.
func (rec *recovery) reconcileNetworks(ctx context.Context) error {
	r := rec.r
	if !r.hasNetworks() || rec.dry || os.Geteuid() != 0 {
		return nil
	}
	m, err := r.networks()
	if err != nil {
		return err
	}
	rep, err := m.Reconcile(ctx, r.knowing())
	for what, ferr := range rep.Failed {
		rec.aside(what, ferr)
	}
	return err
}

// knowing is knows for many uids: it has read the records of those that live now.
func (r *Runtime) knowing() func(uid string) bool {
	live := map[string]bool{}
	if ids, err := r.store.IDs(); err == nil {
		for _, id := range ids {
			if rec, err := r.store.Load(id); err == nil && rec.Status != microvm.StatusDestroyed {
				live[rec.UID] = true
			}
		}
	}
	return func(uid string) bool { return live[uid] || r.knows(uid) }
}

// knows says whether a VM with that uid lives, or may: a record that can't be read may
// be its.
func (r *Runtime) knows(uid string) bool {
	ids, err := r.store.IDs()
	if err != nil {
		return true
	}
	for _, id := range ids {
		in, ierr := r.store.Intent(id)
		if ierr != nil || in != nil && in.UID == uid {
			return true
		}
		rec, err := r.store.Load(id)
		switch {
		case errors.Is(err, microvm.ErrVMNotFound):
		case err != nil:
			return true
		case rec.UID == uid && rec.Status != microvm.StatusDestroyed:
			return true
		}
	}
	return false
}

// plannedSlot stands in for the network that a VM will have, in a plan.
func plannedSlot(s microvm.Spec) *network.Slot {
	if s.ManagedNetwork() == nil {
		return nil
	}
	return &network.Slot{TAP: network.TAP}
}
