#!/usr/bin/env bash
# Builds the fastest tcpwhy this machine can build: guided by a profile of itself at work.
#
#   contrib/build-fast.sh            → target/fast/tcpwhy, in the time of two release builds
#   contrib/build-fast.sh quick      the same of another profile of Cargo.toml: 7 minutes on two cores
#
# Three steps: a build that counts which way it goes; traffic and every bundled capture through it; a build that lays out the code by these
# counts. What it does is the same to the octet, it only finds its instructions sooner: docs/performance.md has the numbers. Needs an
# `llvm-profdata` that reads what this rustc writes: of rustup (`rustup component add llvm-tools`) or of Debian (`apt-get install llvm-19`).
set -euo pipefail
cd "$(dirname "$0")/.."

profdata=$(ls "$(rustc --print sysroot)"/lib/rustlib/*/bin/llvm-profdata /usr/lib/llvm-*/bin/llvm-profdata 2>/dev/null |
    sort -t- -k3 -V | tail -1 || true)
[ -x "$profdata" ] || { echo "no llvm-profdata: rustup component add llvm-tools, or apt-get install llvm-19" >&2; exit 2; }
profile=${1:-release}
host=$(rustc -vV | sed -n 's/^host: //p')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

say() { echo "== $*" >&2; }
# With a target named, flags do not reach build scripts, which would write counts as well.
build() { RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --quiet --profile "$profile" --target "$host" --target-dir "target/fast/$2"; }

say "a build that counts"
build "-Cprofile-generate=$work/counts" counting
counting=target/fast/counting/$host/$profile/tcpwhy

say "traffic through it"
rustc --edition 2024 -O -o "$work/generate" examples/generate.rs
for traffic in mix:128M small:48M benign:16M outage:16M; do
    "$work/generate" "${traffic%:*}" "${traffic#*:}" "$work/it.pcap" 2>/dev/null
    for threads in 1 2; do
        "$counting" --threads $threads "$work/it.pcap" >/dev/null || [ $? -le 2 ]
    done
done
find captures -name '*.pcap*' -size -2M -print0 | xargs -0 -n 1 "$counting" >/dev/null 2>&1 || true
"$profdata" merge -o "$work/profile" "$work/counts"

say "a build that is laid out by the counts"
build "-Cprofile-use=$work/profile" guided
cp "target/fast/guided/$host/$profile/tcpwhy" target/fast/tcpwhy
say "target/fast/tcpwhy"
