package network

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/google/nftables"

	"github.com/tangle-network/microvm/internal/leaktest"
	"github.com/tangle-network/microvm/internal/testhost"
)

func TestMain(m *testing.M) {
	os.Exit(testhost.Run(func() int {
		testhost.Up()
		if !testhost.Have() {
			fmt.Println("the example is left out: it needs root")
			flag.Parse()
			if err := flag.Set("test.skip", "^Example"); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return leaktest.Run(m)
	}))
}

// netfilter is a connection to the nftables of the thread's namespace.
func netfilter(t testing.TB) *nftables.Conn {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
