// Package nullengine is the engine of fcemu that runs no guest. Everything
// around the guest is real: its memory is mapped and can be saved, loaded and
// served page by page through userfaultfd, its console, TAPs, vsock socket and
// disks are the files and sockets that they are with Firecracker. What the
// guest would do is ordered by its boot args (Commands), and what it wrote into
// its memory can be recognised (Page, VerifyMemory).
package nullengine
