#!/bin/bash
# Holds fcemu against a real Firecracker: asks both the same sequences of requests.
#
# usage: fidelity.sh [PATH OF FIRECRACKER]
#
# RECORD=1 writes the answers of the real one into fcemu/fidelity/testdata.
set -eu
cd "$(dirname "$0")/.."
firecracker=${1:-}
if [ -z "$firecracker" ] || [ ! -x "$firecracker" ] || [ -d "$firecracker" ]; then
	echo "fidelity: no firecracker program at \"$firecracker\": make fidelity FIRECRACKER=/path/to/firecracker" >&2
	exit 2
fi
MICROVM_TEST_FIRECRACKER=$(realpath "$firecracker")
export MICROVM_TEST_FIRECRACKER
unset FCEMU_ENGINE
if [ -n "${RECORD:-}" ]; then
	go test -count=1 -run TestTheOriginal ./fcemu/fidelity -record
fi
go test -count=1 ./fcemu/fidelity
