# Go 1.26, git, make, a C compiler (for -race) and Python are all that building and testing need;
# CONTRIBUTING.md has the command that installs the rest. `make help` explains every target.

SHELL      := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS  += --no-print-directory

# One set of flags for all that is not -race: vet, staticcheck, fuzzing and the binary then share
# one build cache, which is minutes on two cores.
export CGO_ENABLED := 0
export GOFLAGS     := $(strip $(filter-out -trimpath,$(GOFLAGS)) -trimpath)
RACE = CGO_ENABLED=1 $(GO) test -race -shuffle=on -vet=off

GO        ?= go
FUZZTIME  ?= 60s
SOAKTIME  ?= 30m
BENCHTIME ?= 60s
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

# What gates a change, in the order in which a mistake is found soonest.
PHASES := fmt vet staticcheck generate-check arch race fuzz-seeds cross wasm python readme

.PHONY: build test check fmt vet staticcheck arch race cluster fuzz fuzz-seeds soak bench demo \
	vuln generate generate-check cross wasm python readme clean help

build: ## build bin/creto, static and reproducible (the default target)
	$(GO) build -o bin/creto ./cmd/creto

test: ## everything that gates a change, phase by phase with durations; what CI runs
	@GO="$(GO)" tools/phases.sh $(PHASES)

check: fmt vet arch ## the fast subset: formatting, vet, import rule, unit tests without -race
	$(GO) test -vet=off $$($(GO) list ./... | grep -v '/creto/test/')

fmt: ## list files that gofmt would change, and fail if there are any
	@files=$$(find . -name '*.go' -not -path './bin/*' -not -path './proto/.deps/*' -not -path '*/testdata/*'); \
	out=$$(gofmt -l $$files); if [[ -n $$out ]]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

vet: ## go vet on every package
	$(GO) vet ./...

staticcheck: ## staticcheck in the version that go.mod pins
	$(GO) tool staticcheck ./...

arch: ## the import rule, package comments and DESIGN.md files (test/arch)
	$(GO) test -vet=off ./test/arch

race: ## unit and cluster tests of all packages, -race -shuffle=on
	@mkdir -p bin
	$(RACE) -p 2 -timeout 15m ./... 2>&1 | tee bin/test.log

cluster: build ## only what crosses packages: real clusters, faults, end to end
	$(RACE) -p 1 -timeout 15m ./test/...

fuzz: ## fuzz every target of every package for FUZZTIME each (60s)
	FUZZTIME=$(FUZZTIME) test/fuzz.sh

fuzz-seeds: ## fuzz every target of every package, 3 s each
	@FUZZTIME=3s test/fuzz.sh

soak: build ## long runs under faults (tests named TestSoak…) for SOAKTIME (30m)
	CRETO_SOAK=$(SOAKTIME) $(GO) test -count=1 -run '^TestSoak' -timeout 0 -v ./test/...

bench: build ## the figures the design must reach, with percentiles and machine, BENCHTIME per load (60s)
	CRETO_BENCH=$(BENCHTIME) $(GO) run ./test/bench

demo: build ## three nodes, real traffic, a killed leader, an approval, a sandbox, proofs checked offline
	@$(GO) build -o bin/creto-hello ./sandbox/hello
	@bin/creto demo

vuln: ## known vulnerabilities in what we link (asks vuln.go.dev, so not part of test)
	$(GO) build -C tools -o ../bin/tools/govulncheck golang.org/x/vuln/cmd/govulncheck
	bin/tools/govulncheck ./...

generate: ## write the Go of proto/creto/v1 beside its sources
	tools/generate.sh

generate-check: ## fail if the generated Go is not what its sources say
	@tools/generate.sh --check

# Whether it compiles and links is the question; without inlining the answer takes half as long.
cross: ## build cmd/creto for linux, darwin and windows on amd64 and arm64, without cgo
	@host=$$($(GO) env GOHOSTOS)/$$($(GO) env GOHOSTARCH); \
	for p in $(PLATFORMS); do \
		flags=-gcflags=all=-l; [[ $$p != $$host ]] || flags=; \
		echo "$$p"; \
		GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build $$flags -o /dev/null ./cmd/creto; \
	done

wasm: ## build the verifier for the browser
	GOOS=js GOARCH=wasm $(GO) build -o /dev/null ./ledger/verify/wasm

python: build ## the verifier in Python: its tests, and both verifiers on the same files
	cd sdk/python && python3 -m unittest

readme: ## run the README's commands as written (all but make test, which is this)
	@tools/readme.sh README.md

clean: ## remove what building and the demo leave behind
	rm -rf bin proto/.deps demo-out

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
