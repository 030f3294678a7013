package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/cmd/microvm/internal/doctor"
	"github.com/tangle-network/microvm/firecracker"
)

// guestDirVariable names a folder with a guest for specs that have no kernel.
const guestDirVariable = "MICROVM_GUEST_DIR"

// guestDirs are the places where a guest is looked for, first to last.
func guestDirs(stateDir string) []string {
	if dir := os.Getenv(guestDirVariable); dir != "" {
		return []string{dir}
	}
	dirs := []string{filepath.Join(stateDir, "images", "default")}
	if dir, err := executableDir(); err == nil {
		dirs = append(dirs, filepath.Join(dir, "..", "build", "guest"))
	}
	return dirs
}

// executableDir is the folder of this very program, links resolved.
func executableDir() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	exe, err = filepath.EvalSymlinks(exe)
	if err != nil {
		return "", err
	}
	return filepath.Dir(exe), nil
}

// withDefaultGuest gives a spec without a kernel the guest in the first of
// dirs that has one. A kernel of the user's own is left alone: an initrd and a
// root disk belong to a kernel.
func withDefaultGuest(s microvm.Spec, dirs []string) (microvm.Spec, error) {
	if s.Kernel != "" || s.RestoreFrom != nil {
		return s, nil
	}
	guest, ok := doctor.FindGuest(dirs)
	if !ok {
		return s, &microvm.Error{
			Verb: "create", Stage: "find a guest",
			Err:    fmt.Errorf("no --kernel, and no vmlinux in %s: %w", joinPaths(dirs), microvm.ErrHost),
			Remedy: `name one by --kernel, or install the demo's guest by "make guest" in a checkout`,
		}
	}
	s.Kernel = guest.Kernel
	if s.Initrd == "" {
		s.Initrd = guest.Initrd
	}
	if s.Rootfs == nil && !s.NoRootfs && guest.Rootfs != "" {
		s.Rootfs = &microvm.Rootfs{}
	}
	if s.Rootfs != nil && s.Rootfs.Path == "" {
		s.Rootfs.Path = guest.Rootfs
	}
	return s, nil
}

func joinPaths(dirs []string) string {
	text := ""
	for i, d := range dirs {
		if i > 0 {
			text += " or "
		}
		text += filepath.Clean(d)
	}
	return text
}

// findProgram looks beside this program, then on PATH; a name with a slash is
// taken as it is.
func findProgram(name string) (string, bool) {
	if dir, err := executableDir(); err == nil && filepath.Base(name) == name {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, true
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", false
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", false
	}
	return path, true
}

// hostConfig is the configuration of the provider: from the environment, with
// the flags laid over it.
func (a *app) hostConfig() (firecracker.Config, error) {
	c, err := firecracker.FromEnv()
	if err != nil {
		return c, fmt.Errorf("environment: %w", err)
	}
	if a.flags.stateDir != "" {
		c.StateDir = a.flags.stateDir
	}
	if c.StateDir == "" {
		if c.StateDir, err = firecracker.DefaultStateDir(); err != nil {
			return c, err
		}
	}
	c.Log = a.logger()
	c.Network.NoServe = !a.serveNetworks
	return c, nil
}
