#!/usr/bin/env bash
# Lay QEMU's user-mode emulator of Debian 13 into .qemu, from the mirror that this machine uses.
# Debian 12's own, QEMU 7.2, gets AVX2 wrong (numpy sorts wrongly on it). Needs no root.
set -euo pipefail
cd "$(dirname "$0")/../.."
test -x .qemu/usr/bin/qemu-x86_64 && exit
mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null || true; } |
    sed -nE 's/^(URIs: *|deb (\[[^]]*\] )?)(http[^ ]+\/debian)\/?( .*)?$/\3/p' | head -1)
test -n "$mirror" ||
    { echo "emulator: no Debian mirror in apt's sources; install QEMU 8 or newer by hand" >&2; exit 1; }
work=$PWD/.qemu/work
mkdir -p "$work/lists/partial" "$work/parts"
signed=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$signed] $mirror trixie main" > "$work/sources.list"
apt=(-oDir::Etc::SourceList="$work/sources.list" -oDir::Etc::SourceParts="$work/parts"
    -oDir::State::Lists="$work/lists" -oDir::State::status=/dev/null -oAPT::Sandbox::User=)
apt-get "${apt[@]}" update -qq
(cd "$work" && apt-get "${apt[@]}" download -qq qemu-user && dpkg-deb -x qemu-user_*.deb .)
mkdir -p .qemu/usr/bin
mv "$work/usr/bin/qemu-x86_64" "$work/usr/bin/qemu-aarch64" .qemu/usr/bin/
rm -rf "$work"
.qemu/usr/bin/qemu-x86_64 --version | head -1
