#!/usr/bin/env bash
# All fuzz targets, or those named, one after another: tests/fuzz-long.sh [SECONDS [TARGET...]]. 300 s each unless told.
# Standard output is a Markdown table; what broke is told on standard error and kept in fuzz/artifacts. Exit code 1 when anything broke.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-300}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- $(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"$|\1|p' fuzz/Cargo.toml)
broken=0
echo "| target | executions | edges reached | seconds |"
echo "|---|---|---|---|"
for target; do
    if line=$(tests/fuzz-smoke.sh "$seconds" "$target"); then
        sed -E 's/^(.*): ([0-9]+) executions, ([0-9]+) edges, ([0-9]+) s$/| \1 | \2 | \3 | \4 |/' <<<"$line"
    else
        echo "| $target | **broken** | | |"
        echo "$line" >&2
        broken=1
    fi
done
exit "$broken"
