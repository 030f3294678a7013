#!/bin/bash
# Runs every fuzz target for a while.
#
# usage: fuzz.sh DURATION
set -eu
cd "$(dirname "$0")/.."
for file in $(grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' .); do
	dir=$(dirname "$file")
	for target in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$file"); do
		echo "fuzz: $dir $target" >&2
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${1:?usage: fuzz.sh DURATION}" "$dir"
	done
done
