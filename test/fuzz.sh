#!/usr/bin/env bash
# fuzz.sh: fuzzes every Fuzz target for FUZZTIME (3s). Packages whose tests link the server
# (Raft or Pebble) take minutes to build with coverage instrumentation: they are left out, and
# named, unless FUZZALL=1; their seeds run with the ordinary tests either way.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${FUZZTIME:=3s}" "${FUZZALL:=}"

ran=0
failed=0
while read -r pkg dir; do
	targets=$(cat "$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*\*testing\.F).*/\1/p' | sort -u || true)
	[[ -n $targets ]] || continue
	if [[ -z $FUZZALL ]] && go list -test -deps "$pkg" | grep -qE '^github\.com/(hashicorp/raft|cockroachdb/pebble)(/|$)'; then
		echo "fuzz: $pkg links the server; make fuzz runs its" $targets
		continue
	fi
	for target in $targets; do
		ran=$((ran + 1))
		start=$SECONDS
		# Before Go 1.27 the deadline that ends a run is sometimes reported as a failure without
		# an input (go.dev/issue/75804): that, and only that, is tried again.
		for try in 1 2 3; do
			if out=$(go test -vet=off -timeout 0 -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 10x "$pkg" 2>&1); then
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
