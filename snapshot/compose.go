package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Overlay writes the data of diff, a sparse file, over the file at base, which
// must be as long: what is a hole in diff is left as it is. A page that the
// guest has zeroed is data in diff, not a hole.
func Overlay(ctx context.Context, diff, base string) error {
	in, err := os.OpenFile(diff, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(base, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	is, err := in.Stat()
	if err != nil {
		return err
	}
	os_, err := out.Stat()
	if err != nil {
		return err
	}
	if is.Size() != os_.Size() {
		return fmt.Errorf("%w: a diff of %d bytes over a base of %d", ErrCorrupt, is.Size(), os_.Size())
	}
	for pos := int64(0); pos < is.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		start, err := nextData(in, pos, is.Size())
		if err != nil {
			return err
		}
		if start == is.Size() {
			break
		}
		end, err := unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
		if err != nil {
			end = is.Size()
		}
		end = min(end, start+16<<20)
		if _, err := io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(in, start, end-start)); err != nil {
			return fmt.Errorf("overlay %s: %w", base, err)
		}
		pos = end
	}
	return out.Close()
}
