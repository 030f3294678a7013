package cli

import (
	"fmt"
	goruntime "runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm/image"
	"github.com/tangle-network/microvm/image/kernel"
)

func (a *app) kernelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kernel",
		Short: "Make kernels that a microVM can boot, and look at them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.kernelImportCommand(), a.kernelInspectCommand())
	return cmd
}

func (a *app) kernelImportCommand() *cobra.Command {
	var (
		out, modules, config, init string
		extra                      []string
	)
	cmd := &cobra.Command{
		Use:   "import -o DIR {PACKAGE.deb... | VMLINUZ --modules DIR}",
		Short: "Turn a distribution's kernel into vmlinux and initrd",
		Long: `Turn a distribution's kernel into what a microVM boots: vmlinux, uncompressed,
and an initrd with the virtio modules and microvm-init, which finds the root
disk. The kernel is a package (Debian's linux-image-*-cloud-*), or an installed
one with its modules. Nothing is installed, and no rights are needed.`,
		Example: `  microvm kernel import -o guest linux-image-6.1.0-56-cloud-amd64_*.deb
  microvm kernel import -o guest /boot/vmlinuz-6.1.0-56-amd64 --modules /lib/modules/6.1.0-56-amd64`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var src kernel.Source
			if strings.HasSuffix(args[0], ".deb") {
				src.Packages = args
			} else if len(args) > 1 {
				return &usageError{fmt.Errorf("%d kernels given: one, or packages whose names end in .deb", len(args))}
			} else {
				src.Kernel = args[0]
			}
			src.Modules, src.Config = modules, config
			opts := kernel.Options{Init: init, ExtraModules: extra}
			if init == "" {
				path, ok := findProgram("microvm-init")
				if !ok {
					return errNoInit
				}
				opts.Init = path
			}
			done := a.progress("importing %s", args[0])
			k, err := kernel.Import(cmd.Context(), src, out, opts)
			done()
			if err != nil {
				return err
			}
			if a.flags.json {
				return a.printJSON(k)
			}
			rows := [][]cell{
				plain("version", k.Version+" "+k.Arch),
				plain("kernel", k.Kernel),
				plain("initrd", fmt.Sprintf("%s (%d modules)", k.Initrd, len(k.Modules))),
			}
			if len(k.Missing) > 0 {
				rows = append(rows, plain("not in this kernel", strings.Join(k.Missing, " ")))
			}
			for _, w := range k.Warnings {
				rows = append(rows, plain("note", w))
			}
			return a.tty.table(a.out, rows)
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", ".", "folder for vmlinux, initrd and kernel.json")
	cmd.Flags().StringVar(&modules, "modules", "", "folder of the kernel's modules, as /lib/modules/VERSION")
	cmd.Flags().StringVar(&config, "config", "", "the kernel's configuration, where it lies elsewhere than beside the kernel or in it")
	cmd.Flags().StringVar(&init, "init", "", "static microvm-init (default: the one beside this program)")
	cmd.Flags().StringArrayVar(&extra, "module", nil, "load this module too (repeatable)")
	return cmd
}

// kernelReport is what kernel inspect prints with --json.
type kernelReport struct {
	Path        string `json:"path"`
	Size        int64  `json:"size"`
	Format      string `json:"format"`
	Arch        string `json:"arch,omitempty"`
	Compression string `json:"compression,omitempty"`
	Version     string `json:"version,omitempty"`
	PVH         bool   `json:"pvh"`
	Description string `json:"description"`
	Bootable    bool   `json:"bootable"`
	// Problem is why Firecracker can't boot it, with the remedy.
	Problem string `json:"problem,omitempty"`
}

func (a *app) kernelInspectCommand() *cobra.Command {
	var arch string
	cmd := &cobra.Command{
		Use:   "inspect PATH",
		Short: "Say what a kernel file is and whether Firecracker can boot it",
		Long: `Say what a kernel file is and whether Firecracker can boot it; when it can't, the
exit code is 1.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := image.InspectKernel(args[0])
			if err != nil {
				return err
			}
			r := kernelReport{
				Path: info.Path, Size: info.Size, Format: string(info.Format), Arch: info.Arch,
				Compression: info.Compression, Version: info.Version, PVH: info.PVH, Description: info.Description, Bootable: true,
			}
			if err := info.BootableOn(arch); err != nil {
				r.Bootable, r.Problem = false, err.Error()
			}
			if err := a.printKernel(r); err != nil {
				return err
			}
			if !r.Bootable {
				return &codeError{code: exitFailure}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&arch, "arch", goruntime.GOARCH, "amd64 or arm64: where it is to boot")
	return cmd
}

func (a *app) printKernel(r kernelReport) error {
	if a.flags.json {
		return a.printJSON(r)
	}
	bootable := "yes"
	if !r.Bootable {
		bootable = "no: " + r.Problem
	}
	rows := [][]cell{plain("file", r.Path), plain("kind", r.Description), plain("size", size(r.Size))}
	if r.Version != "" {
		rows = append(rows, plain("version", r.Version))
	}
	rows = append(rows, plain("bootable", bootable))
	return a.tty.table(a.out, rows)
}
