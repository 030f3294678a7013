package network

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
)

// elementsAtOnce is how many elements one message takes: the length of their list is
// 16 bits wide, and an element with the longest name as its comment has 350 bytes. What
// is too long is cut off by nobody's error.
const elementsAtOnce = 128

// makeSet makes a set with elements, however many they are.
func makeSet(c *nftables.Conn, s *nftables.Set, elems []nftables.SetElement) error {
	if err := c.AddSet(s, nil); err != nil {
		return fmt.Errorf("set %s: %w", s.Name, err)
	}
	return addElements(c, s, elems)
}

func addElements(c *nftables.Conn, s *nftables.Set, elems []nftables.SetElement) error {
	for some := range slices.Chunk(elems, elementsAtOnce) {
		if err := c.SetAddElements(s, some); err != nil {
			return fmt.Errorf("add to the set %s: %w", s.Name, err)
		}
	}
	return nil
}

func deleteElements(c *nftables.Conn, s *nftables.Set, elems []nftables.SetElement) error {
	for some := range slices.Chunk(elems, elementsAtOnce) {
		if err := c.SetDeleteElements(s, some); err != nil {
			return fmt.Errorf("remove from the set %s: %w", s.Name, err)
		}
	}
	return nil
}
