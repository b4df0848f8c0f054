"""Measures tcpwhy against the truth of captures/two-ends and writes docs/accuracy.md.

accuracy.py [CAPTURES [OUTPUT]]      UNSEEN=DIR: further runs DIR/NUMBER/SCENARIO, made with TWO_ENDS_SEED=NUMBER and not kept, are
measured as well; their figures go to unseen.tsv. TCPWHY and SEGMENTS name the programs (default: target/debug/tcpwhy, target/debug/examples/segments)

causes.tsv says for each scenario what was done to the traffic, by whom, and by which rules that can be named truly at each end ("-": at this end
nothing can be seen). missed.tsv gives the reasons of what does not agree. Nothing in truth.tsv comes from tcpwhy."""
import collections
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "../.."))
TCPWHY = os.environ.get("TCPWHY", os.path.join(ROOT, "target/debug/tcpwhy"))
SEGMENTS = os.environ.get("SEGMENTS", os.path.join(ROOT, "target/debug/examples/segments"))
ENDS = ("client", "server")
OTHER = {"client": "server", "server": "client"}
TSHARK = ("retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order")
CLIENT = "203.0.113.7"


def table(path):
    lines = [line.rstrip("\n").split("\t") for line in open(path) if not line.startswith("#")]
    return [dict(zip(lines[0], row)) for row in lines[1:]]


def report(*files):
    return json.loads(subprocess.run([TCPWHY, "--format", "json", *files], capture_output=True, text=True, check=True).stdout)


class Said:
    """The first root of a report: rule, whom it accuses, the direction it names, its words."""

    def __init__(self, told):
        roots = [f for f in told["findings"] if not f["explained_by"] and f["severity"] != "silent"]
        self.rule, self.where, self.says, self.severity, self.direction = "-", "-", "", "", "-"
        if told["incidents"]:
            first = told["incidents"][0]
            self.rule, self.where, self.says, self.severity = first["rule"], first["culprit"]["role"], first["headline"], first["severity"]
            roots = [f for f in roots if f["rule"] == self.rule]
        elif roots:
            self.rule, self.says, self.severity = roots[0]["rule"], roots[0]["says"], roots[0]["severity"]
        self.where = {"upstream": "server"}.get(self.where, self.where)
        values = roots[0]["values"] if roots else {}
        # Rules that say where octets got lost; others name a sender that waits.
        if self.rule in ("packet-loss", "loss-burst-single"):
            self.direction = "up" if values["sender"].startswith(CLIENT) else "down"
        self.others = sorted({i["rule"] for i in told["incidents"]} - {self.rule})

    def agrees(self, cause, end):
        names = cause[end].split(",")
        if self.rule not in names:
            return False
        where = self.where in ("-", cause["where"]) or cause[end] == "-"
        # What a kernel answers to a forged RST is its own, and at the other end nothing shows more.
        where = where or (cause["scenario"] == "reset-to-server" and end == "client" and self.where == "server")
        return where and (self.direction == "-" or cause["direction"] in ("-", "both", self.direction))


def frames(folder, scenario):
    """For each end: frame number -> the row of truth and "sent" (it left here), "came", or "doubled" (a copy the network made), data only."""
    found = {end: {} for end in ENDS}
    for row in table(os.path.join(folder, scenario, "truth.tsv")):
        if "data" not in row["what"] or row["from"] == "middle":
            continue
        for end in ENDS:
            for place, number in enumerate(n for n in row[end].split(",") if n != "-"):
                role = "sent" if end == row["from"] else "doubled" if place else "came"
                found[end][int(number)] = (row, role)
    return found


def segments(path):
    lines = subprocess.run([SEGMENTS, path], capture_output=True, text=True, check=True).stdout.splitlines()
    return {int(number): word for _, number, word in (line.split("\t") for line in lines)}


def tshark(path):
    command = ["tshark", "-n", "-r", path, "-T", "fields", "-e", "frame.number"]
    for name in TSHARK:
        command += ["-e", f"tcp.analysis.{name}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {int(cells[0]): {name for name, cell in zip(TSHARK, cells[1:]) if cell} for cells in (line.split("\t") for line in lines)}


AGAIN = {"timeout", "fast", "tail-probe", "spurious"}


class Score:
    def __init__(self):
        self.hit = self.miss = self.false = 0
        self.where = collections.Counter()

    def add(self, true, said, name):
        self.hit += true and said
        self.miss += true and not said
        self.false += said and not true
        if true != said:
            self.where[name] += 1

    def __str__(self):
        def share(part, whole):
            return "–" if not whole else f"{100 * part / whole:.1f} %"

        return f"{self.hit + self.miss} | {share(self.hit, self.hit + self.miss)} | {share(self.hit, self.hit + self.false)} | {self.miss} | {self.false}"


def measure(folder, scenarios):
    scores = collections.defaultdict(Score)
    untold = collections.Counter()
    kinds, needless = collections.defaultdict(collections.Counter), collections.defaultdict(Score)
    for scenario in scenarios:
        truth = frames(folder, scenario)
        for end in ENDS:
            path = os.path.join(folder, scenario, f"{end}.pcap")
            ours, theirs = segments(path), tshark(path)
            if set(ours) != set(truth[end]):
                raise SystemExit(f"{path}: data frames of tcpwhy and of the truth differ: {sorted(set(ours) ^ set(truth[end]))[:10]}")
            reached = {}
            for number, (row, role) in sorted(truth[end].items()):
                again = row["sent"] != "first" and role != "doubled"
                flow = (row["flow"], row["from"])
                before, reached[flow] = reached.get(flow, 0), max(reached.get(flow, 0), int(row["seq"]) + int(row["len"]))
                if again and role == "came" and int(row["seq"]) >= before:
                    # Neither it nor anything behind it was here before: at this end nothing tells it from a first copy.
                    untold[scenario] += 1
                    continue
                place = "sender's end" if role == "sent" else "receiver's end"
                word, marks = ours[number], theirs[number]
                scores["tcpwhy", place].add(again, word in AGAIN, f"{scenario}/{end}")
                scores["tshark, retransmission of any kind", place].add(again, bool(marks - {"out_of_order"}), f"{scenario}/{end}")
                scores["tshark, out-of-order counted as well", place].add(again, bool(marks), f"{scenario}/{end}")
                if os.environ.get("SHOW") and again != (word in AGAIN):
                    print(scenario, end, number, role, word, row)
                if again:
                    kind = row["kernel"] if row["had"] != "acked" else row["kernel"] + ", needless"
                    kinds[place, kind][word] += 1
                    needless["tcpwhy", place].add(row["had"] == "acked", word == "spurious", f"{scenario}/{end}")
                    needless["tshark", place].add(row["had"] == "acked", "spurious_retransmission" in marks, f"{scenario}/{end}")
    return scores, kinds, needless, untold


def lost_counts(folder, scenario, told, truth):
    """Of each flow of which the report of both files counts what was lost in between: [(said, true)]."""
    flows = {int(row["client"].split(",")[0]): row["flow"] for row in reversed(truth) if row["client"] != "-"}
    found = []
    for finding in told["findings"]:
        if not finding["flow"] or finding["flow"]["file"] != 0 or finding["rule"] == "client-abandoned":
            continue
        for note in finding["notes"]:
            words = re.match(r"(\d+) of (\d+) packets from (\S+) that are in (client|server) are not in .*lost in between", note)
            if words:
                rows = [row for row in truth if row["flow"] == flows.get(finding["flow"]["id"]) and row["from"] == words[4]]
                far = OTHER[words[4]]
                found.append(((int(words[1]), int(words[2])), (sum(row[far] == "-" for row in rows), len(rows))))
    return found


def causes(folder):
    rows = []
    for cause in table(os.path.join(folder, "causes.tsv")):
        files = {end: os.path.join(folder, cause["scenario"], f"{end}.pcap") for end in ENDS}
        said = {end: Said(report(files[end])) for end in ENDS}
        told = report(*(f"{end}={files[end]}" for end in ENDS))
        said["both"] = Said(told)
        said["counts"] = lost_counts(folder, cause["scenario"], told, table(os.path.join(folder, cause["scenario"], "truth.tsv")))
        rows.append((cause, said))
    return rows


def damaged(folder):
    """Of the scenario corruption: segments that tcpwhy counts as damaged at the client's end, and those that were."""
    told = report(os.path.join(folder, "corruption", "client.pcap"))
    said = [int(finding["values"]["damaged"]) for finding in told["findings"] if finding["rule"] == "corrupt-segments"]
    return max(said, default=0), sum(row["fate"] == "altered" for row in table(os.path.join(folder, "corruption", "truth.tsv")))


def unseen(folder):
    """The figures of runs that are not kept: of UNSEEN when it is set, else those that were written down."""
    path = os.path.join(folder, "unseen.tsv")
    if "UNSEEN" in os.environ:
        total, runs = collections.defaultdict(Score), 0
        for run in sorted(os.listdir(os.environ["UNSEEN"])):
            run = os.path.join(os.environ["UNSEEN"], run)
            scenarios = sorted(name for name in os.listdir(run) if os.path.exists(os.path.join(run, name, "truth.tsv")))
            runs += len(scenarios)
            for key, score in measure(run, scenarios)[0].items():
                total[key].hit += score.hit
                total[key].miss += score.miss
                total[key].false += score.false
        with open(path, "w") as file:
            file.write("runs\tname\tplace\thit\tmiss\tfalse\n")
            for (name, place), score in sorted(total.items(), key=lambda item: (item[0][1] != "sender's end", item[0][0])):
                file.write(f"{runs}\t{name}\t{place}\t{score.hit}\t{score.miss}\t{score.false}\n")
    if not os.path.exists(path):
        return []
    rows = table(path)
    out = ["", UNSEEN.strip().format(runs=rows[0]["runs"]), "", "| | seen at | sent again | recall | precision | missed | false |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        score = Score()
        score.hit, score.miss, score.false = (int(row[name]) for name in ("hit", "miss", "false"))
        out.append(f"| {row['name']} | {row['place']} | {score} |")
    return out


VIEWS = ("client", "server", "both")


def matrix(rows, missed):
    out = ["| truth | by | at the client's end | at the server's end | both files |", "|---|---|---|---|---|"]
    for cause, said in rows:
        cells = []
        for view in VIEWS:
            one = said[view]
            where = f", {one.where}" if one.where != "-" else ""
            direction = f", {one.direction}" if one.direction != "-" else ""
            word = "nothing" if one.rule == "-" else f"{one.rule} ({one.severity}{where}{direction})"
            good = one.agrees(cause, view)
            cells.append(word if good else f"**{word}**")
        direction = "" if cause["direction"] == "-" else f", {cause['direction']}"
        out.append(f"| {cause['scenario']}: {cause['cause']} | {cause['where']}{direction} | " + " | ".join(cells) + " |")
    return out


def main(folder, path):
    rows = causes(folder)
    missed = {(row["scenario"], row["view"]): row["reason"] for row in table(os.path.join(folder, "missed.tsv"))}
    wrong = [(cause, view) for cause, said in rows for view in VIEWS if not said[view].agrees(cause, view)]
    count = len(rows) * len(VIEWS)
    scores, kinds, needless, untold = measure(folder, [cause["scenario"] for cause, _ in rows])
    out = [HEAD.strip(), "", "## Causes", "", CAUSES.strip(), "", *matrix(rows, missed), ""]
    out += [f"{count - len(wrong)} of {count} agree. What does not:", ""]
    if wrong:
        out += ["| scenario | seen from | why |", "|---|---|---|"]
        out += [f"| {cause['scenario']} | {view} | {missed.get((cause['scenario'], view), '?')} |" for cause, view in wrong]
    out += ["", ENDS_ALONE.strip().format(*damaged(folder))]
    counts = [pair for _, said in rows for pair in said["counts"]]
    exact = sum(said == true for said, true in counts)
    out += ["", f"With both files the report says how many packets of a connection got lost between them, and from which end: {len(counts)} such sentences, {exact} exact in both numbers."]
    print(exact, "of", len(counts), "counts of lost packets exact", [pair for pair in counts if pair[0] != pair[1]])
    out += ["", "## Retransmissions, frame by frame", "", FRAMES.strip(), "", "| | seen at | sent again | recall | precision | missed | false |", "|---|---|---|---|---|---|---|"]
    out += [f"| {name} | {place} | {score} |" for (name, place), score in sorted(scores.items(), key=lambda item: (item[0][1] != "sender's end", item[0][0]))]
    out += ["", f"Left out at the receiver's end: {sum(untold.values())} that were the first of their octets to arrive, with nothing behind them before"]
    out[-1] += " (" + ", ".join(f"{name} {n}" for name, n in sorted(untold.items())) + "). No capture made there can tell."
    out += ["", "Where they are wrong (frames):", ""]
    for (name, place), score in sorted(scores.items()):
        if score.where:
            out.append(f"- {name}, {place}: " + ", ".join(f"{where} {n}" for where, n in sorted(score.where.items())))
    out += unseen(folder)
    out += ["", "## Kinds", "", KINDS.strip(), "", "| the kernel's reason | seen at | timeout | fast | tail probe | spurious | not seen as sent again |", "|---|---|---|---|---|---|---|"]
    for (place, kind), words in sorted(kinds.items(), key=lambda item: (item[0][0] != "sender's end", item[0][1])):
        other = sum(n for word, n in words.items() if word not in AGAIN)
        out.append(f"| {kind} | {place} | " + " | ".join(str(words[word]) for word in ("timeout", "fast", "tail-probe", "spurious")) + f" | {other} |")
    out += ["", "Needless copies (the other end had acknowledged every octet before the copy left):", "", "| | seen at | needless | recall | precision | missed | false |", "|---|---|---|---|---|---|---|"]
    out += [f"| {name} | {place} | {score} |" for (name, place), score in sorted(needless.items(), key=lambda item: (item[0][1] != "sender's end", item[0][0]))]
    out += ["", NEEDLESS.strip()]
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n")
    print(f"{count - len(wrong)} of {count} causes agree")
    for name, score in scores.items():
        print(*name, score)
    for key in wrong:
        if (key[0]["scenario"], key[1]) not in missed:
            one = dict((c["scenario"], s) for c, s in rows)[key[0]["scenario"]][key[1]]
            print("no reason for", key[0]["scenario"], key[1], one.rule, one.where, one.direction, one.says)


HEAD = """
# How often it is right

Measured by `captures/lab/accuracy.py` on `captures/two-ends`, where a middle between a real client and a real server broke one thing at a time and wrote
down what became of every frame. Linux 6.18 at both ends, cubic, no offload.
"""
CAUSES = """
What tcpwhy names first (its first incident, else its first finding) at each end alone and with both files. Bold: it does not agree with what was done.
"by" is who broke it, and in which direction. For what an end alone cannot see, "nothing" agrees.
"""
ENDS_ALONE = """
What some of it rests on:

- corruption: {0} of {1} damaged segments are counted at the client's end. Not every checksum is looked at: the first eight of a side, and more only once the
  receiver reported a hole or a segment was sent again. At the server's end they still are as they were sent.
- pmtu-silent at the client's end: none of the answer is there. That the server sent it is told by the ACK of the client's FIN, whose number is 15,928 octets ahead. A client
  that never closes gets no such packet; then it is upstream-hang, with a note that the path may be it, and what to run on the server.
- tail-loss at the client's end: a segment that comes late, with nothing behind it, looks like a server that paused. "Nothing" agrees there.
"""
FRAMES = """
Data segments only. True: the sender's own capture shows that it had sent every octet of it before. At the receiver's end only those that arrived count, the
lost ones were never there; a copy that the network made is not sent again.
"""
KINDS = """
Why the kernel sent it again, by its own trace: `timeout` (the timer), `after-timeout` (the rest of the window behind it), `fast` (duplicate acknowledgments or
SACK), `probe` (tail loss probe). What is told as `spurious` was needless.
"""

UNSEEN = """
The captures above were there while tcpwhy was mended. {runs} further runs of the scenarios that are left to chance, with other chances, measured once and not kept:
"""
NEEDLESS = """
At the sender's end a copy is known to be needless by an ACK that was there before, or by a DSACK. The others are those whose ACKs got lost (black-hole-up and
-down, ack-loss): nothing reached the sender, and for it they are what it says, timeouts.

A tail loss probe that comes as late as the timer would (200 ms and two round trips: with one segment under way Linux waits for a delayed ACK) is told as a timeout;
without the kernel's trace nothing tells them apart.
"""

if __name__ == "__main__":
    arguments = sys.argv[1:] + [None, None]
    main(arguments[0] or os.path.join(ROOT, "captures/two-ends"), arguments[1] or os.path.join(ROOT, "docs/accuracy.md"))
