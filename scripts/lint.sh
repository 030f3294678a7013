#!/bin/bash
# Formatting, vet and builds for every platform, staticcheck.
#
# usage: lint.sh STATICCHECK@VERSION
set -eu
cd "$(dirname "$0")/.."

say() { echo "lint: $*" >&2; }

unformatted=$(find . -name '*.go' -not -path './build/*' -exec gofmt -l {} +)
if [ -n "$unformatted" ]; then
	say "not formatted; run gofmt -w on: $unformatted"
	exit 1
fi
# CGO_ENABLED=0, as the programs are built; a build checks what vet does not link.
export CGO_ENABLED=0
for arch in amd64 arm64; do
	say "build and vet for linux/$arch"
	GOARCH=$arch go build ./...
	GOARCH=$arch go vet ./...
	# A module of its own, so that what it needs is nobody else's.
	(cd bench && GOARCH=$arch go vet ./...)
done
# The contract, its tests and its providers for tests are not for Linux only.
say "vet for darwin"
GOOS=darwin GOARCH=arm64 go vet . ./inmem ./microvmtest ./fcapi
say "staticcheck ${1:?usage: lint.sh STATICCHECK@VERSION}"
go run "$1" ./...
(cd bench && go run "$1" ./...)
