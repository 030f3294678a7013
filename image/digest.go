//go:build linux

package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// Digest returns the sha256 of the file's contents in lower-case hex. It stops
// within a mebibyte when ctx ends.
func Digest(ctx context.Context, path string) (string, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return "", fmt.Errorf("digest of %q: %w", path, err)
	}
	defer f.Close()
	sum, err := digest(ctx, f)
	if err != nil {
		return "", fmt.Errorf("digest of %q: %w", path, err)
	}
	return sum, nil
}

func digest(ctx context.Context, f *os.File) (string, error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}
