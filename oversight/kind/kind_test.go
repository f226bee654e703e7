package kind

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

var (
	h1 = nhi.ID{1}
	h2 = nhi.ID{2}
	h3 = nhi.ID{3}
)

func TestParameters(t *testing.T) {
	for _, tt := range []struct{ name, in, fault string }{
		{"empty object", `{}`, ""},
		{"all kinds", `{"a":-1,"b":"x","c":true,"d":[1,"y",false,{}],"e":{"f":0}}`, ""},
		{"largest integers", `{"a":-9007199254740991,"b":9007199254740991}`, ""},
		{"canonical escapes", `{"a":"\"\\\b\f\n\r\t\u0000\u001f/` + "\u007f\u2028€😀" + `"}`, ""},
		{"no object", `[]`, "not a JSON object"},
		{"nothing", ``, "not a JSON object"},
		{"space", `{"a": 1}`, "not canonical"},
		{"trailing space", `{} `, "bytes follow"},
		{"two objects", `{}{}`, "bytes follow"},
		{"unsorted", `{"b":1,"a":2}`, "sorted"},
		{"twice", `{"a":1,"a":2}`, "sorted"},
		{"null", `{"a":null}`, "null"},
		{"fraction", `{"a":1.5}`, "integer"},
		{"exponent", `{"a":1e3}`, "integer"},
		{"too large", `{"a":9007199254740992}`, "integer"},
		{"far too large", `{"a":99999999999999999999}`, "integer"},
		{"leading zero", `{"a":01}`, "shortest"},
		{"minus zero", `{"a":-0}`, "shortest"},
		{"lone minus", `{"a":-}`, "integer"},
		{"needless escape", `{"a":"\u0041"}`, "escape"},
		{"escaped slash", `{"a":"\/"}`, "escape"},
		{"upper-case hex", `{"a":"\u001F"}`, "escape"},
		{"long escape of a newline", `{"a":"\u000a"}`, "escape"},
		{"raw control", "{\"a\":\"\n\"}", "control"},
		{"surrogate escape", `{"a":"\ud83d\ude00"}`, "escape"},
		{"bad UTF-8", "{\"a\":\"\xff\"}", "UTF-8"},
		{"empty key", `{"":1}`, "key"},
		{"spaced key", `{"a b":1}`, "key"},
		{"escaped key", `{"a\n":1}`, "key"},
		{"truncated", `{"a":`, "end"},
		{"open string", `{"a":"b`, "does not end"},
		{"word", `{"a":tru}`, "no value"},
		{"too deep", strings.Repeat(`{"a":`, 7) + `1` + strings.Repeat(`}`, 7), "nested"},
		{"too many values", `{"a":[` + strings.Repeat("1,", MaxParameterValues) + `1]}`, "values"},
		{"long string", `{"a":"` + strings.Repeat("x", MaxParameterString+1) + `"}`, "bytes"},
		{"too long", `{"a":"` + strings.Repeat("x", MaxParameters) + `"}`, "bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseParameters([]byte(tt.in))
			if tt.fault == "" {
				if err != nil {
					t.Fatalf("got %v, want no error", err)
				}
				want, err := jcs.Transform([]byte(tt.in))
				if err != nil || string(want) != tt.in {
					t.Fatalf("RFC 8785 gives %q, %v, want the input %q", want, err, tt.in)
				}
				return
			}
			var bad *InvalidError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.fault) {
				t.Fatalf("got %v, want an *InvalidError that says %q", err, tt.fault)
			}
		})
	}
}

func TestParametersCanonicalises(t *testing.T) {
	got, err := Parameters(map[string]any{"z": 1, "a": []any{"<b>", true}, "m": map[string]int{"y": 2, "x": 1}})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"a":["<b>",true],"m":{"x":1,"y":2},"z":1}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for name, in := range map[string]any{"fraction": map[string]any{"a": 1.5}, "null": map[string]any{"a": nil}, "no object": 3, "no JSON": func() {}} {
		if _, err := Parameters(in); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// The digest of an action is that of the JSON that any JCS library writes for it.
func TestActionDigest(t *testing.T) {
	a, err := NewAction(nhi.ID{0xa, 1}, "pay", "invoice:17", "run-1", map[string]any{"to": "ACME", "amount": 12000})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"agent":"biaqaaaaaaaaaaaaaaaaaaaaaa","operation":"pay","parameters":{"amount":12000,"to":"ACME"},"resource":"invoice:17","run":"run-1"}`
	got := a.Canonical()
	if string(got) != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	again, err := jcs.Transform(got)
	if err != nil || !bytes.Equal(again, got) {
		t.Fatalf("RFC 8785 gives %s, %v, want the same", again, err)
	}
	const frozen = "33a3bcb1b02757e5106bd43a6efe73442f4fccbfcebedc269e10541803e067f3"
	d := a.Digest()
	if got := hex.EncodeToString(d[:]); got != frozen {
		t.Errorf("got digest %s, want %s", got, frozen)
	}
}

func TestActionCheck(t *testing.T) {
	good := Action{Operation: "pay", Resource: "r", Parameters: []byte("{}"), Agent: h1}
	if _, err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Action){
		"no operation":       func(a *Action) { a.Operation = "" },
		"long operation":     func(a *Action) { a.Operation = strings.Repeat("x", MaxOperation+1) },
		"quote in operation": func(a *Action) { a.Operation = `p"y` },
		"space in resource":  func(a *Action) { a.Resource = "a b" },
		"no resource":        func(a *Action) { a.Resource = "" },
		"backslash in run":   func(a *Action) { a.Run = `\` },
		"non-ASCII run":      func(a *Action) { a.Run = "é" },
		"no agent":           func(a *Action) { a.Agent = nhi.ID{} },
		"no parameters":      func(a *Action) { a.Parameters = nil },
		"reserved approval":  func(a *Action) { a.Parameters = []byte(`{"approval":{"granted":true}}`) },
		"reserved root":      func(a *Action) { a.Parameters = []byte(`{"root_human":"x"}`) },
	} {
		a := good
		change(&a)
		if _, err := a.Check(); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func step(approve, deny uint32, timeout time.Duration, humans ...nhi.ID) Step {
	return Step{Eligible: humans, Approve: approve, Deny: deny, Timeout: int64(timeout)}
}

func TestChains(t *testing.T) {
	good := []Chain{
		{Name: "b", Steps: []Step{step(1, 1, time.Hour, h2, h1), step(2, 1, time.Minute, h3)}, Hold: int64(time.Hour)},
		{Name: "a", Steps: []Step{step(1, 1, time.Hour, h1)}},
	}
	b, err := EncodeChains(good)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeChains(b)
	if err != nil {
		t.Fatal(err)
	}
	want := []Chain{
		{Name: "a", Steps: []Step{step(1, 1, time.Hour, h1)}},
		{Name: "b", Steps: []Step{step(1, 1, time.Hour, h1, h2), step(2, 1, time.Minute, h3)}, Hold: int64(time.Hour)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("chains (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]nhi.ID{h1, h2, h3}, got[1].Asked(1)); diff != "" {
		t.Errorf("asked by both steps (-want +got):\n%s", diff)
	}
	if none, err := EncodeChains(nil); none != nil || err != nil {
		t.Errorf("no chains: got %x, %v, want nothing", none, err)
	}
	for name, c := range map[string][]Chain{
		"no name":                  {{Steps: []Step{step(1, 1, time.Hour, h1)}}},
		"bad name":                 {{Name: "a b", Steps: []Step{step(1, 1, time.Hour, h1)}}},
		"same name":                {want[0], want[0]},
		"no steps":                 {{Name: "a"}},
		"nobody":                   {{Name: "a", Steps: []Step{step(0, 1, time.Hour)}}},
		"zero human":               {{Name: "a", Steps: []Step{step(1, 1, time.Hour, nhi.ID{})}}},
		"no approvals wanted":      {{Name: "a", Steps: []Step{step(0, 1, time.Hour, h1)}}},
		"more than there are":      {{Name: "a", Steps: []Step{step(2, 1, time.Hour, h1)}}},
		"the same human twice":     {{Name: "a", Steps: []Step{step(2, 1, time.Hour, h1, h1)}}},
		"no denials wanted":        {{Name: "a", Steps: []Step{step(1, 0, time.Hour, h1)}}},
		"more denials than humans": {{Name: "a", Steps: []Step{step(1, 2, time.Hour, h1)}}},
		"no time":                  {{Name: "a", Steps: []Step{step(1, 1, 0, h1)}}},
		"too long":                 {{Name: "a", Steps: []Step{step(1, 1, MaxTimeout+1, h1)}}},
		"negative hold":            {{Name: "a", Steps: []Step{step(1, 1, time.Hour, h1)}, Hold: -1}},
	} {
		if _, err := EncodeChains(c); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	for name, raw := range map[string][]byte{
		"unsorted chains": canon.MustMarshal([]Chain{want[1], want[0]}),
		"unsorted humans": canon.MustMarshal([]Chain{{Name: "a", Steps: []Step{step(1, 1, time.Hour, h2, h1)}}}),
		"empty list":      canon.MustMarshal([]Chain{}),
		"trailing byte":   append(bytes.Clone(b), 0),
	} {
		if _, err := DecodeChains(raw); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// Every body fits the limits of an event's body, and decodes to what was encoded.
func TestBodies(t *testing.T) {
	chains, err := EncodeChains([]Chain{{Name: "a", Steps: []Step{step(1, 1, time.Hour, h1)}}})
	if err != nil {
		t.Fatal(err)
	}
	action := Action{Operation: "pay", Resource: "r", Parameters: []byte(`{"a":[{"b":1}]}`), Agent: h1}
	request := &RequestBody{Action: action, Rendered: action.Digest(), TTL: int64(time.Hour), Reserve: []Reservation{{"usd", 5, h2}, {"tok", 1, nhi.ID{}}}}
	same := func(name string, encode func() ([]byte, error), decode func([]byte) (any, error), want any) {
		t.Helper()
		b, err := encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ev := nhi.Event{V: 1, Kind: name, Body: b, Agent: h1}
		if _, err := ev.Encode(); err != nil {
			t.Errorf("%s: the body does not fit into an event: %v", name, err)
		}
		got, err := decode(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if _, err := decode(append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("%s: a trailing byte is accepted", name)
		}
	}
	publish := &PublishBody{Hard: "permit (principal, action, resource);", Chains: chains}
	same(Publish, publish.Encode, func(b []byte) (any, error) { return DecodePublishBody(b) }, publish)
	same(Request, request.Encode, func(b []byte) (any, error) { return DecodeRequestBody(b) }, request)
	vote := &VoteBody{Request: 7, Choice: Deny, ActionDigest: nhi.Digest{1}, RequestDigest: nhi.Digest{2}, Reason: nhi.Digest{3}}
	same(Vote, vote.Encode, func(b []byte) (any, error) { return DecodeVoteBody(b) }, vote)
	claim := &ClaimBody{Request: 7, ActionDigest: nhi.Digest{1}}
	same(Claim, claim.Encode, func(b []byte) (any, error) { return DecodeClaimBody(b) }, claim)
	report := &ReportBody{Request: 7, Token: FencingToken{1}, Result: ResultFailed, Digest: nhi.Digest{9}}
	same(Report, report.Encode, func(b []byte) (any, error) { return DecodeReportBody(b) }, report)
	ref := &RefBody{Request: 7}
	same(Cancel, ref.Encode, func(b []byte) (any, error) { return DecodeRefBody(b) }, ref)

	for name, bad := range map[string]interface{ Encode() ([]byte, error) }{
		"policy too large":  &PublishBody{Hard: strings.Repeat(" ", MaxPolicyBytes+1)},
		"policy not UTF-8":  &PublishBody{Soft: "\xff"},
		"bad chains":        &PublishBody{Chains: []byte{0x80}},
		"no rendered":       &RequestBody{Action: action},
		"zero amount":       &RequestBody{Action: action, Rendered: nhi.Digest{1}, Reserve: []Reservation{{"usd", 0, h1}}},
		"huge amount":       &RequestBody{Action: action, Rendered: nhi.Digest{1}, Reserve: []Reservation{{"usd", 1 << 63, h1}}},
		"no meter":          &RequestBody{Action: action, Rendered: nhi.Digest{1}, Reserve: []Reservation{{"", 1, h1}}},
		"many reservations": &RequestBody{Action: action, Rendered: nhi.Digest{1}, Reserve: make([]Reservation, MaxReservations+1)},
		"negative ttl":      &RequestBody{Action: action, Rendered: nhi.Digest{1}, TTL: -1},
		"endless ttl":       &RequestBody{Action: action, Rendered: nhi.Digest{1}, TTL: int64(MaxTTL) + 1},
		"no choice":         &VoteBody{},
		"unknown choice":    &VoteBody{Choice: 4},
		"unknown result":    &ReportBody{Result: 3},
		"no index":          &RefBody{Request: 1 << 53},
	} {
		if _, err := bad.Encode(); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestNames(t *testing.T) {
	for s := StatePending; s <= StateLapsed; s++ {
		if got, ok := ParseState(s.String()); !ok || got != s {
			t.Errorf("state %q: got %v, %v back", s, got, ok)
		}
	}
	for c := Approve; c <= Abstain; c++ {
		if got, ok := ParseChoice(c.String()); !ok || got != c {
			t.Errorf("choice %q: got %v, %v back", c, got, ok)
		}
	}
	if _, ok := ParseState(""); ok {
		t.Error("the empty state is known")
	}
	if got := ShortCode(nhi.Digest{0xff, 0, 0xff, 0, 0xff}); got != "74ap-6ah7" {
		t.Errorf("got short code %q, want 74ap-6ah7", got)
	}
}

// FuzzParameters: whatever is accepted is what RFC 8785 writes, as an independent library has it.
func FuzzParameters(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":-1,"b":["x",true,{"c":0}]}`, `{"a":"\n\u001f€"}`, `{"a":1e3}`, `{"b":1,"a":2}`, `{"a":-0}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseParameters(b); err != nil {
			return
		}
		got, err := jcs.Transform(b)
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("accepted %q, RFC 8785 gives %q, %v", b, got, err)
		}
	})
}

// FuzzBodies: no decoder panics, and whatever one accepts it encodes to the same bytes.
func FuzzBodies(f *testing.F) {
	action := Action{Operation: "pay", Resource: "r", Parameters: []byte(`{}`), Agent: h1}
	for _, b := range []interface{ Encode() ([]byte, error) }{
		&PublishBody{Hard: "permit (principal, action, resource);"}, &RequestBody{Action: action, Rendered: action.Digest()},
		&VoteBody{Request: 1, Choice: Approve}, &ClaimBody{Request: 1}, &ReportBody{Request: 1, Result: ResultExecuted}, &RefBody{Request: 1},
	} {
		raw, err := b.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	chains, err := EncodeChains([]Chain{{Name: "a", Steps: []Step{step(1, 1, time.Hour, h1)}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(chains)
	f.Fuzz(func(t *testing.T, raw []byte) {
		same := func(b interface{ Encode() ([]byte, error) }, err error) {
			t.Helper()
			if err != nil {
				return
			}
			if again, err := b.Encode(); err != nil || !bytes.Equal(again, raw) {
				t.Fatalf("%T: got %x, %v back, want %x", b, again, err, raw)
			}
		}
		p, err := DecodePublishBody(raw)
		same(p, err)
		r, err := DecodeRequestBody(raw)
		same(r, err)
		v, err := DecodeVoteBody(raw)
		same(v, err)
		c, err := DecodeClaimBody(raw)
		same(c, err)
		rep, err := DecodeReportBody(raw)
		same(rep, err)
		ref, err := DecodeRefBody(raw)
		same(ref, err)
		if chains, err := DecodeChains(raw); err == nil && len(raw) > 0 {
			if again, err := EncodeChains(chains); err != nil || !bytes.Equal(again, raw) {
				t.Fatalf("chains: got %x, %v back, want %x", again, err, raw)
			}
		}
	})
}
