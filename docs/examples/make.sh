#!/usr/bin/env bash
# Makes the bundles beside this script: for each of the five incidents everything a ticket needs, redacted with a key that is no secret, so
# that the same files come out again.      docs/examples/make.sh [PROGRAM [FOLDER]]
set -euo pipefail
cd "$(dirname "$0")/../.."
program=${1:-target/release/tcpwhy}
into=${2:-docs/examples}
key=$(mktemp)
trap 'rm -f "$key"' EXIT
echo "the key of the examples, known to everybody" >"$key"
while read -r name capture; do
    rm -rf "${into:?}/$name"
    "$program" report --redact --key "$key" -o "$into/$name" "captures/incidents/$capture"
done <<'LIST'
asymmetric-route asymmetric/vm-any-drop.pcap
proxy-header gitlab/both-legs.pcap
stale-address stale-address/haproxy-both-legs.pcap
hung-requests hung-fetch/both-sides.pcap
blackout blackout/all.pcap
LIST
