# make build     bin/lsnproxy, one static binary
# make demo      a local cluster with the proxy in front of it; takes ARGS
# make test      every test under the race detector, against real servers; simulations without it too;
#                those of compat's clients that come with PostgreSQL or from Go modules
# make lint      format, vet, staticcheck, tidy modules, clean text
# make torture   the long tests: those called TestTorture, behind the build tag torture
# make fuzz      every decoder and the session, a while each; FUZZTIME=1m
# make regress   PostgreSQL's own regression suite, directly and through the proxy
# make bench     lsnproxy, PgBouncer and direct connections in one run; takes ARGS
# make bench-levels  what the levels of consistency cost, and the deliveries of tokens; takes ARGS
# make crowd     10,000 clients over 64 server connections; takes ARGS
# make compat    real clients in many languages, directly and through the proxy; takes ARGS
# make versions  what talks to servers, on other versions of PostgreSQL; takes ARGS, such as 14 18
# make patroni   the proxy in front of servers that Patroni leads
# make example   two web services, in Go and in Python, that pass a token
# make help      this text
#
# ARGS are passed on: make bench ARGS="-clients 16 -seconds 5"

.PHONY: build demo test lint torture fuzz regress bench bench-levels crowd compat clients versions patroni example help
.DEFAULT_GOAL := build

TOOLS := $(CURDIR)/bin/tools
# Modules of their own below this one. tools has no packages, only versions.
NESTED := $(patsubst %/go.mod,%,$(filter-out tools/%,$(wildcard */go.mod */*/go.mod)))
# What scripts/install.sh calls the clients of compat.
COMPAT := python jdbc node php ruby perl
VERSION = $(shell git describe --always --dirty 2>/dev/null || echo unknown)

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/lsnproxy ./cmd/lsnproxy

demo: build
	scripts/install.sh postgres
	bin/lsnproxy demo $(ARGS)

# Two packages at a time: most of a test's time is waiting for its servers. More
# of them would only wait for each other. Compiling first keeps all cores busy then.
test:
	scripts/install.sh gcc postgres
	go test -race -c -o /dev/null ./... >/dev/null
	go test -race -p 2 -timeout 12m ./...
	go test -run '^TestSimulation' ./election
	for m in $(NESTED); do go -C $$m test -timeout 12m ./... || exit 1; done
	$(MAKE) clients ARGS="-clients psql,pgbench,pgx,lib/pq"

torture: fuzz
	go test -race -tags torture -run '^TestTorture' -p 1 -timeout 3h -v ./...
	go -C route/oracle test -timeout 3h -v -seed 0 -each 5000000

FUZZTIME ?= 1m
fuzz:
	scripts/install.sh gcc postgres
	for p in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
		go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done

regress: build
	scripts/regress.sh

bench: build
	scripts/install.sh postgres pgbouncer
	go run ./bench/cmd/bench $(ARGS)

bench-levels: build
	scripts/install.sh postgres
	go run ./bench/cmd/bench -workload write-then-read -modes prepared -clients 16,64 \
		-vary lsnproxy.consistency=eventual,session,service,strong,leader $(ARGS)
	go run ./bench/cmd/bench -workload tpcb-like -modes prepared -clients 16,64 \
		-vary lsnproxy.delivery=off,inline,lazy $(ARGS)

crowd: build
	scripts/install.sh postgres pgbouncer
	go build -o bin/crowd ./bench/cmd/crowd
	bin/crowd $(ARGS)

compat:
	scripts/install.sh postgres $(COMPAT)
	$(MAKE) clients

# Those that are there. Ports of its own, so that a demo can go on beside it.
clients: build
	go -C compat build -o $(CURDIR)/bin/compat/ ./...
	bin/lsnproxy demo --listen 127.0.0.1:0 --http 127.0.0.1:0 -- bin/compat/compat $(ARGS)

versions:
	scripts/versions.sh $(ARGS)

patroni:
	scripts/install.sh gcc postgres patroni
	go test -race -tags patroni -run '^TestPatroni$$' -timeout 10m -v ./cmd/lsnproxy

example: build
	scripts/install.sh postgres python
	go -C examples/go build -o $(CURDIR)/bin/examples/ ./...
	bin/lsnproxy demo --apply-delay 500ms --listen 127.0.0.1:0 --http 127.0.0.1:0 --set reads.wait=2s -- examples/run.sh

# The brackets keep the last pattern from finding itself.
lint: $(TOOLS)/staticcheck
	@scripts/install.sh gcc
	@test -z "$$($(TOOLS)/gofumpt -l . | tee /dev/stderr)" || { echo "lint: run $(TOOLS)/gofumpt -w on these"; exit 1; }
	@for m in . $(NESTED); do echo "lint: vet and staticcheck in $$m"; \
		(cd $$m && go vet -tags torture,patroni ./... && $(TOOLS)/staticcheck -tags torture,patroni ./...) || exit 1; done
	@for m in . tools $(NESTED); do go -C $$m mod tidy -diff || exit 1; done
	@git grep -nIE '(^|[^[:alnum:]_.-])/([w]ork|[r]oot|[h]ome)/|TO[D]O|FIX[M]E'; \
		test $$? -eq 1 || { echo "lint: no machine paths, no unfinished work"; exit 1; }

$(TOOLS)/staticcheck: tools/go.mod tools/go.sum
	go -C tools build -o $(TOOLS)/ tool

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile
