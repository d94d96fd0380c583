# karve: what there is to do. `make` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
KUBERNETES := v1.36.6
PREFIX     ?= /usr/local
PKG        ?= ./...
SUDO       := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
export CGO_ENABLED := 0

KUBEVERSION := $(foreach p,k8s.io/component-base/version k8s.io/client-go/pkg/version,\
	-X $(p).gitVersion=$(KUBERNETES) -X $(p).gitMajor=1 -X $(p).gitMinor=36)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: bin/karve bin/kubectl ## build bin/karve and bin/kubectl

# go build decides itself what is old: these run every time, and take a second when nothing has changed.
.PHONY: bin/karve bin/kubectl
bin/karve: engine/runtime/bin/sums
	go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $@ ./cmd/karve

bin/kubectl:
	go build -trimpath -ldflags "-s -w $(KUBEVERSION)" -o $@ ./cmd/kubectl

# runc and karve-shim, which are embedded in karve.
engine/runtime/bin/sums: engine/runtime/build.sh tools/runc/go.mod $(wildcard cmd/karve-shim/*.go) $(wildcard engine/shim/*.go) | tools
	./engine/runtime/build.sh

# runc is C in part: a compiler, pkg-config and libseccomp's static library. Tests run a static busybox, and look for tables
# that were left with nft; without them they skip. Installed where that can be done unasked.
.PHONY: tools
tools:
	@command -v go >/dev/null || { echo "missing: go (https://go.dev/dl)"; exit 1; }
	@missing=; \
	command -v gcc >/dev/null || missing="$$missing gcc"; \
	command -v pkg-config >/dev/null || missing="$$missing pkg-config"; \
	{ command -v pkg-config >/dev/null && pkg-config --exists libseccomp; } || missing="$$missing libseccomp-dev"; \
	wanted=; \
	[ -x /bin/busybox ] || wanted="$$wanted busybox-static"; \
	command -v nft >/dev/null || wanted="$$wanted nftables"; \
	[ -z "$$missing$$wanted" ] && exit 0; \
	install() { echo "installing $$*"; { apt-get install -y -qq --no-install-recommends "$$@" || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$$@"; }; } >/dev/null; }; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		[ -z "$$missing" ] || install $$missing; \
		[ -z "$$wanted" ] || install $$wanted || echo "not installed:$$wanted"; \
	elif [ -z "$$missing" ]; then echo "missing for some tests:$$wanted"; \
	else echo "missing:$$missing (install with your package manager)"; exit 1; fi

.PHONY: up
up: build ## start a cluster on this machine
	$(SUDO) bin/karve up

.PHONY: down
down: ## remove the cluster without a trace
	$(SUDO) bin/karve down

.PHONY: demo
demo: build ## a shop of four programs: deployed, broken, scaled, updated under load, rolled back
	go build -trimpath -o bin/demo ./examples/shop/demo
	$(SUDO) env "PATH=$$PATH" bin/demo

.PHONY: test
test: build ## run the tests (as root: all of them)
	go test -timeout 20m $(PKG)
	cd test/clients && go test -timeout 15m ./...

FUZZTIME ?= 10s
.PHONY: fuzz
fuzz: ## run every fuzz test for FUZZTIME each (10s)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' . | sed 's|/[^/]*_test.go:func | |' | sort -u | while read -r dir name; do \
		echo "== $$dir $$name"; go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "$$dir"; done

.PHONY: bench
bench: build ## measure clusters, the API and parts of it, and write docs/measurements.md
	go build -trimpath -o bin/bench ./test/bench
	$(SUDO) env "PATH=$$PATH" bin/bench

.PHONY: lint
lint: engine/runtime/bin/sums ## formatting, vet, staticcheck and go.mod
	@files=$$({ git ls-files -co --exclude-standard '*.go' 2>/dev/null | grep . || find . -name '*.go'; } | while read -r f; do [ ! -e "$$f" ] || echo "$$f"; done); \
	unformatted=$$(gofmt -l $$files); \
	[ -z "$$unformatted" ] || { echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; }
	go vet $(PKG)
	go tool staticcheck $(PKG)
	go mod tidy -diff

.PHONY: gen
gen: ## generate the checked-in *_gen.go files
	go generate $(PKG)

.PHONY: install
install: build ## install karve and its kubectl below PREFIX (/usr/local)
	install -D -m 0755 bin/karve "$(DESTDIR)$(PREFIX)/bin/karve"
	install -D -m 0755 bin/kubectl "$(DESTDIR)$(PREFIX)/lib/karve/kubectl"
