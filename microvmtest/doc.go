// Package microvmtest is the law of package microvm as a test suite. The author
// of a provider runs it from a test:
//
//	func TestRuntime(t *testing.T) {
//		microvmtest.TestRuntime(t, func(t *testing.T) microvm.Runtime {
//			return mypackage.New(t.TempDir())
//		}, microvmtest.Options{})
//	}
//
// It covers every cell of the table in package microvm's documentation, ids,
// order, views, contexts, concurrent callers, tombstones, renames, restores,
// the optional interfaces that the runtime has, and random histories compared
// with a small model. Each section is a subtest of its own:
//
//	go test -run 'TestRuntime/restore'
package microvmtest
