package registry

import (
	"testing"

	"github.com/creto-systems/creto/nhi"
)

// deep is a chain of four links.
func deep(b *testing.B) (*family, nhi.LinkID) {
	f := newFamily(b)
	third := f.link(f.third(), f.b)
	return f, f.link(f.childOf(third, f.other), f.c)
}

func BenchmarkResolveChain4Cold(b *testing.B) {
	f, id := deep(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ResolveChain(f.tenant, id, f.index); err != nil {
			b.Fatal(err)
		}
	}
}

// After an epoch has risen: links are known, who is alive is read again.
func BenchmarkResolveChain4NewEpoch(b *testing.B) {
	f, id := deep(b)
	c, at := NewChainCache(0), f.at()
	b.ReportAllocs()
	for b.Loop() {
		at.Revocation++
		if _, err := c.Resolve(f.tenant, at, id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResolveChain4Hot(b *testing.B) {
	f, id := deep(b)
	c, at := NewChainCache(0), f.at()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Resolve(f.tenant, at, id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResolveSignerHot(b *testing.B) {
	f, _ := deep(b)
	c, at, key := NewSignerCache(0), f.at(), f.c.key.Public().ID()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Resolve(f.tenant, at, key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAllows(b *testing.B) {
	f, id := deep(b)
	c, err := ResolveChain(f.tenant, id, f.index)
	if err != nil {
		b.Fatal(err)
	}
	r := f.request(c, "quota.reserve")
	r.Account = idOf("project")
	r.Amounts = []Amount{{"tokens", 10}}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Allows(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRegisterLink4(b *testing.B) {
	f := newFamily(b)
	third := f.link(f.third(), f.b)
	body, _ := f.signed(f.childOf(third, f.other), f.c)
	raw, err := body.Encode()
	if err != nil {
		b.Fatal(err)
	}
	env, by := f.env(), f.by(f.c)
	b.ReportAllocs()
	for b.Loop() {
		if r := f.deciders[KindRegisterLink].Decide(env, by, raw); r.Code != OK {
			b.Fatal(r.Code)
		}
	}
}

func BenchmarkDecodeLink(b *testing.B) {
	f := newFamily(b)
	r, err := ResolveLink(f.tenant, f.second, f.index)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeLink(r.Body); err != nil {
			b.Fatal(err)
		}
	}
}
