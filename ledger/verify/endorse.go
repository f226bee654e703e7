package verify

import (
	"errors"
	"fmt"
	"strings"
)

// Endorsement is what a trust file makes of a checkpoint note whose signatures hold.
type Endorsement struct {
	Checkpoint Checkpoint
	Log        VKey            // the log key that signed it
	Cosigners  []CosignatureBy // known cosigners, in the order of the note
	Quorum     string          // the quorum that is reached
}

// CosignatureBy is one cosignature that holds.
type CosignatureBy struct {
	Name string // the trust file's name of the witness
	Key  VKey
	Time int64 // POSIX seconds
}

// Oldest returns the time of the oldest cosignature in POSIX seconds, 0 if there is none.
func (e *Endorsement) Oldest() int64 {
	var oldest int64
	for _, c := range e.Cosigners {
		if oldest == 0 || c.Time < oldest {
			oldest = c.Time
		}
	}
	return oldest
}

// The reasons why a trust file does not endorse a checkpoint; match them with errors.Is.
var (
	ErrUnknownLog  = errors.New("no log key of the trust file signed the checkpoint")
	ErrNoQuorum    = errors.New("the quorum of the trust file is not reached")
	ErrOutOfPeriod = errors.New("the key is not valid at the time of its signature")
)

// Endorse checks a checkpoint note: the log's signature, every cosignature by a key that the trust file knows, and the
// quorum. Signatures by unknown keys are ignored; a known key's signature that does not hold, or a second one by the same
// key, refuses the whole note. The error matches ErrUnknownLog, ErrNoQuorum, ErrOutOfPeriod, ErrSignature or ErrNote.
func (t *Trust) Endorse(n *Note) (*Endorsement, error) {
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return nil, err
	}
	e := &Endorsement{Checkpoint: c, Quorum: t.Quorum}
	seen := make(map[VKey]bool)
	var logKeys []VKey
	for _, s := range n.Signatures {
		key, name, ok := t.known(s, c.Origin)
		if !ok {
			continue
		}
		if seen[key] {
			return nil, fmt.Errorf("%w: two signatures by %s", ErrSignature, clip(s.Name))
		}
		seen[key] = true
		at, err := key.Verify(n.Text, s)
		if err != nil {
			return nil, err
		}
		if key.Type == KeyEd25519 {
			logKeys = append(logKeys, key)
		} else if t.validAt(name, at) {
			e.Cosigners = append(e.Cosigners, CosignatureBy{Name: name, Key: key, Time: at})
		}
	}
	if len(logKeys) == 0 {
		return nil, fmt.Errorf("%w: origin %s", ErrUnknownLog, clip(c.Origin))
	}
	if err := t.reached(e); err != nil {
		return nil, err
	}
	// A log signature carries no time of its own; the oldest cosignature bounds it.
	for _, key := range logKeys {
		if at := e.Oldest(); at == 0 || t.validAt(key.String(), at) {
			e.Log = key
			return e, nil
		}
	}
	return nil, fmt.Errorf("%w: log %s", ErrOutOfPeriod, clip(c.Origin))
}

// known finds the trust file's key for a signature line, with the name under which intervals know it.
func (t *Trust) known(s NoteSignature, origin string) (VKey, string, bool) {
	if s.Name == origin {
		for _, l := range t.Logs {
			if l.Key.Matches(s) {
				return l.Key, l.Key.String(), true
			}
		}
	}
	for _, w := range t.Witnesses {
		if w.Key.Matches(s) {
			return w.Key, w.Name, true
		}
	}
	return VKey{}, "", false
}

// validAt says whether a key may be used at a time in POSIX seconds.
func (t *Trust) validAt(name string, at int64) bool {
	for _, v := range t.Valid {
		if v.Name == name {
			return v.From <= at && at < v.To
		}
	}
	return true
}

// reached evaluates the quorum. Groups refer to earlier names only, so one pass in order is enough.
func (t *Trust) reached(e *Endorsement) error {
	if t.Quorum == QuorumNone {
		return nil
	}
	holds := make(map[string]bool, len(t.Witnesses)+len(t.Groups))
	for _, c := range e.Cosigners {
		holds[c.Name] = true
	}
	for _, g := range t.Groups {
		k := 0
		for _, m := range g.Members {
			if holds[m] {
				k++
			}
		}
		holds[g.Name] = k >= g.K
	}
	if holds[t.Quorum] {
		return nil
	}
	var have []string
	for _, c := range e.Cosigners {
		have = append(have, c.Name)
	}
	if len(have) == 0 {
		return fmt.Errorf("%w: %q has no cosignature", ErrNoQuorum, t.Quorum)
	}
	return fmt.Errorf("%w: %q has only %s", ErrNoQuorum, t.Quorum, clip(strings.Join(have, ", ")))
}
