"""What the middle (middle.py) does to frames, one plan for each scenario of two-ends.sh.

A plan judges each TCP segment as it is handed over. Chance has a fixed seed: the same order of frames meets the same fates."""
import os
import random

# Other chances than those of the captures that are kept: see accuracy.py, UNSEEN.
MORE = int(os.environ.get("TWO_ENDS_SEED", "0")) * 1000


class Verdict:
    """What becomes of one frame: `delays` holds one number for each copy that goes on, `made` what the middle sends itself (after
    `soon`, else behind what was handed over before)."""

    def __init__(self, fate, delays, why="", packet=None, made=(), soon=None):
        self.fate, self.delays, self.why, self.packet, self.made, self.soon = fate, delays, why, packet, made, soon


class Plan:
    """Delivers everything after 10 ms. `flow` counts connections by the client's port from 1; `fresh` new data segments of a direction."""

    delay = 0.010
    seed = 1

    def __init__(self):
        self.chance = random.Random(self.seed + MORE)
        self.flows, self.high, self.fresh, self.last = {}, {}, {}, {}
        self.began = None

    def judge(self, frame):
        self.began = self.began or frame.now
        frame.flow = self.flows.setdefault(frame.port, len(self.flows) + 1)
        key = (frame.flow, frame.side)
        frame.new = False
        if frame.payload:
            high = self.high.get(key)
            frame.new = high is None or 0 < (frame.end - high) & 0xFFFFFFFF < 1 << 31
            if frame.new:
                self.high[key] = frame.end
                self.fresh[key] = self.fresh.get(key, 0) + 1
        frame.nth = self.fresh.get(key, 0)
        frame.since = frame.now - self.began
        frame.idle = frame.now - self.last.get(frame.flow, frame.now)
        verdict = self.fate(frame)
        self.last[frame.flow] = frame.now
        return verdict or Verdict("delivered", [self.delay])

    def fate(self, frame):
        return None

    def drop(self, why):
        return Verdict("dropped", [], why)


class LossUp(Plan):
    side, share, seed = "client", 0.07, 7

    def fate(self, frame):
        if frame.side == self.side and frame.payload and self.chance.random() < self.share:
            return self.drop("chance")


class LossDown(LossUp):
    side, seed = "server", 11


class Burst(Plan):
    def fate(self, frame):
        if frame.side == "server" and frame.flow == 2 and frame.new and 30 <= frame.nth < 38:
            return self.drop("burst")


class TailLoss(Plan):
    """The last data segment of every response, once."""

    def fate(self, frame):
        if frame.side == "server" and frame.new and b"the last line" in frame.payload:
            return self.drop("tail")


class AckLoss(Plan):
    """Two of five bare ACKs of the client, and all of them for 0.4 s in the second connection."""

    seed = 5

    def __init__(self):
        super().__init__()
        self.silent = None

    def fate(self, frame):
        if frame.side != "client" or frame.payload or frame.flags & 7:
            return None
        if frame.flow == 2:
            if self.silent is None and self.fresh.get((2, "server"), 0) >= 20:
                self.silent = frame.now
            if self.silent is not None and frame.now - self.silent < 0.4:
                return self.drop("all ACKs for 0.4 s")
        if self.chance.random() < 0.4:
            return self.drop("chance")


class Reordering(Plan):
    """One data segment of the server in ten waits 2 to 8 ms longer than those around it."""

    seed = 3

    def fate(self, frame):
        if frame.side == "server" and frame.payload and self.chance.random() < 0.1:
            return Verdict("delayed", [self.delay + self.chance.uniform(0.002, 0.008)], "overtaken")


class Duplication(Plan):
    """One segment in ten goes on twice, 0.2 to 4 ms apart."""

    seed = 9

    def fate(self, frame):
        if self.chance.random() < 0.1:
            return Verdict("duplicated", [self.delay, self.delay + self.chance.uniform(0.0002, 0.004)], "doubled")


class Corruption(Plan):
    """One octet of the payload is turned over in one data segment of the server in twelve; the checksum stays."""

    seed = 13

    def fate(self, frame):
        if frame.side == "server" and frame.payload and self.chance.random() < 0.08:
            packet = bytearray(frame.packet)
            packet[-len(frame.payload) // 2] ^= 0x40
            return Verdict("altered", [self.delay], "one octet", bytes(packet))


class BlackHole(Plan):
    """From 3 s on nothing goes through in the directions named, whatever connection it belongs to."""

    sides = ("client", "server")

    def fate(self, frame):
        if frame.since >= 3 and frame.side in self.sides:
            return self.drop("black hole")


class BlackHoleUp(BlackHole):
    sides = ("client",)


class BlackHoleDown(BlackHole):
    sides = ("server",)


class PathMtu(Plan):
    """Packets beyond 1400 octets do not fit; the router says so."""

    tells = True

    def fate(self, frame):
        import middle

        if len(frame.packet) > 1400:
            made = [(frame.side, middle.too_big(frame.packet, 1400))] if self.tells else []
            return Verdict("dropped", [], "longer than 1400", None, made)


class PathMtuSilent(PathMtu):
    tells = False


class ResetByMiddle(Plan):
    """RST instead of the 20th new data segment of the server in the second and third connection; everything else goes on."""

    ends = ("client", "server")

    def fate(self, frame):
        if frame.flow in (2, 3) and frame.side == "server" and frame.new and frame.nth == 20:
            return Verdict("dropped", [], "reset", None, frame.resets(self.ends))


class ResetToClient(ResetByMiddle):
    ends = ("client",)


class ResetToServer(ResetByMiddle):
    ends = ("server",)


class ResetIgnored(Plan):
    """A RST to the client that overtakes the octets before it: its number is not the next one, so the client asks back and goes on (RFC 5961)."""

    def fate(self, frame):
        if frame.flow in (2, 3) and frame.side == "server" and frame.new and frame.nth == 20:
            return Verdict("delivered", [self.delay], "reset", None, frame.resets(["client"]), 0.003)


class IdleSilent(Plan):
    """A connection over which nothing went for 35 s is forgotten: what comes later is dropped."""

    tells = False

    def __init__(self):
        super().__init__()
        self.gone = set()

    def fate(self, frame):
        if frame.idle >= 35:
            self.gone.add(frame.flow)
        if frame.flow in self.gone:
            made = frame.resets([frame.side]) if self.tells and not frame.flags & 4 else []
            return Verdict("dropped", [], "forgotten", None, made)


class IdleReset(IdleSilent):
    """The same, and the middle answers with RST."""

    tells = True


class SynLoss(Plan):
    """The first SYN of the second connection, and the first SYN+ACK of the third."""

    def __init__(self):
        super().__init__()
        self.done = set()

    def fate(self, frame):
        if frame.flags & 2 and (frame.flow, frame.side) in {(2, "client"), (3, "server")} and frame.flow not in self.done:
            self.done.add(frame.flow)
            return self.drop("SYN")


PLANS = {
    "loss-up": LossUp, "loss-down": LossDown, "burst": Burst, "tail-loss": TailLoss, "ack-loss": AckLoss, "syn-loss": SynLoss,
    "reordering": Reordering, "duplication": Duplication, "corruption": Corruption,
    "black-hole-up": BlackHoleUp, "black-hole-down": BlackHoleDown, "black-hole-both": BlackHole,
    "pmtu-icmp": PathMtu, "pmtu-silent": PathMtuSilent,
    "reset-to-client": ResetToClient, "reset-to-server": ResetToServer, "reset-to-both": ResetByMiddle, "reset-ignored": ResetIgnored,
    "idle-silent": IdleSilent, "idle-reset": IdleReset,
    "zero-window-server": Plan, "zero-window-client": Plan, "slow-server": Plan, "healthy": Plan,
}  # fmt: skip
