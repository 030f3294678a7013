// Package vmm runs and watches virtual machine monitors: one process a VM, which
// outlives the program that started it.
//
// A Watcher starts processes and adopts those that an earlier program started;
// its one goroutine learns of every death from the kernel (a pidfd), at once and
// without polling, and reaps what are children of this program.
//
// A process is known by its pid, its start time and the boot id of the host
// together (Identity). Everything that is done to a process goes through its
// pidfd, which is opened before that identity is checked: a pid that the kernel
// has given to a stranger is never signalled.
//
// The package also knows the files around such a process: when its API socket is
// ready (WaitReady), whether a left-over socket may be removed (RemoveSocket),
// and what a VMM binary says it is (Probe).
package vmm
