package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// visible replaces what a terminal would act on, or show as something else than it is: controls, C1 as well as C0, and format
// characters such as those that turn the direction of text. What agents write reaches people who decide about it. The
// replacements are escapes of JSON, which keeps its meaning.
func visible(s string) string {
	return escape(s, func(r rune) string {
		hi, lo := utf16.EncodeRune(r)
		return fmt.Sprintf(`\u%04x\u%04x`, hi, lo)
	})
}

// visibleYAML is visible for YAML, whose escapes know no surrogates.
func visibleYAML(s string) string {
	return escape(s, func(r rune) string { return fmt.Sprintf(`\U%08x`, r) })
}

func escape(s string, wide func(rune) string) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !hidden(r):
			b.WriteRune(r)
		case r > 0xffff:
			b.WriteString(wide(r))
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func hidden(r rune) bool {
	return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
}

// visibleWriter writes text as visible makes it. A character that is cut by the end of a write waits for the next one.
type visibleWriter struct {
	w    io.Writer
	tail []byte
}

func (v *visibleWriter) Write(b []byte) (int, error) {
	text := append(v.tail, b...)
	cut := len(text)
	for i := 1; i <= min(utf8.UTFMax-1, len(text)); i++ {
		if at := len(text) - i; utf8.RuneStart(text[at]) {
			if !utf8.FullRune(text[at:]) {
				cut = at
			}
			break
		}
	}
	v.tail = append([]byte(nil), text[cut:]...)
	if _, err := io.WriteString(v.w, visible(string(text[:cut]))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// shown is where text for people and scripts goes; files that are written as they are go to a.out itself.
func (a *app) shown() io.Writer { return &visibleWriter{w: a.out} }
