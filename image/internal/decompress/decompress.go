// Package decompress opens streams that are compressed in any of the ways that
// distributions compress packages, modules and archives.
package decompress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

// maxWindow bounds the memory that a stream can ask for: zstd --ultra -22 and
// xz -9 stay below it.
const maxWindow = 128 << 20

// Reader returns the decompressed contents of r, which may be gzip, zstd, xz,
// bzip2, or not compressed at all, and the name of what it found (none for the
// last). Close frees the decoder, not r.
func Reader(r io.Reader) (io.ReadCloser, string, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	switch {
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, "", fmt.Errorf("gzip: %w", err)
		}
		return z, "gzip", nil
	case bytes.HasPrefix(magic, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, "", fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), "zstd", nil
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		// Kernels are packed with the x86 filter (BCJ), which this decoder knows
		// and ulikunitz/xz does not; it also bounds the dictionary.
		z, err := xz.NewReader(b, maxWindow)
		if err != nil {
			return nil, "", fmt.Errorf("xz: %w", err)
		}
		return io.NopCloser(z), "xz", nil
	case bytes.HasPrefix(magic, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(b)), "bzip2", nil
	default:
		return io.NopCloser(b), "none", nil
	}
}
