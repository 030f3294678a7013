package microvm_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tangle-network/microvm"

// Modules that a package may need, directly or not.
var (
	none      []string
	linux     = []string{"golang.org/x/sys"}
	unpackers = []string{"golang.org/x/sys", "github.com/klauspost/compress", "github.com/pierrec/lz4/v4", "github.com/xi2/xz"}
	networks  = []string{"golang.org/x/sys", "golang.org/x/net", "golang.org/x/sync", "github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/google/nftables", "github.com/mdlayher/netlink", "github.com/mdlayher/socket", "github.com/google/go-cmp"}
	anything  = []string{""}
)

// imports says what each package may import: of ours directly, and of others at
// all. A new package needs a row here.
var imports = map[string]struct{ ours, others []string }{
	".":               {nil, none},
	"inmem":           {[]string{"."}, none},
	"microvmtest":     {[]string{"."}, []string{"pgregory.net/rapid"}},
	"fcapi":           {nil, none},
	"vmm":             {[]string{"fcapi"}, linux},
	"console":         {nil, linux},
	"vsock":           {nil, linux},
	"snapshot":        {nil, linux},
	"image":           {nil, linux},
	"image/kernel":    {[]string{"image", "image/internal/decompress"}, unpackers},
	"image/rootfs":    {[]string{"image", "image/internal/decompress"}, unpackers},
	"network":         {[]string{".", "internal/netns"}, networks},
	"internal/record": {[]string{"."}, linux},
	"firecracker":     {[]string{".", "fcapi", "vmm", "console", "vsock", "snapshot", "image", "network", "internal/record"}, networks},

	"image/internal/decompress":  {nil, unpackers},
	"internal/tinyguest":         {nil, none},
	"internal/testreal":          {[]string{"image/kernel", "image/rootfs", "vmm"}, unpackers},
	"internal/testreal/hostinit": {nil, linux},
	"internal/leaktest":          {nil, []string{"go.uber.org/goleak"}},
	"internal/testhost":          {[]string{"internal/netns"}, networks},
	"internal/netns":             {nil, linux},

	"fcemu":            {[]string{"fcapi"}, linux},
	"fcemu/fidelity":   {nil, none},
	"fcemu/nullengine": {[]string{"fcapi", "fcemu"}, linux},
	"fcemu/qemuengine": {[]string{"fcapi", "fcemu"}, linux},
}

type listed struct {
	ImportPath    string
	Imports, Deps []string
	Module        *struct{ Path string }
	Standard      bool
}

func TestPackagesImportOnlyWhatTheirPlaceAllows(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports,Deps,Module,Standard", "./...")
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := map[string]listed{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
	found := map[string]bool{}
	for path, p := range packages {
		name, ours := inModule(path)
		if !ours {
			continue
		}
		found[name] = true
		may, ok := imports[name]
		if strings.HasPrefix(name, "cmd/") {
			may.others, ok = anything, true
		}
		if !ok {
			t.Errorf("package %s has no row in the table of imports", name)
			continue
		}
		for _, dep := range p.Imports {
			if dep, ours := inModule(dep); ours && !slices.Contains(may.ours, dep) && !strings.HasPrefix(name, "cmd/") {
				t.Errorf("package %s imports %s", name, dep)
			}
		}
		for _, dep := range p.Deps {
			d := packages[dep]
			if _, ours := inModule(dep); ours || d.Standard || d.Module == nil {
				continue
			}
			if !slices.ContainsFunc(may.others, func(m string) bool { return m == "" || m == d.Module.Path }) {
				t.Errorf("package %s depends on %s", name, dep)
			}
		}
	}
	for name := range imports {
		if !found[name] {
			t.Errorf("the table of imports has the package %s, which does not exist", name)
		}
	}
	// What has no host under it must not reach for one.
	for _, name := range []string{".", "inmem"} {
		for _, dep := range packages[strings.TrimSuffix(module+"/"+name, "/.")].Imports {
			if slices.Contains([]string{"os", "os/exec", "os/signal", "syscall", "log", "log/slog", "net/http"}, dep) {
				t.Errorf("package %s imports %s", name, dep)
			}
		}
	}
}

// inModule is the path of one of our packages within the module.
func inModule(path string) (name string, ours bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}
