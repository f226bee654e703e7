package shared

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Dir returns the absolute path of the shared folder name ("conformance", "data").
//
// It is the folder that the environment variable CRETO_<NAME> gives (CRETO_CONFORMANCE), else
// shared/<name> beside the repository: the folder go.mod stands in and the folder "shared" have
// the same parent. Where there is none the test is skipped, and fails if CI=true.
func Dir(t testing.TB, name string) string {
	t.Helper()
	dir, where := find(name, os.Getenv, ".")
	if dir != "" {
		return dir
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("shared %s is absent: looked at %s", name, where)
	}
	t.Skipf("shared %s is absent: looked at %s", name, where)
	return ""
}

// find returns the folder, or "" and where it was looked for.
func find(name string, getenv func(string) string, from string) (dir, where string) {
	variable := "CRETO_" + strings.ToUpper(name)
	if dir := getenv(variable); dir != "" {
		if isDir(dir) {
			return dir, ""
		}
		return "", variable + "=" + dir
	}
	root, err := filepath.Abs(from)
	if err != nil {
		return "", err.Error()
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		parent := filepath.Dir(root)
		if parent == root {
			return "", variable + " and no go.mod above " + from
		}
		root = parent
	}
	dir = filepath.Join(filepath.Dir(root), "shared", name)
	if !isDir(dir) {
		return "", variable + " and " + dir
	}
	return dir, ""
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
