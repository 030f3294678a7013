package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pierrec/lz4/v4"

	"github.com/tangle-network/microvm/image"
	"github.com/tangle-network/microvm/image/internal/decompress"
)

const (
	// maxKernel bounds an uncompressed kernel: distributions' are below 100 MiB.
	maxKernel = 512 << 20
	// maxNesting: an EFI zboot image that holds a compressed Image is two deep.
	maxNesting = 4
	// lz4Block is the block size of the legacy LZ4 frame.
	lz4Block = 8 << 20
)

// Extract returns the uncompressed kernel inside a boot image: the ELF in a
// bzImage, the Image in an EFI zboot image or in an Image.gz. A kernel that isn't
// compressed is returned as it is.
func Extract(boot []byte) ([]byte, image.KernelInfo, error) {
	for range maxNesting {
		info, err := image.InspectKernelReader(bytes.NewReader(boot), int64(len(boot)))
		if err != nil {
			return nil, info, err
		}
		if info.PayloadSize == 0 {
			return boot, info, nil
		}
		payload := boot[info.PayloadOffset : info.PayloadOffset+info.PayloadSize]
		boot, err = unpack(payload, info)
		if err != nil {
			return nil, info, fmt.Errorf("unpack %s: %w", info.Description, err)
		}
	}
	return nil, image.KernelInfo{}, fmt.Errorf("more than %d compressed kernels inside each other", maxNesting)
}

// unpack decompresses one payload. Linux appends the uncompressed length, 4 bytes
// little endian, to every payload but gzip's (whose own trailer ends with it).
func unpack(payload []byte, info image.KernelInfo) ([]byte, error) {
	embedded := info.Format != image.FormatCompressed
	limit := maxKernel
	if embedded && info.Compression != "none" {
		if len(payload) < 8 {
			return nil, errors.New("payload of less than 8 bytes")
		}
		length := binary.LittleEndian.Uint32(payload[len(payload)-4:])
		if length > maxKernel {
			return nil, fmt.Errorf("it says that it unpacks to %d bytes; the limit is %d", length, maxKernel)
		}
		limit = int(length)
		if info.Compression != "gzip" {
			payload = payload[:len(payload)-4]
		}
	}
	var out []byte
	var err error
	switch info.Compression {
	case "none":
		return payload, nil
	case "lz4":
		out, err = unpackLZ4(payload, limit)
	case "gzip", "zstd", "xz", "bzip2":
		out, err = unpackStream(payload, limit)
	default:
		return nil, fmt.Errorf("%s is not supported (gzip, bzip2, lz4, xz and zstd are): %w", info.Compression, errors.ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	if embedded && len(out) != limit {
		return nil, fmt.Errorf("it unpacked to %d bytes instead of %d: the file is damaged", len(out), limit)
	}
	return out, nil
}

func unpackStream(payload []byte, limit int) ([]byte, error) {
	r, _, err := decompress.Reader(bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// To the end, not just to the limit: the checksum comes last.
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(out) > limit {
		return nil, fmt.Errorf("it unpacks to more than %d bytes", limit)
	}
	return out, nil
}

// unpackLZ4 reads the legacy frame, which Linux makes with `lz4 -l`: a magic
// number, then blocks with their compressed length before them. lib/decompress_unlz4.c
// in Linux is the reference.
func unpackLZ4(in []byte, limit int) ([]byte, error) {
	le := binary.LittleEndian
	if len(in) < 4 || le.Uint32(in) != 0x184c2102 {
		return nil, errors.New("lz4: not a legacy frame")
	}
	in = in[4:]
	var out []byte
	block := make([]byte, lz4Block)
	for len(in) >= 4 {
		size := le.Uint32(in)
		if size == 0x184c2102 { // frames may be strung together
			in = in[4:]
			continue
		}
		in = in[4:]
		if size == 0 {
			break
		}
		if uint64(size) > uint64(len(in)) {
			return nil, fmt.Errorf("lz4: a block of %d bytes with %d left: %w", size, len(in), io.ErrUnexpectedEOF)
		}
		n, err := lz4.UncompressBlock(in[:size], block)
		if err != nil {
			return nil, fmt.Errorf("lz4: %w", err)
		}
		if len(out)+n > limit {
			return nil, fmt.Errorf("it unpacks to more than %d bytes", limit)
		}
		out = append(out, block[:n]...)
		in = in[size:]
	}
	return out, nil
}

// versionOf returns the release that a bzImage's header names, else "".
func versionOf(boot []byte) string {
	info, err := image.InspectKernelReader(bytes.NewReader(boot), int64(len(boot)))
	if err != nil {
		return "" // a bytes.Reader doesn't fail
	}
	version, _, _ := strings.Cut(info.Version, " ")
	return version
}
