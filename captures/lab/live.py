"""Checks what live.sh recorded: live.py PROGRAM FOLDER."""

import datetime
import json
import pathlib
import subprocess
import sys

program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
good = True


def check(what, holds, more=""):
    global good
    good = good and holds
    print(f"{'ok     ' if holds else 'FAILED '} {what}{': ' if more else ''}{more}")


def seconds(text):
    whole, _, fraction = text.rstrip("Z").partition(".")
    moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp() + float("0." + (fraction or "0"))


def report(path):
    out = subprocess.run([program, "--format", "json", str(path)], capture_output=True, check=True)
    return json.loads(out.stdout)


def roots(of):
    return sorted((one["rule"], one["id"], one["scope"]["flows"], tuple(one["scope"]["servers"])) for one in of["incidents"])


lines = [line.split(" ", 1) for line in (folder / "live.out").read_text().splitlines()]
events = [(float(stamp), json.loads(text)) for stamp, text in lines]
told = [(stamp, event) for stamp, event in events if "event" in event]
for stamp, event in told:
    print(f"          {event['time']} {event['event']:<10} {event.get('rule') or event['incident']['rule']} {event.get('flows', '')}")
opened = {event["incident"]["rule"]: (stamp, event) for stamp, event in told if event["event"] == "opened"}

stamp, event = opened.get("proxy-header-to-tls-port", (0, None))
check("the GitLab incident is told", event is not None)
if event:
    # The first failing connection is known to have failed with its last cited packet.
    known = max(seconds(one["time"]) for one in event["incident"]["evidence"])
    check("within 2 s of the packet that makes it known", stamp - known < 2, f"{stamp - known:.2f} s")
stamp, event = opened.get("upstream-hang", (0, None))
check("the hung upstream is told", event is not None)
if event:
    asked = min(seconds(one["time"]) for one in event["incident"]["evidence"])
    check("within 2 s of its threshold of 10 s", stamp - asked < 12, f"{stamp - asked:.2f} s after the request")
check("nothing is told twice", len([1 for _, event in told if event["event"] == "opened"]) == len(opened))

ours, theirs = report(folder / "ours.pcapng"), report(folder / "theirs.pcap")
summary = [event for _, event in events if event.get("type") == "incident"]
check("the file says what the interface said", roots({"incidents": summary}) == roots(ours), str(len(summary)))
check("a parallel tcpdump leads to the same incidents", [r[:2] for r in roots(ours)] == [r[:2] for r in roots(theirs)])
ids = [sorted(one["id"] for one in of["findings"] if one["subject"] == "flow") for of in (ours, theirs)]
check("and to the same findings", ids[0] == ids[1], f"{len(ids[0])} and {len(ids[1])}")


def fields(path, names, *more):
    command = ["tshark", "-r", str(path), "-T", "fields", *(f"-e{name}" for name in names), *more]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in out.stdout.splitlines()], out.stderr


times = {row[0]: row[1] for row in fields(folder / "ours.pcapng", ["frame.number", "frame.time_epoch"])[0]}
files = sorted((folder / "proof").glob("*.pcapng"))
check("evidence of every incident", len(files) == len(opened), ", ".join(path.name for path in files))
for path in files:
    rows, errors = fields(path, ["frame.time_epoch", "frame.comment"])
    complaints = [line for line in errors.splitlines() if "Running as user" not in line]
    check(f"tshark reads {path.name}", not complaints and len(rows) > 2, f"{len(rows)} packets{complaints or ''}")
    cited = [(time, comment) for time, comment in rows if comment.startswith("packet ")]
    right = [times.get(comment.split()[1].rstrip(":")) == time for time, comment in cited]
    check("its comments stand on the frames they name", len(cited) > 0 and all(right), f"{len(cited)} comments")
    alone = report(path)["incidents"]
    rule = next((rule for rule in opened if f"-{rule}-" in path.name), "?")
    check("and alone it names the same cause", bool(alone) and alone[0]["rule"] == rule, alone[0]["rule"] if alone else "none")
sys.exit(0 if good else 1)
