package spiffe

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSourceSet(t *testing.T) {
	ca, foreign := newTestCA(t, testDomain), newTestCA(t, "other.test")
	b := bundleOf(t, ca)
	s := sourceOf(t, at(epoch()), svidOf(t, ca, node(1), epoch()), b)
	keep := s.SVID()
	if err := s.Set(svidOf(t, ca, node(2), epoch()), b); !errors.Is(err, ErrBadSVID) {
		t.Errorf("another principal: got %v, want ErrBadSVID", err)
	}
	if err := s.Set(svidOf(t, ca, node(1), epoch()), nil); !errors.Is(err, ErrNoBundle) {
		t.Errorf("no bundle: got %v, want ErrNoBundle", err)
	}
	if err := s.Set(nil, bundleOf(t, foreign)); err == nil {
		t.Error("the trust domain changed")
	}
	if s.SVID() != keep || s.Bundle() != b {
		t.Error("a refused SVID or bundle replaced the one there was")
	}
	if _, err := NewSource(at(epoch()), nil, nil); !errors.Is(err, ErrNoBundle) {
		t.Errorf("new source without bundle: got %v, want ErrNoBundle", err)
	}
}

func TestSourceFiles(t *testing.T) {
	ca := newTestCA(t, testDomain)
	dir := t.TempDir()
	f := Files{Cert: filepath.Join(dir, "node.pem"), Key: filepath.Join(dir, "node.key"), Bundle: filepath.Join(dir, "bundle.pem")}
	if _, err := OpenSource(at(epoch()), testDomain, f); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no files: got %v, want not exist", err)
	}
	save := func(s *SVID) {
		t.Helper()
		if err := s.Save(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(f.Bundle, bundleOf(t, ca).PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	first := svidOf(t, ca, node(1), epoch())
	save(first)
	s, err := OpenSource(at(epoch()), testDomain, f)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := s.Reload(); changed || err != nil {
		t.Errorf("nothing new: got %t, %v, want false", changed, err)
	}

	// Half an update: the key is new, the certificate is not yet.
	second := svidOf(t, ca, node(1), epoch())
	cert, key, err := second.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Key, key, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.Reload(); changed || !errors.Is(err, ErrBadSVID) {
		t.Errorf("half an update: got %t, %v, want ErrBadSVID", changed, err)
	}
	if !s.SVID().Certificate().Equal(first.Certificate()) {
		t.Error("half an update replaced the SVID")
	}
	if err := os.WriteFile(f.Cert, cert, 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.Reload(); !changed || err != nil {
		t.Errorf("whole update: got %t, %v, want true", changed, err)
	}
	if !s.SVID().Certificate().Equal(second.Certificate()) {
		t.Error("the SVID is not the new one")
	}
	if _, err := sourceOf(t, at(epoch()), first, bundleOf(t, ca)).Reload(); err == nil {
		t.Error("a source without files reloaded")
	}
	if err := os.WriteFile(f.Key, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reload(); err == nil || strings.Contains(err.Error(), "\"x\"") {
		t.Errorf("garbage key: got %v, want an error without its content", err)
	}
}

func TestSourceWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := NewCA(rand.Reader, testDomain, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		f := Files{Cert: filepath.Join(dir, "c"), Key: filepath.Join(dir, "k"), Bundle: filepath.Join(dir, "b")}
		if err := os.WriteFile(f.Bundle, bundleOf(t, ca).PEM(), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := svidOf(t, ca, node(1), time.Now()).Save(f); err != nil {
			t.Fatal(err)
		}
		s, err := OpenSource(time.Now, testDomain, f)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		reports := make(chan error, 10)
		done := make(chan error, 1)
		go func() { done <- s.Watch(ctx, time.Minute, func(err error) { reports <- err }) }()
		next := svidOf(t, ca, node(1), time.Now())
		if err := next.Save(f); err != nil {
			t.Fatal(err)
		}
		if err := <-reports; err != nil {
			t.Errorf("got %v, want a change", err)
		}
		if !s.SVID().Certificate().Equal(next.Certificate()) {
			t.Error("the SVID is not the new one")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want canceled", err)
		}
	})
}

func TestRotator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ca, err := NewCA(rand.Reader, testDomain, start)
		if err != nil {
			t.Fatal(err)
		}
		b := bundleOf(t, ca)
		s := sourceOf(t, time.Now, svidOf(t, ca, node(1), start), b)
		var calls []time.Duration // these two are Run's until it has returned
		var failures []error
		rotated := make(chan *SVID)
		r := &Rotator{
			Source: s,
			Jitter: func() float64 { return 0.5 },
			Issue: func(context.Context) (*SVID, *Bundle, error) {
				calls = append(calls, time.Since(start))
				if n := len(calls); n > 1 && n <= 13 {
					return nil, nil, errors.New("no issuer")
				}
				svid, err := ca.NewSVID(Order{Principal: node(1)}, time.Now())
				return svid, nil, err
			},
			Rotated: func(s *SVID) { rotated <- s },
			Failed:  func(err error) { failures = append(failures, err) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		for range 2 {
			if got := <-rotated; s.SVID() != got {
				t.Error("the source has not the new SVID")
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want canceled", err)
		}

		// Life is 24h1m from a minute ago; renewal is due at half of it less
		// half of a tenth. The second time the issuer is away: the distance of
		// the attempts grows.
		life := 24*time.Hour + time.Minute
		due := life/2 - life/20 - time.Minute
		want := []time.Duration{due, 2 * due}
		for _, retry := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300} {
			want = append(want, want[len(want)-1]+retry*time.Second)
		}
		if diff := cmp.Diff(want, calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		if len(failures) != 12 {
			t.Errorf("got %d failures, want 12", len(failures))
		}
	})
}

// What an issuer must not give is a failure, and the old SVID stays.
func TestRotatorRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := NewCA(rand.Reader, testDomain, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		b := bundleOf(t, ca)
		s := sourceOf(t, time.Now, svidOf(t, ca, node(1), time.Now()), b)
		keep := s.SVID()
		// Of another CA, with a bundle that has it: only the CA that is trusted can add one.
		other, err := NewCA(rand.Reader, testDomain, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		both, err := b.With(other.Certificate())
		if err != nil {
			t.Fatal(err)
		}
		in13h := time.Now().Add(13 * time.Hour)
		offers := []struct {
			svid   *SVID
			bundle *Bundle
		}{
			{nil, b}, {keep, b}, {svidOf(t, ca, node(2), in13h), b},
			{svidOf(t, other, node(1), in13h), bundleOf(t, other)}, {svidOf(t, other, node(1), in13h), both},
		}
		n := len(offers)
		failed := make(chan error)
		r := &Rotator{
			Source: s, Jitter: func() float64 { return 0 },
			Issue: func(context.Context) (*SVID, *Bundle, error) {
				next := offers[0]
				offers = offers[1:]
				return next.svid, next.bundle, nil
			},
			Failed: func(err error) { failed <- err },
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		for range n {
			if err := <-failed; !errors.Is(err, ErrBadSVID) {
				t.Errorf("got %v, want ErrBadSVID", err)
			}
		}
		if s.SVID() != keep || !sameRoots(s.Bundle(), b) {
			t.Error("a refused SVID, or the bundle with it, replaced what there was")
		}
		cancel()
		<-done
	})
}

// Save cut short after each of its writes leaves the old pair or the new.
func TestSaveCutShort(t *testing.T) {
	ca := newTestCA(t, testDomain)
	old, next := svidOf(t, ca, node(1), epoch()), svidOf(t, ca, node(1), epoch())
	cert, key, err := next.PEM()
	if err != nil {
		t.Fatal(err)
	}
	for written, want := range []*SVID{old, old, next} {
		dir := t.TempDir()
		f := Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
		if err := old.Save(f); err != nil {
			t.Fatal(err)
		}
		for i, w := range []struct {
			path string
			data []byte
		}{{f.nextKey(), key}, {f.Cert, cert}} {
			if i < written {
				if err := os.WriteFile(w.path, w.data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, err := LoadSVID(f)
		if err != nil || !got.Certificate().Equal(want.Certificate()) {
			t.Errorf("after %d writes: got %v, %v, want the pair that the certificate says", written, got, err)
		}
		if err := next.Save(f); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadSVID(f); err != nil || !got.Certificate().Equal(next.Certificate()) {
			t.Errorf("after %d writes and a whole save: got %v, %v, want the new pair", written, got, err)
		}
	}
}
