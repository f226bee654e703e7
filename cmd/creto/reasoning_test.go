package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

func TestReasonsAreWhatWasSigned(t *testing.T) {
	ad := nhi.Addendum{Salt: [16]byte{1}, Data: []byte("invoice 7")}
	view := func(state string, list ...nhi.Addendum) *cretov1.EventView {
		v := &cretov1.EventView{AddendaState: state}
		for _, a := range list {
			v.Addenda = append(v.Addenda, &cretov1.Addendum{Salt: a.Salt[:], Data: a.Data})
		}
		return v
	}
	changed := nhi.Addendum{Salt: ad.Salt, Data: []byte("invoice 8")}
	for name, tt := range map[string]struct {
		view   *cretov1.EventView
		signed nhi.Digest
		want   reasons
		bad    bool
	}{
		"none":      {view("present", ad), nhi.Digest{}, reasons{}, false},
		"there":     {view("present", changed, ad), nhi.AddendumDigest(ad), reasons{"invoice 7", "present"}, false},
		"changed":   {view("present", changed), nhi.AddendumDigest(ad), reasons{}, true},
		"long salt": {&cretov1.EventView{Addenda: []*cretov1.Addendum{{Salt: make([]byte, 17), Data: ad.Data}}}, nhi.AddendumDigest(ad), reasons{}, true},
		"erased":    {view("erased at index 9"), nhi.AddendumDigest(ad), reasons{"", "erased at index 9"}, false},
		"withheld":  {view("present"), nhi.AddendumDigest(ad), reasons{"", "withheld by the server"}, false},
	} {
		got, err := matchReasons(tt.view, 7, tt.signed)
		mismatch, ok := errors.AsType[*creto.MismatchError](err)
		if got != tt.want || ok != tt.bad || ok && (mismatch.Request != 7 || explain(err).code != exitSignature) {
			t.Errorf("%s: got %+v, %v, want %+v, mismatch %v", name, got, err, tt.want, tt.bad)
		}
	}
}

// No line that an agent writes can pass for one of the request's.
func TestReasonsAreQuoted(t *testing.T) {
	text := approvalText(approvalView{State: "pending", Parameters: []byte("{}"), Reasons: "please\nstate          approved\r\n\n" + strings.Repeat("long\n", 100)})
	lines := strings.Split(text, "\n")
	states, marked := 0, 0
	for _, l := range lines {
		if strings.HasPrefix(l, "state ") {
			states++
		}
		if strings.Contains(l, " | ") {
			marked++
		}
	}
	if states != 1 || marked != maxShownReasonLines || !strings.Contains(text, "there is more") {
		t.Errorf("got %d lines with a state and %d quoted, want 1 and %d, and a word about the rest:\n%s", states, marked, maxShownReasonLines, text)
	}
	if got := strings.Join(quoted(strings.Repeat("é", maxShownReasons)), "\n"); len(got) > maxShownReasons+100 || strings.Contains(got, "\ufffd") {
		t.Errorf("a long line: got %d bytes", len(got))
	}
}
