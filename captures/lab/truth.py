"""What tshark reads in captures, one line per TCP connection with frame numbers: truth.py FILE…

Frames are tshark's numbers. cert: the dates of the first certificate; alert NN: readable; app N: one TLS application-data record of N octets
(a TLS 1.3 alert is 19, Java's 35; Finished 53 or 69, Java's 69 or 85)."""
import subprocess
import sys

FIELDS = (
    "frame.number tcp.stream ip.src ipv6.src tcp.srcport ip.dst ipv6.dst tcp.dstport tcp.flags tls.handshake.type"
    " tls.alert_message.desc x509af.utcTime tls.record.content_type tls.record.length tls.record.opaque_type tcp.len frame.time_relative http.request.uri http.response.code"
).split()
HANDSHAKE = {"1": "ClientHello", "2": "ServerHello", "11": "Certificate", "13": "CertificateRequest", "14": "ServerHelloDone", "20": "Finished"}


def rows(path):
    command = ["tshark", "-n", "-r", path, "-T", "fields", "-E", "aggregator=,", "-o", "tcp.relative_sequence_numbers:TRUE", "-Y", "tcp"]
    for field in FIELDS:
        command += ["-e", field]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        yield dict(zip(FIELDS, line.split("\t") + [""] * len(FIELDS)))


def flows(path):
    found = {}
    for row in rows(path):
        source = f"{row['ip.src'] or row['ipv6.src']}:{row['tcp.srcport']}"
        target = f"{row['ip.dst'] or row['ipv6.dst']}:{row['tcp.dstport']}"
        flow = found.setdefault(row["tcp.stream"], [source, target, []])
        side = ">" if source == flow[0] else "<"
        flags = int(row["tcp.flags"], 16)
        words = ["RST"] * bool(flags & 4) + ["SYN"] * bool(flags & 2) + ["FIN"] * bool(flags & 1)
        if row["http.request.uri"] or row["http.response.code"]:
            words.append(("GET " if row["http.request.uri"] else "") + (row["http.request.uri"] or row["http.response.code"]))
        words += [HANDSHAKE[kind] for kind in row["tls.handshake.type"].split(",") if kind in HANDSHAKE]
        if row["x509af.utcTime"]:
            first, last = row["x509af.utcTime"].replace(" (UTC)", "").split(",")[:2]
            words.append(f"({first} to {last})")
        if row["tls.alert_message.desc"]:
            words.append("alert " + row["tls.alert_message.desc"])
        kinds, lengths = row["tls.record.content_type"].split(","), row["tls.record.length"].split(",")
        opaque = row["tls.record.opaque_type"].split(",")
        sealed = opaque if "23" in opaque else kinds
        if "23" in sealed and len(sealed) <= len(lengths):
            words += [f"app {length}" for kind, length in zip(sealed, lengths[-len(sealed):]) if kind == "23"]
        elif "21" in kinds and not row["tls.alert_message.desc"]:
            words.append("encrypted alert")
        if words:
            flow[2].append(f"#{row['frame.number']}{side}{' '.join(words)}")
    return found


for path in sys.argv[1:]:
    print(path.rsplit("/", 1)[-1])
    other = subprocess.run(["tshark", "-n", "-r", path, "-Y", "not tcp", "-T", "fields", "-e", "frame.protocols"], capture_output=True, text=True).stdout.split()
    counts = {name: 0 for name in sorted({line.rsplit(":", 1)[-1] for line in other})}
    for line in other:
        counts[line.rsplit(":", 1)[-1]] += 1
    if counts:
        print("  other frames: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    for source, target, words in flows(path).values():
        print(f"  {source} > {target}: {', '.join(words)}")
