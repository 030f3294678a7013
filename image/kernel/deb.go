package kernel

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/tangle-network/microvm/image/internal/decompress"
)

// maxUnpacked bounds what one package may unpack to: a full distribution kernel
// has some 4,000 modules in 500 MiB. Each file takes at least 512 bytes of it.
const maxUnpacked = 4 << 30

// unpackDeb writes the files of a Debian package that an import may need (boot
// images, configuration, modules and their indexes) below root, under lower-level names: boot/…
// and lib/modules/…. Nothing is installed, no script of the package is run, and
// whatever else is in it is skipped.
func unpackDeb(ctx context.Context, file string, root *os.Root) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := findData(bufio.NewReaderSize(f, 256<<10))
	if err != nil {
		return fmt.Errorf("%q: %w", file, err)
	}
	z, _, err := decompress.Reader(data)
	if err != nil {
		return fmt.Errorf("%q: data.tar: %w", file, err)
	}
	defer z.Close()
	if err := unpackTar(ctx, z, root, maxUnpacked); err != nil {
		return fmt.Errorf("%q: data.tar: %w", file, err)
	}
	return nil
}

// findData reads the ar archive up to its member data.tar*: deb(5), ar(5).
func findData(r io.Reader) (io.Reader, error) {
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return nil, errors.New("not a Debian package (.deb)")
	}
	head := make([]byte, 60)
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			if errors.Is(err, io.EOF) {
				return nil, errors.New("not a Debian package: it has no data.tar")
			}
			return nil, fmt.Errorf("member header: %w", err)
		}
		name := strings.TrimSuffix(strings.TrimRight(string(head[:16]), " "), "/")
		size, err := strconv.ParseInt(strings.TrimSpace(string(head[48:58])), 10, 64)
		if err != nil || size < 0 || string(head[58:60]) != "`\n" {
			return nil, errors.New("damaged member header")
		}
		if strings.HasPrefix(name, "data.tar") {
			return io.LimitReader(r, size), nil
		}
		if _, err := io.CopyN(io.Discard, r, size+size%2); err != nil {
			return nil, fmt.Errorf("member %q: %w", name, err)
		}
	}
}

// unpackTar stops after limit bytes of archive, and of contents: the two differ by
// what is skipped, and by the holes of sparse files.
func unpackTar(ctx context.Context, r io.Reader, root *os.Root, limit int64) error {
	tooMuch := fmt.Errorf("it unpacks to more than %d bytes", limit)
	bounded := &io.LimitedReader{R: r, N: limit}
	t := tar.NewReader(bounded)
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) && bounded.N > 0 {
			return nil
		}
		if bounded.N <= 0 {
			return tooMuch
		}
		if err != nil {
			return err
		}
		name, ok := wanted(h.Name)
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		if total += h.Size; total > limit {
			return tooMuch
		}
		if err := unpackFile(t, root, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

func unpackFile(r io.Reader, root *os.Root, name string) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	return errors.Join(err, out.Close())
}

// wanted maps the name in a package to where an import looks for it. Debian moved
// /lib to /usr/lib; both are met.
func wanted(name string) (string, bool) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	name = strings.TrimPrefix(name, "usr/")
	base := path.Base(name)
	switch {
	case strings.HasPrefix(name, "boot/"):
		return name, strings.HasPrefix(base, "vmlinu") || strings.HasPrefix(base, "config-")
	case strings.HasPrefix(name, "lib/modules/"):
		return name, strings.HasPrefix(base, "modules.") || strings.HasPrefix(base, "vmlinu") || isModule(base)
	}
	return "", false
}
