package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
)

// What a Manager's methods return, for errors.Is.
var (
	ErrPoolFull = errors.New("no address is free")
	ErrNoSlot   = errors.New("the VM has no network")
)

// Manager makes networks for VMs and takes them back. Several programs may have one
// over the same directory at the same time. All of its methods may be called at once.
type Manager struct {
	cfg   Config
	host  *os.File // the namespace that it was opened in, which is the host's
	rt    *netlink.Handle
	table *hostTable

	mu        sync.Mutex
	cursor    int                  // where the search for a free index goes on
	ready     []int                // slots that may be ready
	byUID     map[string]int       // where a VM's slot was last seen
	resolvers map[string]*resolver // by uid
	drops     map[string]*dropLog
	nfFree    []*nfSocket // in the host's namespace, that nobody uses
	going     []going

	bg     sync.WaitGroup
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
}

// Open returns a Manager. It makes nothing in the kernel but Config.Slots.Min slots,
// in the background. Close it.
func Open(cfg Config) (*Manager, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	// The table and the links are named by it.
	if cfg.Dir, err = filepath.EvalSymlinks(cfg.Dir); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	host, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	rt, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		host.Close()
		return nil, fmt.Errorf("network: netlink: %w", err)
	}
	m := &Manager{cfg: cfg, host: host, rt: rt, byUID: map[string]int{}, resolvers: map[string]*resolver{}, drops: map[string]*dropLog{}}
	m.table = newHostTable(tableOf(cfg.Dir))
	m.ctx, m.cancel = context.WithCancel(context.Background())
	var indexes []int
	if err = m.keepAddresses(); err == nil {
		if !cfg.NoServe {
			if err := m.watch(); err != nil { // before the look at those that are there
				cfg.Log.Error("networks that other programs make are not served", "err", err)
			}
		}
		indexes, err = m.indexes()
	}
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("network: %w", err)
	}
	// Another begin each time: a restart need not search through all that is taken.
	m.cursor = rand.IntN(cfg.slots())
	for _, i := range indexes {
		o, err := m.readOwner(i)
		switch {
		case err != nil:
			cfg.Log.Error("a network slot can't be read", "slot", m.slotPath(i), "err", err)
		case o != nil:
			m.byUID[o.UID] = i
			if !netns.Is(m.slotPath(i, "ns")) {
				continue // the host was booted: Acquire or Reconcile makes it anew
			}
			if err := errors.Join(m.resolve(i, o.UID), m.logDrops(i, o.UID, o.Options.LogDropped)); err != nil {
				cfg.Log.Error("a VM's network is not served", "vm", o.UID, "err", err)
			}
		default:
			m.ready = append(m.ready, i)
		}
	}
	m.refill()
	return m, nil
}

// Close lets go of what the Manager holds; networks stay. It waits for slots that are
// being made.
func (m *Manager) Close() error {
	m.cancel()
	m.bg.Wait()
	m.rt.Close()
	for _, s := range m.nfFree {
		s.close()
	}
	return m.host.Close()
}

// tableOf is the name of the host's table, and the mark of the links, of a directory.
func tableOf(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return tableName + "_" + hex.EncodeToString(sum[:4])
}

// alias marks links as those of this directory.
func (m *Manager) alias() string { return m.table.t.Name }

// nft is a connection to the nftables of the host; done is called when it is not used any
// more. Its socket is kept: to close one waits for what was removed in the namespace.
func (m *Manager) nft() (c *nftables.Conn, done func(), err error) {
	m.mu.Lock()
	var s *nfSocket
	if n := len(m.nfFree); n > 0 {
		s, m.nfFree = m.nfFree[n-1], m.nfFree[:n-1]
	}
	m.mu.Unlock()
	if s == nil {
		if s, err = openNFIn(m.hostPath()); err != nil {
			return nil, nil, err
		}
	}
	done = func() {
		m.mu.Lock()
		m.nfFree = append(m.nfFree, s)
		m.mu.Unlock()
	}
	if c, err = s.conn(); err != nil {
		done()
	}
	return c, done, err
}

// Slot is a VM's network.
type Slot struct {
	UID       string
	Namespace string // path; the VMM runs in it
	TAP       string
	Address   netip.Addr   // where the host reaches the VM
	Address6  netip.Addr   // when Config.IPv6 is set
	Guest     netip.Prefix // what the guest has
	Gateway   netip.Addr   // what the guest sends through, and asks for names
	Guest6    netip.Prefix
	Gateway6  netip.Addr
	MAC       net.HardwareAddr
	Link      string // the host's end
	Options   microvm.Network
}

func (m *Manager) slot(index int, o owner) Slot {
	p := m.cfg.plan(index)
	s := Slot{UID: o.UID, Namespace: m.slotPath(index, "ns"), TAP: TAP, Address: p.v4.vm, Guest: netip.PrefixFrom(p.v4.guest, p.v4.bits), Gateway: p.v4.gateway,
		MAC: slices.Clone(p.mac), Link: p.link(), Options: o.Options}
	if p.v6 != nil {
		s.Address6, s.Guest6, s.Gateway6 = p.v6.vm, netip.PrefixFrom(p.v6.guest, p.v6.bits), p.v6.gateway
	}
	return s
}

// Acquire makes the network of a VM. One that it has already is returned with the
// options of before, and is made whole again if the host was booted since, or its
// nftables were flushed. It fails with ErrPoolFull, *PortTakenError, and
// microvm.ErrHost where the host would drop the VM's packets.
func (m *Manager) Acquire(ctx context.Context, uid string, opts microvm.Network) (Slot, error) {
	fail := func(err error) (Slot, error) { return Slot{}, fmt.Errorf("network of VM %s: %w", uid, err) }
	if err := errors.Join(checkUID(uid), opts.Validate()); err != nil {
		return fail(err)
	}
	if m.cfg.IPv6 && opts.MTU != 0 && opts.MTU < 1280 {
		return fail(&microvm.FieldError{Field: "network.mtu", Value: strconv.Itoa(opts.MTU), Rule: "1,280 to 1,500 with IPv6 (RFC 8200)"})
	}
	policy, err := m.compile(opts)
	if err != nil {
		return fail(err)
	}
	// It looks at the host, which takes as long as to find a slot.
	hostIsFit := inBackground(func() error { return m.checkHost(opts) })
	defer hostIsFit()
	d, o, err := m.lockOwned(ctx, uid)
	switch {
	case err == nil:
		defer d.unlock()
		if err := hostIsFit(); err != nil {
			return fail(err)
		}
		if err := m.mend(d, o); err != nil {
			return fail(err)
		}
		return m.slot(d.index, o), nil
	case !errors.Is(err, ErrNoSlot):
		return fail(err)
	}
	if err := m.checkPorts(opts.Publish, nil); err != nil {
		return fail(err)
	}
	o = owner{UID: uid, Options: opts}
	if d, err = m.claim(ctx, &o, hostIsFit); err != nil {
		return fail(err)
	}
	defer d.unlock()
	if err := m.join(d, o, policy, noVM); err != nil {
		return fail(errors.Join(err, m.takeBack(d, o)))
	}
	// Two that came at once see each other now, whatever their directories.
	if err := m.checkPorts(opts.Publish, d); err != nil {
		return fail(errors.Join(err, m.takeBack(d, o)))
	}
	m.mu.Lock()
	m.byUID[uid] = d.index
	m.mu.Unlock()
	m.refill()
	return m.slot(d.index, o), nil
}

// inBackground begins f, and returns what waits for it.
func inBackground(f func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return sync.OnceValue(func() error { return <-done })
}

func (m *Manager) takeReady() (int, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ready) == 0 {
		return 0, false
	}
	i := m.ready[0]
	m.ready = m.ready[1:]
	return i, true
}

// claim gives a slot to an owner and returns it locked: one that is ready, or the next
// that is free. Without an owner it is a new one. What fit says against it is said
// before anything is made in the kernel.
func (m *Manager) claim(ctx context.Context, o *owner, fit func() error) (*slotDir, error) {
	n := m.cfg.slots()
	var why error
	for tried := 0; tried < n; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		index, ready := -1, false
		if o != nil {
			index, ready = m.takeReady()
		}
		if !ready {
			m.mu.Lock()
			index, m.cursor = m.cursor, (m.cursor+1)%n
			m.mu.Unlock()
			tried++
		}
		d, whole, err := m.reserve(index, o)
		if err != nil {
			return nil, err
		}
		if d == nil {
			continue
		}
		if err = fit(); err == nil && !whole {
			err = m.makeSlot(m.cfg.plan(index), d.path("ns"))
		}
		if err == nil {
			return d, nil
		}
		err = errors.Join(err, m.unmakeSlot(d))
		if o != nil {
			err = errors.Join(err, d.disown(o.UID))
		}
		d.unlock()
		if !errors.Is(err, errAddressTaken) {
			return nil, err
		}
		why = err
	}
	if why == nil {
		return nil, fmt.Errorf("%w: all %d of %v are VMs'; destroy some, or open with a larger pool", ErrPoolFull, n, m.cfg.Pool)
	}
	return nil, fmt.Errorf("%w in %v: %w; open with another pool", ErrPoolFull, m.cfg.Pool, why)
}

// reserve takes an index, and says whether the slot is whole; nil if it is somebody's,
// or if it is ready and no owner wants it.
func (m *Manager) reserve(index int, o *owner) (*slotDir, bool, error) {
	made, err := m.mkdirSlot(index)
	if err != nil {
		return nil, false, err
	}
	d, err := m.lockSlot(index)
	if errors.Is(err, errBusy) || errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	give := func(err error) (*slotDir, bool, error) {
		d.unlock()
		return nil, false, err
	}
	has, err := m.readOwner(index)
	if err != nil {
		return give(nil) // damaged: Reconcile reports it
	}
	whole := !made && d.isReady() && netns.Is(d.path("ns"))
	if has != nil || whole && o == nil {
		return give(nil)
	}
	if !made && !whole {
		// A crash has left it half made, or the host was booted.
		if err := m.unmake(m.cfg.plan(index), d.path("ns")); err != nil {
			return give(err)
		}
		if err := os.Remove(d.path("ready")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return give(err)
		}
	}
	if o != nil {
		if err := d.own(*o); err != nil {
			return give(err)
		}
	}
	return d, whole, nil
}

// Find returns the network that a VM has, or ErrNoSlot.
func (m *Manager) Find(uid string) (Slot, error) {
	index, o, err := m.find(uid)
	if err != nil {
		return Slot{}, fmt.Errorf("network of VM %s: %w", uid, err)
	}
	return m.slot(index, o), nil
}

func (m *Manager) find(uid string) (int, owner, error) {
	m.mu.Lock()
	index, ok := m.byUID[uid]
	m.mu.Unlock()
	if ok {
		if o, err := m.readOwner(index); err == nil && o != nil && o.UID == uid {
			return index, *o, nil
		}
	}
	// Another program may have made it.
	if checkUID(uid) != nil {
		return 0, owner{}, ErrNoSlot
	}
	index, err := m.indexOfUID(uid)
	if errors.Is(err, os.ErrNotExist) {
		return 0, owner{}, ErrNoSlot
	}
	if err != nil {
		return 0, owner{}, err
	}
	o, err := m.readOwner(index)
	if err != nil {
		return 0, owner{}, err
	}
	if o == nil || o.UID != uid {
		return 0, owner{}, ErrNoSlot
	}
	m.mu.Lock()
	m.byUID[uid] = index
	m.mu.Unlock()
	return index, *o, nil
}

// indexes are the slots that have a directory, in order.
func (m *Manager) indexes() ([]int, error) {
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		if i, err := strconv.Atoi(e.Name()); err == nil && i >= 0 && i < m.cfg.slots() && e.IsDir() {
			out = append(out, i)
		}
	}
	return out, nil
}
