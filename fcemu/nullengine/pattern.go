package nullengine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// PageSize is the size of a page of guest memory in bytes.
const PageSize = 4096

// The layout of the guest's memory: page 0 is the guest's own state (Guest),
// pattern pages begin at FirstPage, everything else is never touched.
const (
	FirstPage = 256 // 1 MiB

	pageMagic  = "FCEMUPG1"
	guestMagic = "FCEMUGS1"
)

// ErrBadPage is wrapped by errors about memory that is not what a null guest
// writes.
var ErrBadPage = errors.New("not what the null guest wrote")

// Page returns the contents of a pattern page: a header of magic, seed, page
// number and generation (8 bytes each, little-endian), and bytes that follow
// from these.
func Page(seed, page, generation uint64) []byte {
	b := make([]byte, PageSize)
	fillPage(b, seed, page, generation)
	return b
}

func fillPage(b []byte, seed, page, generation uint64) {
	copy(b, pageMagic)
	binary.LittleEndian.PutUint64(b[8:], seed)
	binary.LittleEndian.PutUint64(b[16:], page)
	binary.LittleEndian.PutUint64(b[24:], generation)
	// splitmix64
	x := seed ^ page<<20 ^ generation<<40
	for i := 32; i < PageSize; i += 8 {
		x += 0x9e3779b97f4a7c15
		z := x
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(b[i:], z^z>>31)
	}
}

// Guest is the state of a null guest, which it keeps in page 0 of its memory.
type Guest struct {
	Seed     uint64
	Uptime   uint64 // nanoseconds during which it ran, up to the last pause
	Ticks    uint64
	Pages    uint64 // pattern pages, from FirstPage on
	Rewrites uint64 // how often a pattern page was written again, in turn
}

// Generation is the generation of pattern page number page.
func (g Guest) Generation(page uint64) uint64 {
	if g.Pages == 0 {
		return 0
	}
	gen := g.Rewrites / g.Pages
	if page-FirstPage < g.Rewrites%g.Pages {
		gen++
	}
	return gen
}

func (g Guest) encode() []byte {
	b := make([]byte, PageSize)
	copy(b, guestMagic)
	for i, v := range []uint64{g.Seed, g.Uptime, g.Ticks, g.Pages, g.Rewrites} {
		binary.LittleEndian.PutUint64(b[8+8*i:], v)
	}
	return b
}

// ReadGuest reads the guest's state from its memory, a snapshot's memory file
// for example. It is exact for a paused guest.
func ReadGuest(mem io.ReaderAt) (Guest, error) {
	b := make([]byte, PageSize)
	if _, err := mem.ReadAt(b, 0); err != nil {
		return Guest{}, fmt.Errorf("read page 0: %w", err)
	}
	if string(b[:8]) != guestMagic {
		return Guest{}, fmt.Errorf("page 0: %w", ErrBadPage)
	}
	var v [5]uint64
	for i := range v {
		v[i] = binary.LittleEndian.Uint64(b[8+8*i:])
	}
	return Guest{v[0], v[1], v[2], v[3], v[4]}, nil
}

// VerifyMemory reads the guest's state and checks each of its pattern pages.
func VerifyMemory(mem io.ReaderAt) (Guest, error) {
	g, err := ReadGuest(mem)
	if err != nil {
		return g, err
	}
	got := make([]byte, PageSize)
	for p := uint64(FirstPage); p < FirstPage+g.Pages; p++ {
		if _, err := mem.ReadAt(got, int64(p*PageSize)); err != nil {
			return g, fmt.Errorf("read page %d: %w", p, err)
		}
		if string(got) != string(Page(g.Seed, p, g.Generation(p))) {
			return g, fmt.Errorf("page %d of generation %d: %w", p, g.Generation(p), ErrBadPage)
		}
	}
	return g, nil
}
