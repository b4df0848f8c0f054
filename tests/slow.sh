#!/usr/bin/env bash
# What takes longer than `cargo test`, or needs more: tests/slow.sh >docs/slow.md
#
#   the lab      the GitLab incident made anew on a real HAProxy and diagnosed (root and HAProxy; skipped without)
#   one file     1 GB of generated traffic: packets per second, octets per second, peak memory
#   a pipe       4 GB through standard input: memory must not grow with length
#   fuzzing      120 s of the whole pipeline; FUZZ_TABLE=FILE adds what tests/fuzz-long.sh found in its hours
#
# The summary goes to standard output as Markdown, what goes on meanwhile to standard error. About eight minutes and 2 GB of disk in
# $TMPDIR. Exit code 1 when something failed; speed is reported, not judged.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzz_seconds=${FUZZ_SECONDS:-120}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

say() { echo "== $*" >&2; }
fail() {
    echo "**Failed**: $*"
    say "failed: $*"
    failed=1
}
[ -x /usr/bin/time ] || { say "GNU time is needed (Debian: apt-get install time)"; exit 2; }

say "building"
cargo build --quiet --release
cargo build --quiet --release --example generate
tcpwhy=target/release/tcpwhy
generate=target/release/examples/generate

measure() { # label totals-file command...     one row of the table; standard input is passed on
    local label=$1 totals=$2
    shift 2
    if ! /usr/bin/time -o "$work/time" -f '%e %U %S %M' "$@" >"$work/report" 2>"$work/errors"; then
        fail "$label: $(tail -1 "$work/errors")"
        return
    fi
    # Octets, packets and flows as the generator counted them; wall, user and system seconds, KB.
    awk -v label="$label" '
        NR == 1 { octets = $1; packets = $3; flows = $5; next }
        { printf "| %s | %.2f GB | %.2f M | %.0f k | %.2f | %.2f | %.2f M/s | %.2f GB/s | %.0f MB |\n", label, octets / 1e9,
                 packets / 1e6, flows / 1e3, $1, $2 + $3, packets / $1 / 1e6, octets / $1 / 1e9, $4 * 1024 / 1e6 }
    ' "$totals" "$work/time"
    awk '{ print $4 }' "$work/time" >"$work/peak"
}

cat <<X
# What the slow tests found

Written by \`tests/slow.sh\`; run it to have your own. $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown),
$(rustc --version | cut -d' ' -f1,2), Linux $(uname -r | cut -d- -f1), $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1),
load $(cut -d' ' -f1 /proc/loadavg) at the start. docs/performance.md tells how to read the numbers.

## The incident, made anew

X
say "the lab"
mkdir "$work/lab"
if captures/lab/gitlab.sh "$work/lab" >"$work/lab.log" 2>&1 && [ -s "$work/lab/both-legs.pcap" ]; then
    cat >"$work/lab/expect.toml" <<X
[[expect]]
capture = "both-legs.pcap"
root = "proxy-header-to-tls-port"
confidence = "certain"

[[expect]]
capture = "backend-leg.pcap"
root = "proxy-header-to-tls-port"
X
    echo "\`captures/lab/gitlab.sh\` ran on $(haproxy -v | head -1 | cut -d' ' -f1-3); \`tcpwhy expect\` says:"
    echo
    "$tcpwhy" expect "$work/lab/expect.toml" >"$work/expected" || fail "the fresh capture has another root"
    sed 's/^/    /' "$work/expected"
    echo
    echo "The first lines of the report:"
    echo
    "$tcpwhy" "$work/lab/both-legs.pcap" | head -12 | sed "s|$work/lab/||; s/^/    /; s/ *$//"
elif grep -q SKIPPED "$work/lab.log"; then
    echo "Skipped: $(sed -n 's/.*SKIPPED [^:]*: //p' "$work/lab.log" | head -1)."
else
    tail -20 "$work/lab.log" >&2
    fail "captures/lab/gitlab.sh ended with an error"
fi

cat <<'X'

## Speed and memory

Generated traffic (`cargo run --release --example generate -- SHAPE SIZE FILE`); files are in the page cache.

| run | size | packets | flows | wall s | CPU s | packets | octets | peak RSS |
|---|---|---|---|---|---|---|---|---|
X
say "1 GB from a file"
"$generate" mix 1G "$work/mix.pcap" 2>"$work/mix"
measure "mix, 1 thread" "$work/mix" "$tcpwhy" --threads 1 "$work/mix.pcap"
one=$(cat "$work/peak")
measure "mix, 2 threads" "$work/mix" "$tcpwhy" --threads 2 "$work/mix.pcap"
rm "$work/mix.pcap"
for shape in small flood storm; do
    say "$shape"
    "$generate" "$shape" 500M "$work/x.pcap" 2>"$work/totals"
    measure "$shape, 1 thread" "$work/totals" "$tcpwhy" --threads 1 "$work/x.pcap"
    rm "$work/x.pcap"
done
say "4 GB through a pipe"
# The generator's counts come only at its end: the row is written after both.
mkfifo "$work/pipe"
"$generate" mix 4G - 2>"$work/four" >"$work/pipe" &
measure "mix, pipe, 1 thread" "$work/four" "$tcpwhy" --threads 1 - <"$work/pipe"
wait
four=$(cat "$work/peak")
echo
echo "Four times the length needs $(awk "BEGIN { printf \"%.2f\", $four / $one }") times the memory."
# What is kept of closed flows is capped; twice the memory means that something is not.
[ "$four" -lt $((2 * one)) ] || fail "memory grows with the length of the capture"

cat <<X

## Fuzzing

\`tests/fuzz-smoke.sh $fuzz_seconds\`, seeded with the bundled captures:

X
say "fuzzing for $fuzz_seconds s"
if tests/fuzz-smoke.sh "$fuzz_seconds" >"$work/fuzz" 2>&1; then
    sed 's/^/    /' "$work/fuzz"
    echo
    echo "No panic, no hang, no input that needed more than 2 GB."
else
    tail -40 "$work/fuzz" >&2
    fail "the fuzzer found an input: $(grep -m1 -E 'panicked|ERROR|SUMMARY' "$work/fuzz" || echo 'see the log')"
fi
if [ -n "${FUZZ_TABLE:-}" ]; then
    printf '\n`tests/fuzz-long.sh`, each target on its own:\n\n'
    cat "$FUZZ_TABLE"
fi
exit "$failed"
