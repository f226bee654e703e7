package authz

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Bounds of a policy text. Cedar's parser recurses without a limit of its own
// and a stack overflow in Go cannot be recovered, so they hold before it runs.
const (
	MaxTextBytes = 64 << 10 // bytes of one set or guard
	MaxPolicies  = 1000     // policies of one set or guard
	MaxNesting   = 64       // brackets, ifs and unary operators open at once
	maxOperators = 1024     // operators of one policy: they make the tree deep without nesting the text
	maxDots      = 32       // attributes in a row; `has a.b.c` costs their square
)

// scanBounds reads the text once, as tokens, and reports the first bound that
// it breaks and the line of it. It accepts much that is not Cedar: the parser
// judges that.
func scanBounds(text []byte) (line int, err error) {
	if len(text) > MaxTextBytes {
		return 0, fmt.Errorf("text has %d bytes, at most %d are allowed", len(text), MaxTextBytes)
	}
	s := boundScanner{text: text, line: 1}
	if err := s.scan(); err != nil {
		return s.line, err
	}
	return 0, nil
}

type boundScanner struct {
	text []byte
	pos  int
	line int

	open  []byte // the brackets open, and an 'i' for every if whose end is not known yet
	unary int    // ! and - directly before this token
	ops   int    // operators of this policy
	dots  int    // dots in the attribute path that ends here
}

func (s *boundScanner) scan() error {
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		switch {
		case c == '\n':
			s.line++
			s.pos++
		case c == ' ' || c == '\t' || c == '\r':
			s.pos++
		case c == '/' && s.peek(1) == '/':
			if err := s.skipLine(); err != nil {
				return err
			}
		case c == '/' && s.peek(1) == '*':
			if err := s.skipComment(); err != nil {
				return err
			}
		case c == '"':
			if err := s.skipString(); err != nil {
				return err
			}
			s.unary, s.dots = 0, 0
		case isWord(c):
			s.word()
		default:
			if err := s.operator(c); err != nil {
				return err
			}
		}
		if n := len(s.open) + s.unary; n > MaxNesting {
			return fmt.Errorf("nesting is deeper than %d", MaxNesting)
		}
	}
	return nil
}

func (s *boundScanner) peek(n int) byte {
	if s.pos+n < len(s.text) {
		return s.text[s.pos+n]
	}
	return 0
}

// rune checks the character at pos and steps over it. Format characters
// (bidirectional overrides, zero-width joiners) make a text read differently
// from what it says, so they must be written as escapes.
func (s *boundScanner) rune() error {
	r, n := utf8.DecodeRune(s.text[s.pos:])
	switch {
	case r == utf8.RuneError && n <= 1:
		return fmt.Errorf("text is not valid UTF-8")
	case r == '\n':
		s.line++
	case r != '\t' && r != '\r' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
		return fmt.Errorf("character %U is invisible and not allowed", r)
	}
	s.pos += n
	return nil
}

func (s *boundScanner) skipLine() error {
	for s.pos < len(s.text) && s.text[s.pos] != '\n' {
		if err := s.rune(); err != nil {
			return err
		}
	}
	return nil
}

func (s *boundScanner) skipComment() error {
	s.pos += 2
	for s.pos < len(s.text) {
		if s.text[s.pos] == '*' && s.peek(1) == '/' {
			s.pos += 2
			return nil
		}
		if err := s.rune(); err != nil {
			return err
		}
	}
	return fmt.Errorf("comment is not closed")
}

func (s *boundScanner) skipString() error {
	s.pos++
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case '"':
			s.pos++
			return nil
		case '\n':
			return fmt.Errorf("string is not closed")
		case '\\':
			s.pos++
			if s.pos == len(s.text) {
				return fmt.Errorf("string is not closed")
			}
		}
		if err := s.rune(); err != nil {
			return err
		}
	}
	return fmt.Errorf("string is not closed")
}

func isWord(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func (s *boundScanner) word() {
	start := s.pos
	for s.pos < len(s.text) && isWord(s.text[s.pos]) {
		s.pos++
	}
	s.unary = 0
	if string(s.text[start:s.pos]) == "if" {
		s.open = append(s.open, 'i')
		s.dots = 0
	}
}

// operator takes one byte that is no word, string, comment or space. Two-byte
// operators count per byte, which only makes the bound tighter.
func (s *boundScanner) operator(c byte) error {
	if c >= utf8.RuneSelf || c < ' ' || c == 0x7f {
		return fmt.Errorf("character %q is not allowed outside strings and comments", c)
	}
	s.pos++
	if c == '.' {
		if s.dots++; s.dots > maxDots {
			return fmt.Errorf("more than %d attributes in a row", maxDots)
		}
	} else {
		s.dots = 0
	}
	if c == '!' || c == '-' {
		s.unary++
	} else {
		s.unary = 0
	}
	switch c {
	case '(', '[', '{':
		s.open = append(s.open, c)
	case ')', ']', '}':
		s.closeIfs()
		if len(s.open) > 0 {
			s.open = s.open[:len(s.open)-1]
		}
	case ',':
		s.closeIfs()
	case ';':
		s.open, s.ops = s.open[:0], 0
	}
	switch c {
	case '&', '|', '+', '-', '*', '.', '[', '!':
		if s.ops++; s.ops > maxOperators {
			return fmt.Errorf("policy has more than %d operators", maxOperators)
		}
	}
	return nil
}

// closeIfs ends the conditional expressions of the innermost bracket: an
// if has no closing token, its else branch reaches as far as it can.
func (s *boundScanner) closeIfs() {
	for len(s.open) > 0 && s.open[len(s.open)-1] == 'i' {
		s.open = s.open[:len(s.open)-1]
	}
}
