package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/creto-systems/creto/cmd/creto/node"
)

var update = flag.Bool("update", false, "write golden files anew")

// TestMain lets scripts run this test binary as creto. A binary with the race detector takes so long to start that it would
// be most of the test: then they run a plain one, and the detector watches the cluster, which is in this process.
func TestMain(m *testing.M) {
	commands := map[string]func(){"creto": func() { os.Exit(mainCode()) }}
	if raceEnabled {
		commands = nil
	}
	testscript.Main(m, commands)
}

// buildPlain builds the program without the race detector and returns its directory.
func buildPlain(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	c := exec.CommandContext(t.Context(), "go", "build", "-o", dir+string(filepath.Separator), ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build creto: %v\n%s", err, out)
	}
	return dir
}

// TestScripts runs the transcripts of testdata against one development cluster, which is started by the first that needs it.
func TestScripts(t *testing.T) {
	cluster := new(devCluster)
	t.Cleanup(cluster.close)
	bin := ""
	if raceEnabled {
		bin = buildPlain(t)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			if bin != "" {
				e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
			}
			return nil
		},
		RequireUniqueNames: true,
		UpdateScripts:      *update,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// cluster: sets what `creto env` prints, and CRETO_READY for commands that want the file itself.
			"cluster": func(ts *testscript.TestScript, neg bool, args []string) {
				r, path, err := cluster.start(t.Context())
				ts.Check(err)
				for _, name := range envNames {
					for _, s := range settingTable {
						if s.name == name {
							ts.Setenv(s.env, readySettings(r)[name])
						}
					}
				}
				ts.Setenv("READY", path)
				ts.Setenv("DATA", r.DataDir)
			},
			// capture VAR: keeps what the last command wrote to stdout, without the last newline.
			"capture": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) != 1 {
					ts.Fatalf("usage: capture VAR")
				}
				ts.Setenv(args[0], strings.TrimSuffix(ts.ReadFile("stdout"), "\n"))
			},
			// field VAR NAME: keeps one field of the JSON object that the last command wrote to stdout.
			"field": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) != 2 {
					ts.Fatalf("usage: field VAR NAME")
				}
				var m map[string]any
				d := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
				d.UseNumber()
				ts.Check(d.Decode(&m))
				v, ok := m[args[1]]
				if !ok {
					ts.Fatalf("no field %q", args[1])
				}
				ts.Setenv(args[0], fmt.Sprint(v))
			},
			// subst FILE…: replaces $VAR in files by the environment.
			"subst": func(ts *testscript.TestScript, neg bool, args []string) {
				for _, name := range args {
					ts.Check(os.WriteFile(ts.MkAbs(name), []byte(os.Expand(ts.ReadFile(name), ts.Getenv)), 0o600))
				}
			},
			// flip FILE OFFSET: flips the lowest bit of one byte; a negative offset counts from the end.
			"flip": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) != 2 {
					ts.Fatalf("usage: flip FILE OFFSET")
				}
				var at int
				_, err := fmt.Sscan(args[1], &at)
				ts.Check(err)
				b := []byte(ts.ReadFile(args[0]))
				if at < 0 {
					at += len(b)
				}
				b[at] ^= 1
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
			},
			// exit CODE COMMAND…: the command must end with this code.
			"exit": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) < 2 {
					ts.Fatalf("usage: exit CODE COMMAND")
				}
				err := ts.Exec(args[1], args[2:]...)
				got := 0
				if err != nil {
					if _, serr := fmt.Sscanf(err.Error(), "exit status %d", &got); serr != nil {
						ts.Fatalf("%v", err)
					}
				}
				if fmt.Sprint(got) != args[0] {
					ts.Fatalf("exit code: got %d, want %s", got, args[0])
				}
			},
			// await FILE: waits until a file is there.
			"await": func(ts *testscript.TestScript, neg bool, args []string) {
				path := ts.MkAbs(args[0])
				for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
					if _, err := os.Stat(path); err == nil {
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("%s did not appear", args[0])
					}
				}
			},
			// terminate FILE [hangup]: sends SIGTERM, or SIGHUP, to the process of a ready file.
			"terminate": func(ts *testscript.TestScript, neg bool, args []string) {
				s := syscall.SIGTERM
				if len(args) == 2 && !signal.Ignored(syscall.SIGHUP) {
					s = syscall.SIGHUP
				}
				r, err := readReady(ts.MkAbs(args[0]))
				ts.Check(err)
				p, err := os.FindProcess(r.PID)
				ts.Check(err)
				ts.Check(p.Signal(s))
			},
			// vectors DIR: writes the proof files and the trust file of test/vectors/ledger.json.
			"vectors": func(ts *testscript.TestScript, neg bool, args []string) { ts.Check(writeVectors(ts.MkAbs(args[0]))) },
		},
	})
}

// devCluster is a development cluster for all scripts.
type devCluster struct {
	once  sync.Once
	dev   *node.Dev
	ready *node.ReadyFile
	dir   string
	err   error
}

func (d *devCluster) start(context.Context) (*node.ReadyFile, string, error) {
	d.once.Do(func() {
		if d.dir, d.err = os.MkdirTemp("", "creto-test-"); d.err != nil {
			return
		}
		// The cluster outlives the script that starts it; close ends it.
		if d.dev, d.err = node.StartDev(context.Background(), node.DevConfig{Dir: filepath.Join(d.dir, "data"), Version: "test"}); d.err != nil {
			return
		}
		if d.ready, d.err = d.dev.Ready(); d.err == nil {
			d.err = node.WriteReady(filepath.Join(d.dir, "ready.json"), d.ready)
		}
	})
	return d.ready, filepath.Join(d.dir, "ready.json"), d.err
}

func (d *devCluster) close() {
	if d.dev != nil {
		d.dev.Close()
	}
	if d.dir != "" {
		os.RemoveAll(d.dir)
	}
}

// writeVectors writes each proof file of the published vectors under its name.
func writeVectors(dir string) error {
	raw, err := os.ReadFile("../../test/vectors/ledger.json")
	if err != nil {
		return err
	}
	var v struct {
		Trust string `json:"trust"`
		Files []struct {
			Name  string `json:"name"`
			Bytes string `json:"bytes"`
		} `json:"files"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "trust.txt"), []byte(v.Trust), 0o600); err != nil {
		return err
	}
	for _, f := range v.Files {
		b, err := hex.DecodeString(f.Bytes)
		if err != nil {
			if b, err = base64.StdEncoding.DecodeString(f.Bytes); err != nil {
				return err
			}
		}
		name := strings.NewReplacer(" ", "-", ",", "").Replace(f.Name)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
