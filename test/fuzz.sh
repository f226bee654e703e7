#!/usr/bin/env bash
# fuzz.sh: fuzzes every Fuzz target of every package for FUZZTIME (3s). Each package's test binary
# is linked once and runs its targets in turn. Only our own packages are instrumented for coverage:
# `go test -fuzz` would instrument Raft and Pebble too, which takes minutes and guides nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${FUZZTIME:=3s}"

ran=0
failed=0
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
corpus=$(go env GOCACHE)/fuzz
while read -r pkg dir; do
	targets=$(cat "$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*\*testing\.F).*/\1/p' | sort -u || true)
	[[ -n $targets ]] || continue
	if ! go test -c -vet=off -gcflags='github.com/creto-systems/creto/...=-d=libfuzzer' -o "$bin/fuzz.test" "$pkg"; then
		echo "fuzz: FAIL $pkg does not build"
		failed=$((failed + 1))
		continue
	fi
	for target in $targets; do
		ran=$((ran + 1))
		start=$SECONDS
		# Before Go 1.27 the deadline that ends a run is sometimes reported as a failure without
		# an input (go.dev/issue/75804): that, and only that, is tried again.
		for try in 1 2 3; do
			if out=$(cd "$dir" && "$bin/fuzz.test" -test.timeout 0 -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$FUZZTIME" \
				-test.fuzzminimizetime 10x -test.fuzzcachedir "$corpus/$pkg" 2>&1); then
				last=$(grep -E '^fuzz: elapsed' <<<"$out" | tail -n 1 || true)
				echo "fuzz: ok   $target ($((SECONDS - start)) s) ${pkg#*/creto/}${last:+, ${last#fuzz: }}"
				break
			fi
			if ((try < 3)) && grep -q 'context deadline exceeded' <<<"$out" && ! grep -q 'Failing input written' <<<"$out"; then
				continue
			fi
			echo "fuzz: FAIL $target $pkg"
			echo "$out"
			failed=$((failed + 1))
			break
		done
	done
done < <(go list -f '{{.ImportPath}} {{.Dir}}' ./...)

echo "fuzz: $ran targets, $failed failed"
if ((ran == 0)); then
	echo "fuzz: no target found" >&2
	exit 1
fi
((failed == 0))
