"""Judges what soak.sh recorded: soak.py FOLDER."""

import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
faults = [line.split() for line in (folder / "faults").read_text().splitlines()]
memory = [int(line.split()[1]) // 1024 for line in (folder / "memory").read_text().splitlines()]
lines = [line.split(" ", 1) for line in (folder / "live.out").read_text().splitlines()]
events = [(float(stamp), json.loads(text)) for stamp, text in lines]
opened = [(stamp, event["incident"]) for stamp, event in events if event.get("event") == "opened"]
good = True
print("| minute | fault | told as | after | memory |\n|---|---|---|---|---|")
ports = set()
for minute, (begin, port, kind) in enumerate(faults):
    ports.add(port)
    told = [(stamp, one) for stamp, one in opened if any(server.endswith(f":{port}") for server in one["scope"]["servers"])]
    verdict = ", ".join(one["rule"] for _, one in told) or "NOTHING"
    after = f"{told[0][0] - float(begin):.1f} s" if told else ""
    good = good and len(told) == 1
    print(f"| {minute + 1} | {kind} at {port} | {verdict} | {after} | {memory[minute]} MB |")
others = [one for _, one in opened if not any(server.rsplit(":", 1)[-1] in ports for server in one["scope"]["servers"])]
for one in others:
    good = False
    print(f"FAILED: {one['headline']} was injected by nobody")
gone = [event for _, event in events if event.get("event") in ("withdrawn", "superseded")]
for event in gone:
    print(f"note: {event['event']}: {event['headline']}")
early, late = max(memory[: max(5, len(memory) // 3)]), max(memory[-5:])
if late > early * 1.15 + 4:
    good = False
    print(f"FAILED: memory grew from {early} to {late} MB")
print(f"{len(faults)} faults, {len(opened)} incidents told; memory {memory[0]} MB after a minute, {late} MB in the end")
sys.exit(0 if good else 1)
