#!/bin/bash
# Installs what this machine lacks for a target of the Makefile, through apt: as
# root, or by sudo. On other systems, and without rights, it says what is missing.
#
# usage: setup.sh build|demo|test|bench
set -eu
cd "$(dirname "$0")/.."

# The Go that is fetched where the machine has none that is new enough.
go_version=1.26.8

say() { echo "setup: $*" >&2; }
die() { say "$@"; exit 1; }

# Ordinary users have no sbin on PATH; mkfs.ext4 lives there.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing=()
need() { # PROGRAM PACKAGE
	command -v "$1" >/dev/null || missing+=("$2")
}

go_is_new_enough() {
	local have want
	have=$(go env GOVERSION 2>/dev/null) || return 1
	want=go$(sed -n 's/^go //p' go.mod)
	[ "$(printf '%s\n' "$want" "${have%% *}" | sort -V | head -n 1)" = "$want" ]
}

case ${1:-} in build | demo | test | bench) ;; *) die "usage: setup.sh build|demo|test|bench" ;; esac

[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
fetch_go=false
if ! go_is_new_enough; then
	fetch_go=true
	# Any Go can fetch the one that is wanted, and checks it against Go's
	# checksum database.
	need go golang-go
fi
if [ "$1" = bench ]; then
	# What networks are measured beside.
	need ip iproute2
	need iptables iptables
fi
if [ "$1" = demo ] || [ "$1" = test ]; then
	case $(uname -m) in
	aarch64) need qemu-system-aarch64 qemu-system-arm ;;
	*) need qemu-system-x86_64 qemu-system-x86 ;;
	esac
	need mkfs.ext4 e2fsprogs
fi
if [ "$1" = test ]; then
	# The race detector is linked by a C compiler.
	need gcc gcc
	[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
	need debugfs e2fsprogs
	need setcap libcap2-bin
fi

if [ ${#missing[@]} -gt 0 ]; then
	as_root=
	[ "$(id -u)" = 0 ] || as_root="sudo -n"
	if ! command -v apt-get >/dev/null; then
		die "this machine lacks ${missing[*]} (names of Debian's packages): install them in this system's way"
	fi
	if [ -n "$as_root" ] && ! $as_root true 2>/dev/null; then
		die "this machine lacks packages: run  sudo apt-get install --no-install-recommends ${missing[*]}"
	fi
	say "installing ${missing[*]}"
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	install() {
		$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >"$log" 2>&1
	}
	# The package lists may be missing or old.
	install || { $as_root apt-get update -q >"$log" 2>&1 && install; } || {
		cat "$log" >&2
		die "apt-get could not install ${missing[*]}: see above"
	}
fi

if $fetch_go && ! go_is_new_enough; then
	say "fetching Go $go_version, as $(go env GOVERSION 2>/dev/null || echo none) is too old"
	case $(uname -m) in
	x86_64) arch=amd64 ;;
	aarch64) arch=arm64 ;;
	*) die "microvm runs on amd64 and arm64, not on $(uname -m)" ;;
	esac
	module=golang.org/toolchain@v0.0.1-go$go_version.linux-$arch
	answer=$(cd / && GO111MODULE=on GOFLAGS= go mod download -json "$module") ||
		die "Go $go_version could not be fetched: $answer"
	dir=$(sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p' <<<"$answer")
	[ -x "$dir" ] || die "Go $go_version is not where go mod download says: $answer"
	# A module's files are not executable.
	find "$dir/bin" "$dir/pkg/tool" -type f -exec chmod a+x {} +
	mkdir -p build
	ln -sfn "$dir" build/go
	PATH=$PWD/build/go/bin:$PATH
	go_is_new_enough || die "the Go that was fetched does not run: $(go version 2>&1)"
fi
