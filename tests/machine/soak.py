"""A long run in short: storms of clients of every kind, origins that fail in every way, kills of
worker, broker and fetcher, reloads; then a time without kills. Nothing may be lost, nothing may leak.

    soak.py PROGRAMS [--seconds N] [--seed N]

Needs root (to look at processes that let nobody else look), curl, tftp-hpa, atftp, busybox, and the
load generator of tests/bench beside the programs. N is 120 unless it says otherwise; half an hour is
what a release should stand.
"""

import collections
import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import faulty
from crowd import Crowd, Job, Prober
from support import DEADLINE, PROGRAMS, Daemon, directory, main, pattern, read, test, write

LOAD = os.path.join(PROGRAMS, "r-tftpd-load")
KIB, MIB = 1 << 10, 1 << 20
ROLES = ("r-tftpd", "r-tftpd-broker", "r-tftpd-worker", "r-tftpd-fetcher")
WARM_UP = 12  # s before the baseline is taken
# What is killed how many seconds after the beginning of a cycle. The supervisor ends after more than
# five failures within a minute, and waits twice as long after each until a minute has been good.
CYCLE = 95
KILLS = ((5, "r-tftpd-worker"), (13, "r-tftpd-broker"), (21, "r-tftpd-fetcher"), (29, "r-tftpd-worker"))
RELOADS = (36, 42, 60, 80)
# A record can come this much later than the client's end: curl leaves without a word when it is told
# that a file is empty, and only time tells.
LATE = 5
# What glibc's allocator keeps of a busy time differs by some pages, in each process and thread.
KEPT = 3 * MIB // 2
# What a process may grow by under the same load, in two thirds of the time without kills.
GROWTH = MIB


class Watched(Daemon):
    """The daemon, with its request records counted by client instead of kept."""

    def __init__(self, *arguments):
        self.requests = collections.Counter()  # by peer and file
        self.files = collections.Counter()
        self.words = collections.Counter()
        # Else like records are counted and not written.
        super().__init__(*arguments, env=dict(os.environ, RUST_LOG="r_tftpd::request=debug,info"))

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                try:
                    record = json.loads(line)
                except ValueError:
                    self.others.append(line)
                    record = {"target": ""}
                if record["target"] == "r_tftpd::request":
                    fields = record["fields"]
                    self.words[fields["message"]] += 1
                    self.requests[fields.get("peer"), fields.get("file")] += 1
                    self.files[fields.get("file")] += 1
                elif record["target"]:
                    self.records.append(record)
                self.changed.notify_all()
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def tell(self, number, word):
        """Sends a signal and waits for the record that follows."""
        known = len(self.records)
        self.process.send_signal(number)
        return self.wait_for(
            lambda r: r["fields"]["message"] == word and r in self.records[known:])["fields"]

    def family(self):
        """Process id and name of the supervisor and all its children, zombies included."""
        found = [(self.process.pid, "r-tftpd")]
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                stat = read(f"/proc/{entry}/stat").decode()
                if int(stat[stat.rindex(")") + 2 :].split()[1]) == self.process.pid:
                    found.append((int(entry), stat[stat.index("(") + 1 : stat.rindex(")")]))
        return found


def held(pid):
    """Private bytes, descriptors and threads of a process."""
    private = 0
    for line in read(f"/proc/{pid}/smaps_rollup").decode().splitlines():
        if line.startswith(("Private_Clean", "Private_Dirty")):
            private += int(line.split()[1]) * KIB
    return private, len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


class Soak:
    """The run: everything happens in `__init__`, the tests look at what was."""

    def __init__(self, seconds, seed):
        self.seconds, self.chance, self.lock = seconds, random.Random(seed), threading.Lock()
        self.kills, self.reloads = [], 0  # when and which
        self.served, self.failures = collections.Counter(), []
        self.serial, self.stopping = 0, threading.Event()
        self.expected, self.storms, self.peak = [], [], 0
        self.origin = faulty.Origin(seed)
        self.opened = [directory() for _ in range(4)]
        self.root, self.cache, self.out, self.store = (each.__enter__() for each in self.opened)
        os.chmod(self.cache, 0o1777)
        self.prepare_files()
        try:
            arguments = ["--port", "0", "--listen", "127.0.0.1", "--cache-dir", self.cache,
                         "--proxy-ports", "any", "--proxy-timeout", "2", "--cache-size", "2M",
                         "--cache-entries", "30", "--max-connections", "48", "--timeout", "0.5",
                         "--max-retries", "3", "--stale-if-error", "0"]
            with Watched(self.root, *arguments) as self.daemon:
                self.run(seed)
        finally:
            self.origin.stop()
            for each in self.opened:
                each.__exit__(None, None, None)

    def prepare_files(self):
        """Files that clients reach by a name of their own, so that each request is known by it."""
        self.contents = {}
        for number, size in enumerate((0, 1, 511, 512, 1468, 20_000, 200_000)):
            self.contents[f"data-{number}"] = pattern(size, number)
        text = b"".join(b"line %d\r and more\n" % number for number in range(3000))
        self.contents["text"] = text
        self.storm = pattern(150_000, 99)
        for name, body in {**self.contents, "storm": self.storm}.items():
            write(f"{self.store}/{name}", body)
        self.probe = pattern(300, 7)
        write(f"{self.root}/probe", self.probe)
        os.symlink(f"http://127.0.0.1:{self.origin.port}/", f"{self.root}/link")
        for name in ("u", "storm"):
            os.mkdir(f"{self.root}/{name}")
            os.chmod(f"{self.root}/{name}", 0o755)

    def name(self, file):
        """A name of its own for one request of a file."""
        with self.lock:
            self.serial += 1
            serial = self.serial
        os.link(f"{self.store}/{file}", f"{self.root}/u/{serial}")
        return f"u/{serial}"

    def make(self, chance):
        """A job for the crowd."""
        options = chance.choice((
            {}, {}, {"blksize": 1468}, {"blksize": 1468, "windowsize": 4, "tsize": 0},
            {"blksize": 1428, "windowsize": 16}, {"blksize": 512, "windowsize": 64},
            {"tsize": 0, "blksize": 1024, "timeout": 1}))
        kind = chance.choices(
            ("local", "text", "missing", "proxied", "failing", "odd"), (30, 6, 10, 25, 12, 17))[0]
        if kind == "missing":
            return Job(kind, f"u/none-{chance.randrange(1 << 60):x}", None, options=options)
        if kind in ("proxied", "failing"):
            behaviours = faulty.HONEST if kind == "proxied" else faulty.FAILING
            name = f"file-{chance.randrange(60)}"
            return Job(f"{kind} {(behaviour := chance.choice(behaviours))}", f"link/{behaviour}/{name}",
                       faulty.contents(name), options=options)
        if kind == "text":
            body = self.contents["text"].replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
            options.pop("tsize", None)
            return Job(kind, self.name("text"), body, mode="netascii", options=options)
        file = chance.choice(sorted(self.contents))
        if kind == "local":
            habit = chance.choice(("honest",) * 9 + ("junk",))
            return Job(kind, self.name(file), self.contents[file], habit, options=options)
        habit = chance.choice(("aborts", "probes", "stops", "stops", "mute"))
        if habit == "probes":
            options = {"tsize": 0}
        return Job(f"client that {habit}", self.name("data-6"), None, habit, options=options,
                   blocks=chance.randrange(100))

    def run(self, seed):
        """Warm-up, baseline, kills, a time without, the end."""
        began = time.monotonic()
        self.prober = Prober(self.daemon.port, "probe", self.probe)
        watching = threading.Thread(target=self.watch, daemon=True)
        watching.start()
        self.ended = []
        end = self.begin_traffic(seed)
        time.sleep(WARM_UP)
        end()
        self.baseline = self.settled()
        self.prober.start()
        end = self.begin_traffic(seed + 1)
        self.kill_and_reload(time.monotonic() + (self.seconds - WARM_UP) * 0.5)
        calm = time.monotonic()
        first = {pid for pid, _ in self.daemon.family()}
        last = began + self.seconds - 12
        time.sleep(max(1, (last - calm) * 0.3))
        self.early = self.memory()
        time.sleep(max(1, last - time.monotonic()))
        self.late = self.memory()
        end()
        self.prober.stop()
        self.final = self.settled()
        assert {pid for pid, _ in self.daemon.family()} == first, "something died by itself"
        self.stopping.set()
        watching.join()
        self.took = time.monotonic() - began
        self.left_in_cache = os.listdir(self.cache)

    def begin_traffic(self, seed):
        """Everybody; what it returns ends it."""
        halt = threading.Event()
        crowd = Crowd(self.daemon.port, seed, 12, 0.02, self.make)
        helpers = [threading.Thread(target=each, args=(halt,), daemon=True)
                   for each in (self.real_clients, self.storms_of_clients)]
        for each in (crowd, *helpers):
            each.start()

        def end():
            halt.set()
            crowd.stop()
            for each in helpers:
                each.join(60)
                assert not each.is_alive(), "clients do not end"
            self.ended += crowd.ended

        return end

    def real_clients(self, halt):
        """curl, tftp-hpa, atftp and busybox, one after another."""
        chance = random.Random(self.seconds)
        port = str(self.daemon.port)
        while not halt.wait(0.2):
            file = chance.choice(sorted(self.contents))
            name, out = self.name(file), f"{self.out}/real"
            client, command = chance.choice((
                ("curl", ["curl", "-sS", "--max-time", "20", f"tftp://127.0.0.1:{port}/{name}", "-o", out]),
                ("tftp-hpa", ["tftp", "-m", "octet", "127.0.0.1", port, "-c", "get", name, out]),
                ("atftp", ["atftp", "--option", "windowsize 8", "--option", "blksize 1428", "-g",
                           "-r", name, "-l", out, "127.0.0.1", port]),
                ("busybox", ["busybox", "tftp", "-b", "1428", "-g", "-r", name, "-l", out, "127.0.0.1", port]),
            ))
            for attempt in range(4):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(out)
                began = time.monotonic()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subprocess.run(command, capture_output=True, timeout=40, check=False)
                got = read(out) if os.path.exists(out) else b""
                if got == self.contents[file]:
                    self.served[client] += 1
                    if attempt == 0:
                        self.expected.append((name, 1, began, time.monotonic()))
                    break
                if not self.interrupted(began, time.monotonic()) or attempt == 3:
                    self.failures.append(f"{client} got {len(got)} wrong bytes of {file}")
                    break
                self.served[f"{client}, asked again after a kill"] += 1

    def storms_of_clients(self, halt):
        """64 at once by the load generator, in windows and in lock-step."""
        for number in range(1 << 30):
            if halt.wait(1 if number == 0 else 5):
                return
            name = f"storm/{len(self.storms)}-{time.monotonic_ns()}"
            os.link(f"{self.store}/storm", f"{self.root}/{name}")
            options = ["--blksize", "1468", "--windowsize", "8"] if number % 2 else ["--blksize", "1024"]
            began = time.monotonic()
            output = subprocess.run(
                [LOAD, "--server", f"127.0.0.1:{self.daemon.port}", "--name", name, "--expect",
                 f"{self.store}/storm", "--sessions", "64", "--limit", "20", "--sleep", *options],
                capture_output=True, check=True, timeout=60).stdout
            result = json.loads(output)
            interrupted = self.interrupted(began, time.monotonic())
            self.storms.append((result, interrupted))
            self.served["load generator"] += result["finished"]
            self.expected.append((name, 64, began, time.monotonic()))
            if not interrupted and result["finished"] != 64:
                self.failures.append(f"of a storm only {result}")

    def interrupted(self, began, ended):
        """A kill fell into this time: a process that was killed leaves no record."""
        return any(began - 0.5 <= at <= ended + 0.5 for at, _ in self.kills)

    def kill_and_reload(self, until):
        """Until then, by the clock."""
        start = time.monotonic()
        plan = []
        for cycle in range(1 + int((until - start) / CYCLE)):
            plan += [(start + cycle * CYCLE + at, role) for at, role in KILLS]
            plan += [(start + cycle * CYCLE + at, None) for at in RELOADS]
        for at, role in sorted(plan, key=lambda one: one[0]):
            if at > until - 5:
                break
            time.sleep(max(0, at - time.monotonic()))
            if role is None:
                self.daemon.tell(signal.SIGHUP, "reloaded")
                self.reloads += 1
                continue
            # The youngest: an older one may be there that finishes what it has begun.
            pid = max((pid for pid, name in self.daemon.family() if name == role), key=age)
            self.kills.append((time.monotonic(), role))
            os.kill(pid, signal.SIGKILL)
        time.sleep(max(0, until - time.monotonic()))

    def watch(self):
        """The memory of all processes, once a second."""
        while not self.stopping.wait(1):
            self.peak = max(self.peak, sum(self.memory().values()))

    def memory(self):
        """Private bytes by role, of all generations."""
        sums = collections.Counter()
        for pid, name in self.daemon.family():
            with contextlib.suppress(OSError):  # It has just ended.
                sums[name] += held(pid)[0]
        return sums

    def settled(self):
        """What is held when nothing is asked any more and the cache is cleared: by role, private
        bytes, descriptors and threads."""
        self.daemon.tell(signal.SIGUSR2, "cache cleared")
        end = time.monotonic() + DEADLINE
        last, since = None, 0.0
        while True:
            cache = self.daemon.tell(signal.SIGUSR1, "cache")
            counts = [r for r in self.daemon.records if r["fields"]["message"] == "counts"][-1]["fields"]
            family = self.daemon.family()
            state = {name: held(pid) for pid, name in family}
            now = (len(family), sorted((name, one[1:]) for name, one in state.items()),
                   cache["entries"], cache["bytes"], cache["descriptors"],
                   counts["transfers"], counts["unproven"], counts["waiting"])
            if now != last:
                last, since = now, time.monotonic()
            if now[0] == 4 and not any(now[2:]) and time.monotonic() - since > 2.5:
                return state
            assert time.monotonic() < end, f"does not come to rest: {now}"
            time.sleep(0.2)


def age(pid):
    """Greater for the younger."""
    stat = read(f"/proc/{pid}/stat").decode()
    return int(stat[stat.rindex(")") + 2 :].split()[19])


@functools.cache
def soak():
    """The one run that all tests look at."""
    words = sys.argv[2:]
    value = lambda name, default: int(words[words.index(name) + 1]) if name in words else default
    return Soak(value("--seconds", 120), value("--seed", 1))


@test
def every_honest_client_gets_its_file_or_is_told_why_not():
    run = soak()
    told, ends = collections.Counter(), collections.Counter()
    for one in run.ended:
        interrupted = run.interrupted(one.began, one.ended)
        ends[one.job.kind, one.end] += 1
        honest = one.job.habit in ("honest", "junk")
        if one.end == "wrong":
            run.failures.append(f"wrong bytes: {one.job}")
        elif one.end == "cut" and (not interrupted or one.job.attempt > 3):
            run.failures.append(f"neither served nor told: {one.job.name} {one.text} {one.answered}")
        elif one.end == "told":
            told[one.job.kind, one.text] += 1
            fine = (one.job.expected is None and honest and one.text.startswith("1 ")
                    or one.job.kind.startswith("failing") or interrupted)
            if not fine:
                run.failures.append(f"told {one.text}: {one.job.kind} {one.job.name}")
        elif one.end == "intact" and one.job.kind in ("failing error", "failing none"):
            run.failures.append(f"got what the origin never gave: {one.job}")
    print(f"  {len(run.ended)} clients of the crowd, {sum(run.served.values())} others in {run.took:.0f} s")
    for (kind, end), count in sorted(ends.items()):
        print(f"    {kind}: {end} {count}")
    for client, count in sorted(run.served.items()):
        print(f"    {client}: {count}")
    print(f"  the origin: {dict(sorted(run.origin.done.items()))}")
    print(f"  told: {dict(sorted(told.items()))}")
    assert not run.failures, run.failures[:20]
    for kind in ("local", "text", *(f"proxied {one}" for one in faulty.HONEST)):
        assert ends[kind, "intact"] > 0, f"nobody got {kind}"
    for client in ("curl", "tftp-hpa", "atftp", "busybox", "load generator"):
        assert run.served[client] > 0, f"{client} got nothing"
    assert run.prober.wrong == 0


@test
def every_request_that_was_answered_has_a_log_record():
    run = soak()
    asked, names = collections.Counter(), {}
    for one in run.ended:
        if one.answered and not run.interrupted(one.began, one.ended + LATE):
            asked[f"127.0.0.1:{one.port}", one.job.name] += 1
    for began, ended, port in run.prober.served:
        if not run.interrupted(began, ended):
            asked[f"127.0.0.1:{port}", "probe"] += 1
    for name, count, began, ended in run.expected:
        if not run.interrupted(began, ended + LATE):
            names[name] = count
    missing = [key for key, count in asked.items() if run.daemon.requests[key] < count]
    missing += [name for name, count in names.items() if run.daemon.files[name] < count]
    print(f"  {sum(asked.values()) + sum(names.values())} requests looked up among"
          f" {sum(run.daemon.words.values())} records: {dict(run.daemon.words.most_common())}")
    assert not missing, (len(missing), missing[:20])


@test
def after_each_kill_there_is_service_again():
    run = soak()
    times = {}
    for at, role in run.kills:
        times.setdefault(role, []).append(run.prober.recovery(at))
    shown = {role: f"{len(all)} x, {max(all):.2f} s at most" for role, all in times.items()}
    print(f"  {len(run.kills)} kills until a request was answered again: {shown}; {run.reloads} reloads")
    print(f"  {len(run.prober.served)} probes; longest time without service {run.prober.longest_gap():.2f} s")
    died = [r["fields"]["message"] for r in run.daemon.records if "died" in r["fields"]["message"]]
    print(f"  the supervisor says: {dict(collections.Counter(died))}")
    by_kill = [message for message in died if "SIGKILL" in message]
    assert len(run.kills) >= 3 and len(by_kill) == len(run.kills), (run.kills, died)
    # The supervisor waits for 0.1, 0.2 and 0.4 s; a start needs a fraction of a second, and a client
    # repeats what was read by a process that died.
    assert max(max(all) for all in times.values()) < 5, times


@test
def nothing_is_left_behind():
    run = soak()
    shown = lambda state: {role: state[role] for role in ROLES}
    print(f"  bytes, descriptors, threads at first: {shown(run.baseline)}; at last: {shown(run.final)}")
    for role in ROLES:
        assert run.final[role][1:] == run.baseline[role][1:], role
    assert not run.left_in_cache, run.left_in_cache


@test
def memory_returns_to_what_it_was():
    run = soak()
    total = lambda state: sum(one[0] for one in state.values()) / MIB
    print(f"  private memory of all processes, MiB: at first {total(run.baseline):.1f}, at most"
          f" {run.peak / MIB:.1f}, at last {total(run.final):.1f}")
    growth = {role: run.late[role] - run.early[role] for role in ROLES}
    print(f"  growth under load without kills, KiB: { {role: size // KIB for role, size in growth.items()} }")
    for role in ROLES:
        more = run.final[role][0] - run.baseline[role][0]
        assert more < KEPT, f"{role} holds {more} bytes more"
        assert growth[role] < GROWTH, f"{role} grows by {growth[role]} bytes"


main()
