package fcapi_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/tangle-network/microvm/fcapi"
)

// A launch is computed first, looked at, and then sent.
func ExampleRequest() {
	plan := []fcapi.Request{
		fcapi.PutMachineConfigRequest(fcapi.MachineConfig{VCPUCount: 2, MemSizeMiB: 512}),
		fcapi.PutBootSourceRequest(fcapi.BootSource{
			KernelImagePath: "vmlinux",
			BootArgs:        new("console=ttyS0 reboot=k panic=1"),
		}),
		fcapi.PutDriveRequest(fcapi.Drive{DriveID: "rootfs", IsRootDevice: true, PathOnHost: "rootfs.ext4"}),
		fcapi.StartInstanceRequest(),
	}
	for _, r := range plan {
		fmt.Println(r)
	}
	// Output:
	// PUT /machine-config
	// PUT /boot-source
	// PUT /drives/rootfs
	// PUT /actions
}

// Nothing listens here, so the request was not sent and may be tried again.
func ExampleConnError() {
	c := fcapi.New("/nonexistent/api.sock")
	defer c.Close()

	err := c.Pause(context.Background())
	if ce, ok := errors.AsType[*fcapi.ConnError](err); ok {
		fmt.Println(ce.Method, ce.Path, "sent:", ce.Sent)
	}
	// Output:
	// PATCH /vm sent: false
}

func ExampleClient() {
	c := fcapi.New("run/api.sock")
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := c.PutDrive(ctx, fcapi.Drive{DriveID: "data", PathOnHost: "data.ext4", IsReadOnly: true})
	var refused *fcapi.Error
	if errors.As(err, &refused) {
		log.Fatalf("firecracker refuses the drive: %s", refused.Fault)
	} else if err != nil {
		log.Fatal(err)
	}
}

// What a VMM does not understand is known before it is asked.
func ExampleSupports() {
	v, err := fcapi.ParseVersion("v1.15.1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(fcapi.Supports(v, fcapi.PutNetworkInterfaceRequest(fcapi.NetworkInterface{
		IfaceID: "eth0", HostDevName: "tap0", MTU: 1400,
	})))
	// Output:
	// PUT /network-interfaces/eth0: field "mtu": not supported by Firecracker 1.15.1: it needs 1.16.0 or newer
}

func ExampleKnownDefects() {
	for _, d := range fcapi.KnownDefects(fcapi.Version{Major: 1, Minor: 16, Patch: 0}) {
		if d.ID == fcapi.DefectVsockDeadOnRestore {
			fmt.Printf("%s; mended in %v\n", d.Summary, d.FixedIn)
		}
	}
	// Output:
	// vsock connections from the guest time out after a restore, when the snapshot caught one sending; mended in [1.16.1]
}
