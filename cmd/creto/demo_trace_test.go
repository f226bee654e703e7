package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/test/shared"
)

func TestReadTrace(t *testing.T) {
	const text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319600,3180,8\r\n2023-11-16 18:17:04.0319600,0,0"
	got, err := readTrace(strings.NewReader(text), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []traceRow{{0, 4808, 10}, {52 * time.Millisecond, 3180, 8}, {52 * time.Millisecond, 0, 0}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(traceRow{})); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if got, err := readTrace(strings.NewReader(text), 2); err != nil || len(got) != 2 {
		t.Errorf("limit 2: got %d rows, %v", len(got), err)
	}
}

func TestReadTraceRefuses(t *testing.T) {
	for _, tt := range []struct{ name, rows string }{
		{"nothing", ""},
		{"two fields", "2023-11-16 18:17:03.9799600,4808"},
		{"negative", "2023-11-16 18:17:03.9799600,-1,10"},
		{"fraction", "2023-11-16 18:17:03.9799600,1.5,10"},
		{"too many tokens", "2023-11-16 18:17:03.9799600,1,1099511627777"},
		{"no time", "yesterday,1,1"},
		{"time goes back", "2023-11-16 18:17:03.9,1,1\n2023-11-16 18:17:03.8,1,1"},
		{"long line", "2023-11-16 18:17:03.9,1," + strings.Repeat("0", maxTraceLine) + "1"},
	} {
		if rows, err := readTrace(strings.NewReader("h\n"+tt.rows), 0); err == nil {
			t.Errorf("%s: got %d rows, want an error", tt.name, len(rows))
		}
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add("h\n2023-11-16 18:17:03.9799600,4808,10\n")
	f.Add("h\n2023-11-16 18:17:03.9799600,4808,10\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		rows, err := readTrace(strings.NewReader(text), 100)
		if err != nil {
			return
		}
		if len(rows) == 0 || len(rows) > 100 || rows[0].after != 0 {
			t.Errorf("got %d rows, the first after %s, want 1 to 100, the first at once", len(rows), rows[0].after)
		}
		for i := 1; i < len(rows); i++ {
			if rows[i].after < rows[i-1].after {
				t.Errorf("row %d: time goes back", i)
			}
		}
	})
}

func TestMadeTraceHasTheRecordedShape(t *testing.T) {
	f, err := os.Open(filepath.Join(shared.Dir(t, "data"), "azure-llm-code.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	recorded, err := readTrace(f, 0)
	if err != nil {
		t.Fatal(err)
	}
	made := madeTrace(0)
	if len(made) != len(recorded) || len(made) != traceRows {
		t.Fatalf("got %d generated and %d recorded requests, want %d", len(made), len(recorded), traceRows)
	}
	if diff := cmp.Diff(made, madeTrace(0), cmp.AllowUnexported(traceRow{})); diff != "" {
		t.Errorf("generated twice (-first +second):\n%s", diff)
	}
	wantIn, wantOut := tokensOf(recorded)
	gotIn, gotOut := tokensOf(made)
	within := func(what string, got, want float64) {
		if got < want/2 || got > want*2 {
			t.Errorf("%s: got %.0f, want within a factor of two of %.0f", what, got, want)
		}
	}
	within("input tokens", float64(gotIn), float64(wantIn))
	within("output tokens", float64(gotOut), float64(wantOut))
	within("duration", made[traceRows-1].after.Seconds(), recorded[traceRows-1].after.Seconds())
}
