package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// parseID parses an id argument and names it in the error.
func parseID(what, s string) (nhi.ID, error) {
	id, err := nhi.ParseID(s)
	if err != nil {
		return id, usageError(fmt.Errorf("%s %q is not an id", what, s), "an id has 26 characters, a to z and 2 to 7")
	}
	return id, nil
}

func parseLink(s string) (nhi.LinkID, error) {
	l, err := nhi.ParseLinkID(s)
	if err != nil {
		return l, usageError(fmt.Errorf("link %q is not a link id", s), "a link id has 64 hexadecimal digits")
	}
	return l, nil
}

func parseIndex(what, s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > verify.MaxTreeSize {
		return 0, usageError(fmt.Errorf("%s %q is not a leaf index", what, s))
	}
	return n, nil
}

func parseAmount(what, s string) (uint64, error) {
	n, err := strconv.ParseUint(strings.ReplaceAll(s, "_", ""), 10, 63)
	if err != nil {
		return 0, usageError(fmt.Errorf("%s %q is not a whole number below 2^63", what, s))
	}
	return n, nil
}

// parseQuantities parses METER=N arguments. A meter that comes twice is an error.
func parseQuantities(args []string) ([]verify.Quantity, error) {
	var out []verify.Quantity
	for _, a := range args {
		meter, n, ok := strings.Cut(a, "=")
		if !ok || meter == "" {
			return nil, usageError(fmt.Errorf("%q is not METER=N", a))
		}
		if slices.ContainsFunc(out, func(q verify.Quantity) bool { return q.Meter == meter }) {
			return nil, usageError(fmt.Errorf("meter %s stands there twice", meter))
		}
		amount, err := parseAmount("amount of "+meter, n)
		if err != nil {
			return nil, err
		}
		out = append(out, verify.Quantity{Meter: meter, N: amount})
	}
	return out, nil
}

// parseTime parses a time: RFC 3339, a date (UTC), or a duration before now such as 90m or 24h.
func parseTime(what, s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, usageError(fmt.Errorf("%s %q is no time", what, s), "2026-11-25T08:00:00Z, 2026-11-25, or how long ago: 90m")
}

// timeRange parses --from and --to; an empty one is open.
func timeRange(from, to string) (f, t int64, err error) {
	now := time.Now()
	for _, e := range []struct {
		name, text string
		ns         *int64
	}{{"--from", from, &f}, {"--to", to, &t}} {
		if e.text == "" {
			continue
		}
		at, err := parseTime(e.name, e.text, now)
		if err != nil {
			return 0, 0, err
		}
		if *e.ns = at.UnixNano(); *e.ns <= 0 {
			return 0, 0, usageError(fmt.Errorf("%s lies before 1970", e.name))
		}
	}
	if t != 0 && f >= t {
		return 0, 0, usageError(errors.New("--from is not before --to"))
	}
	return f, t, nil
}

// colons splits s at its colons into exactly as many fields as there are names.
func colons(what, s string, names ...string) ([]string, error) {
	parts := strings.Split(s, ":")
	if len(parts) != len(names) || slices.Contains(parts, "") {
		return nil, usageError(fmt.Errorf("%s %q is not %s", what, s, strings.Join(names, ":")))
	}
	return parts, nil
}
