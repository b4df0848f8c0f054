#!/usr/bin/env bash
# A short run of the fuzz target for the whole pipeline: tests/fuzz-smoke.sh [seconds]. Needs g++ and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/corpus"
find captures -name '*.pcap*' -size -32k -exec cp --backup=numbered {} "$work/corpus/" \;
# libFuzzer needs the compiler's coverage hooks, which stable Rust hides behind this switch.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing -Cdebug-assertions"
cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$(rustc -vV | sed -n 's/^host: //p')" --target-dir target/fuzz
target/fuzz/*/release/whole "$work/corpus" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 \
    -artifact_prefix="$work/" -print_final_stats=1 2>"$work/log" || { tail -40 "$work/log"; exit 1; }
grep -E 'stat::number_of_executed_units|stat::average_exec_per_sec|cov:' "$work/log" | tail -3
