"""Floods, from a network namespace: honest clients finish, little goes to forged senders, nothing is left behind.

Needs root, and `r-tftpd-flood` and `r-tftpd-load` of tests/bench beside the programs. Prints its figures.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import time

from support import DEADLINE, NAMES, PROGRAMS, Daemon, directory, main, namespaces, pattern, read, run, test, write

# What a process may keep of a flood: pieces the allocator can not give back, and the counts of like records.
KEPT = 2.5 * 1024  # KiB
CHARGE = 4 * (512 + 4 + 8 + 40)  # bytes, for a request that is not answered
FLOOD = os.path.join(PROGRAMS, "r-tftpd-flood")
LOAD = os.path.join(PROGRAMS, "r-tftpd-load")
CONTENTS = pattern(1_000_000)
SERVER = "10.99.0.1"
# Reserved for tests of networks: RFC 2544.
GAVE_WAY = "requests of clients that never answered gave way to newer ones"
FORGED = "198.18.0.0/15"
# Of an IP packet to a client that has not answered: one block of 512 bytes, TFTP, UDP and IPv4.
LARGEST = 512 + 4 + 8 + 20
ETHERNET = 14  # bytes of its header
FRAME = 60  # bytes of the smallest frame, which a short request is
# What the client's side receives for each forged sender and port; and what is larger than may be.
COUNTERS = f"""
table ip floods {{
    set answers {{ type ipv4_addr . inet_service; size 300000; flags dynamic; }}
    counter large {{ }}
    chain in {{
        type filter hook prerouting priority -300;
        ip daddr {FORGED} meta length > {LARGEST} counter name large
        ip daddr {FORGED} meta l4proto udp update @answers {{ ip daddr . udp dport counter }} drop
    }}
}}
"""
REQUESTS = """
table ip floods {
    counter requests { }
    chain in { type filter hook prerouting priority -300; udp dport 69 counter name requests; }
}
"""


class Site:
    """The daemon in one namespace, attackers in the other, honest clients beside the daemon."""

    def __init__(self, *arguments):
        self.stack = contextlib.ExitStack()
        self.arguments = arguments

    def __enter__(self):
        with self.stack as stack:
            self.server, self.attacker, name = stack.enter_context(namespaces())
            run(["ip", "-n", name, "route", "add", FORGED, "via", "10.99.0.2"])
            run([*self.attacker, "nft", COUNTERS])
            run([*self.server, "nft", REQUESTS])
            self.root = stack.enter_context(directory())
            write(f"{self.root}/file", CONTENTS)
            write(f"{self.root}/small", CONTENTS[:60_000])
            self.daemon = stack.enter_context(Daemon(self.root, *self.arguments, prefix=self.server))
            # What is done for the first time takes memory that stays.
            self.honest(50).finish()
            self.daemon.wait_for_many(50, "complete")
            # Reply sockets are kept for 2 s.
            time.sleep(2.5)
            self.before = self.measure()
            self.reset()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *what):
        self.stack.__exit__(*what)

    def flood(self, mode, *options):
        """Starts a flood."""
        return Program([*self.attacker, FLOOD, mode, "--server", f"{SERVER}:69", *options])

    def honest(self, clients, *options, file="file"):
        """Starts clients of which each must get the whole file."""
        name = ["--name", file, "--expect", f"{self.root}/{file}", "--blksize", "1428", "--windowsize", "16"]
        return Program(
            [*self.server, LOAD, "--server", "127.0.0.1:69", *name, "--sleep", "--sessions", str(clients)]
            + ["--limit", str(2 * DEADLINE), *options]
        )

    def honest_one_by_one(self, clients, pause):
        """Starts clients one after another; how long each took, in seconds, the slowest last."""
        started = []
        for _ in range(clients):
            started.append(self.honest(1))
            time.sleep(pause)
        return sorted(client.finish()["max_ms"] / 1000 for client in started)

    def answers(self):
        """What came for each forged sender and port: datagrams, and bytes on the wire."""
        table = json.loads(run([*self.attacker, "nft", "-j", "list", "table", "ip", "floods"]))["nftables"]
        large = [entry["counter"]["packets"] for entry in table if "counter" in entry]
        assert large == [0], f"{large} datagrams were larger than a block of 512 bytes"
        counts = [
            element["elem"]["counter"]
            for entry in table
            for element in entry.get("set", {}).get("elem", [])
        ]
        return [(count["packets"], count["bytes"] + ETHERNET * count["packets"]) for count in counts]

    def requests(self):
        """Datagrams and bytes on the wire that came for the listener."""
        table = json.loads(run([*self.server, "nft", "-j", "list", "counter", "ip", "floods", "requests"]))
        [counter] = [entry["counter"] for entry in table["nftables"] if "counter" in entry]
        return counter["packets"], counter["bytes"] + ETHERNET * counter["packets"]

    def reset(self):
        """Forgets what came for forged senders and for the listener."""
        run([*self.attacker, "nft", "flush set ip floods answers"])
        run([*self.server, "nft", "reset counters table ip floods"])

    def wait_until_idle(self):
        """Until all is as it was before, but for a little memory; returns the figures."""
        end = time.monotonic() + DEADLINE
        while True:
            after = self.measure()
            kept = [
                (name, after[name], self.before[name])
                for name in NAMES
                if after[name]["descriptors"] != self.before[name]["descriptors"]
                or after[name]["private"] - self.before[name]["private"] >= KEPT
            ]
            if not kept:
                return after
            assert time.monotonic() < end, kept
            time.sleep(0.1)

    def counts(self):
        """The worker's figures."""
        seen = len(self.daemon.records)
        self.daemon.process.send_signal(signal.SIGUSR1)
        end = time.monotonic() + DEADLINE
        while True:
            for record in self.daemon.records[seen:]:
                if record["fields"]["message"] == "counts":
                    return record["fields"]
            assert time.monotonic() < end, "no counts"
            time.sleep(0.01)

    def wait_for(self, wanted):
        """Until the worker's figures are as wanted."""
        end = time.monotonic() + DEADLINE
        while not wanted(counts := self.counts()):
            assert time.monotonic() < end, counts
            time.sleep(0.2)

    def measure(self):
        """Memory in bytes and descriptors of each process."""
        figures = {}
        for name, pid in self.daemon.processes().items():
            rollup = read(f"/proc/{pid}/smaps_rollup").decode()
            sizes = {key: int(size) for key, size in re.findall(r"^(\w+): +(\d+) kB$", rollup, re.M)}
            figures[name] = {
                "rss": sizes["Rss"],
                "private": sizes["Private_Clean"] + sizes["Private_Dirty"],
                "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            }
        return figures

    def stop(self):
        """Ends the daemon, which tells at last what it had not told before."""
        self.daemon.process.terminate()
        self.daemon.wait_until_closed()


class Program:
    """A program that prints one JSON object."""

    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self):
        """Its figures. Of honest clients each must have been served."""
        out, err = self.process.communicate(timeout=4 * DEADLINE)
        assert self.process.returncode == 0, (self.command, out, err)
        figures = json.loads(out)
        assert not figures.get("unfinished") and not figures.get("failed"), figures
        return figures


def show(what, **figures):
    """Figures for whoever reads the output."""
    print(f"  {what}: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items()))


def times(seconds):
    """How long clients took."""
    middle = seconds[len(seconds) // 2]
    return f"{len(seconds)} finished, half of them within {middle:.2f} s, the last after {seconds[-1]:.2f} s"


def assert_left_nothing(site, during=None):
    """Descriptors are as before, and memory as good as."""
    after = site.wait_until_idle()
    for name in NAMES:
        figures = [site.before[name], *([during[name]] if during else []), after[name]]
        show(
            f"{name} before{', during' if during else ''} and after",
            private_KiB=[one["private"] for one in figures],
            RSS_KiB=[one["rss"] for one in figures],
            descriptors=[one["descriptors"] for one in figures],
        )


def assert_served_during(site, mode):
    """Honest clients finish during a flood of 9 s, as fast as the machine can send, and it leaves nothing."""
    flood = site.flood(mode, "--limit", "9")
    time.sleep(1)
    seconds = site.honest_one_by_one(20, 0.1)
    assert flood.process.poll() is None, "the flood was over first"
    during = site.measure()
    show(mode, **flood.finish())
    show("honest clients", times=times(seconds))
    assert_left_nothing(site, during)


def show_answers(site):
    """What forged senders got, which is at most four datagrams for a request."""
    requests, asked = site.requests()
    answers = site.answers()
    datagrams, sent = (sum(column) for column in zip(*answers))
    most = max(answers)
    assert most[0] <= 4, f"{most[0]} datagrams for one request"
    show(
        "to forged senders",
        requests=requests,
        answered=len(answers),
        datagrams=datagrams,
        bytes=sent,
        most_for_one_request=f"{most[0]} datagrams with {most[1]} bytes",
        bytes_out_per_byte_in=f"{sent / asked:.2f}",
        of_those_answered=f"{sent / (len(answers) * asked / requests):.2f}",
        worst=f"{most[1] / FRAME:.1f}",
    )
    return requests, len(answers), datagrams, sent


@test
def a_forged_sender_gets_four_datagrams_for_a_request_and_never_a_window():
    with Site("--timeout", "0.3") as site:
        site.flood("requests", "--sources", "2000", "--total", "2000", "--rate", "10000").finish()
        assert_left_nothing(site)
        requests, answered, datagrams, _ = show_answers(site)
        assert (requests, answered, datagrams) == (2000, 2000, 4 * 2000)


@test
def a_hundred_thousand_forged_requests_keep_nobody_from_finishing_and_leave_nothing_behind():
    with Site("--timeout", "0.3") as site:
        flood = site.flood("requests", "--total", "100000", "--rate", "20000")
        seconds = site.honest_one_by_one(50, 0.08)
        during = site.measure()
        show("flood", **flood.finish())
        show("honest clients", times=times(seconds))
        assert seconds[-1] < 10
        assert_left_nothing(site, during)
        show_answers(site)
        site.stop()
        assert_log_is_honest(site, 100)


@test
def as_many_forged_requests_as_the_machine_can_send_keep_nobody_from_finishing():
    with Site("--timeout", "0.3") as site:
        assert_served_during(site, "requests")
        show_answers(site)


@test
def a_network_that_does_not_answer_is_sent_no_more_than_its_budget():
    with Site("--timeout", "0.3") as site:
        begin = time.monotonic()
        flood = site.flood("requests", "--sources", "254", "--total", "60000", "--rate", "20000").finish()
        assert_left_nothing(site)
        passed = time.monotonic() - begin
        _, answered, _, sent_bytes = show_answers(site)
        # budget.rs: 32 MiB and 256 bytes in a millisecond, and for each address a request in a second.
        budget = (32 << 20) + 256_000 * passed + 254 * CHARGE * (flood["seconds"] + 1)
        show("budget", bytes=round(budget), requests=round(budget / CHARGE))
        assert answered * CHARGE <= budget, answered
        assert sent_bytes - ETHERNET * answered <= budget, sent_bytes
        assert answered < 30_000, "the budget was not used up"
        dropped = "requests dropped: too many requests of a network that does not answer"
        assert 1 <= site.daemon.count(dropped) <= 20
        assert len(site.honest_one_by_one(3, 0)) == 3


@test
def junk_keeps_nobody_from_finishing():
    with Site("--timeout", "0.3") as site:
        assert_served_during(site, "junk")
        site.stop()
        assert_log_is_honest(site, 70)


@test
def a_thousand_slow_readers_keep_nobody_from_finishing():
    with Site("--timeout", "1", "--max-retries", "3") as site:
        # They take a window every 2.5 s. Their program would end without them, were it not for one client
        # in it that is not slow and begins anew without end.
        slow = site.honest(1001, "--slow", "1000:2500", "--total", "0")
        site.wait_for(lambda counts: counts["transfers"] == 64 and counts["waiting"] > 900)
        show("slow readers", **site.counts())
        honest = site.honest(50, file="small").finish()
        during = site.measure()
        show("honest clients", finished=honest["finished"], last=f"{honest['max_ms'] / 1000:.2f} s")
        assert during["r-tftpd-worker"]["descriptors"] > 2000, "the slow ones are there"
        slow.process.kill()
        slow.process.wait()
        assert_left_nothing(site, during)
        assert site.counts()["transfers"] == 0


@test
def acknowledgements_without_end_keep_nobody_from_finishing():
    with Site("--timeout", "0.3") as site:
        storm = site.flood("acks", "--sources", "20", "--limit", "4")
        seconds = site.honest_one_by_one(50, 0.05)
        during = site.measure()
        figures = storm.finish()
        show("storm", **figures, amplification=f"{figures['received_bytes'] / figures['bytes']:.4f}")
        show("honest clients", times=times(seconds))
        assert_left_nothing(site, during)
        assert site.answers() == [], "strangers got an answer"


def assert_log_is_honest(site, most):
    """Each request is written or counted."""
    outcomes, similar = {}, {}
    for record in site.daemon.records:
        fields = record["fields"]
        if record["target"] == "r_tftpd::request" and "similar" not in fields:
            outcomes[fields["message"]] = outcomes.get(fields["message"], 0) + 1
        elif "similar" in fields:
            similar[fields["outcome"]] = similar.get(fields["outcome"], 0) + fields["similar"]
        elif fields["message"] == GAVE_WAY:
            similar[GAVE_WAY] = similar.get(GAVE_WAY, 0) + fields["count"]
    show("log", records=len(site.daemon.records), written=outcomes, similar=similar)
    assert outcomes["complete"] == most, outcomes
    assert max(outcomes.values()) <= 1000, outcomes
    # Those that gave way before they were answered are among them, too.
    assert sum(outcomes.values()) + sum(similar.values()) - most >= len(site.answers())



main()
