package meter

import (
	"math"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/creto-systems/creto/meter/kind"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func TestInstanceAt(t *testing.T) {
	for _, c := range []struct {
		name       string
		zone       string
		p          kind.Period
		anchor     int
		at         string
		start, end string
		hours      float64
	}{
		{"hour", "UTC", kind.Hour, 0, "2026-03-10T12:34:56Z", "2026-03-10T12:00:00Z", "2026-03-10T13:00:00Z", 1},
		{"day", "UTC", kind.Day, 0, "2026-03-10T12:34:56Z", "2026-03-10T00:00:00Z", "2026-03-11T00:00:00Z", 24},
		{"start belongs to the day", "UTC", kind.Day, 0, "2026-03-10T00:00:00Z", "2026-03-10T00:00:00Z", "2026-03-11T00:00:00Z", 24},
		{"week begins on Monday", "UTC", kind.Week, 0, "2026-03-10T12:00:00Z", "2026-03-09T00:00:00Z", "2026-03-16T00:00:00Z", 168},
		{"Sunday ends the week", "UTC", kind.Week, 0, "2026-03-15T23:59:59Z", "2026-03-09T00:00:00Z", "2026-03-16T00:00:00Z", 168},
		{"month", "UTC", kind.Month, 0, "2026-02-28T23:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", 672},
		{"anchor before", "UTC", kind.Month, 15, "2026-03-14T23:00:00Z", "2026-02-15T00:00:00Z", "2026-03-15T00:00:00Z", 672},
		{"anchor after", "UTC", kind.Month, 15, "2026-03-15T00:00:00Z", "2026-03-15T00:00:00Z", "2026-04-15T00:00:00Z", 744},
		{"anchor over new year", "UTC", kind.Month, 20, "2026-01-03T00:00:00Z", "2025-12-20T00:00:00Z", "2026-01-20T00:00:00Z", 744},
		{"anchor 31 in February", "UTC", kind.Month, 31, "2026-02-28T01:00:00Z", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z", 744},
		{"anchor 31 before the last of February", "UTC", kind.Month, 31, "2026-02-27T23:00:00Z", "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z", 672},
		{"anchor 30 in a leap year", "UTC", kind.Month, 30, "2028-02-29T12:00:00Z", "2028-02-29T00:00:00Z", "2028-03-30T00:00:00Z", 720},
		{"anchor 29 in April", "UTC", kind.Month, 29, "2026-04-30T12:00:00Z", "2026-04-29T00:00:00Z", "2026-05-29T00:00:00Z", 720},

		{"Berlin loses an hour", "Europe/Berlin", kind.Day, 0, "2026-03-29T10:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23},
		{"Berlin gains an hour", "Europe/Berlin", kind.Day, 0, "2026-10-25T10:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25},
		{"Berlin week over the change", "Europe/Berlin", kind.Week, 0, "2026-10-25T22:59:59Z", "2026-10-18T22:00:00Z", "2026-10-25T23:00:00Z", 169},
		{"Berlin month over the change", "Europe/Berlin", kind.Month, 0, "2026-03-31T21:59:59Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z", 743},
		{"Berlin first of the double hour", "Europe/Berlin", kind.Hour, 0, "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", 1},
		{"Berlin second of the double hour", "Europe/Berlin", kind.Hour, 0, "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z", 1},
		{"New York loses an hour", "America/New_York", kind.Day, 0, "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", 23},
		{"New York gains an hour", "America/New_York", kind.Day, 0, "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", 25},
		{"New York before midnight", "America/New_York", kind.Day, 0, "2026-11-01T03:59:59Z", "2026-10-31T04:00:00Z", "2026-11-01T04:00:00Z", 24},
		{"half-hour zone", "Asia/Kolkata", kind.Hour, 0, "2026-03-10T12:34:56Z", "2026-03-10T12:30:00Z", "2026-03-10T13:30:00Z", 1},
		{"midnight is skipped", "America/Sao_Paulo", kind.Day, 0, "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z", 23},
		{"the hour before midnight comes twice", "America/Sao_Paulo", kind.Day, 0, "2018-02-18T02:30:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z", 25},
		{"midnight comes twice", "America/Havana", kind.Day, 0, "2026-11-01T05:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", 25},
		{"a day is skipped", "Pacific/Apia", kind.Day, 0, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z", 24},
		{"offset changes by half an hour", "Australia/Lord_Howe", kind.Hour, 0, "2026-04-04T15:10:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z", 0.5},
	} {
		t.Run(c.name, func(t *testing.T) {
			parse := func(s string) int64 {
				ts, err := time.Parse(time.RFC3339, s)
				if err != nil {
					t.Fatal(err)
				}
				return ts.UnixNano()
			}
			at := parse(c.at)
			got := InstanceAt(c.p, c.anchor, zone(t, c.zone), at)
			want := Instance{Period: c.p, Start: parse(c.start), End: parse(c.end)}
			if got != want {
				t.Fatalf("got [%s, %s), want [%s, %s)", time.Unix(0, got.Start).UTC(), time.Unix(0, got.End).UTC(), c.start, c.end)
			}
			if h := time.Duration(got.End - got.Start).Hours(); h != c.hours {
				t.Fatalf("got %v hours, want %v", h, c.hours)
			}
			if !got.contains(at) {
				t.Fatal("the instance does not contain its stamp")
			}
		})
	}
}

func TestInstanceTotal(t *testing.T) {
	want := Instance{Period: kind.Total, Start: 0, End: math.MaxInt64}
	for _, at := range []int64{0, 1, noon, math.MaxInt64} {
		if got := InstanceAt(kind.Total, 0, time.UTC, at); got != want {
			t.Errorf("at %d: got %v, want %v", at, got, want)
		}
	}
}

// TestInstancesPartitionTime walks a year and more of zones that do everything zones do: the end of an instance is the start
// of the next, and every stamp of an instance has it as its own.
func TestInstancesPartitionTime(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "America/Havana", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo"} {
		loc := zone(t, name)
		for _, from := range []string{"2011-06-01", "2017-09-01", "2026-01-01"} {
			start, err := time.Parse(time.DateOnly, from)
			if err != nil {
				t.Fatal(err)
			}
			for p := kind.Hour; p <= kind.Month; p++ {
				at := start.UnixNano()
				end := start.AddDate(1, 1, 0).UnixNano()
				last := InstanceAt(p, 31, loc, at)
				for at < end {
					for _, inside := range []int64{last.Start, last.Start + (last.End-last.Start)/2, last.End - 1} {
						if got := InstanceAt(p, 31, loc, inside); got != last {
							t.Fatalf("%s %s: %s is in %v, want %v", name, p, time.Unix(0, inside).UTC(), got, last)
						}
					}
					next := InstanceAt(p, 31, loc, last.End)
					if next.Start != last.End || next.End <= next.Start {
						t.Fatalf("%s %s: %v is followed by %v", name, p, last, next)
					}
					at, last = last.End, next
				}
			}
		}
	}
}

func TestInstanceExtremes(t *testing.T) {
	for _, loc := range []*time.Location{time.UTC, zone(t, "Europe/Berlin")} {
		for p := kind.Hour; p <= kind.Total; p++ {
			for _, at := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64} {
				if i := InstanceAt(p, 31, loc, at); i.Start > i.End {
					t.Errorf("%s at %d: got %v", p, at, i)
				}
			}
		}
	}
}
