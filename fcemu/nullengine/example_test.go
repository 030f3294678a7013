package nullengine_test

import (
	"bytes"
	"fmt"

	"github.com/tangle-network/microvm/fcemu/nullengine"
)

// A page of a memory file tells which guest wrote it, where and how often.
func ExamplePage() {
	page := nullengine.Page(7, 300, 2)
	fmt.Printf("%s seed %d page %d generation %d\n", page[:8], page[8], uint16(page[16])|uint16(page[17])<<8, page[24])
	fmt.Println(bytes.Equal(page, nullengine.Page(7, 300, 2)), bytes.Equal(page, nullengine.Page(8, 300, 2)))
	// Output:
	// FCEMUPG1 seed 7 page 300 generation 2
	// true false
}
