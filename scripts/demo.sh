#!/bin/bash
# Boots a real Linux guest and shows what can be done with it, by nothing but the
# command line that a user has. It runs in Firecracker when FIRECRACKER_BIN names
# one and KVM can boot Linux, else in fcemu, the emulator, on QEMU. All that it
# makes is in one folder below build/, and is gone when it ends.
set -euo pipefail
cd "$(dirname "$0")/.."

bold= plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

die() { echo "demo: $*" >&2; exit 1; }
ms() { echo $((${EPOCHREALTIME/[^0-9]/} / 1000)); }
run() { # shows a command as a user would type it
	local a line="\$ microvm"
	for a in "$@"; do
		case $a in *[!A-Za-z0-9_./=-]*) line+=" '$a'" ;; *) line+=" $a" ;; esac
	done
	echo "$line"
	bin/microvm "$@"
}

began=$(ms)
steps=()
step() { # TEXT: ends the step before it
	local now
	now=$(ms)
	if [ -n "${doing:-}" ]; then steps+=("$((now - since)) $doing"); fi
	doing=$1 since=$now
	if [ -n "$1" ]; then printf '\n%s%d. %s%s\n' "$bold" $((${#steps[@]} + 1)) "$1" "$plain"; fi
}

# A tick of the guest's counter, as "N". One may share its line with a prompt.
first_tick() { bin/microvm wait --timeout 60s --console 'tick [0-9]+$' "$1" | sed 's/.*tick //'; }
last_tick() { bin/microvm logs "$1" | sed -n 's/.*tick \([0-9]*\)$/\1/p' | tail -n 1; }
wait_tick() { bin/microvm wait --timeout 60s --console "tick $2\$" "$1" >/dev/null; }

unset MICROVM_FIRECRACKER_BIN MICROVM_EMULATOR FCEMU_ENGINE
export MICROVM_GUEST_DIR=$PWD/build/guest
mark=build/guest/emulator
if [ -n "${FIRECRACKER_BIN:-}" ] && bin/microvm --firecracker "$FIRECRACKER_BIN" doctor >/dev/null; then
	export MICROVM_FIRECRACKER_BIN=$FIRECRACKER_BIN
	rm -f "$mark"
	echo "The guest runs in Firecracker: $FIRECRACKER_BIN"
else
	if [ -n "${FIRECRACKER_BIN:-}" ]; then
		echo "KVM can't boot Linux for $FIRECRACKER_BIN here (microvm doctor says why)."
	fi
	export MICROVM_EMULATOR=qemu
	# From now on "bin/microvm run" uses the emulator here without being asked.
	echo 'fcemu is used where KVM cannot boot Linux, because "make demo" has run in it. Remove this file to undo that.' >"$mark"
	echo "The guest runs in fcemu, an EMULATOR of Firecracker, on QEMU."
fi

MICROVM_STATE_DIR=$(mktemp -d "$PWD/build/demo.XXXXXX")
export MICROVM_STATE_DIR

# Processes that work in our folder, by pid.
ours() {
	local p
	for p in /proc/[0-9]*; do
		case $(readlink "$p/cwd" 2>/dev/null) in "$MICROVM_STATE_DIR"*) echo "${p#/proc/}" ;; esac
	done
}

cleanup() {
	local code=$? vms pid
	trap - EXIT
	trap '' HUP INT TERM
	vms=$(bin/microvm ls -q) || true
	if [ -n "$vms" ]; then
		# shellcheck disable=SC2086 # ids have no blanks
		bin/microvm destroy $vms >/dev/null || true
	fi
	for pid in $(ours); do kill -KILL "$pid" 2>/dev/null || true; done
	rm -rf "$MICROVM_STATE_DIR"
	exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

step "Make a VM and boot Linux in it"
run create --vcpus 1 --memory 128 counter
run start counter
run wait --console '^GUEST-READY' --timeout 60s counter
first_tick counter >/dev/null

step "Its serial console"
run logs --tail 6 counter

step "Pause and resume"
run stop counter
frozen=$(last_tick counter)
sleep 0.5
[ "$(last_tick counter)" = "$frozen" ] || die "the counter went on while the VM was paused"
run inspect --format 'status {{.Status}}, because: {{.StopReason}}' counter
run start counter
wait_tick counter $((frozen + 1))
echo "It stood still at tick $frozen and goes on with tick $((frozen + 1))."

step "Snapshot the running guest"
wait_tick counter $((frozen + 5))
before=$(last_tick counter)
run snapshot create counter warm
run snapshot ls

step "Restore two clones at once"
echo '$ microvm restore counter warm clone-1 & microvm restore counter warm clone-2'
bin/microvm restore counter warm clone-1 &
one=$!
bin/microvm restore counter warm clone-2
wait "$one"
first=$(first_tick clone-1)
second=$(first_tick clone-2)
[ "$first" = "$second" ] || die "the clones go on from different values: $first and $second"
[ "$first" -ge "$before" ] && [ "$first" -le $((before + 20)) ] ||
	die "the clones go on from tick $first, but the snapshot was taken at about $before"
echo "Tick $before was the last one seen before the snapshot; both clones go on with tick $first."
run ls

step "Rename one; its guest does not notice"
run rename clone-1 renamed
now=$(last_tick renamed)
wait_tick renamed $((now + 2))
echo "It was at tick $now, and is at tick $((now + 2)) by now."

step "Kill the VMM of the other"
pid=$(bin/microvm inspect --format '{{.PID}}' clone-2)
echo "\$ kill -KILL $pid"
kill -KILL "$pid"
run wait --state stopped --timeout 10s clone-2

step "Destroy all"
run destroy counter renamed clone-2
run snapshot rm counter warm
run prune
left=$(bin/microvm ls -a -q)
[ -z "$left" ] || die "VMs are left: $left"
left=$(ours)
[ -z "$left" ] || die "processes are left: $left"
! grep -F "$MICROVM_STATE_DIR" /proc/mounts || die "mounts are left"
left=$(find "$MICROVM_STATE_DIR" -type f -size +0 -o -type s -o -type p)
[ -z "$left" ] || die "files are left: $left"
echo "No process, mount, socket or file is left."

step ""
printf '\n%sWhat each step took%s\n' "$bold" "$plain"
for s in "${steps[@]}"; do printf '%6d ms  %s\n' "${s%% *}" "${s#* }"; done
printf '%6d ms  in all\n' $(($(ms) - began))
echo
echo 'Next: bin/microvm run (Ctrl-C ends it), bin/microvm doctor, bin/microvm help.'
