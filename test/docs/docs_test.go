package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

var (
	promiseRow = regexp.MustCompile(`(?m)^\| (P[0-9]+) \| (.+) \|$`)
	claimRow   = regexp.MustCompile(`(?m)^\| (P[0-9]+) \| (.+) \| ([^|]+) \|$`)
	codeSpan   = regexp.MustCompile("`([^`]+)`")
	goName     = regexp.MustCompile(`^((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]*)(\*?)$`)
	mdLink     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	makeTarget = regexp.MustCompile(`(?m)^([a-z-]+):`)
)

func TestClaims(t *testing.T) {
	promises := promiseRow.FindAllStringSubmatch(read(t, "README.md"), -1)
	claims := claimRow.FindAllStringSubmatch(read(t, "docs/claims.md"), -1)
	if len(promises) == 0 {
		t.Fatal("README.md makes no promises in rows of the form | P1 | … |")
	}
	if len(promises) != len(claims) {
		t.Errorf("got %d rows in docs/claims.md, want %d, one for each promise of README.md", len(claims), len(promises))
	}
	names := make(map[string]map[string]bool)
	targets := makefile(t)
	for i := range min(len(promises), len(claims)) {
		promise, claim := promises[i], claims[i]
		if promise[1] != claim[1] || promise[2] != claim[2] {
			t.Errorf("row %d: got claim %s %q, want the README's %s %q", i+1, claim[1], claim[2], promise[1], promise[2])
		}
		spans := codeSpan.FindAllStringSubmatch(claim[3], -1)
		if len(spans) == 0 {
			t.Errorf("%s: nothing shows it", claim[1])
		}
		for _, span := range spans {
			if problem := missing(t, span[1], names, targets); problem != "" {
				t.Errorf("%s: `%s`: %s", claim[1], span[1], problem)
			}
		}
	}
}

// missing says what is wrong with one piece of evidence, or "".
func missing(t *testing.T, evidence string, names map[string]map[string]bool, targets map[string]bool) string {
	t.Helper()
	if target, ok := strings.CutPrefix(evidence, "make "); ok {
		if !targets[target] {
			return "no such target in the Makefile"
		}
		return ""
	}
	pkg, name, ok := strings.Cut(evidence, ": ")
	if !ok {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(evidence))); err != nil {
			return "no such file"
		}
		return ""
	}
	m := goName.FindStringSubmatch(name)
	if m == nil {
		return "not the name of a test, fuzz target or benchmark"
	}
	if names[pkg] == nil {
		names[pkg] = testNames(t, pkg)
	}
	for have := range names[pkg] {
		if have == m[1] || m[2] == "*" && strings.HasPrefix(have, m[1]) {
			return ""
		}
	}
	return "no such function in the test files of that folder"
}

// testNames returns the test functions of one folder's package, whatever the build constraints of their files.
func testNames(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	set := token.NewFileSet()
	for _, file := range files {
		f, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatalf("parse %s: %v", file, err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && goName.MatchString(fn.Name.Name) {
				names[fn.Name.Name] = true
			}
		}
	}
	return names
}

func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		for _, link := range mdLink.FindAllStringSubmatch(proseOf(read(t, page)), -1) {
			u, err := url.Parse(link[1])
			if err != nil {
				t.Errorf("%s: link %q: %v", page, link[1], err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			target := page
			if u.Path != "" {
				target = path.Join(path.Dir(page), u.Path)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(target))); err != nil {
				t.Errorf("%s: link %q leads to no file", page, link[1])
				continue
			}
			if u.Fragment != "" && strings.HasSuffix(target, ".md") && !headings(read(t, target))[u.Fragment] {
				t.Errorf("%s: link %q leads to no heading", page, link[1])
			}
		}
	}
}

func TestFences(t *testing.T) {
	targets := makefile(t)
	language, seen := "", 0
	for n, line := range strings.Split(read(t, "README.md"), "\n") {
		if info, ok := strings.CutPrefix(line, "```"); ok {
			switch {
			case language != "":
				language = ""
			case info == "sh", info == "text", info == "mermaid":
				language = info
				seen++
			default:
				t.Errorf("line %d: got a fence marked %q, want sh (run by make readme), text or mermaid", n+1, info)
				language = "?"
			}
			continue
		}
		if target, ok := strings.CutPrefix(line, "make "); ok && language == "sh" && !targets[strings.Fields(target)[0]] {
			t.Errorf("line %d: %q is not a target of the Makefile", n+1, line)
		}
	}
	if language != "" || seen == 0 {
		t.Errorf("got %d fences and an open one: %v, want some and none", seen, language != "")
	}
}

// pages returns the Markdown files of the repository, as slash-separated paths from its root.
func pages(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", ".deps", "bin", "demo-out", "testdata":
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(d.Name(), ".md") {
			out = append(out, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// proseOf returns a page without its fences and code spans, in which brackets are not links.
func proseOf(text string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced {
			b.WriteString(codeSpan.ReplaceAllString(line, ""))
		}
	}
	return b.String()
}

// headings returns the anchors of a page: lower case, spaces as hyphens, other punctuation dropped.
func headings(text string) map[string]bool {
	out := make(map[string]bool)
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		title := strings.TrimLeft(line, "#")
		if fenced || title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_', r > 0x7f:
				return r
			}
			return -1
		}, strings.ToLower(strings.TrimSpace(title)))
		out[anchor] = true
	}
	return out
}

func makefile(t *testing.T) map[string]bool {
	t.Helper()
	out := make(map[string]bool)
	for _, m := range makeTarget.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		out[m[1]] = true
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
