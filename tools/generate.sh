#!/usr/bin/env bash
# generate.sh [--check]: writes the Go of proto/creto/v1 beside its sources, or with --check
# writes it to a temporary folder and fails when the two differ. Needs no network beyond the
# Go module proxy and no buf registry: buf/validate comes from the module cache.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! compgen -G 'proto/creto/v1/*.proto' >/dev/null; then
	echo "generate: proto/creto/v1 has no .proto files" >&2
	exit 1
fi

mkdir -p bin/tools
go build -C tools -o ../bin/tools/buf github.com/bufbuild/buf/cmd/buf

# The module cache is read-only; a copy keeps buf's workspace inside the repository and removable.
go -C tools mod download github.com/bufbuild/protovalidate
validate=$(go -C tools list -m -f '{{.Dir}}' github.com/bufbuild/protovalidate)/proto/protovalidate/buf/validate/validate.proto
deps=proto/.deps/protovalidate/buf/validate
if ! cmp -s "$validate" "$deps/validate.proto"; then
	mkdir -p "$deps"
	cp "$validate" "$deps/validate.proto"
	chmod u+w "$deps/validate.proto"
fi

out=.
if [[ ${1:-} == --check ]]; then
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
fi

cd proto
../bin/tools/buf lint --path creto
../bin/tools/buf generate --template buf.gen.yaml -o "$out"

if [[ $out != . ]]; then
	stale=0
	for f in $({ (cd "$out" && find creto -name "*.pb.go"); find creto -name "*.pb.go"; } | sort -u); do
		cmp -s "$f" "$out/$f" || { echo "generate: proto/$f is not what its source says; run make generate" >&2; stale=1; }
	done
	exit $stale
fi
