// Package fcapi is a typed client of Firecracker's HTTP API over a unix
// socket: every endpoint of Firecracker's firecracker.yaml, releases 1.7 to
// 1.17. It needs only the standard library and knows nothing of how the VMM
// was started.
//
// A [Client] keeps exactly one connection and serves one call at a time, as
// Firecracker's API thread answers one request at a time anyway; calls from many
// goroutines queue, and a caller whose ctx ends leaves the queue at once. ctx
// also ends a call in flight at once, by closing the connection: whether
// Firecracker still carries the request out is then unknown and must be asked
// for. The client has no time-outs of its own, because the right one differs
// by endpoint (a snapshot of a big guest takes many seconds): give each call a
// ctx with a deadline.
//
// # Requests as data
//
// Each change has a constructor (PutDriveRequest, StartInstanceRequest, …)
// that returns a [Request], and a method of the same name that sends it. So a
// launch can be computed first, compared in a test, and sent with [Client.Do]
// later. [Client.DoAll] sends several that belong together, without waiting for
// each answer.
//
// Firecracker refuses fields that it does not know. A field that is not set is
// not sent, so a value without newer fields is understood by older releases.
// Where a comment says "since 1.x", an older release refuses the field (or the
// endpoint) with status 400.
//
// # Releases
//
// The package holds a table of what each release understands. [Supports] looks
// a request up in it, whatever made its body; [Client.CheckVersion] has Do look
// up every request before it is sent. [SnapshotFormat] and [KnownDefects] tell
// what snapshots a release writes and what is known to be wrong with it. The
// table ends at 1.17, before its release; later lines are given the benefit of
// the doubt.
//
// # Errors
//
//   - [*Error]: Firecracker answered with a status of 400 or more.
//   - [*ConnError]: there was no proper answer. Sent tells whether any byte of
//     the request can have reached the VMM. errors.Is finds the ctx's error,
//     [ErrProtocol] (the answer was not one that Firecracker gives) and
//     [ErrClosed] behind it.
//   - [ErrInvalidRequest]: nothing was sent, the request itself is wrong.
//   - [*UnsupportedError]: nothing was sent, the release of CheckVersion does not
//     understand the request. errors.Is finds [ErrUnsupported] behind it.
//
// A request whose bytes were sent is never sent again, with one exception: a
// GET on a kept connection that ended without any byte of an answer.
//
// # Bounds
//
// What comes from the socket is not trusted: an answer has at most 32 KiB of
// headers, in lines of at most 4 KiB, and 4 MiB of body; fault texts are cut at
// 8 KiB. Bodies without a length (chunked, or until the connection ends) are
// refused, as Firecracker never sends one.
package fcapi
