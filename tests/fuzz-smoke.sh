#!/usr/bin/env bash
# A short run of fuzz targets: tests/fuzz-smoke.sh [SECONDS [TARGET...]]. Needs g++ and nothing else. 20 s of the whole pipeline unless told.
# What each target is for stands in fuzz/targets.rs. A target's seeds are those of fuzz/corpus, for the whole pipeline the captures.
# An input that breaks something is kept in fuzz/artifacts; put it into fuzz/corpus/TARGET once it is mended.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- whole
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# libFuzzer needs the compiler's coverage hooks, which stable Rust hides behind this switch.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing -Cdebug-assertions"
bins=()
for target; do bins+=(--bin "$target"); done
cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$(rustc -vV | sed -n 's/^host: //p')" --target-dir target/fuzz "${bins[@]}"
for target; do
    mkdir "$work/$target"
    if [ -d "fuzz/corpus/$target" ]; then
        cp "fuzz/corpus/$target"/* "$work/$target/"
    else
        find captures -name '*.pcap*' -size -32k -exec cp --backup=numbered {} "$work/$target/" \;
    fi
    mkdir -p fuzz/artifacts
    target/fuzz/*/release/"$target" "$work/$target" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="fuzz/artifacts/$target-" -print_final_stats=1 2>"$work/log" || { tail -40 "$work/log"; exit 1; }
    # One line a target: name, executions, edges reached, seconds.
    awk -v target="$target" -v seconds="$seconds" '
        /cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") edges = $(i + 1) }
        /stat::number_of_executed_units/ { runs = $2 }
        END { printf "%s: %d executions, %d edges, %d s\n", target, runs, edges, seconds }
    ' "$work/log"
done
