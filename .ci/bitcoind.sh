#!/usr/bin/env bash
# Puts a bitcoind of the Bitcoin Core family (Debian's bitcoin-knots, from sid)
# under $1 and prints the path of what starts it.
#
# The system's packages and apt sources stay as they are: apt works in a folder
# of its own, packages are unpacked and none of their scripts run. What is
# fetched is what Debian's archive key signed: apt refuses everything else. The
# package brings its libraries down to libc and the loader, as the system's may
# be too old for it. sid moves, so this is "the latest" and cannot be pinned.
set -euo pipefail
dir=$(realpath -m "${1:?folder to install into}")

if [ -x "$dir/bitcoind" ] && "$dir/bitcoind" --version >/dev/null 2>&1; then
	echo "$dir/bitcoind"
	exit
fi
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "bitcoind: packages are for Linux x86_64, not $(uname -sm)" >&2; exit 1; }

key=$(ls /usr/share/keyrings/debian-archive-keyring.{gpg,pgp} 2>/dev/null | head -1) || true
[ -n "$key" ] || { echo "bitcoind: no Debian archive key on this machine" >&2; exit 1; }
mirror=${DEBIAN_MIRROR:-$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)}

new=$dir.new
rm -rf "$new"
mkdir -p "$new"/apt/{state/lists/partial,cache/archives/partial} "$new/tree"
echo "deb [signed-by=$key] ${mirror:-http://deb.debian.org/debian} sid main" >"$new/apt/sources.list"
# With no list of installed packages, every library is fetched.
apt=(apt-get -qq
	-o Dir::Etc::sourcelist="$new/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
	-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
	-o Dir::State="$new/apt/state" -o Dir::State::status=/dev/null -o Dir::Cache="$new/apt/cache"
	-o Acquire::AllowInsecureRepositories=false -o APT::Get::AllowUnauthenticated=false
	-o Acquire::Languages=none -o APT::Install-Recommends=0 -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1)
"${apt[@]}" update
"${apt[@]}" install -y --download-only bitcoin-knots
for f in "$new"/apt/cache/archives/{bitcoin-,lib,zlib}*.deb; do
	dpkg -x "$f" "$new/tree"
done
rm -rf "$new/apt"

libs=tree/usr/lib/x86_64-linux-gnu
cat >"$new/bitcoind" <<SH
#!/bin/sh
exec "$dir/$libs/ld-linux-x86-64.so.2" --library-path "$dir/$libs" "$dir/tree/usr/bin/bitcoind" "\$@"
SH
chmod +x "$new/bitcoind"
rm -rf "$dir"
mv "$new" "$dir"
version=$("$dir/bitcoind" --version | head -1)
case $version in
Bitcoin*) echo "$version" >&2 ;;
*) echo "bitcoind: what was installed is $version" >&2; exit 1 ;;
esac
echo "$dir/bitcoind"
