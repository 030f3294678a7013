#!/bin/bash
# Makes the demo's guest in a folder: vmlinux, initrd, rootfs.ext4. What is there
# already is kept, unless its source is newer.
#
# usage: guest.sh DIR
set -eu
cd "$(dirname "$0")/.."
dir=${1:?usage: guest.sh DIR}
PATH=$PATH:/usr/sbin:/sbin

newer() { # FILE THAN...
	local file=$1 than
	shift
	[ -e "$file" ] || return 1
	for than in "$@"; do
		[ "$file" -nt "$than" ] || return 1
	done
}

mkdir -p "$dir"
if [ ! -e "$dir/linux-image.deb" ] || [ ! -e "$dir/busybox" ]; then
	scripts/fetch-guest.sh "$dir"
fi
if ! newer "$dir/kernel.json" "$dir/linux-image.deb" bin/microvm-init; then
	bin/microvm kernel import -o "$dir" "$dir/linux-image.deb"
	touch "$dir/kernel.json"
fi
if ! newer "$dir/rootfs.ext4" "$dir/busybox" bin/microvm-init; then
	bin/microvm image demo -o "$dir/rootfs.ext4" --busybox "$dir/busybox"
	touch "$dir/rootfs.ext4"
fi
