package microvm_test

import (
	"go/ast"
	"go/token"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// exportedErrors finds the sentinels (ErrX) and the error types of all packages
// that others can import, by the name under which they are used there.
func exportedErrors(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	sources(t, func(file string, fset *token.FileSet, f *ast.File) {
		if strings.HasSuffix(file, "_test.go") || f.Name.Name == "main" || strings.Contains("/"+file, "/internal/") {
			return
		}
		add := func(star, name string, pos token.Pos) {
			found[star+f.Name.Name+"."+name] = fset.Position(pos).String()
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if v, ok := s.(*ast.ValueSpec); ok && d.Tok == token.VAR {
						for _, n := range v.Names {
							if strings.HasPrefix(n.Name, "Err") {
								add("", n.Name, n.Pos())
							}
						}
					}
				}
			case *ast.FuncDecl:
				if d.Recv == nil || d.Name.Name != "Error" || d.Type.Params.NumFields() != 0 {
					continue
				}
				typ, star := d.Recv.List[0].Type, ""
				if p, ok := typ.(*ast.StarExpr); ok {
					typ, star = p.X, "*"
				}
				if name, ok := typ.(*ast.Ident); ok && name.IsExported() {
					add(star, name.Name, d.Pos())
				}
			}
		}
	})
	return found
}

func TestEachExportedErrorHasASectionWithCauseAndRemedy(t *testing.T) {
	t.Parallel()
	const page = "docs/errors.md"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	inCode := exportedErrors(t)
	if len(inCode) < 20 {
		t.Fatalf("only %d exported errors were found", len(inCode))
	}
	heading := regexp.MustCompile("(?m)^### `(.+)`$")
	onPage := map[string]bool{}
	text := string(b)
	for _, at := range heading.FindAllStringSubmatchIndex(text, -1) {
		name, section := text[at[2]:at[3]], text[at[1]:]
		if end := strings.Index(section, "\n#"); end >= 0 {
			section = section[:end]
		}
		if onPage[name] {
			t.Errorf("%s has two sections for %s", page, name)
		}
		onPage[name] = true
		if _, ok := inCode[name]; !ok {
			t.Errorf("%s has a section for %s, which no package exports", page, name)
		}
		for _, part := range []string{"Cause", "Remedy"} {
			if !regexp.MustCompile(`(?m)^` + part + `: \S.{10,}`).MatchString(section) {
				t.Errorf("%s: the section for %s has no line %q", page, name, part+": …")
			}
		}
	}
	for name, where := range inCode {
		if !onPage[name] {
			t.Errorf("%s: %s has no section in %s (### `%s`, with a line for Cause: and one for Remedy:)", where, name, path.Base(page), name)
		}
	}
}
