package microvmtest

import (
	"context"
	"testing"

	"github.com/tangle-network/microvm"
)

// sections are the subtests of TestRuntime.
var sections = []struct {
	name string
	run  func(*bench)
}{
	{"table", table},
	{"ids", ids},
	{"specs", specs},
	{"views", views},
	{"order", order},
	{"copies", copies},
	{"snapshots", snapshots},
	{"stop modes", stopModes},
	{"tombstones", tombstones},
	{"prune", prune},
	{"delete snapshot", deleteSnapshot},
	{"rename", rename},
	{"restore", restore},
	{"cold restore", coldRestore},
	{"dead contexts", deadContexts},
	{"cancelled contexts", cancelledContexts},
	{"spent contexts", spentContexts},
	{"verbs in flight", verbsInFlight},
	{"one VM, many callers", oneVMManyCallers},
	{"one name, many callers", oneNameManyCallers},
	{"many VMs", manyVMs},
	{"failures", failures},
	{"guest ends", guestEnds},
	{"killed", killed},
	{"another runtime", another},
	{"reopen", reopen},
	{"fork", fork},
	{"wait", wait},
	{"watch", watch},
	{"console", console},
	{"console input", consoleInput},
	{"vsock", vsock},
	{"metrics", metrics},
	{"networks", networks},
	{"histories", histories},
}

// TestRuntime runs the suite. The factory gives an empty runtime of its own to
// each call and registers what it takes to close it with t.Cleanup; before that
// the suite destroys what it has made.
func TestRuntime(t *testing.T, factory func(t *testing.T) microvm.Runtime, options Options) {
	for _, s := range sections {
		runSection(t, s.name, factory, options)
	}
}

func runSection(t *testing.T, name string, factory func(t *testing.T) microvm.Runtime, options Options) {
	o := options.withDefaults()
	for _, s := range sections {
		if s.name != name {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if o.Parallel {
				t.Parallel()
			}
			b := &bench{t: t, rt: factory(t), o: o}
			t.Cleanup(b.destroyAll)
			if views := b.list(); len(views) != 0 {
				t.Fatalf("a new runtime has VMs: %s", asJSON(views))
			}
			s.run(b)
		})
	}
}

// bench is one runtime under test.
type bench struct {
	t  *testing.T
	rt microvm.Runtime
	o  Options
}

// run runs f as a subtest on the same runtime.
func (b *bench) run(name string, f func(*bench)) {
	b.t.Run(name, func(t *testing.T) {
		sub := *b
		sub.t = t
		f(&sub)
	})
}

// skipIfLacking skips the rest of the section when the provider says that it
// lacks one of the features.
func (b *bench) skipIfLacking(features ...Feature) {
	b.t.Helper()
	for _, f := range features {
		if why, lacks := b.o.Lacks[f]; lacks {
			b.t.Skipf("the provider lacks %s: %s", f, why)
		}
	}
}

func (b *bench) lacks(f Feature) bool {
	_, lacks := b.o.Lacks[f]
	return lacks
}

// call gives f a context that ends with the call: so every step of the suite
// shows that a verb's context has no power later.
func (b *bench) call(f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), b.o.Timeout)
	defer cancel()
	return f(ctx)
}

// destroyAll leaves nothing behind.
func (b *bench) destroyAll() {
	var list []microvm.View
	err := b.call(func(ctx context.Context) (err error) {
		list, err = b.rt.ListVMs(ctx)
		return err
	})
	if err != nil {
		b.t.Errorf("ListVMs at the end: %v", err)
	}
	for _, v := range list {
		if v.Status == microvm.StatusDestroyed {
			continue
		}
		if err := b.destroy(v.ID); err != nil {
			b.t.Errorf("DestroyVM(%q) at the end: %v", v.ID, err)
		}
	}
	if b.o.Leftovers != nil {
		for _, what := range b.o.Leftovers(b.rt) {
			b.t.Errorf("left behind by destroyed VMs: %s", what)
		}
	}
}
