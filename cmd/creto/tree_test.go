package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
)

// leaves are all commands that do something, by their path below creto.
func leaves() map[string]*cobra.Command {
	out := make(map[string]*cobra.Command)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if !c.HasSubCommands() && c.Name() != "help" {
			out[strings.TrimPrefix(c.CommandPath(), "creto ")] = c
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{getenv: func(string) string { return "" }}).root())
	return out
}

// runApp runs a command line in this process, with nothing on stdin.
func runApp(t *testing.T, env map[string]string, args ...string) (code int, out, err string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{
		args: args, in: strings.NewReader(""), out: &stdout, err: &stderr, getenv: func(name string) string { return env[name] },
		environ: func() (list []string) {
			for name, v := range env {
				list = append(list, name+"="+v)
			}
			return list
		},
	}
	code = a.run(t.Context())
	return code, stdout.String(), stderr.String()
}

// Every command explains itself, and says on stderr, and nowhere else, what is wrong with a command line and what to do about it.
func TestEveryCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	works := []string{"dev", "demo", "version", "policy check", "config print", "config check"} // with nothing said
	for path, c := range leaves() {
		c.InheritedFlags() // merges the flags of its parents
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") || strings.ToLower(f.Name) != f.Name || strings.Contains(f.Name, "_") {
				t.Errorf("%s: flag --%s is explained by %q", path, f.Name, f.Usage)
			}
		})
		words := strings.Fields(path)
		code, out, err := runApp(t, nil, append(words, "--help")...)
		if code != exitOK || err != "" || !strings.Contains(out, "Examples:\n"+strings.Split(c.Example, "\n")[0]) {
			t.Errorf("%s --help: got %d, stdout without its example, or stderr %q", path, code, err)
		}
		fails := func(what string, args ...string) {
			t.Helper()
			code, out, err := runApp(t, nil, args...)
			if code != exitLocal || out != "" || !strings.HasPrefix(err, "creto: ") || !strings.Contains(err, "\n  hint: ") {
				t.Errorf("%s %s: got %d, stdout %q, stderr %q, want 1 and a hint", path, what, code, out, err)
			}
		}
		fails("with a flag that is none", append(words, "--no-such-flag")...)
		fails("with a form of output that is none", append(words, "-o", "csv")...)
		if !slices.Contains(works, path) {
			fails("alone", words...)
			if c.Annotations[localOnly] == "" {
				fails("with a ready file that is none", append(words, "--ready", "none.json")...)
			}
			fails("with a configuration that is none", append(words, "--config", "none.yaml")...)
		}
	}
}

// Against a cluster that has ended, every command that asks it says so: exit code 6, and what to do.
func TestStoppedCluster(t *testing.T) {
	dir := t.TempDir()
	d, err := node.StartDev(t.Context(), node.DevConfig{Dir: filepath.Join(dir, "data"), Nodes: 1, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Ready()
	if err == nil {
		err = node.WriteReady(filepath.Join(dir, "ready.json"), r)
	}
	if cerr := d.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	t.Chdir(dir)
	id, link := strings.Repeat("a", 25)+"y", strings.Repeat("0a", 32)
	seed := bytes.Repeat([]byte{7}, nhi.SeedSize)
	for _, role := range []string{"human", "agent"} {
		k := keyfile.Key{Role: role, ID: nhi.ID{1}, Suite: nhi.SuiteMLDSA65Ed25519, Seed: seed}
		if err := keyfile.WritePlain(role+".key", k); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("token", []byte("creto-join-"+strings.Repeat("0", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	asks := []string{
		"account create", "account list", "approval approve 1 --yes", "approval await 1", "approval cancel 1", "approval claim 1", "approval deny 1 --yes",
		"approval list", "approval report 1 --token " + link[:32], "approval request pay x", "approval show 1", "cluster add " + id + " 127.0.0.1:1", "cluster promote " + id,
		"cluster remove " + id, "cluster status", "cluster token", "cluster transfer", "delegation create --to " + id + " --scope usage:*",
		"delegation revoke " + link, "delegation show " + link, "event get 1", "event list", "event submit --kind usage --body {}", "event tail",
		"identity create --type agent --out new.key --plain", "identity erase 1", "identity list", "identity register human.key", "identity resume " + id,
		"identity revoke " + id, "identity rotate " + id + " --out next.key --plain", "identity show " + id, "identity suspend " + id, "ledger checkpoint",
		"ledger consistency 1 2", "ledger export --from 1h --out e", "ledger proof 1 --out p", "ledger trust", "load --events 1", "policy show",
		"policy publish", "quota close 1 1", "quota correct " + id + " tokens --over 1 --reason x", "quota get", "quota reserve tokens 1", "quota set " + id + " tokens 1", "quota settle 1 1 --from 0 --to 1",
		"sandbox list", "sandbox run --template x -- /x", "sandbox show 1", "tenant create --dir new --plain", "tenant show", "token create --out t2", "token revoke " + link,
		"dev clock advance 1h", "dev clock freeze", "dev clock show", "dev clock thaw",
		"usage add tokens=1", "usage query", "cluster join --join-token-file token --dir new-node --addr " + r.GRPC[0] + " --ca " + r.CA,
	}
	offline := []string{
		"completion", "config check", "config print", "demo", "dev", "env", "init", "policy check", "server", "sandbox-node", "verify", "version",
		"cluster renew", "identity svid",
	}
	all := leaves()
	seen := make(map[string]bool)
	for _, path := range offline {
		seen[path] = true
	}
	env := map[string]string{"CRETO_READY": "ready.json", "CRETO_TIMEOUT": (300 * time.Millisecond).String(), "CRETO_AS": "human.key"}
	var group sync.WaitGroup
	for _, line := range asks {
		words := strings.Fields(line)
		for n := len(words); n > 0; n-- {
			if path := strings.Join(words[:n], " "); all[path] != nil {
				seen[path] = true
				break
			}
		}
		// Commands that wait without a bound of their own take ten seconds to give up.
		group.Go(func() {
			code, out, err := runApp(t, env, words...)
			if code != exitUnavailable || out != "" || !strings.Contains(err, "\n  hint: ") {
				t.Errorf("%s: got %d, stdout %q, stderr %q, want %d and a hint", line, code, out, err, exitUnavailable)
			}
		})
	}
	group.Wait()
	for path := range all {
		if !seen[path] {
			t.Errorf("%s is not tried", path)
		}
	}
}
