package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// A Violation is one place at which the tree is not what the table says.
type Violation struct {
	Path string // file or folder, slash-separated, from the root of the tree
	What string
}

func (v Violation) String() string { return v.Path + ": " + v.What }

// Check returns every violation in the tree, sorted by path. An error means that the tree could
// not be read or a file not parsed: then nothing is known about it.
func Check(tree fs.FS) ([]Violation, error) {
	c := &checker{tree: tree, packages: map[string]*pkg{}}
	if err := fs.WalkDir(tree, ".", c.visit); err != nil {
		return nil, fmt.Errorf("walk tree: %w", err)
	}
	for dir, p := range c.packages {
		c.checkPackage(dir, p)
	}
	sort.Slice(c.found, func(i, j int) bool {
		if c.found[i].Path != c.found[j].Path {
			return c.found[i].Path < c.found[j].Path
		}
		return c.found[i].What < c.found[j].What
	})
	return c.found, nil
}

type checker struct {
	tree     fs.FS
	packages map[string]*pkg
	found    []Violation
}

// pkg is what is known of a folder with Go files, generated ones aside.
type pkg struct{ commented bool }

func (c *checker) add(path, format string, args ...any) {
	c.found = append(c.found, Violation{path, fmt.Sprintf(format, args...)})
}

func (c *checker) visit(name string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if d.IsDir() {
		return c.visitFolder(name)
	}
	if !strings.HasSuffix(name, ".go") {
		return nil
	}
	src, err := fs.ReadFile(c.tree, name)
	if err != nil {
		return err
	}
	return c.visitFile(name, src)
}

func (c *checker) visitFolder(name string) error {
	base := path.Base(name)
	if name == "." {
		return nil
	}
	if !strings.Contains(name, "/") {
		if slices.Contains(unowned, name) {
			return fs.SkipDir
		}
		if !slices.Contains(Folders, name) {
			c.add(name, "is not one of the top-level folders")
			return fs.SkipDir
		}
	}
	if base == "testdata" || strings.HasPrefix(base, "_") || name != ".ci" && strings.HasPrefix(base, ".") || base == "node_modules" {
		return fs.SkipDir
	}
	if _, err := fs.Stat(c.tree, path.Join(name, "go.mod")); err == nil {
		return fs.SkipDir // a module of its own
	}
	if slices.Contains(drawers, base) {
		c.add(name, "is named for no subject")
	}
	return nil
}

func (c *checker) visitFile(name string, src []byte) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse: %w", err)
	}
	dir := path.Dir(name)
	room := roomOf(dir)
	if room == nil {
		c.add(name, "is Go outside every room")
		return nil
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("parse import of %s: %w", name, err)
		}
		c.checkImport(name, room, imported)
	}
	if ast.IsGenerated(f) {
		return nil
	}
	p := c.packages[dir]
	if p == nil {
		p = &pkg{}
		c.packages[dir] = p
	}
	if f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != "" {
		p.commented = true
	}
	if !strings.HasSuffix(name, "_test.go") {
		c.checkSyntax(name, room, fset, f)
	}
	return nil
}

func (c *checker) checkImport(name string, room *Room, imported string) {
	isTest := strings.HasSuffix(name, "_test.go")
	if imported == "C" {
		c.add(name, "uses cgo")
		return
	}
	if within(imported, Module) {
		c.checkOwn(name, room, strings.TrimPrefix(strings.TrimPrefix(imported, Module), "/"), isTest)
		return
	}
	if !strings.Contains(strings.SplitN(imported, "/", 2)[0], ".") { // standard library
		if !isTest && slices.Contains(room.Denied, imported) {
			c.add(name, "room %s must not import %s", room.Path, imported)
		}
		return
	}
	for library, homes := range Confined {
		if within(imported, library) && room.Path != "test" && !slices.Contains(homes, room.Path) {
			c.add(name, "room %s must not import %s: it stays in %s", room.Path, imported, strings.Join(homes, " and "))
		}
	}
	if room.External == nil || isTest {
		return
	}
	for _, allowed := range room.External {
		if within(imported, allowed) {
			return
		}
	}
	c.add(name, "room %s must not import %s: outside modules it may use are %s", room.Path, imported, strings.Join(room.External, ", "))
}

func (c *checker) checkOwn(name string, room *Room, dir string, isTest bool) {
	to := roomOf(dir)
	if to == nil {
		c.add(name, "imports %q, which is in no room", dir)
		return
	}
	if isTest && to.Path == "test" {
		return
	}
	if to.Path == "test" && room.Path != "test" {
		c.add(name, "imports %s outside a test", dir)
		return
	}
	if !room.mayImport(to) {
		c.add(name, "room %s must not import %s", room.Path, dir)
		return
	}
	if to.Path == "proto" && room.Path != "proto" && !room.AnyProto && !speaksWire(path.Base(name)) {
		c.add(name, "generated API types belong in rpc.go")
	}
}

// speaksWire reports whether a file is one of a room's rpc files.
func speaksWire(base string) bool {
	return base == "rpc.go" || strings.HasPrefix(base, "rpc_")
}

// checkSyntax looks for what ties a package to the process it runs in.
func (c *checker) checkSyntax(name string, room *Room, fset *token.FileSet, f *ast.File) {
	contextName := ""
	for _, spec := range f.Imports {
		if spec.Path.Value == `"context"` {
			contextName = "context"
			if spec.Name != nil {
				contextName = spec.Name.Name
			}
		}
	}
	for _, decl := range f.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			c.add(name, "line %d: has an init function", fset.Position(fn.Pos()).Line)
		}
	}
	if room.Root || contextName == "" {
		return
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || sel.Sel.Name != "Background" && sel.Sel.Name != "TODO" {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == contextName {
			c.add(name, "line %d: context.%s below cmd", fset.Position(sel.Pos()).Line, sel.Sel.Name)
		}
		return true
	})
}

func (c *checker) checkPackage(dir string, p *pkg) {
	if !p.commented {
		c.add(dir, "package has no comment")
	}
	if _, err := fs.Stat(c.tree, path.Join(dir, "DESIGN.md")); err != nil {
		c.add(dir, "package has no DESIGN.md")
	}
}
