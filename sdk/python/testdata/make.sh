#!/bin/sh
# Makes the files of testdata/dev anew: testdata/make.sh CRETO DIR, with the program creto and an empty folder.
set -eu
creto=$1
out=$2
work=$(mktemp -d)
"$creto" dev --dir "$work/data" --port 0 --ready "$work/ready.json" >"$work/log" &
pid=$!
trap 'kill $pid; wait $pid || true; rm -rf "$work"' EXIT
until [ -f "$work/ready.json" ]; do sleep 0.2; done
eval "$("$creto" env --ready "$work/ready.json")"
cp "$work/data/trust.txt" "$out/trust.txt"
until "$creto" ledger checkpoint --out "$out/early.checkpoint" 2>/dev/null; do sleep 0.2; done
"$creto" load --events 40 --batch 8 --agents 2
"$creto" load --events 6 --single --agents 1
"$creto" ledger proof 0 --out "$out/register.creto-proof"
"$creto" ledger proof 5 --out "$out/delegated-register.creto-proof"
"$creto" ledger proof 20 --out "$out/batch.creto-proof"
"$creto" ledger checkpoint --out "$out/late.checkpoint"
"$creto" ledger consistency "$out/early.checkpoint" "$out/late.checkpoint" --out "$out/consistency.creto-proof"
"$creto" ledger export --out "$out/log.creto-complete"
"$creto" ledger export --system --payloads --out "$out/system.creto-complete"
