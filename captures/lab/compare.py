"""Asks tcpwhy, `tshark -z expert` and netverdict about every capture of captures/incidents, and writes the table into docs/compare.md.

compare.py TCPWHY NETVERDICT          the two programs; tshark comes from the path. About three minutes.

What each tool is held to is in expect.toml or aim.toml beside the captures; RULE below says how an output becomes a verdict, the same for all three."""
import glob
import json
import os
import re
import subprocess
import sys
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PAGE = os.path.join(ROOT, "docs", "compare.md")
BEGIN, END = "<!-- incidents: written by captures/lab/compare.py -->", "<!-- end of incidents -->"
RULE = """How an output becomes a verdict, for all three alike:

- A tool's *statements* are the lines in which it says that something is wrong or odd. tcpwhy: the headlines of its incidents, and its
  notices. tshark: the groups under Errors, Warns and Notes, but not "initiates (undergoes) the connection closing", which every connection
  has; also any group that holds an alert, an HTTP error or an ICMP error, wherever it stands. netverdict: the titles of its findings and
  the evidence below them; its suggested fixes, which list several families of causes, do not count.
- *names the cause*: a statement has the words of the cause that is known to be there (the table of words is in `captures/lab/compare.py`:
  for an expired certificate, "expired"). They are matched alike for all three.
- *names symptoms*: it has a statement, but none with these words.
- *wrong*: it has the words of a cause that `expect.toml` (or `aim.toml`) rules out and not those of the known one; or, where nothing is broken, it raises an
  alarm (tcpwhy above notice; tshark an Error or Warn; netverdict any finding that is not CLEAN).
- *clean*: no statement; for captures where nothing is broken, no alarm. Right where nothing is broken, and where this file cannot show anything; elsewhere it missed the cause.
- Where no cause can be told from a file (one leg, one direction), symptoms and clean are both right: *right (…)*.
- Where a file lacks the packets that show the cause itself (the DNS answer, the other leg), the known cause is the nearest one that this file can
  show: who wrote these expectations wrote tcpwhy.

Two things tilt the table towards tcpwhy: the captures were made to build it, and the words were widened after its output was seen (with the
first table it named 92 of 125 causes), while the others' wordings were not gone through in the same way. Read the quotations."""

# The words of each cause. A statement that matches names it.
WORDS = {
    "asymmetric-return-path": r"asymmetr|(answer|repl|respon)\w*.{0,60}(leave|left|other interface|another interface|other way|different (path|interface)|by a way)|asked on .{0,40}answers on",
    "reply-from-other-address": r"(answer|repl|respon)\w*.{0,60}(from|by) (an)?other (address|host)|answer comes from|asymmetr",
    "return-path-lost": r"(SYN.ACK|answer|repl|return).{0,60}(lost|dropp|never arriv|not arriv|does not reach|do not reach|never reach)|sends .{0,60}does not arrive",
    "connect-timeout": r"SYN\w*.{0,60}(no answer|unanswered|without|never)|(never|not|nobody|nothing).{0,20}answer.{0,30}SYN|does not answer|answers nobody|nothing came back from|no SYN.?ACK|timed? ?out",
    "connect-refused": r"refuse",
    "dns-stale-address": r"stale|old address|(name|address).{0,40}(moved|changed)|(address|name).{0,60}no longer|no longer.{0,40}(address|resolve)",
    "service-down": r"service.{0,30}(down|stopped|gone)",
    "service-restart": r"restart",
    "connection-pileup": r"pile|open connections|connections (are|stay|remain) open|more and more|requests? (wait|hang)|never answered|no answer to|without (an )?answer|\bhang(s|ing)?\b",
    "upstream-hang": r"\bhang(s|ing)?\b|never answer|no (application )?(answer|response)|without (an )?(answer|response)|not answer|did not respond|acknowledged.{0,40}(silent|no answer)",
    "keepalive-probes-unanswered": r"keep.?alive.{0,60}(unanswered|no answer|without|lost)|probe.{0,40}(unanswered|no answer)",
    "slow-response": r"slow|takes",
    "stateful-drop-after-handshake": r"state(ful)?.{0,40}(drop|lost)",
    "network-blackout": r"black.?out|went dark|everything.{0,40}silent|all .{0,30}silent|no packet.{0,60}(from|at all)|nothing was heard|silent at the same time|went silent|heard nothing|nothing came back through",
    "link-flapping": r"flap|link.{0,40}(down|up|came back|times)|(black.?out|dark|silent|heard nothing).{0,60}times|outages|again and again",
    "cert-outage": r"certificate.{0,80}(expire|reject|refus|ran out|not valid)|expired|not trust.{0,40}certificate",
    "tls-cert-expired": r"expired|certificate.{0,30}ran out",
    "tls-cert-expiring-soon": r"certificate.{0,60}(expires|ends|runs out)|(expires|runs out) (in|soon)",
    "tls-cert-not-yet-valid": r"not (yet )?valid|valid(ity)?.{0,40}(future|only from|begins|starts)|clock",
    "tls-cert-untrusted": r"unknown.?ca\b|unknown (issuer|authority)|self.signed|untrust|not trust|does not know the issuer|issuer|intermediate",
    "tls-chain-incomplete": r"intermediate|incomplete|chain",
    "tls-cert-name-mismatch": r"(name|certificate).{0,60}(mismatch|not (match|cover|for)|other name|another name|differ)|not valid for|does not name",
    "tls-cert-rejected": r"certificate.{0,60}(reject|refus|not accept|bad|does not accept)|(reject|refus|does not accept).{0,60}certificate|bad.?certificate",
    "tls-client-cert-required": r"client.{0,20}certificate.{0,40}(require|missing|none|without|want|demand|no )|certificate.?required|no certificate|without a certificate",
    "tls-client-cert-rejected": r"client.{0,20}certificate.{0,60}(reject|refus|expired|unknown|not accept)|(reject|refus).{0,40}client.{0,20}certificate|(refuses|rejects) the certificate of",
    "proxy-header-to-tls-port": r"PROXY (protocol )?header|PROXY protocol",
    "tls-closed-after-clienthello": r"(hangs? up|close[sd]?|FIN).{0,60}ClientHello|ClientHello.{0,60}(close|hangs? up|no answer|unanswered|without)",
}
# tshark's groups that say what went wrong though it files them under Chats or Comments
CLOSING = re.compile(r"(initiates|undergoes) the connection closing")
TELLING = re.compile(r"Alert|HTTP/1\.\d [45]\d\d|Destination unreachable|Time-to-live", re.I)


def run(*command):
    env = dict(os.environ, COLUMNS="200", NO_COLOR="1")
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300).stdout


def tcpwhy(program, capture):
    """Statements, whether it raises an alarm, and the first thing it says."""
    report = json.loads(run(program, "--format", "json", capture) or "{}")
    alarms = [incident["headline"] for incident in report.get("incidents", [])]
    said = alarms + [found["says"] for found in report.get("findings", []) if found["severity"] == "notice"]
    return said, bool(alarms), said[0] if said else "OK" if report else "error"


def tshark(capture):
    said, alarm, first, section = [], False, None, ""
    for line in run("tshark", "-q", "-z", "expert", "-r", capture).splitlines():
        head = re.match(r"(\w+) \((\d+)\)$", line)
        row = re.match(r"\s+(\d+)\s+(\S.*)", line)
        if head:
            section = head[1]
        elif row and not line.lstrip().startswith("Frequency"):
            count, text = row[1], re.sub(r"\s{2,}", " ", row[2])
            if section in ("Errors", "Warns", "Notes") and not CLOSING.search(text) or TELLING.search(text):
                said.append(text)
                first = first or f"{section}: {text} ({count} times)"
            alarm |= section in ("Errors", "Warns")
    return said, alarm, first or "no Errors, Warns or Notes"


def netverdict(program, capture):
    data = json.loads(run(program, "analyze", "--json", capture) or "{}")
    said, first = [], None
    for part in ("flows", "dns", "udp"):
        for item in data.get(part, []):
            for match in item.get("matches") or []:
                if match.get("verdict") == "RAS":
                    continue
                said += [match["title"], *match.get("evidence", [])]
                first = first or match["title"]
    titles = {}
    for text in said:
        titles[text] = titles.get(text, 0) + 1
    alarm = bool(said)
    if first:
        first = f"{first} ({titles[first]} times)" if titles[first] > 1 else first
    return said, alarm, first or "CLEAN"


def matching(rule, said):
    return next((text for text in said if re.search(WORDS[rule], text, re.I | re.S)), None)


def verdict(aim, said, alarm):
    """The verdict and the statement that decided it, if one did."""
    if aim.get("at_most") == "notice":
        return ("wrong (false alarm)" if alarm else "clean, right"), None
    wanted = [rule for rule in [aim.get("root"), *aim.get("has", [])] if rule in WORDS]
    if wanted and (text := matching(wanted[0], said)):
        return "names the cause", text
    excluded = [rule for rule in aim.get("not", []) if rule in WORDS and rule not in wanted]
    if text := next(filter(None, (matching(rule, said) for rule in excluded)), None):
        return "wrong", text
    word = "names symptoms" if said else "clean"
    return (word if wanted else f"right ({word})"), None


def quote(text):
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= 110 else text[:107].rstrip() + " …"


def truth(folder):
    """Where what must be said of each capture stands, if anywhere."""
    names = (os.path.join(folder, name) for name in ("expect.toml", "aim.toml"))
    return next(filter(os.path.exists, names), None)


def aims(folder):
    with open(truth(folder), "rb") as file:
        return {aim["capture"]: aim for aim in tomllib.load(file)["expect"]}


def known(aim):
    if aim.get("at_most") == "notice":
        return "nothing is broken"
    root = aim.get("root") or next((rule for rule in aim.get("has", []) if rule in WORDS), None)
    return f"`{root}`" if root else "cannot be told from this file"


TUNED = (
    "`captures/healthy` was tuned together with tcpwhy: the lab and the rules were changed until tcpwhy was silent on every one of them. Its 0",
    "says that this was done, and little about how tcpwhy compares with the other two, for whom nobody did the same.",
)


def healthy(why, other):
    """How many captures of captures/healthy draw an alarm, and the commonest ones."""
    captures = sorted(glob.glob(os.path.join(HERE, "..", "healthy", "*.pcap*")))
    rows = []
    for tool, ask in (("tcpwhy", lambda f: tcpwhy(why, f)), ("tshark", tshark), ("netverdict", lambda f: netverdict(other, f))):
        firsts, alarms = {}, 0
        for _, alarm, first in map(ask, captures):
            if alarm:
                alarms += 1
                first = re.sub(r"^\w+: | ?\(\d+ times\)$", "", first)
                firsts[first] = firsts.get(first, 0) + 1
        often = sorted(firsts.items(), key=lambda item: (-item[1], item[0]))[:3]
        rows.append(f"| {tool} | {alarms} | " + "; ".join(f"{quote(text)} ({count})" for text, count in often) + " |")
    return [f"The {len(captures)} captures of `captures/healthy`, where nothing is broken:", "",
            "| tool | captures with an alarm | the commonest first statements |", "|---|---|---|", *rows, "", *TUNED, ""]


def main():
    why, other = sys.argv[1:]
    folders = sorted(path for path in glob.glob(os.path.join(HERE, "..", "incidents", "*")) if truth(path))
    rows, sums, unknown = [], {}, []
    for folder in folders:
        expected = aims(folder)
        for capture in sorted(glob.glob(os.path.join(folder, "*.pcap*"))):
            name = os.path.basename(capture)
            if name not in expected:
                unknown.append(f"{os.path.basename(folder)}/{name}")
                continue
            aim = expected[name]
            row = [f"{os.path.basename(folder)}/{name.rsplit('.', 1)[0]}", known(aim)]
            for tool, (said, alarm, first) in zip(
                ("tcpwhy", "tshark", "netverdict"), (tcpwhy(why, capture), tshark(capture), netverdict(other, capture))
            ):
                word, text = verdict(aim, said, alarm)
                row.append(f"**{word}**: {quote(text or first)}")
                kind = "nothing is broken" if aim.get("at_most") == "notice" else "a cause is there" if "`" in row[1] else "no cause can be told"
                tally = sums.setdefault(kind, {}).setdefault(tool, {})
                tally[word] = tally.get(word, 0) + 1
            rows.append(row)
            print(" | ".join(row), file=sys.stderr)
    versions = [run(why, "--version").strip(), "tshark " + re.search(r"\d+\.\d+\.\d+", run("tshark", "--version"))[0], run(other, "--version").strip()]
    out = [BEGIN, "## The incidents, one by one", ""]
    out += [f"Every capture of `captures/incidents` with a known truth, {len(rows)} of them, given to {versions[0]}, {versions[1]} (`tshark -q -z expert -r F`) and",
            f"{versions[2]} (`netverdict analyze F`), each as it comes. `captures/lab/compare.py` runs them and writes this section.", "", RULE, ""]
    for kind in ("a cause is there", "nothing is broken", "no cause can be told"):
        if kind not in sums:
            continue
        total = sum(sums[kind]["tcpwhy"].values())
        words = sorted({word for tally in sums[kind].values() for word in tally})
        out += [f"Captures where {kind} ({total}):", "", "| verdict | tcpwhy | tshark | netverdict |", "|---|---|---|---|"]
        out += [f"| {word} | " + " | ".join(str(sums[kind][tool].get(word, 0)) for tool in ("tcpwhy", "tshark", "netverdict")) + " |" for word in words]
        out += [""]
    out += healthy(why, other)
    out += ["The quotations are the statement that decided, else the first one, shortened.", "", "| capture | known cause | tcpwhy | tshark | netverdict |", "|---|---|---|---|---|"]
    out += [f"| {' | '.join(row)} |" for row in rows]
    if unknown:
        out += ["", "Left out, because no truth was written down for them: " + ", ".join(unknown) + "."]
    out += [END]
    with open(PAGE) as file:
        page = file.read()
    section = "\n".join(out)
    if BEGIN in page:
        page = page[: page.index(BEGIN)] + section + page[page.index(END) + len(END):]
    else:
        page = page.rstrip("\n") + "\n\n" + section + "\n"
    with open(PAGE, "w") as file:
        file.write(page)


main()
