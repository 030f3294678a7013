package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ChunkBytes is the piece of a file that has a checksum of its own.
const ChunkBytes = 2 << 20

// digest sums a file chunk by chunk. Holes are not read: their sum is known.
func digest(ctx context.Context, path string, keepChunks bool) (File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	if !st.Mode().IsRegular() {
		return File{}, fmt.Errorf("%w: %s is no regular file", ErrCorrupt, path)
	}
	size := st.Size()
	out := File{Size: size}
	buf := make([]byte, ChunkBytes)
	zero := sha256.Sum256(buf)
	whole := sha256.New()
	data := int64(-1) // where the next data at or behind pos begins
	for pos := int64(0); pos < size; pos += ChunkBytes {
		if err := ctx.Err(); err != nil {
			return File{}, err
		}
		if data < pos {
			if data, err = nextData(f, pos, size); err != nil {
				return File{}, fmt.Errorf("read %s: %w", path, err)
			}
		}
		n := min(ChunkBytes, size-pos)
		sum := zero
		if data < pos+n || n < ChunkBytes {
			if _, err := f.ReadAt(buf[:n], pos); err != nil && !errors.Is(err, io.EOF) {
				return File{}, fmt.Errorf("read %s: %w", path, err)
			}
			sum = sha256.Sum256(buf[:n])
		}
		whole.Write(sum[:])
		if keepChunks {
			out.Chunks = append(out.Chunks, hex.EncodeToString(sum[:]))
		}
	}
	out.SHA256 = hex.EncodeToString(whole.Sum(nil))
	return out, nil
}

// nextData is the offset of the first data at or behind pos, or size.
func nextData(f *os.File, pos, size int64) (int64, error) {
	off, err := unix.Seek(int(f.Fd()), pos, unix.SEEK_DATA)
	switch {
	case err == nil:
		return off, nil
	case errors.Is(err, unix.ENXIO):
		return size, nil
	case errors.Is(err, unix.EINVAL):
		return pos, nil // the file system knows no holes: all is data
	}
	return 0, err
}
