#!/bin/bash
# Runs the tests against a real Firecracker: internal/testreal says how.
# "make test-real" has built the programs and the guest before.
#
# usage: test-real.sh FIRECRACKER [JAILER]
#
# STEPS="tiny linux nested" chooses steps, RUN=REGEXP tests with Linux guests,
# VERBOSE=1 shows all output.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

if [ -z "${1:-}" ]; then
	echo "test-real: which firecracker? Call it as  make test-real FIRECRACKER=/path/to/firecracker [JAILER=/path/to/jailer]" >&2
	exit 2
fi
mkdir -p build/real
go build -o build/real/testreal ./internal/testreal
# exec: signals reach it, and its exit code is ours.
exec build/real/testreal -firecracker "$1" -jailer "${2:-}" \
	-steps "${STEPS:-tiny linux nested}" -run "${RUN:-}" ${VERBOSE:+-v}
