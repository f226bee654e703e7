package meter

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/creto-systems/creto/meter/kind"
)

// FuzzZoneRules: rules that were accepted give instances that contain their stamp, whatever the rules say.
func FuzzZoneRules(f *testing.F) {
	rules, err := os.ReadFile(filepath.Join("testdata", "Europe_Berlin.tzif"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rules, noon)
	f.Add(rules, int64(-1))
	f.Add([]byte("TZif2"), int64(0))
	f.Fuzz(func(t *testing.T, rules []byte, at int64) {
		body, err := kind.ZoneBody{Zone: "Test/Zone", Rules: rules}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		b, err := kind.DecodeZoneBody(body)
		if err != nil {
			return
		}
		loc, err := time.LoadLocationFromTZData(b.Zone, b.Rules)
		if err != nil {
			t.Fatalf("rules were accepted and do not load: %v", err)
		}
		for p := kind.Hour; p <= kind.Total; p++ {
			if i := InstanceAt(p, 31, loc, at); i.Start > i.End {
				t.Fatalf("%s of %d is [%d, %d)", p, at, i.Start, i.End)
			}
		}
	})
}
