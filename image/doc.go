// Package image handles the files that a microVM boots from: it tells what a
// kernel file is before a VMM is started on it, clones root disks (reflink, else
// sparse copy), computes digests and keeps a directory of named root disk
// templates.
//
// It needs nothing but the standard library and golang.org/x/sys. Making kernels
// from a distribution's packages is package image/kernel, making root disks is
// package image/rootfs.
package image
