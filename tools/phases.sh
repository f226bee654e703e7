#!/usr/bin/env bash
# phases.sh TARGET…: runs make targets in order, says how long each took, stops at the first
# that fails, and closes with the package results of the test run.
set -uo pipefail
cd "$(dirname "$0")/.."

mkdir -p bin
rm -f bin/test.log
began=$SECONDS
summary=()

finish() {
	if [[ -s bin/test.log ]]; then
		echo
		echo "== go test, by package"
		grep -E '^(ok|FAIL|---|panic:|-test.shuffle)' bin/test.log | grep -v -e '^-test.shuffle' -e '^--- PASS'
	fi
	echo
	echo "== phases"
	printf '%s\n' "${summary[@]}"
}

for target; do
	echo
	echo "== $target"
	start=$SECONDS
	"${MAKE:-make}" --no-print-directory "$target"
	code=$?
	took=$((SECONDS - start))
	if ((code != 0)); then
		summary+=("$(printf '%-16s FAILED after %4d s' "$target" "$took")")
		finish
		echo "make test: failed in $target after $((SECONDS - began)) s"
		exit "$code"
	fi
	echo "-- $target: ok, $took s"
	summary+=("$(printf '%-16s ok     %4d s' "$target" "$took")")
done
finish
echo "make test: ok in $((SECONDS - began)) s"
