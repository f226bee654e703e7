package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type hostileView struct {
	Text string         `json:"text"`
	Body map[string]any `json:"body"`
}

func (h hostileView) quietID() string { return h.Text }

// What somebody else wrote reaches no terminal as controls, in whatever form it is printed; and JSON and YAML still say it.
func TestNothingHiddenReachesTheTerminal(t *testing.T) {
	const evil = "pay \x1b[2J\u009b31m\u202etxt\u2066\U000e0041\u2028\x7f\r ok ünïcödé 漢字"
	for _, output := range []string{"table", "json", "jsonl", "yaml"} {
		for _, quiet := range []bool{false, true} {
			var out, talk bytes.Buffer
			a := &app{out: &out, err: &talk, getenv: func(string) string { return "" }}
			a.settings.output, a.settings.quiet = output, quiet
			v := hostileView{evil, map[string]any{"k": evil}}
			if err := a.object(v); err != nil {
				t.Fatal(err)
			}
			if err := list(a, []hostileView{v, v}); err != nil {
				t.Fatal(err)
			}
			a.say("told: %s", evil)
			if i := strings.IndexFunc(out.String()+talk.String(), hidden); i >= 0 {
				t.Errorf("%s, quiet %t: got %q", output, quiet, out.String()+talk.String())
			}
			if !strings.Contains(out.String(), "ünïcödé 漢字") {
				t.Errorf("%s, quiet %t: got %q, which has lost what is harmless", output, quiet, out.String())
			}
			if quiet || output == "table" || output == "jsonl" {
				continue
			}
			out.Reset()
			if err := a.object(v); err != nil {
				t.Fatal(err)
			}
			var got hostileView
			read := json.Unmarshal
			if output == "yaml" {
				read = func(b []byte, v any) error {
					var m struct {
						Text string
						Body map[string]any
					}
					err := yaml.Unmarshal(b, &m)
					*v.(*hostileView) = hostileView{m.Text, m.Body}
					return err
				}
			}
			if err := read(out.Bytes(), &got); err != nil || got.Text != evil || got.Body["k"] != evil {
				t.Errorf("%s: got %+q, %v back, want what was written", output, got, err)
			}
		}
	}
	text := approvalText(approvalView{Operation: evil, Parameters: json.RawMessage(`{"a":"` + strings.ReplaceAll(evil[4:], "\r", "") + `"}`)})
	if strings.IndexFunc(visible(text), hidden) >= 0 {
		t.Errorf("approval: got %q", visible(text))
	}
}

// A character that two writes share comes out whole.
func TestVisibleWriterKeepsCharactersWhole(t *testing.T) {
	const text = "a漢\u009b字ß\xff."
	for cut := range len(text) {
		var out bytes.Buffer
		w := &visibleWriter{w: &out}
		for _, part := range []string{text[:cut], text[cut:]} {
			if _, err := w.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := out.String(), visible(text); got != want {
			t.Errorf("cut at %d: got %q, want %q", cut, got, want)
		}
	}
}
