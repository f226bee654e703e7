package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// verified is what `creto verify` says about one file.
type verified struct {
	File string `json:"file"`
	*verify.Report
}

func (v verified) quietID() string {
	if v.OK {
		return "ok " + v.File
	}
	return v.Failure.Step + " " + v.File
}

func (a *app) verifyCmd() *cobra.Command {
	var o struct {
		report   string
		tenant   string
		index    uint64
		from, to string
		maxAge   time.Duration
		leaf     string
	}
	c := &cobra.Command{
		Use:   "verify FILE…",
		Short: "Check proofs offline, against a trust file",
		Long: `Check proof, receipt, checkpoint, tlog-proof, consistency and completeness files offline, against a trust file. The completeness
file of a whole system log (creto ledger export --system --payloads) is what the trust file itself is checked against.

It asks no server and no network. What kind a file is, it tells by its first bytes. For each file it says what was proved, as
of when, under whose keys, and what that does not prove. A failure names the step that did not hold, and whether the file is
damaged, the trust file out of date, or it is evidence of tampering, and what to do next.

Compare the trust file's twelve words (creto ledger trust) over another channel once; everything rests on it.

Exit codes: 10 signature, 11 inclusion, 12 consistency, 13 untrusted, 14 malformed. With several files it is that of the
first failure.`,
		Example: `  creto verify leaf-42.creto-proof --trust trust.txt
  creto verify november.creto-complete --trust trust.txt --report november.html
  creto verify --index 42 --tenant TENANT leaf.creto-proof -o json`,
		Args:        atLeast("FILE"),
		Annotations: map[string]string{localOnly: "1"},
	}
	f := c.Flags()
	f.StringVar(&o.report, "report", "", "write a report to this file as well: .html (one page, to be filed) or .json")
	f.Uint64Var(&o.index, "index", 0, "refuse a proof of another leaf")
	f.StringVar(&o.from, "from", "", "refuse a completeness file that does not begin at this time (RFC 3339)")
	f.StringVar(&o.to, "to", "", "refuse a completeness file that does not end at this time (RFC 3339)")
	f.DurationVar(&o.maxAge, "max-age", 0, "refuse a proof whose head is older")
	f.StringVar(&o.leaf, "leaf", "", "file with the entry that a bare tlog-proof is about")
	c.RunE = func(c *cobra.Command, files []string) error {
		opts := verify.Options{Now: time.Now(), MaxAge: o.maxAge}
		if o.maxAge < 0 {
			return usageError(errors.New("--max-age is negative"))
		}
		if t := c.Flag("tenant"); t.Changed {
			id, err := nhi.ParseID(t.Value.String())
			if err != nil {
				return usageError(fmt.Errorf("--tenant: %w", err))
			}
			opts.Expect.Tenant = &id
		}
		if c.Flag("index").Changed {
			opts.Expect.Index = &o.index
		}
		for _, e := range []struct {
			flag, text string
			to         **time.Time
		}{{"--from", o.from, &opts.Expect.From}, {"--to", o.to, &opts.Expect.To}} {
			if e.text == "" {
				continue
			}
			t, err := time.Parse(time.RFC3339Nano, e.text)
			if err != nil {
				return usageError(fmt.Errorf("%s: %q is not a time in RFC 3339", e.flag, e.text))
			}
			*e.to = &t
		}
		if o.leaf != "" {
			b, err := readBounded(o.leaf, verify.MaxLeafSize)
			if err != nil {
				return localError(fmt.Errorf("read leaf: %w", err))
			}
			opts.Leaf = b
		}
		return a.verifyFiles(files, o.report, opts)
	}
	return c
}

func (a *app) verifyFiles(files []string, report string, o verify.Options) error {
	switch filepath.Ext(report) {
	case "", ".html", ".htm", ".json":
	default:
		return usageError(fmt.Errorf("--report %q is neither .html nor .json", report))
	}
	trust, err := a.readTrust(files)
	if err != nil {
		return err
	}
	var results []verified
	var first *verify.Failure
	for _, name := range files {
		r, err := a.verifyFile(name, trust, o)
		if err != nil {
			var failure *verify.Failure
			if !errors.As(err, &failure) {
				return localError(err)
			}
			if first == nil {
				first = failure
			}
		}
		results = append(results, verified{name, r})
	}
	if err := a.printVerified(results, trust); err != nil {
		return err
	}
	if report != "" {
		if err := writeReport(report, results, trust, time.Now()); err != nil {
			return localError(err)
		}
		a.say("report written to %s", report)
	}
	if first != nil {
		return &failure{code: first.ExitCode, err: first, silent: true}
	}
	return nil
}

// readTrust reads the trust file: the one that was named, or trust.txt beside the first file.
func (a *app) readTrust(files []string) (*verify.Trust, error) {
	path := a.settings.trust
	if path == "" {
		path = filepath.Join(filepath.Dir(files[0]), "trust.txt")
		if _, err := os.Stat(path); err != nil {
			return nil, usageError(errors.New("no trust file"), "name it with --trust FILE; `creto ledger trust` fetches it, its twelve words tell whether it is the right one")
		}
		a.say("using %s", path)
	}
	b, err := readBounded(path, verify.MaxTrustSize)
	if err != nil {
		return nil, localError(fmt.Errorf("read trust file: %w", err))
	}
	t, err := verify.ParseTrust(b)
	if err != nil {
		return nil, &failure{code: exitUntrusted, err: fmt.Errorf("read trust file %s: %w", path, err),
			hints: []string{"fetch it again with `creto ledger trust`, and compare its twelve words"}}
	}
	return t, nil
}

func (a *app) verifyFile(name string, t *verify.Trust, o verify.Options) (*verify.Report, error) {
	var in io.Reader = a.in
	var size int64
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("open proof: %w", err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil {
			if info.IsDir() {
				return nil, localError(fmt.Errorf("open proof: %s is a directory", name), "name the files in it")
			}
			size = info.Size()
		}
		in = f
	}
	p := a.progress("verifying "+filepath.Base(name), "MB")
	defer p.done()
	o.Content = checkContent
	return verify.VerifyAny(bufio.NewReaderSize(&countingReader{r: in, total: size, p: p}, 1<<16), t, o)
}

// countingReader tells a progress bar how far it is, in megabytes.
type countingReader struct {
	r           io.Reader
	read, total int64
	p           *progress
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.read += int64(n)
	c.p.set(uint64(c.read>>20), uint64(c.total>>20))
	return n, err
}

func (a *app) printVerified(results []verified, t *verify.Trust) error {
	if a.settings.quiet || a.settings.output != "table" {
		return list(a, results)
	}
	for i, r := range results {
		if i > 0 {
			fmt.Fprintln(a.shown())
		}
		if _, err := a.shown().Write(reportText(r, t)); err != nil {
			return err
		}
	}
	return nil
}

// reportText is a report for people.
func reportText(v verified, t *verify.Trust) []byte {
	var b bytes.Buffer
	r := v.Report
	verdict := "PASS"
	if !r.OK {
		verdict = "FAIL"
	}
	fmt.Fprintf(&b, "%s  %s  (%s)\n", verdict, v.File, r.Kind)
	for _, s := range r.Steps {
		mark := "ok  "
		switch {
		case s.Skipped:
			mark = "--  "
		case !s.OK:
			mark = "FAIL"
		}
		fmt.Fprintf(&b, "  %s %-13s %s\n", mark, s.Name, s.Detail)
	}
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&b, "%s\n", title)
		for _, l := range lines {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	if r.OK {
		section("proved:", r.Statement)
		if p := r.Period; p != nil {
			section("adds up to:", periodLines(p))
		}
		as := r.AsOf
		if r.Test {
			as += "  (a test ledger: its clock can be moved)"
		}
		if as != "" {
			section("as of:", []string{as})
		}
		var keys []string
		for _, k := range r.Keys {
			line := k.Role + " " + k.Name + " " + k.ID
			if k.Time != "" {
				line += " at " + k.Time
			}
			keys = append(keys, line)
		}
		section("under the keys:", append(keys, "trust file: "+t.Fingerprint()))
		section("not proved:", r.NotProved)
		return b.Bytes()
	}
	f := r.Failure
	fmt.Fprintf(&b, "failed at step %q, exit code %d\n  %s\n", f.Step, f.ExitCode, f.Detail)
	fmt.Fprintf(&b, "this means: %s\n", classText(f.Class))
	fmt.Fprintf(&b, "next: %s\n", f.Advice)
	return b.Bytes()
}

func periodLines(p *verify.Period) []string {
	out := []string{fmt.Sprintf("leaves   %d in [%s, %s)", p.Leaves, p.From, p.To)}
	for _, m := range []struct {
		name   string
		counts map[string]uint64
	}{{"outcomes", p.Outcomes}, {"kinds", p.Kinds}} {
		out = append(out, fmt.Sprintf("%-8s %s", m.name, joinCounts(m.counts)))
	}
	for _, meter := range sortedKeys(p.Totals) {
		out = append(out, fmt.Sprintf("total    %s %s", p.Totals[meter], meter))
	}
	if p.Partial {
		out = append(out, "more meters or kinds than are listed here")
	}
	return out
}

func joinCounts(m map[string]uint64) string {
	var parts []string
	for _, k := range sortedKeys(m) {
		parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(parts, ", ")
}

// classText says what a class of failures means for whoever sees it.
func classText(c verify.FailureClass) string {
	switch c {
	case verify.ClassDamaged:
		return "the file is damaged: it is not what was written"
	case verify.ClassMalformed:
		return "this is no file of a kind or version that this program knows"
	case verify.ClassTrust:
		return "the trust file is out of date, or of another cluster: it does not know the keys, or too few of them have signed"
	case verify.ClassTampering:
		return "an intact file whose proof does not hold: this is evidence of tampering"
	case verify.ClassMismatch:
		return "a good proof, but of something else than was asked for"
	}
	return string(c)
}
