package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// formats are the values of -o.
var formats = []string{"table", "json", "jsonl", "yaml"}

// count is a number that may exceed what JSON readers keep exactly: beyond 2^53 it is a string.
type count uint64

func (c count) MarshalJSON() ([]byte, error) {
	s := strconv.FormatUint(uint64(c), 10)
	if c > 1<<53 {
		return []byte(`"` + s + `"`), nil
	}
	return []byte(s), nil
}

func (c count) String() string { return strconv.FormatUint(uint64(c), 10) }

// instant is a time in RFC 3339 with nanoseconds, UTC; the zero value is "".
type instant time.Time

func instantNs(ns int64) instant {
	if ns == 0 {
		return instant{}
	}
	return instant(time.Unix(0, ns).UTC())
}

func (t instant) String() string {
	if time.Time(t).IsZero() {
		return ""
	}
	return time.Time(t).UTC().Format(time.RFC3339Nano)
}

func (t instant) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// identified is a value whose id -q prints.
type identified interface{ quietID() string }

// object prints one value: a table is "name  value" lines, one for each field.
//
// Names come from the json tags; a field tagged table:"-" is left out of tables.
func (a *app) object(v identified) error {
	if a.settings.quiet {
		_, err := fmt.Fprintln(a.shown(), v.quietID())
		return err
	}
	switch a.settings.output {
	case "json":
		return writeJSON(a.shown(), v, "  ")
	case "jsonl":
		return writeJSON(a.shown(), v, "")
	case "yaml":
		return writeYAML(a.shown(), v)
	}
	w := tabwriter.NewWriter(a.shown(), 0, 0, 2, ' ', 0)
	for _, f := range fields(reflect.TypeOf(v)) {
		text := f.text(v)
		if text == "" {
			continue
		}
		lines := strings.Split(text, "\n")
		fmt.Fprintf(w, "%s\t%s\n", strings.ReplaceAll(f.name, "_", " "), lines[0])
		for _, l := range lines[1:] {
			fmt.Fprintf(w, "\t%s\n", l)
		}
	}
	return w.Flush()
}

// list prints values of one type: a table has one row for each. An empty list is [] in JSON and YAML, and nothing but talk in
// a table.
func list[T identified](a *app, rows []T) error {
	s := newStream[T](a)
	for _, r := range rows {
		if err := s.add(r); err != nil {
			return err
		}
	}
	return s.close()
}

// stream prints values as they come, as far as the format allows: a table and JSON are written at the end, unless flushEach.
type stream[T identified] struct {
	a    *app
	rows []T
	n    int
	w    *tabwriter.Writer
	live bool // nobody waits for an end: write each value at once

	widths []int // of the columns of a live table: a column that once was wider stays so
}

func newStream[T identified](a *app) *stream[T] { return &stream[T]{a: a} }

func (s *stream[T]) add(v T) error {
	s.n++
	switch {
	case s.a.settings.quiet:
		_, err := fmt.Fprintln(s.a.shown(), v.quietID())
		return err
	case s.a.settings.output == "jsonl", s.a.settings.output == "json" && s.live:
		return writeJSON(s.a.shown(), v, "")
	case s.a.settings.output == "table":
		return s.row(v)
	}
	s.rows = append(s.rows, v)
	if s.live {
		defer func() { s.rows = nil }()
		return writeYAML(s.a.shown(), s.rows)
	}
	return nil
}

func (s *stream[T]) row(v T) error {
	fs := fields(reflect.TypeOf(v))
	cells := make([]string, len(fs))
	for i, f := range fs {
		cells[i] = strings.ReplaceAll(f.text(v), "\n", " ")
		if cells[i] == "" {
			cells[i] = "-"
		}
	}
	lines := [][]string{cells}
	if s.w == nil {
		s.w = tabwriter.NewWriter(s.a.shown(), 0, 0, 2, ' ', 0)
		s.widths = make([]int, len(fs))
		names := make([]string, len(fs))
		for i, f := range fs {
			names[i] = strings.ToUpper(f.name)
		}
		lines = [][]string{names, cells}
	}
	for _, l := range lines {
		if s.live {
			s.pad(l)
		}
		fmt.Fprintln(s.w, strings.Join(l, "\t"))
	}
	if s.live {
		return s.w.Flush()
	}
	return nil
}

// pad makes cells as wide as those above them, which are on the screen already.
func (s *stream[T]) pad(cells []string) {
	for i := range cells[:len(cells)-1] {
		s.widths[i] = max(s.widths[i], utf8.RuneCountInString(cells[i]))
		cells[i] += strings.Repeat(" ", s.widths[i]-utf8.RuneCountInString(cells[i]))
	}
}

func (s *stream[T]) close() error {
	if s.a.settings.quiet || s.live {
		return nil
	}
	switch s.a.settings.output {
	case "json":
		if s.rows == nil {
			s.rows = []T{}
		}
		return writeJSON(s.a.shown(), s.rows, "  ")
	case "yaml":
		if s.rows == nil {
			s.rows = []T{}
		}
		return writeYAML(s.a.shown(), s.rows)
	case "table":
		if s.w == nil {
			s.a.say("none")
			return nil
		}
		return s.w.Flush()
	}
	return nil
}

type field struct {
	name  string
	index []int
	omit  bool // a zero value is left out of JSON, so tables show nothing for it
}

// text is the field of a value in a table.
func (f field) text(v any) string {
	x := reflect.Indirect(reflect.ValueOf(v)).FieldByIndex(f.index)
	if f.omit && x.IsZero() {
		return ""
	}
	return short(cell(x))
}

// maxCell bounds one line of a cell, in characters: keys and signatures are for JSON.
const maxCell = 160

func short(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if r := []rune(l); len(r) > maxCell {
			lines[i] = fmt.Sprintf("%s… (%d characters; -o json shows all)", string(r[:maxCell-40]), len(r))
		}
	}
	return strings.Join(lines, "\n")
}

// fields lists the fields of a struct that tables show, those of embedded structs in place.
func fields(t reflect.Type) []field {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for _, g := range fields(f.Type) {
				out = append(out, field{g.name, append([]int{i}, g.index...), g.omit})
			}
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" || f.Tag.Get("table") == "-" {
			continue
		}
		out = append(out, field{name, []int{i}, strings.Contains(options, "omit")})
	}
	return out
}

// cell is the text of one value in a table.
func cell(v reflect.Value) string {
	if !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return ""
	}
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return s.String()
	}
	switch v.Kind() {
	case reflect.Pointer:
		return cell(v.Elem())
	case reflect.Slice:
		if v.Len() == 0 {
			return ""
		}
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = cell(v.Index(i))
		}
		sep := ", "
		if v.Type().Elem().Kind() == reflect.Struct {
			sep = "\n"
		}
		return strings.Join(parts, sep)
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.Interface { // a body or a detail
			return mapCell(v)
		}
		var parts []string
		for _, k := range v.MapKeys() {
			parts = append(parts, cell(k)+"="+cell(v.MapIndex(k)))
		}
		sort.Strings(parts)
		return strings.Join(parts, " ")
	case reflect.Struct:
		var parts []string
		for _, f := range fields(v.Type()) {
			x := v.FieldByIndex(f.index)
			if f.omit && x.IsZero() {
				continue
			}
			if s := cell(x); s != "" {
				parts = append(parts, f.name+"="+s)
			}
		}
		return strings.Join(parts, " ")
	case reflect.Interface:
		return cell(v.Elem())
	}
	return fmt.Sprint(v.Interface())
}

// mapCell shows a decoded body: one line for each key.
func mapCell(v reflect.Value) string {
	var parts []string
	for _, k := range v.MapKeys() {
		parts = append(parts, cell(k)+": "+cell(v.MapIndex(k)))
	}
	sort.Strings(parts)
	return strings.Join(parts, "\n")
}

func writeJSON(w io.Writer, v any, indent string) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}

// writeYAML writes what JSON would, in block form: the names and the order are JSON's.
func writeYAML(w io.Writer, v any) error {
	var b bytes.Buffer
	if err := writeJSON(&b, v, ""); err != nil {
		return err
	}
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(visibleYAML(b.String())), &n); err != nil {
		return fmt.Errorf("format YAML: %w", err)
	}
	block(&n)
	b.Reset()
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(&n), e.Close()); err != nil {
		return fmt.Errorf("format YAML: %w", err)
	}
	_, err := io.WriteString(w, visibleYAML(b.String()))
	return err
}

func block(n *yaml.Node) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str" && strings.IndexFunc(n.Value, hidden) >= 0:
		n.Style = yaml.DoubleQuotedStyle // in which escapes count
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str":
		n.Style = 0
	case len(n.Content) > 0:
		n.Style = 0
	}
	for _, c := range n.Content {
		block(c)
	}
}
