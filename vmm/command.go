package vmm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// DefaultNoFile is the number of descriptors that a VMM may open unless its
// Command says otherwise. It is the jailer's default too. Firecracker sizes its
// descriptor table to the limit that it inherits, which takes long under the
// very high limits that services have.
const DefaultNoFile = 2048

// Command describes a process to start. It inherits the three files below and no
// other that this program has opened; but what this program itself was given
// without close-on-exec (sockets of systemd, for example) goes on to it unless
// the program sets that flag.
type Command struct {
	// Path is the binary; it must be absolute.
	Path string
	// Args are the arguments without the name of the program.
	Args []string
	// Env is the whole environment, as "key=value". Nil is an empty one: nothing
	// is inherited.
	Env []string
	// Dir is the working directory; empty means that of this program.
	Dir string
	// Stdin, Stdout and Stderr are given to the process as they are; nil means
	// /dev/null. They should be files, not pipes: the process lives on when this
	// program ends. Closing them here stays the caller's task.
	Stdin, Stdout, Stderr *os.File
	// NoFile is the limit of open descriptors, soft and hard: 0 means
	// DefaultNoFile, or the inherited hard limit where that is lower.
	NoFile uint64
	// Netns, if not nil, is an open network namespace in which the process
	// starts. Needs CAP_SYS_ADMIN.
	Netns *os.File
	// Cgroup, if not nil, is an open cgroup v2 directory in which the process
	// starts (Linux 5.7).
	Cgroup *os.File
}

func (c *Command) check() error {
	if !filepath.IsAbs(c.Path) {
		return fmt.Errorf("start VMM: Path: %q is not absolute", c.Path)
	}
	for name, list := range map[string][]string{"Path": {c.Path}, "Args": c.Args, "Env": c.Env, "Dir": {c.Dir}} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return fmt.Errorf("start VMM %s: %s: %q has a NUL byte", c.Path, name, s)
			}
		}
	}
	return nil
}
