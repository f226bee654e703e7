package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Binary returns the creto binary that CRETO_BIN names, or builds one in dir.
func Binary(dir string) (string, error) {
	if bin := os.Getenv("CRETO_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	root, err := moduleRoot(wd)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "creto")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/creto")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build creto: %w\n%s", err, out)
	}
	return bin, nil
}

func moduleRoot(dir string) (string, error) {
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find module: no go.mod above the working directory")
		}
		dir = parent
	}
}
