package e2e

import (
	"fmt"
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

// house is the architecture: which of our packages a package may import. A package that is not in it may not exist.
// Change it here first, and say why in the commit.
var house = map[string][]string{
	"cmd/openline":           {"node", "node/api", "bootstrap", "protocol"},
	"protocol":               {},
	"protocol/reconcile":     {},
	"bootstrap":              {"protocol"},
	"node":                   {"node/api", "node/carrier", "node/history", "node/mesh", "node/store", "bootstrap", "protocol", "protocol/reconcile"},
	"node/history":           {"protocol", "protocol/reconcile"},
	"node/store":             {"protocol", "protocol/reconcile"}, // it keeps the sums of hours that reconciliation compares
	"node/mesh":              {"protocol"},
	"node/carrier":           {},
	"node/carrier/ratelimit": {},                                 // a module of its own: what REALITY's library needs of one that is LGPL
	"node/api":               {"protocol", "protocol/reconcile"}, // NIP-77
	"e2e":                    {"node/api", "protocol", "e2e/lab"},
	"e2e/lab":                {},
	"e2e/load":               {"protocol"},
}

// confined are imports from outside that only these packages may have, so that their types stop there.
var confined = map[string][]string{
	"github.com/libp2p/":                 {"bootstrap", "node", "node/carrier", "node/history", "node/mesh"},
	"github.com/multiformats/":           {"bootstrap", "node", "node/carrier", "node/history", "node/mesh"},
	"github.com/cockroachdb/":            {"node/store"},
	"github.com/spf13/":                  {"cmd/openline"},
	"github.com/btcsuite/":               {"protocol"},
	"github.com/gorilla/":                {"node/api", "node/carrier", "e2e/load"},
	"github.com/refraction-networking/":  {"node/carrier"},
	"github.com/xtls/":                   {"node/carrier"},
	"github.com/prometheus/":             {"node", "node/api"},
	"github.com/nbd-wtf/":                {}, // in tests only: it is in maintenance mode
	"github.com/klauspost/":              {"protocol"},
	"github.com/ipfs/":                   {"bootstrap", "node"},
	"github.com/makiuchi-d/":             {"cmd/openline"},
	"google.golang.org/protobuf/":        {"protocol", "node/mesh"},
	"google.golang.org/protobuf/reflect": {},
}

// impure are packages of the standard library that protocol may not import: it has no net, files or clock of its own.
var impure = []string{"net", "net/http", "os", "os/exec", "sync", "syscall", "log", "log/slog", "crypto/rand", "math/rand", "math/rand/v2"}

const (
	maxFileLines     = 500
	maxFunctionLines = 75
)

// topLevel is all that the root may hold besides dotfiles.
var topLevel = []string{"cmd", "node", "protocol", "bootstrap", "e2e", "go.mod", "go.sum", "README.md", "LICENSE"}

func TestRootHoldsNothingElse(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		built := e.Name() == "openline" || e.Name() == "dist" // ignored by git
		if !built && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s does not belong into the root", e.Name())
		}
	}
}

func TestHouseIsAsDrawn(t *testing.T) {
	comments := map[string]bool{}
	sources(t, func(pkg, path string, set *token.FileSet, file *ast.File) {
		allowed, ok := house[pkg]
		if !ok {
			t.Errorf("package %s is not in the table", pkg)
		}
		comments[pkg] = comments[pkg] || file.Doc != nil
		for _, i := range file.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if ours, ok := strings.CutPrefix(name, "openline/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, which the table does not allow", path, ours)
			}
			for prefix, pkgs := range confined {
				if strings.HasSuffix(path, "_test.go") {
					break
				}
				if strings.HasPrefix(name, prefix) && !slices.Contains(pkgs, pkg) && !longerPrefix(name, prefix) {
					t.Errorf("%s imports %s, which is confined to %v", path, name, pkgs)
				}
			}
			if strings.HasPrefix(pkg, "protocol") && slices.Contains(impure, name) {
				t.Errorf("%s imports %s: protocol is pure", path, name)
			}
		}
	})
	for pkg := range house {
		if !comments[pkg] {
			t.Errorf("package %s has no package comment, or no file", pkg)
		}
	}
}

// longerPrefix reports whether a more exact rule than prefix speaks about name.
func longerPrefix(name, prefix string) bool {
	for p := range confined {
		if len(p) > len(prefix) && strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func TestNothingGrowsTooLong(t *testing.T) {
	sources(t, func(_, path string, set *token.FileSet, file *ast.File) {
		if n := set.Position(file.FileEnd).Line; n > maxFileLines {
			t.Errorf("%s has %d lines; %d are the most", path, n, maxFileLines)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1; n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines; %d are the most", path, f.Name.Name, n, maxFunctionLines)
			}
			if f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s has an init function", path)
			}
		}
	})
}

func TestOnlyTheStoreSkipsSignatures(t *testing.T) {
	sources(t, func(pkg, path string, set *token.FileSet, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && fmt.Sprint(s.X) == "protocol" && s.Sel.Name == "Load" && pkg != "node/store" {
				t.Errorf("%s calls protocol.Load: only the store may", set.Position(s.Pos()))
			}
			return true
		})
	})
}

// sources calls visit with every Go file of ours that is not a test.
func sources(t *testing.T, visit func(pkg, path string, set *token.FileSet, file *ast.File)) {
	t.Helper()
	root := filepath.Clean("..")
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name := filepath.Base(path)
		if d != nil && d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
			return fs.SkipDir
		}
		isTest := strings.HasSuffix(name, "_test.go") && filepath.Dir(path) != filepath.Join(root, "e2e")
		if err != nil || !strings.HasSuffix(name, ".go") || isTest {
			return err
		}
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(pkg), path, set, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
