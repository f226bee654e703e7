package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// reportFile is the JSON form of a report over all files.
type reportFile struct {
	Made        string     `json:"made"`
	Program     string     `json:"program"`
	LedgerID    string     `json:"ledger_id"`
	Fingerprint string     `json:"trust_fingerprint"`
	OK          bool       `json:"ok"`
	Files       []verified `json:"files"`
}

// writeReport writes what was verified to a file that can be put into a folder: HTML by its ending, otherwise JSON.
func writeReport(path string, results []verified, t *verify.Trust, now time.Time) error {
	v := buildVersion()
	r := reportFile{
		Made: now.UTC().Format(time.RFC3339), Program: "creto " + v.Version + " " + v.Revision, LedgerID: fmt.Sprintf("%x", t.LedgerID),
		Fingerprint: t.Fingerprint(), OK: true, Files: results,
	}
	for _, f := range results {
		r.OK = r.OK && f.OK
	}
	var b bytes.Buffer
	if ext := filepath.Ext(path); ext == ".html" || ext == ".htm" {
		if err := reportPage.Execute(&b, r); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	} else {
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// reportPage is one self-contained page: no script, nothing fetched.
var reportPage = template.Must(template.New("report").Funcs(template.FuncMap{
	"class": classText, "period": periodLines,
}).Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Verification report, {{.Made}}</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1a1a1a;background:#fff}
h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2.5em;border-top:1px solid #ccc;padding-top:1em;overflow-wrap:anywhere}
h3{font-size:1em;margin-bottom:.2em}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25em .7em .25em 0;border-bottom:1px solid #eee}
code,td.k{font-family:ui-monospace,monospace;font-size:.87em;overflow-wrap:anywhere}
.ok{color:#0a6b2d}.bad{color:#a01515}.v{font-weight:700}
@media print{body{margin:0;max-width:none}}
</style></head><body>
<h1>Verification report</h1>
<table>
<tr><th>Result</th><td class="v {{if .OK}}ok{{else}}bad{{end}}">{{if .OK}}everything held{{else}}not everything held{{end}}</td></tr>
<tr><th>Made</th><td>{{.Made}} by {{.Program}}, offline</td></tr>
<tr><th>Ledger</th><td class="k">{{.LedgerID}}</td></tr>
<tr><th>Trust file</th><td>{{.Fingerprint}}</td></tr>
</table>
<p>The result rests on the trust file. Its twelve words above are to be compared, over another channel, with those the operator
or an auditor gave.</p>
{{range .Files}}
<h2>{{.File}}</h2>
<p class="v {{if .OK}}ok{{else}}bad{{end}}">{{if .OK}}PASS{{else}}FAIL{{end}} ({{.Kind}} file)</p>
{{with .Failure}}<table>
<tr><th>Failed at</th><td>{{.Step}} (exit code {{.ExitCode}})</td></tr>
<tr><th>What</th><td>{{.Detail}}</td></tr>
<tr><th>This means</th><td>{{class .Class}}</td></tr>
<tr><th>Next</th><td>{{.Advice}}</td></tr></table>{{end}}
{{with .Statement}}<h3>Proved</h3><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{with .AsOf}}<p>As of {{.}}.{{end}}{{if .Test}} This is a test ledger, whose clock can be moved.{{end}}
{{with .Period}}<h3>Adds up to</h3><ul>{{range period .}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{with .Subject}}<h3>The leaf</h3><table>
<tr><th>Tenant</th><td class="k">{{.Tenant}}</td></tr>
<tr><th>Index</th><td>{{.Index}}</td></tr>
<tr><th>Time</th><td>{{.Time}}{{with .Quality}} ({{.}}){{end}}</td></tr>
<tr><th>Kind</th><td>{{.Kind}}</td></tr>
<tr><th>Outcome</th><td>{{.Outcome}}</td></tr>
{{with .Agent}}<tr><th>Agent</th><td class="k">{{.}}</td></tr>{{end}}
{{with .Account}}<tr><th>Account</th><td class="k">{{.}}</td></tr>{{end}}
{{range .Chain}}<tr><th>Chain</th><td class="k">{{.}}</td></tr>{{end}}
{{range $m, $n := .Amounts}}<tr><th>{{$m}}</th><td>{{$n}}</td></tr>{{end}}
<tr><th>Leaf hash</th><td class="k">{{.LeafHash}}</td></tr></table>{{end}}
<h3>Steps</h3><table>{{range .Steps}}<tr>
<td class="{{if .Skipped}}{{else if .OK}}ok{{else}}bad{{end}}">{{if .Skipped}}–{{else if .OK}}ok{{else}}FAIL{{end}}</td>
<td>{{.Name}}</td><td>{{.Detail}}</td></tr>{{end}}</table>
{{with .Keys}}<h3>Under whose keys</h3><table>{{range .}}<tr><td>{{.Role}}</td><td class="k">{{.Name}}</td><td class="k">{{.ID}}</td><td>{{.Time}}</td></tr>{{end}}</table>{{end}}
{{with .NotProved}}<h3>Not proved</h3><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{end}}
</body></html>
`))
