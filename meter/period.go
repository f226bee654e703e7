package meter

import (
	"math"
	"time"

	"github.com/creto-systems/creto/meter/kind"
)

// Instance is one occurrence of a period: the half-open interval [Start, End) of consensus time, Unix nanoseconds. Total
// has the one instance [0, MaxInt64). (Period, Start) is its identity.
type Instance struct {
	Period kind.Period
	Start  int64
	End    int64
}

func (i Instance) contains(at int64) bool {
	return at >= i.Start && at < i.End || i.Period == kind.Total
}

// InstanceAt returns the instance of p that at lies in. anchor is the first day of a month, 1 to 31 (0 means 1), and
// ignored otherwise. It is a pure function: of loc it uses only the rules.
//
// A day begins at the first instant at which local clocks show its midnight or, where that is skipped, the first instant
// after it; so instances follow one another without gap or overlap whatever a zone does to its clocks. An hour ends early
// where the zone's offset changes within it.
func InstanceAt(p kind.Period, anchor int, loc *time.Location, at int64) Instance {
	sec := floorDiv(at, int64(time.Second))
	var lo, hi int64
	switch p {
	case kind.Hour:
		lo, hi = hourAround(loc, sec)
	case kind.Day:
		lo, hi = around(sec, floorDiv(localSecond(loc, sec), daySeconds), func(k int64) int64 {
			return startOfDay(loc, k)
		})
	case kind.Week:
		// Day 0 of the Unix epoch was a Thursday: Monday, day -3, begins week 0.
		lo, hi = around(sec, floorDiv(floorDiv(localSecond(loc, sec), daySeconds)+3, 7), func(k int64) int64 {
			return startOfDay(loc, k*7-3)
		})
	case kind.Month:
		anchor = max(anchor, 1)
		y, m, _ := time.Unix(localSecond(loc, sec), 0).UTC().Date()
		lo, hi = around(sec, int64(y)*12+int64(m)-1, func(k int64) int64 {
			y, m := int(floorDiv(k, 12)), time.Month(k-floorDiv(k, 12)*12+1)
			last := time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day()
			return startOfDay(loc, floorDiv(time.Date(y, m, min(anchor, last), 0, 0, 0, 0, time.UTC).Unix(), daySeconds))
		})
	default:
		return Instance{Period: kind.Total, End: math.MaxInt64}
	}
	return Instance{Period: p, Start: nanos(lo), End: nanos(hi)}
}

const daySeconds = 24 * 60 * 60

// around finds the k with start(k) ≤ sec < start(k+1), looking from a guess that is at most a few units off.
func around(sec, k int64, start func(int64) int64) (lo, hi int64) {
	lo, hi = start(k), start(k+1)
	for range 4 {
		switch {
		case sec < lo:
			k--
			lo, hi = start(k), lo
		case sec >= hi:
			k++
			lo, hi = hi, start(k+1)
		default:
			return lo, hi
		}
	}
	return lo, hi
}

func hourAround(loc *time.Location, sec int64) (lo, hi int64) {
	t := time.Unix(sec, 0).In(loc)
	_, offset := t.Zone()
	lo = floorDiv(sec+int64(offset), 3600)*3600 - int64(offset)
	hi = lo + 3600
	if loc != time.UTC {
		from, to := t.ZoneBounds()
		if !from.IsZero() {
			lo = max(lo, from.Unix())
		}
		if !to.IsZero() {
			hi = min(hi, to.Unix())
		}
	}
	return lo, hi
}

// startOfDay returns the first second at which clocks in loc show midnight of the day-th day since 1970-01-01 or later.
// time.Date is no help: of the two readings of a midnight that occurs twice, or never, it does not say which it takes.
func startOfDay(loc *time.Location, day int64) int64 {
	wall := day * daySeconds
	if loc == time.UTC {
		return wall
	}
	t := time.Unix(wall-26*3600, 0).In(loc) // no offset is as large as 26 h: clocks show an earlier day here
	for range 64 {
		_, offset := t.Zone()
		from, to := t.ZoneBounds()
		at := wall - int64(offset)
		if !from.IsZero() {
			at = max(at, from.Unix())
		}
		if to.IsZero() || at < to.Unix() {
			return at
		}
		t = to
	}
	return wall // 64 changes of the clock within two days: such rules get days of UTC
}

// localSecond returns what a clock in loc shows at sec, as if it were UTC.
func localSecond(loc *time.Location, sec int64) int64 {
	_, offset := time.Unix(sec, 0).In(loc).Zone()
	return sec + int64(offset)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// nanos converts seconds to nanoseconds, held within the range of an int64.
func nanos(sec int64) int64 {
	const most = math.MaxInt64 / int64(time.Second)
	switch {
	case sec > most:
		return math.MaxInt64
	case sec < -most:
		return math.MinInt64
	}
	return sec * int64(time.Second)
}
