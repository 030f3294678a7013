# Everything is made in bin/ and build/; "make clean" removes both.
#
#   make demo    boot a real Linux guest and show what can be done with it
#   make test    lint, build for all platforms and run every test
#   make build   bin/microvm, bin/fcemu, bin/microvm-init
#   make guest   build/guest: a kernel, an initrd and a root disk, from Debian
#   make fidelity FIRECRACKER=path   hold fcemu against a real Firecracker (RECORD=1: record its answers)
#   make test-real FIRECRACKER=path [JAILER=path]   run the tests against a real Firecracker
#   make lint    gofmt, vet for all platforms, staticcheck
#   make fuzz    each fuzz target for FUZZTIME
#   make bench   speed beside peers, into bench/samples; FIRECRACKER=path measures
#                a real one, too; networks as root only (docs/performance.md)
#
# On Debian and Ubuntu missing packages are installed (scripts/setup.sh).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Where the machine's Go is too old, scripts/setup.sh puts another one there.
export PATH := $(CURDIR)/build/go/bin:$(PATH)

FUZZTIME ?= 10s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build guest demo test fidelity test-real lint fuzz bench clean setup-build setup-demo setup-test setup-bench
.NOTPARALLEL:

build: setup-build
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/microvm ./cmd/fcemu ./cmd/microvm-init

guest: setup-demo build
	scripts/guest.sh build/guest

demo: guest
	scripts/demo.sh

test: setup-test lint guest
	scripts/test.sh

fidelity: setup-build
	RECORD=$(RECORD) scripts/fidelity.sh "$(FIRECRACKER)"

# Without FIRECRACKER nothing is installed or built: the script says what is missing.
test-real: $(if $(FIRECRACKER),setup-test guest)
	@scripts/test-real.sh "$(FIRECRACKER)" "$(JAILER)"

lint: setup-build
	scripts/lint.sh $(STATICCHECK)

fuzz: setup-build
	scripts/fuzz.sh $(FUZZTIME)

# The samples of the emulator and of each VMM that is given. SCRATCH is a directory
# on the disk to measure; the default is that of temporary files.
bench: setup-bench
	CGO_ENABLED=0 go build -trimpath -o build/fcemu ./cmd/fcemu
	cd bench && go build -o ../build/bench . && ../build/bench -fcemu ../build/fcemu -firecracker "$(FIRECRACKER)" -scratch "$(SCRATCH)"

setup-build setup-demo setup-test setup-bench: setup-%:
	scripts/setup.sh $*

clean:
	rm -rf bin build
