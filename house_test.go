package microvm_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allowed are the places where a rule of TestLibrariesKeepTheHouseRules does not
// hold, and why.
var allowed = map[string]string{
	"exec.CommandContext vmm/probe.go":          "asks a binary for its version and waits for the answer",
	"environment firecracker/config.go":         "FromEnv, and the default of the state directory",
	"environment firecracker/launch.go":         "the VMM's PATH",
	"environment internal/testhost/testhost.go": "tests run again in a host of their own",
}

// rules for library code: everything but programs (cmd, bench, package main) and
// tests.
func TestLibrariesKeepTheHouseRules(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	sources(t, func(path string, fset *token.FileSet, file *ast.File) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "cmd/") || strings.HasPrefix(path, "bench/") || file.Name.Name == "main" {
			return
		}
		broken := func(pos token.Pos, rule, what string) {
			if _, ok := allowed[rule+" "+path]; ok {
				used[rule+" "+path] = true
				return
			}
			t.Errorf("%s: %s: %s", fset.Position(pos), rule, what)
		}
		imported := map[string]string{} // name here → path
		for _, i := range file.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			name := p[strings.LastIndex(p, "/")+1:]
			if i.Name != nil {
				name = i.Name.Name
			}
			imported[name] = p
			if p == "log" || p == "os/signal" {
				broken(i.Pos(), p, "a library has no log and no signal handlers of its own")
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok || x.Obj != nil {
				return true
			}
			switch name := sel.Sel.Name; imported[x.Name] {
			case "fmt":
				if strings.HasPrefix(name, "Print") {
					broken(sel.Pos(), "output", "fmt."+name+" in a library")
				}
			case "log/slog":
				if slices.Contains([]string{"Default", "SetDefault", "Debug", "Info", "Warn", "Error"}, name) {
					broken(sel.Pos(), "output", "slog."+name+": the logger is injected")
				}
			case "os":
				if slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv"}, name) {
					broken(sel.Pos(), "environment", "os."+name+" outside FromEnv")
				}
				if name == "Exit" {
					broken(sel.Pos(), "exit", "os.Exit in a library")
				}
			case "os/exec":
				if name == "CommandContext" && (strings.HasPrefix(path, "vmm/") || strings.HasPrefix(path, "firecracker/")) {
					broken(sel.Pos(), "exec.CommandContext", "a VMM must not end with the context that started it")
				}
			case "time":
				if name == "Sleep" && !strings.HasPrefix(path, "microvmtest/") {
					broken(sel.Pos(), "sleep", "a fixed sleep")
				}
			}
			return true
		})
	})
	for place, why := range allowed {
		if !used[place] {
			t.Errorf("%s is allowed (%s) and not needed", place, why)
		}
	}
}

func TestSourcesKeepTheHouseRules(t *testing.T) {
	t.Parallel()
	sources(t, func(path string, fset *token.FileSet, file *ast.File) {
		dir := filepath.Base(filepath.Dir(path))
		for _, bad := range []string{"util", "utils", "common", "helpers", "types", "misc", "shared"} {
			if dir == bad || file.Name.Name == bad {
				t.Errorf("%s: a package named %s", path, bad)
			}
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: func init", fset.Position(f.Pos()))
			}
		}
		for _, c := range file.Comments {
			for _, word := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"} {
				if strings.Contains(c.Text(), word) {
					t.Errorf("%s: %s", fset.Position(c.Pos()), word)
				}
			}
		}
	})
}

// sources parses every Go file of the repository.
func sources(t *testing.T, f func(path string, fset *token.FileSet, file *ast.File)) {
	t.Helper()
	n := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"build", "bin", "testdata"}, d.Name())) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		n++
		f(path, fset, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 20 {
		t.Fatalf("only %d Go files were found", n)
	}
}
