#!/bin/sh
# Fetches what a guest is made from, out of Debian's packages, into a folder:
#
#   linux-image.deb      the kernel that Debian builds for virtual machines
#   busybox              a static busybox
#   vhost-device-vsock   vsock for fcemu's QEMU engine (optional; amd64 only in sid)
#
# Nothing is installed, no root rights are needed, and the system's package lists
# and sources stay as they are. What is there already is kept. Afterwards:
#
#   microvm kernel import -o DIR DIR/linux-image.deb
#   microvm image demo -o DIR/rootfs.ext4 --busybox DIR/busybox
#
# usage: fetch-guest.sh DIR
set -eu

say() { echo "fetch-guest: $*" >&2; }
die() { say "$@"; exit 1; }

[ $# -eq 1 ] || die "usage: fetch-guest.sh DIR"
mkdir -p "$1"
dest=$(cd "$1" && pwd)

for tool in apt-get apt-cache dpkg-deb dpkg; do
	command -v "$tool" >/dev/null || die "there is no $tool here: this script is for Debian.
Elsewhere give the installed kernel and its modules to the import, for example
    microvm kernel import /boot/vmlinuz-\$(uname -r) --modules /lib/modules/\$(uname -r)
and name a static busybox of your distribution (docs/images.md)."
done

arch=$(dpkg --print-architecture)
case $arch in
amd64 | arm64) ;;
*) die "Firecracker runs on amd64 and arm64, not on $arch" ;;
esac

work=$(mktemp -d "$dest/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/deb" "$work/cache/archives/partial" "$work/sources.d"

# apt with extra options ($apt_options); as root it must not change to its own
# user, who can't write to our folder.
apt_options=
apt() {
	cmd=$1
	shift
	# shellcheck disable=SC2086 # a list of options without blanks inside
	(cd "$work/deb" && "$cmd" -q -o APT::Sandbox::User=root $apt_options "$@")
}

# A fresh machine has no package lists yet; ours are private. Arguments: more
# options of apt.
own_lists() {
	rm -rf "$work/lists"
	mkdir -p "$work/lists/partial"
	apt_options="-o Dir::State::Lists=$work/lists -o Dir::Cache=$work/cache -o Debug::NoLocking=1 $*"
	apt apt-get update >"$work/update.log" 2>&1 || {
		cat "$work/update.log" >&2
		return 1
	}
}

known() { apt apt-cache show --no-all-versions "$1" >/dev/null 2>&1; }

# fetch PACKAGE: the newest version that apt trusts, as $work/deb/PACKAGE_*.deb.
fetch() { apt apt-get download "$1" >"$work/download.log" 2>&1 || {
	cat "$work/download.log" >&2
	return 1
}; }

# fetch_guest puts kernel and busybox into $dest.
fetch_guest() {
	rm -f "$work"/deb/*
	# The package of this name is empty and depends on the one of today.
	kernel=$(apt apt-cache show --no-all-versions linux-image-cloud-"$arch" 2>/dev/null |
		sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*\).*/\1/p' | head -n 1)
	[ -n "$kernel" ] || { say "linux-image-cloud-$arch is not in the package lists"; return 1; }
	say "fetching $kernel and busybox-static"
	fetch "$kernel" && fetch busybox-static || return 1
	dpkg-deb -x "$work"/deb/busybox-static_*.deb "$work/busybox" || return 1
	for b in "$work/busybox/bin/busybox" "$work/busybox/usr/bin/busybox"; do
		if [ -f "$b" ] && [ ! -L "$b" ]; then mv "$b" "$dest/busybox"; fi
	done
	[ -e "$dest/busybox" ] || { say "busybox-static has no busybox where it used to be"; return 1; }
	mv "$work"/deb/linux-image-*.deb "$dest/linux-image.deb" || return 1
	say "done: $dest/linux-image.deb ($kernel), $dest/busybox"
}

if [ -e "$dest/linux-image.deb" ] && [ -e "$dest/busybox" ]; then
	say "kept: linux-image.deb and busybox (remove them to fetch again)"
elif ! fetch_guest; then
	# No lists yet, or lists so old that the archive has dropped what they name.
	say "trying again with package lists of today"
	own_lists || die "apt-get update failed: see above"
	fetch_guest || die "kernel and busybox could not be fetched: see above. Is this Debian?
On Ubuntu: apt-get download linux-image-VERSION linux-modules-VERSION, and give both to microvm kernel import."
fi

# vsock for fcemu: one program that needs nothing but libc. It is optional, so
# whatever goes wrong is told and not fatal.
if [ -e "$dest/vhost-device-vsock" ]; then
	say "kept: vhost-device-vsock"
	exit 0
fi
if found=$(command -v vhost-device-vsock); then
	say "vhost-device-vsock is installed: $found"
	exit 0
fi
no_vsock() {
	say "no vhost-device-vsock: $*"
	say "guests of fcemu --engine qemu will have no vsock; everything else works"
	exit 0
}
known vhost-device-vsock || {
	keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -r "$keyring" ] || no_vsock "$keyring is not here to verify Debian sid with (package debian-archive-keyring)"
	echo "deb [signed-by=$keyring] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} sid main" >"$work/sid.list"
	own_lists -o Acquire::http::Timeout=30 -o Acquire::Retries=1 \
		-o Dir::Etc::sourcelist="$work/sid.list" -o Dir::Etc::sourceparts="$work/sources.d" ||
		no_vsock "the package list of sid could not be fetched: see above"
	known vhost-device-vsock || no_vsock "Debian sid has it for amd64 only at the time of writing, or not any more"
}
fetch vhost-device-vsock || no_vsock "the download failed"
dpkg-deb -x "$work"/deb/vhost-device-vsock_*.deb "$work/vsock"
program=$(find "$work/vsock" -type f -path "*/bin/vhost-device-vsock" | head -n 1)
[ -n "$program" ] || no_vsock "the package has no such program"
"$program" --version >"$work/version.log" 2>&1 || no_vsock "it does not run here: $(head -n 1 "$work/version.log")"
mv "$program" "$dest/vhost-device-vsock"
say "done: $dest/vhost-device-vsock ($(cat "$work/version.log"))"
