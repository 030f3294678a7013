package cli

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm/image/rootfs"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Make root disks without root rights",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.imageBuildCommand(), a.imageDemoCommand())
	return cmd
}

// diskFlags are what all makers of disks have in common.
type diskFlags struct {
	out     string
	sizeMiB string
	label   string
}

func (f *diskFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.out, "out", "o", "rootfs.ext4", "file to make; an existing one is replaced")
	cmd.Flags().StringVar(&f.sizeMiB, "size", "", "size in MiB, or with a unit: 64, 2G (default: what is in it and some more)")
	cmd.Flags().StringVar(&f.label, "fs-label", "", "label of the file system, at most 16 bytes")
}

func (f *diskFlags) options() (rootfs.Options, error) {
	o := rootfs.Options{Label: f.label}
	if f.sizeMiB != "" {
		n, err := parseMiB(f.sizeMiB)
		if err != nil || n == 0 {
			return o, flagFault("--size", f.sizeMiB, "a number of MiB, or one with the unit M, MiB, G or GiB")
		}
		o.SizeMiB = int64(n)
	}
	return o, nil
}

func (a *app) imageBuildCommand() *cobra.Command {
	var f diskFlags
	cmd := &cobra.Command{
		Use:   "build [-o FILE] SOURCE",
		Short: "Make an ext4 root disk from a folder or a tar archive",
		Long: `Make an ext4 root disk from a folder or a tar archive (plain, gzip, zstd, xz or
bzip2), with owners and modes as they are there. It needs mkfs.ext4, no mounts
and no root rights.`,
		Example: `  microvm image build -o web.ext4 --size 512M ./tree
  microvm image build -o web.ext4 rootfs.tar.zst`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := f.options()
			if err != nil {
				return err
			}
			done := a.progress("building %s", f.out)
			r, err := rootfs.Build(cmd.Context(), args[0], f.out, opts)
			done()
			if err != nil {
				return err
			}
			return a.printDisk(r)
		},
	}
	f.register(cmd)
	return cmd
}

func (a *app) imageDemoCommand() *cobra.Command {
	var (
		f             diskFlags
		busybox, init string
	)
	cmd := &cobra.Command{
		Use:   "demo [-o FILE]",
		Short: "Make the demo's root disk: busybox and a counter",
		Long: `Make the root disk of the demo's guest: a shell on the serial console, without
login, and a counter that prints "tick N" five times a second.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := f.options()
			if err != nil {
				return err
			}
			if busybox == "" {
				if busybox, err = exec.LookPath("busybox"); err != nil {
					return &usageError{errors.New("no busybox on PATH: name a static one by --busybox (Debian: apt-get install busybox-static)")}
				}
			}
			if init == "" {
				var ok bool
				if init, ok = findProgram("microvm-init"); !ok {
					return errNoInit
				}
			}
			done := a.progress("building %s", f.out)
			r, err := rootfs.Demo(cmd.Context(), busybox, init, f.out, opts)
			done()
			if err != nil {
				return err
			}
			return a.printDisk(r)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&busybox, "busybox", "", "static busybox (default: the one on PATH)")
	cmd.Flags().StringVar(&init, "init", "", "static microvm-init (default: the one beside this program)")
	return cmd
}

var errNoInit = &usageError{errors.New("no microvm-init beside this program or on PATH: name one by --init (CGO_ENABLED=0 go build ./cmd/microvm-init)")}

// diskReport is what was made, as --json shows it.
type diskReport struct {
	Path    string   `json:"path"`
	SizeMiB int64    `json:"size_mib"`
	UUID    string   `json:"uuid"`
	Files   int      `json:"files"`
	Skipped []string `json:"skipped,omitempty"`
}

func (a *app) printDisk(r rootfs.Result) error {
	if a.flags.json {
		return a.printJSON(diskReport(r))
	}
	if len(r.Skipped) > 0 {
		a.note("left out, as no disk can hold it: %s", printableLine(strings.Join(r.Skipped, " ")))
	}
	_, err := fmt.Fprintf(a.out, "%s: %d MiB, %d files, UUID %s\n", filepath.Clean(r.Path), r.SizeMiB, r.Files, r.UUID)
	return err
}
