package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi/canon"
	creto "github.com/creto-systems/creto/sdk/go"
)

// golden compares text with a file, or writes it with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs; -update writes it anew (-want +got):\n%s", path, d)
	}
}

func TestExitTable(t *testing.T) {
	golden(t, "../../docs/exit-codes.md", exitTable())
	seen := make(map[int]bool)
	for _, e := range exitCodes {
		if seen[e.code] {
			t.Errorf("code %d stands in the table twice", e.code)
		}
		seen[e.code] = true
	}
	for c := verify.OutcomeCode(0); !strings.HasPrefix(c.String(), "outcome-"); c++ {
		if code := exitOfOutcome(c); !seen[code] || (code == exitOK) != c.Accepted() {
			t.Errorf("outcome %s: exit code %d", c, code)
		}
	}
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		if code := exitOfCode(c); !seen[code] || (code == exitOK) != (c == codes.OK) {
			t.Errorf("gRPC code %s: exit code %d", c, code)
		}
	}
}

func TestExplain(t *testing.T) {
	refused := func(kind string, s creto.State, o verify.OutcomeCode) error {
		return &creto.RefusedError{Kind: kind, Result: &creto.Result{State: s, Outcome: o}}
	}
	for _, tt := range []struct {
		name string
		err  error
		code int
		text string
	}{
		{"usage", usageError(fmt.Errorf("no file")), exitLocal, "no file"},
		{"wrapped", fmt.Errorf("do: %w", localError(fmt.Errorf("bad"))), exitLocal, "do: bad"},
		{"not found", status.Error(codes.NotFound, "not found"), exitNotFound, "not found"},
		{"wrapped status", fmt.Errorf("ask: %w", status.Error(codes.Unavailable, "no leader")), exitUnavailable, "ask: no leader"},
		{"refused connection", status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`),
			exitUnavailable, "no connection: dial tcp 127.0.0.1:1: connect: connection refused"},
		{"another protocol", fmt.Errorf("ask: %w", status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: no \"h2\". If you upgraded from a grpc-go version earlier, read on"`)),
			exitUnavailable, `ask: no connection: authentication handshake failed: no "h2"`},
		{"quota", refused("usage", creto.StateSequenced, verify.OutcomeQuotaExhausted), exitQuota, "usage refused: quota_exhausted"},
		{"claimed", refused("approval.claim", creto.StateSequenced, verify.OutcomeClosed), exitApproval, "approval.claim refused: closed"},
		{"closed lease", refused("quota.close", creto.StateSequenced, verify.OutcomeClosed), exitRefused, "quota.close refused: closed"},
		{"conflict", refused("usage", creto.StateConflict, 0), exitRefused, "usage refused: conflict"},
		{"stale", refused("usage", creto.StateStale, 0), exitUnavailable, "usage refused: stale"},
		{"verify", &verify.Failure{Step: "spine", ExitCode: verify.ExitInclusion, Advice: "x"}, exitInclusion, ""},
		{"evidence", &creto.EvidenceError{Err: fmt.Errorf("other leaf")}, exitConsistency, "receipt contradicts the published log: other leaf"},
	} {
		f := explain(tt.err)
		if f.code != tt.code || tt.text != "" && f.text() != tt.text {
			t.Errorf("%s: got %d %q, want %d %q", tt.name, f.code, f.text(), tt.code, tt.text)
		}
	}
}

// views are all values whose JSON names are a contract.
var views = []any{
	accountCreated{}, accountView{}, approvalView{}, causeView{}, chainView{}, chainStep{}, claimedView{}, clockView{}, closedView{}, consistencyView{}, correctedView{}, counterView{},
	delegationCreated{}, devReady{}, eventDetail{}, eventView{}, exportView{}, headsView{}, identityCreated{}, identityView{}, initView{},
	joinToken{}, joinView{}, leaderView{}, leaseView{}, linkView{}, loadView{}, memberChange{}, memberView{}, openedView{}, oversightChain{},
	policyPublished{}, policyView{}, readView{}, renewView{}, reportFile{}, reportedView{}, sandboxView{}, statusView{}, submitted{}, svidView{}, tenantCreated{},
	tenantView{}, tokenView{}, trustView{}, usageRow{}, valueView{}, verified{}, versionInfo{}, voteView{}, votedView{},
}

func jsonNames(t reflect.Type) []string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			out = append(out, jsonNames(f.Type)...)
			continue
		}
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "-" {
			out = append(out, name)
		}
	}
	return out
}

func TestJSONFields(t *testing.T) {
	var b strings.Builder
	for _, v := range views {
		names := jsonNames(reflect.TypeOf(v))
		if slices.Contains(names, "") {
			t.Errorf("%T has a field without JSON name", v)
		}
		slices.Sort(names)
		fmt.Fprintf(&b, "%s: %s\n", strings.TrimPrefix(fmt.Sprintf("%T", v), "main."), strings.Join(slices.Compact(names), " "))
	}
	golden(t, "testdata/json-fields.golden", b.String())
}

// TestHelp demands of every command that it says what it does, with an example.
func TestHelp(t *testing.T) {
	a := &app{getenv: func(string) string { return "" }}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		if !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			if c.Example != "" && !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: example line %q is not indented", c.CommandPath(), line)
			}
		}
		if c.HasParent() && !c.Runnable() {
			t.Errorf("%s cannot run", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	root := a.root()
	walk(root)
	for _, want := range strings.Fields(`server dev sandbox-node init cluster tenant account token identity delegation policy event quota usage approval
		sandbox ledger verify demo load config env version completion`) {
		if c, _, err := root.Find([]string{want}); err != nil || c == root {
			t.Errorf("there is no command %s", want)
		}
	}
}

// TestSecretsAreNoFlags holds every flag's name against what must never stand on a command line.
func TestSecretsAreNoFlags(t *testing.T) {
	a := &app{getenv: func(string) string { return "" }}
	allowed := []string{"passphrase-file", "token-file", "join-token-file"}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, set := range []interface{ FlagUsages() string }{c.Flags(), c.PersistentFlags()} {
			for line := range strings.SplitSeq(set.FlagUsages(), "\n") {
				for word := range strings.FieldsSeq(line) {
					name, ok := strings.CutPrefix(word, "--")
					if !ok || slices.Contains(allowed, name) {
						continue
					}
					for _, secret := range []string{"passphrase", "password", "secret", "seed"} {
						if strings.Contains(name, secret) {
							t.Errorf("%s: flag --%s takes a secret", c.CommandPath(), name)
						}
					}
				}
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(a.root())
}

func TestCount(t *testing.T) {
	for n, want := range map[count]string{0: "0", 1 << 53: "9007199254740992", 1<<53 + 1: `"9007199254740993"`, math.MaxUint64: `"18446744073709551615"`} {
		b, err := json.Marshal(n)
		if err != nil || string(b) != want {
			t.Errorf("JSON of %d: got %s, %v, want %s", n, b, err, want)
		}
	}
}

func TestParse(t *testing.T) {
	now := time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2026-11-01": "2026-11-01T00:00:00Z", "2026-11-01T10:00:00+01:00": "2026-11-01T09:00:00Z", "90m": "2026-11-25T06:30:00Z", "0s": "2026-11-25T08:00:00Z",
		"yesterday": "", "-5m": "", "": "",
	} {
		got, err := parseTime("t", text, now)
		if (err == nil) != (want != "") || err == nil && got.UTC().Format(time.RFC3339) != want {
			t.Errorf("time %q: got %v, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]uint64{"64MiB": 64 << 20, "1GiB": 1 << 30, "100MB": 1e8, "4096": 4096} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("size %q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "5XB", "-1", "99999999999999999999"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("size %q: got %d, want an error", text, got)
		}
	}
	for _, text := range []string{"usage", ":", "usage:", ":x", "usage:account:x:tokens=", "usage:*:tokens=-1"} {
		if got, err := parseScopes([]string{text}); err == nil {
			t.Errorf("scope %q: got %v, want an error", text, got)
		}
	}
	s, err := parseScopes([]string{"usage,quota.*:account:abc:tokens=5:calls=2"})
	if err != nil || s[0].Resource != "account:abc" || !slices.Equal(s[0].Actions, []string{"quota.*", "usage"}) || s[0].Caps["tokens"] != 5 || s[0].Caps["calls"] != 2 {
		t.Errorf("scope: got %+v, %v", s, err)
	}
	if _, err := parseQuantities([]string{"a=1", "a=2"}); err == nil {
		t.Error("a meter that comes twice: want an error")
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"a/b-c.d": "a/b-c.d", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'", "a\nb": "'a\nb'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("quote %q: got %s, want %s", in, got, want)
		}
	}
}

func TestTables(t *testing.T) {
	var out strings.Builder
	a := &app{out: &out, err: &out, settings: settings{output: "table"}}
	rows := []memberView{{"a", "x:1", true, false, 0.5}, {"bb", "", false, true, -1}}
	if err := list(a, rows); err != nil {
		t.Fatal(err)
	}
	want := "NODE_ID  RAFT_ADDR  VOTER  LEADER  LAST_CONTACT_SECONDS\na        x:1        true   false   0.5\nbb       -          false  true    -1\n"
	if got := out.String(); got != want {
		t.Errorf("table: got\n%s\nwant\n%s", got, want)
	}
	for output, want := range map[string]string{"json": "[]\n", "yaml": "[]\n", "jsonl": "", "table": "none\n"} {
		out.Reset()
		a.settings.output = output
		if err := list(a, []memberView{}); err != nil || out.String() != want {
			t.Errorf("empty list as %s: got %q, %v, want %q", output, out.String(), err, want)
		}
	}
	out.Reset()
	a.settings.output = "yaml"
	if err := a.object(leaseView{Lease: 7, Meter: "null", Granted: 1 << 60}); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "lease_id: 7\nmeter: \"null\"\ngranted: \"1152921504606846976\"\nexpires: \"\"\nindex: 0\n"; got != want {
		t.Errorf("yaml: got\n%s\nwant\n%s", got, want)
	}
}

func TestClientConfigIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		"addr: a:1\n": "", "": "", "adress: x\n": "unknown key adress", "token: x\n": "unknown key token", "tenant: [a]\n": "not a single value",
		"addr: {a: b}\n": "not a single value", "\tx": "found character",
	} {
		_, err := parseClientConfig([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("configuration %q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzClientConfig(f *testing.F) {
	f.Add([]byte("addr: [a:1, b:2]\noutput: json\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > maxConfig {
			return
		}
		v, err := parseClientConfig(b)
		for name := range v {
			if err == nil && !slices.ContainsFunc(settingTable, func(s setting) bool { return s.name == name }) {
				t.Errorf("unknown key %q was accepted", name)
			}
		}
	})
}

// FuzzBody holds what --body makes of JSON, and what is shown of it, against one another.
func FuzzBody(f *testing.F) {
	f.Add(`{"1":"id:wozeyzmu44tdiwht4ysfagme2y","2":[1,-1,true],"3":{"a":"hex:00ff"}}`)
	f.Add(`{"a":18446744073709551615}`)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.HasPrefix(text, "@") {
			return
		}
		b, err := new(app).jsonBody(text)
		if err != nil {
			return
		}
		if err := canon.Check(b); err != nil {
			t.Fatalf("body is not canonical: %v", err)
		}
		v, err := plainCBOR(b)
		if err != nil {
			t.Fatalf("body cannot be shown: %v", err)
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("shown body is not JSON: %v", err)
		}
		if !json.Valid(again) {
			t.Errorf("shown body %s is not JSON", again)
		}
	})
}

func FuzzTrace(f *testing.F) {
	f.Add("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n")
	f.Fuzz(func(t *testing.T, text string) {
		if list, err := parseTrace(strings.NewReader(text)); err == nil && len(list) == 0 {
			t.Error("a trace without lines was accepted")
		}
	})
}

// TestLiveTable holds the columns of a table that grows while somebody watches: they widen, and do not jump back.
func TestLiveTable(t *testing.T) {
	var out strings.Builder
	a := &app{out: &out, settings: settings{output: "table"}}
	s := newStream[votedView](a)
	s.live = true
	for _, v := range []votedView{{1, "approve", true, "pending"}, {1000000000, "deny", true, "denied"}, {2, "approve", false, "pending"}} {
		if err := s.add(v); err != nil {
			t.Fatal(err)
		}
	}
	want := `REQUEST_ID  DECISION  COUNTED  STATE
1           approve   true     pending
1000000000  deny      true     denied
2           approve   false    pending
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestCommandLine(t *testing.T) {
	if got, want := (commandLine{"/hello", "world", "it's here"}).String(), `/hello world 'it'\''s here'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
