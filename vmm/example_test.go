package vmm_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/tangle-network/microvm/vmm"
)

// One program starts a process and records its identity; the next one, here the
// same, finds the process by it and ends it.
func Example() {
	first, err := vmm.NewWatcher()
	if err != nil {
		log.Fatal(err)
	}
	started, err := first.Start(vmm.Command{Path: "/bin/sleep", Args: []string{"3600"}})
	if err != nil {
		log.Fatal(err)
	}
	record := started.Identity()
	first.Close()

	next, err := vmm.NewWatcher()
	if err != nil {
		log.Fatal(err)
	}
	defer next.Close()
	p, err := next.Open(record)
	if err != nil {
		log.Fatal(err)
	}
	step, err := p.Stop(context.Background(), time.Minute)
	fmt.Println(step, err)
	<-p.Done()
	fmt.Println(p.Exit())
	// Output:
	// SIGTERM <nil>
	// SIGTERM true
}
