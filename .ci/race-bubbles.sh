#!/usr/bin/env bash
# Runs a package's tests under the race detector, each in a process of its own:
#
#     bash .ci/race-bubbles.sh ./consensus
#
# Why: bubbles of testing/synctest that live through hours of virtual time crash
# the detector itself now and then (SIGSEGV in __tsan::SlotLock or in its
# StackDepot, one run of three of ./consensus; golang/go#78156 is open). Such a
# process says nothing about our code. It is told by three signs together: killed
# by SIGSEGV, with its program counter in the detector, and neither a race nor a
# failed test in what it printed. It is started anew, up to twice, and said so.
# Everything else that is not a pass is a failure.
set -euo pipefail
pkg=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go test -race -c -o "$tmp/test" "$pkg"
cd "$(go list -f '{{.Dir}}' "$pkg")"

detector_crashed() { # OUTPUT
	grep -q '^SIGSEGV: segmentation violation' "$1" || return 1
	! grep -q -e 'DATA RACE' -e '^ *--- FAIL' -e '^panic:' "$1" || return 1
	local pc
	pc=$(sed -n 's/^PC=\(0x[0-9a-f]*\) .*/\1/p' "$1" | head -1)
	echo "$pc" | go tool addr2line "$tmp/test" | head -1 | grep -q -e __tsan -e __sanitizer
}

ran=0
for name in $("$tmp/test" -test.list '^(Test|Example|Fuzz)'); do
	for try in 1 2 3; do
		if "$tmp/test" -test.short -test.timeout 10m -test.run "^$name\$" >"$tmp/out" 2>&1; then
			ran=$((ran + 1))
			break
		fi
		if [ "$try" = 3 ] || ! detector_crashed "$tmp/out"; then
			cat "$tmp/out"
			echo "FAIL $pkg $name"
			exit 1
		fi
		echo "$name: the race detector crashed in its own code (golang/go#78156), once more"
	done
done
[ "$ran" -gt 0 ] || { echo "no tests in $pkg"; exit 1; }
echo "ok $pkg: $ran tests under the race detector, each alone"
