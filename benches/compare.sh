#!/usr/bin/env bash
# How fast and how small tcpwhy is beside other programs, on the same traffic, in one sitting:
#
#   benches/compare.sh >speed.md                              everything but `build`, at the standard sizes: some 40 minutes
#   benches/compare.sh --rounds 1 --size 64M mix                a quick look
#   benches/compare.sh --binary target/quick/tcpwhy small packed
#
#   mix       what a load balancer sees: TLS, HTTP, DNS, some faults     standard size 2G
#   small     short flows of small packets                               1100M
#   memory    peak memory: mix and small, ten times the mix through a pipe, flood (450M), storm (800M), evil (500M)
#   growth    time per packet of 1, 4 and 16 times 256M
#   packed    gzip and zstd input, beside the unpacker and a pipe from it  1G
#   startup   a capture of 50 KB, 20 times
#   binary    its size
#   build     how long a release build takes, from nothing and after a change (only when asked for)
#
# --rounds N     runs of each program (5)            --size SIZE      of every shape; `growth` begins with it
# --binary FILE  the tcpwhy to measure               --limit SECONDS  after which a program is stopped (900)
#
# Programs take turns: each round runs all of them once, so a slow minute of the machine hits all. Ratios are those of one round; the
# tables give the smallest, the median and the largest. Every file is read once before each run, so it lies in the page cache. A program
# that is not installed is said to be missing (Debian: tcpdump tshark tcptrace libndpi-bin argus-server time zstd). What took more than
# a minute in the first round is not run again.
#
# Markdown goes to standard output, what goes on meanwhile to standard error; files to a folder in $TMPDIR that is removed at the end, at
# most 5 GB at once.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

rounds=5 size='' binary='' limit=900 sections=()
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=${2:?} && shift ;;
        --size) size=${2:?} && shift ;;
        --binary) binary=${2:?} && shift ;;
        --limit) limit=${2:?} && shift ;;
        mix | small | memory | growth | packed | startup | binary | build) sections+=("$1") ;;
        *) usage ;;
    esac
    shift
done
[ ${#sections[@]} -gt 0 ] || sections=(mix small memory growth packed startup binary)

say() { echo "== $*" >&2; }
have() { command -v "$1" >/dev/null; }
[ -x /usr/bin/time ] || { say "GNU time is needed (Debian: apt-get install time)"; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

if [ -z "$binary" ]; then
    say "building"
    cargo build --quiet --release
    binary=target/release/tcpwhy
fi
[ -x "$binary" ] || { say "$binary is no program"; exit 2; }
# It uses nothing but the standard library, so there is no need to wait for the benches' dependencies.
rustc --edition 2024 -O -o "$work/generate" examples/generate.rs

# Octets of a size as the generator takes it; $2 times as much.
octets() {
    local number=${1%[KMG]}
    case $1 in
        *K) number=$((number * 1000)) ;;
        *M) number=$((number * 1000000)) ;;
        *G) number=$((number * 1000000000)) ;;
    esac
    echo $((number * ${2:-1}))
}

# make SHAPE OCTETS: $work/SHAPE.pcap, and what is in it as `octets packets flows` in $work/SHAPE.totals.
make() {
    if [ "$2" -gt 5000000000 ]; then
        say "$1 of $2 octets would need more than 5 GB of disk"
        return 1
    fi
    local free
    free=$(df --output=avail -B1 "$work" | tail -n 1)
    if [ "$2" -gt $((free - 500000000)) ]; then
        say "$1 of $2 octets: only $free are free below $work (TMPDIR says where that is)"
        return 1
    fi
    say "writing $1, $2 octets"
    "$work/generate" "$1" "$2" "$work/$1.pcap" 2>"$work/said"
    awk '{ print $1, $3, $5 }' "$work/said" >"$work/$1.totals"
}

# measure PROGRAM ROUND TOTALS INPUT COMMAND…: runs it and adds a line to $work/results. INPUT is warmed, and is standard input too.
measure() {
    local program=$1 round=$2 totals=$3 input=$4 code=0
    shift 4
    if [ -f "$input" ]; then cat "$input" >/dev/null; fi
    say "$program, round $round"
    /usr/bin/time -q -o "$work/time" -f '%e %U %S %M' timeout "$limit" "$@" <"$input" >/dev/null 2>"$work/errors" || code=$?
    if [ "$code" != 0 ]; then
        say "$program ended with $code: $(tail -n 1 "$work/errors")"
    fi
    # wall, CPU, KB, code, packets, octets, flows
    awk -v program="$program" -v round="$round" -v code="$code" '
        FNR == NR { wall = $1; cpu = $2 + $3; kb = $4; next }
        { print program "\t" round "\t" wall "\t" cpu "\t" kb "\t" code "\t" $2 "\t" $1 "\t" $3 }
    ' "$work/time" "$totals" >>"$work/results"
}

# Whether a program is to run in this round: it is installed, did not fail, and took less than a minute in the first round.
wanted() {
    awk -F '\t' -v program="$1" '$1 == program && ($6 != 0 || $3 > 60) { slow = 1 } END { exit slow }' "$work/results"
}

stats='
    function sorted(list, n,    i, j, x) {
        for (i = 2; i <= n; i++) { x = list[i]; for (j = i - 1; j >= 1 && list[j] > x; j--) list[j + 1] = list[j]; list[j + 1] = x }
    }
    function median(list, n) { sorted(list, n); return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2 }
    function span(list, n, format,    middle) {
        if (!n) return "-"
        middle = median(list, n)
        return n == 1 ? sprintf(format, list[1]) : sprintf(format " / " format " / " format, list[1], middle, list[n])
    }
'

# The table of what was measured; times and ratios are per packet, so that a piece of the file can stand for it.
compared() {
    echo '| program | wall s | user+sys s | wall, ratio to tcpdump | CPU, ratio to read() | packets/s | octets/s | peak RSS |'
    echo '|---|---|---|---|---|---|---|---|'
    awk -F '\t' "$stats"'
        !($1 in seen) { seen[$1] = 1; order[++programs] = $1 }
        $6 != 0 { failed[$1] = $6; next }
        { n = ++runs[$1]; wall[$1, n] = $3; cpu[$1, n] = $4; round[$1, n] = $2; packets[$1] = $7; octets[$1] = $8
          at[$1, $2] = $3 / $7; work[$1, $2] = $4 / $7; if ($5 > peak[$1]) peak[$1] = $5 }
        END {
            for (p = 1; p <= programs; p++) {
                name = order[p]; n = runs[name]
                if (!n) { printf "| %s | %s | | | | | | |\n", name, failed[name] == 124 ? "over the limit" : "failed: exit code " failed[name]; continue }
                dumps = reads = 0
                for (i = 1; i <= n; i++) {
                    walls[i] = wall[name, i]; cpus[i] = cpu[name, i]; r = round[name, i]
                    if (at["tcpdump", r]) dump[++dumps] = at[name, r] / at["tcpdump", r]
                    if (work["read()", r]) read[++reads] = work[name, r] / work["read()", r]
                }
                middle = median(walls, n)
                if (middle == 0) middle = 0.01
                printf "| %s | %s | %s | %s | %s | %.2f M | %.2f GB | %.0f MB |\n", name, span(walls, n, "%.2f"), span(cpus, n, "%.2f"),
                       span(dump, dumps, "%.2f"), span(read, reads, "%.1f"), packets[name] / middle / 1e6, octets[name] / middle / 1e9,
                       peak[name] * 1024 / 1e6
            }
        }
    ' "$work/results"
    local missing=()
    for program in tcpdump tshark tcptrace ndpiReader argus; do have "$program" || missing+=("$program"); done
    [ ${#missing[@]} = 0 ] || printf '\nMissing, not installed here: %s.\n' "${missing[*]}"
}

describe() { # SHAPE
    awk '{ printf "%.2f GB, %.2f M packets, %.0f k flows, mean frame %.0f octets.\n\n", $1 / 1e9, $2 / 1e6, $3 / 1e3, ($1 - 24) / $2 - 16 }' "$work/$1.totals"
}

section_speed() { # SHAPE STANDARD-SIZE
    local shape=$1 all file=$work/$1.pcap totals=$work/$1.totals
    all=$(octets "${size:-$2}")
    make "$shape" "$((all / 8))" || return 0
    mv "$file" "$work/eighth.pcap" && mv "$totals" "$work/eighth.totals"
    make "$shape" "$all" || return 0
    printf '\n## %s\n\n' "$shape"
    describe "$shape"
    : >"$work/results"
    local round
    for round in $(seq "$rounds"); do
        measure 'read()' "$round" "$totals" "$file" dd if="$file" of=/dev/null bs=1M
        if have tcpdump; then measure tcpdump "$round" "$totals" "$file" tcpdump -r "$file" -w /dev/null; fi
        measure 'tcpwhy, 1 thread' "$round" "$totals" "$file" "$binary" --threads 1 "$file"
        measure 'tcpwhy, 2 threads' "$round" "$totals" "$file" "$binary" --threads 2 "$file"
        if have tcptrace && wanted tcptrace; then measure tcptrace "$round" "$totals" "$file" tcptrace -n "$file"; fi
        if have ndpiReader && wanted ndpiReader; then measure ndpiReader "$round" "$totals" "$file" ndpiReader -i "$file"; fi
        if have argus && wanted argus; then measure argus "$round" "$totals" "$file" argus -r "$file" -w /dev/null; fi
        if have tshark && wanted 'tshark, first eighth'; then
            measure 'tshark, first eighth' "$round" "$work/eighth.totals" "$work/eighth.pcap" tshark -r "$work/eighth.pcap" -q -z expert
        fi
    done
    compared
    printf '\n`read()` is `dd bs=1M of=/dev/null`. Three numbers are the smallest, the median and the largest of %s rounds.\n' "$rounds"
    rm -f "$work"/*.pcap
}

# memory_row LABEL SHAPE OCTETS THREADS [OPTION…]: through a pipe, so that nothing lies on the disk.
memory_row() {
    local label=$1 shape=$2 all=$3 threads=$4 code=0
    shift 4
    say "memory: $label, $threads thread(s)"
    mkfifo "$work/pipe"
    "$work/generate" "$shape" "$all" - 2>"$work/said" >"$work/pipe" &
    /usr/bin/time -q -o "$work/time" -f '%e %U %S %M' timeout "$limit" "$binary" --threads "$threads" "$@" - \
        <"$work/pipe" >/dev/null 2>"$work/errors" || code=$?
    wait || true
    rm "$work/pipe"
    if [ "$code" != 0 ]; then
        echo "| $label | $threads | failed: exit code $code | | | | | |"
        return
    fi
    awk -v label="$label" -v threads="$threads" -v shape="$shape" '
        FNR == NR { octets = $1; packets = $3; flows = $5; next }
        { each = shape == "storm" || shape == "flood" ? sprintf("%.0f", $4 * 1024 / flows) : ""
          printf "| %s | %s | %.2f GB | %.2f M | %.0f k | %.1f | %.0f MB | %s |\n", label, threads, octets / 1e9, packets / 1e6,
                 flows / 1e3, $2 + $3, $4 * 1024 / 1e6, each }
    ' "$work/said" "$work/time"
}

section_memory() {
    printf '\n## memory\n\nAll through a pipe. `long` is the mix at its rate of new flows, ten times as long; all flows of `storm` are open at the end.\n\n'
    echo '| traffic | threads | size | packets | flows | user+sys s | peak RSS | octets per flow |'
    echo '|---|---|---|---|---|---|---|---|'
    local threads mix
    mix=$(octets "${size:-2G}")
    for threads in 1 2; do
        memory_row mix mix "$mix" "$threads"
        memory_row small small "$(octets "${size:-1100M}")" "$threads"
        memory_row long mix "$((mix * 10))" "$threads"
        memory_row flood flood "$(octets "${size:-450M}")" "$threads"
        memory_row storm storm "$(octets "${size:-800M}")" "$threads"
        memory_row evil evil "$(octets "${size:-500M}")" "$threads"
        "$binary" --help >"$work/help"
        if grep -q -e --max-memory "$work/help"; then
            memory_row 'evil, `--max-memory 256M`' evil "$(octets "${size:-500M}")" "$threads" --max-memory 256M
            memory_row 'storm, `--max-memory 256M`' storm "$(octets "${size:-800M}")" "$threads" --max-memory 256M
        fi
    done
}

section_growth() {
    printf '\n## growth\n\n'
    echo '| mix | packets | wall, µs per packet | user+sys, µs per packet | peak RSS |'
    echo '|---|---|---|---|---|'
    local times round
    for times in 1 4 16; do
        if ! make mix "$(octets "${size:-256M}" "$times")"; then
            echo "| ${times}x | not enough disk: left out | | | |"
            continue
        fi
        : >"$work/results"
        for round in $(seq "$rounds"); do
            measure tcpwhy "$round" "$work/mix.totals" "$work/mix.pcap" "$binary" --threads 1 "$work/mix.pcap"
        done
        awk -F '\t' -v times="$times" "$stats"'
            $6 == 0 { n++; wall[n] = $3 / $7 * 1e6; cpu[n] = $4 / $7 * 1e6; packets = $7; if ($5 > peak) peak = $5 }
            END { printf "| %sx | %.2f M | %s | %s | %.0f MB |\n", times, packets / 1e6, span(wall, n, "%.3f"), span(cpu, n, "%.3f"), peak * 1024 / 1e6 }
        ' "$work/results"
        rm "$work/mix.pcap"
    done
}

section_packed() {
    make mix "$(octets "${size:-1G}")" || return 0
    printf '\n## packed\n\n'
    describe mix
    echo '| input | size | program | wall s | user+sys s | wall, ratio to the unpacker | wall, ratio to the pipe |'
    echo '|---|---|---|---|---|---|---|'
    local packer file round
    for packer in gzip zstd; do
        if ! have "$packer"; then
            echo "| $packer | | missing, not installed here | | | | |"
            continue
        fi
        say "packing with $packer"
        file=$work/mix.pcap.$packer
        "$packer" -q -c <"$work/mix.pcap" >"$file"
        : >"$work/results"
        for round in $(seq "$rounds"); do
            measure "$packer -dc" "$round" "$work/mix.totals" "$file" "$packer" -q -dc "$file"
            # What one would do without: the pipe takes another process, so it is compared with two threads.
            measure "$packer -dc, piped to tcpwhy, 2 threads" "$round" "$work/mix.totals" "$file" \
                bash -o pipefail -c '"$1" -q -dc "$2" | "$3" --threads 2 -' - "$packer" "$file" "$binary"
            measure 'tcpwhy, 1 thread' "$round" "$work/mix.totals" "$file" "$binary" --threads 1 "$file"
            measure 'tcpwhy, 2 threads' "$round" "$work/mix.totals" "$file" "$binary" --threads 2 "$file"
        done
        awk -F '\t' -v packer="$packer" -v octets="$(stat -c %s "$file")" "$stats"'
            !($1 in seen) { seen[$1] = 1; order[++programs] = $1 }
            $6 == 0 { n = ++runs[$1]; wall[$1, n] = $3; cpu[$1, n] = $4; at[$1, $2] = $3; round[$1, n] = $2 }
            END {
                for (p = 1; p <= programs; p++) {
                    name = order[p]; n = runs[name]; ratios = pipes = 0
                    for (i = 1; i <= n; i++) {
                        walls[i] = wall[name, i]; cpus[i] = cpu[name, i]; r = round[name, i]
                        if (at[order[1], r] > 0) ratio[++ratios] = wall[name, i] / at[order[1], r]
                        if (at[order[2], r] > 0) pipe[++pipes] = wall[name, i] / at[order[2], r]
                    }
                    printf "| %s | %.0f MB | %s | %s | %s | %s | %s |\n", packer, octets / 1e6, name, span(walls, n, "%.2f"), span(cpus, n, "%.2f"), span(ratio, ratios, "%.2f"), span(pipe, pipes, "%.2f")
                }
            }
        ' "$work/results"
        rm "$file"
    done
    rm "$work/mix.pcap"
}

section_startup() {
    # Flows that are under way are finished: 52 KB.
    make mix 2000
    printf '\n## startup\n\nA capture of %s octets, 20 runs each: milliseconds, the smallest, the median and the largest.\n\n' "$(cut -d' ' -f1 "$work/mix.totals")"
    echo '| program | ms |'
    echo '|---|---|'
    local file=$work/mix.pcap
    started true "$(type -P true)"
    if have tcpdump; then started tcpdump tcpdump -r "$file" -w /dev/null; fi
    if have tshark; then started tshark tshark -r "$file" -q -z expert; fi
    started 'tcpwhy, 1 thread' "$binary" --threads 1 "$file"
    started tcpwhy "$binary" "$file"
    rm "$file"
}

started() { # LABEL COMMAND…
    local label=$1 begin end
    shift
    say "startup: $label"
    for _ in $(seq 20); do
        begin=$EPOCHREALTIME
        "$@" >/dev/null 2>&1 || true
        end=$EPOCHREALTIME
        echo "$begin $end"
    done | awk -v label="$label" "$stats"'{ all[++n] = ($2 - $1) * 1000 } END { printf "| %s | %s |\n", label, span(all, n, "%.1f") }'
}

section_binary() {
    printf '\n## binary\n\n'
    printf '`%s` has %.1f MB' "$(basename "$binary")" "$(awk "BEGIN { print $(stat -c %s "$binary") / 1e6 }")"
    if have strip; then
        strip -o "$work/stripped" "$binary"
        printf ', %.1f MB without symbols and line tables' "$(awk "BEGIN { print $(stat -c %s "$work/stripped") / 1e6 }")"
    fi
    echo '.'
}

section_build() {
    printf '\n## build\n\n| build | wall s | user+sys s |\n|---|---|---|\n'
    local label
    for label in 'release, from nothing' 'release, after a change'; do
        say "$label"
        [ "$label" = 'release, from nothing' ] || touch src/lib.rs
        CARGO_TARGET_DIR=$work/target /usr/bin/time -q -o "$work/time" -f '%e %U %S' cargo build --quiet --release
        awk -v label="$label" '{ printf "| %s | %.0f | %.0f |\n", label, $1, $2 + $3 }' "$work/time"
    done
    rm -rf "$work/target"
}

versions() {
    if have tcpdump; then tcpdump --version 2>&1 | head -n 1; fi
    if have tshark; then tshark --version 2>/dev/null | sed -n '1s/TShark (Wireshark) \([^ ]*\).*/tshark \1/p'; fi
    if have tcptrace; then tcptrace -v 2>&1 | sed -n 's/.*tcptrace -- version \([^ ]*\).*/tcptrace \1/p'; fi
    if have ndpiReader; then dpkg-query -W -f 'ndpiReader ${Version}\n' libndpi-bin 2>/dev/null || echo ndpiReader; fi
    if have argus; then dpkg-query -W -f 'argus ${Version}\n' argus-server 2>/dev/null || echo argus; fi
}

cat <<X
# tcpwhy beside other programs

Written by \`benches/compare.sh\`. $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(rustc --version | cut -d' ' -f1,2),
Linux $(uname -r | cut -d- -f1), $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(awk '/MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo),
load $(cut -d' ' -f1 /proc/loadavg) at the start. $(versions | paste -sd, | sed 's/,/, /g').
X
for section in "${sections[@]}"; do
    case $section in
        mix) section_speed mix 2G ;;
        small) section_speed small 1100M ;;
        *) "section_$section" ;;
    esac
done
