#!/bin/bash
# Runs every test. What this machine can't run is skipped by the tests, which say
# why. "make test" has built the programs and the guest before.
set -eu
cd "$(dirname "$0")/.."

say() { echo "test: $*" >&2; }

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export MICROVM_TEST_GUEST=$PWD/build/guest
if [ -x build/guest/vhost-device-vsock ]; then
	export MICROVM_TEST_VSOCK=$PWD/build/guest/vhost-device-vsock
fi
# Tests find their own state; the user's settings must not reach them.
unset MICROVM_STATE_DIR MICROVM_GUEST_DIR MICROVM_FIRECRACKER_BIN MICROVM_EMULATOR FCEMU_ENGINE

# Where goroutines or several programs meet. The scripts of cmd/microvm start
# hundreds of processes, which the detector makes slow: they go without.
racy=$(go list ./console ./fcapi ./fcemu/... ./firecracker ./inmem ./internal/record ./network ./snapshot ./vmm ./vsock ./cmd/microvm/internal/...)
rest=$(go list ./... | grep -vxF "$racy")

# A fault in one half does not hide those of the other.
failed=0
say "with the race detector"
# shellcheck disable=SC2086 # lists of packages
CGO_ENABLED=1 go test -race -timeout 10m $racy || failed=1
say "without"
# shellcheck disable=SC2086
go test -timeout 10m $rest || failed=1
(cd bench && go test ./...) || failed=1
exit $failed
