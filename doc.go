// Package microvm is the contract of a microVM runtime: what a provider can do
// with virtual machines (Provider), what can be asked about them (Query), how a
// machine is described (Spec) and what is seen of it (View).
//
// The package holds no code that touches a host. Package firecracker drives real
// Firecracker processes; package inmem keeps machines in memory, for tests;
// package microvmtest proves that a provider keeps the law written here.
//
// # States
//
// A VM is created, running, stopped or destroyed:
//
//	verb        absent         created               running               stopped               destroyed
//	CreateVM    → created      ErrVMExists           ErrVMExists           ErrVMExists           ErrVMExists
//	StartVM     ErrVMNotFound  → running             ErrInvalidTransition  → running             ErrInvalidTransition
//	StopVM      ErrVMNotFound  ErrInvalidTransition  → stopped             ErrInvalidTransition  ErrInvalidTransition
//	SnapshotVM  ErrVMNotFound  ok (cold)             ok                    ok                    ErrInvalidTransition
//	DestroyVM   ErrVMNotFound  → destroyed           → destroyed           → destroyed           ErrInvalidTransition
//	RenameVM    ErrVMNotFound  ok                    ok                    ok                    ErrInvalidTransition
//
// A destroyed VM stays listed, with the names of its snapshots, until it is
// pruned; its snapshots can be restored until they are deleted.
//
// # Contexts
//
// Every method honours its context. A cancelled CreateVM leaves nothing behind;
// any other cancelled verb leaves the VM as before it or as after it, and View
// says which. After a verb has returned, its context has no power any more.
//
// # Concurrency
//
// Every method may be called from any goroutine. Verbs on one VM are carried
// out one after the other; work on one VM never waits for work on another, and
// queries never wait for a verb in flight.
package microvm
