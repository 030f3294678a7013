//go:build linux

package console_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm/console"
)

// A console file that a VMM writes, a Keeper bounds and a Follower reads.
func Example() {
	dir, err := os.MkdirTemp("", "console")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "console.log")
	f, err := console.Create(path) // to be the VMM's stdout
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	keeper, err := console.NewKeeper(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer keeper.Close()
	if _, err := keeper.Add(path, 1<<20); err != nil {
		log.Fatal(err)
	}

	fmt.Fprint(f, "Booting\n\x1b[32mready\x1b[0m\n")

	vmmIsDead := make(chan struct{})
	close(vmmIsDead)
	follower, err := console.Follow(path, console.FollowOptions{Lines: 1, Done: vmmIsDead})
	if err != nil {
		log.Fatal(err)
	}
	r := console.NewReader(context.Background(), follower)
	defer r.Close()
	b, err := io.ReadAll(r)
	fmt.Printf("%q %v\n", b, err)
	fmt.Print(console.Sanitize(b, 1000))
	// Output:
	// "\x1b[32mready\x1b[0m\n" <nil>
	// ready
}
