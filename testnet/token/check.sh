#!/bin/sh
# Recompiles the test tokens with the pinned compiler and compares the result with what is committed.
#   check.sh           exits 1 and names the file if anything differs
#   check.sh --write   replaces the committed files
# Needs node and npm. Everything is installed and built in a temporary folder, without install scripts.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir "$work/out"
cp "$here/package.json" "$here/package-lock.json" "$here/compile.js" "$here"/*.sol "$work/"
(cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --silent && node compile.js "$work/out")
if [ "${1:-}" = --write ]; then
	cp "$work"/out/* "$here/"
	exit 0
fi
status=0
for f in "$work"/out/*; do
	if ! cmp -s "$f" "$here/$(basename "$f")"; then
		echo "testnet/token/$(basename "$f") is not what its source compiles to: run testnet/token/check.sh --write" >&2
		status=1
	fi
done
[ $status = 0 ] && echo "test tokens: bytecode and ABI match their sources"
exit $status
