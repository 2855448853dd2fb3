"""Links to real HTTP servers, nginx and lighttpd: gzip, ETag, Range, TLS, HTTP/2, many clients for
one object, many objects for a small cache.

Needs nginx, lighttpd with its TLS module, and openssl; no root, but a plain user can not count the
descriptors of the daemon's processes, which do not let him look.
"""

import os
import signal
import time

from servers import Origin, fetch
from support import DEADLINE, Daemon, cases, directory, get, main, pattern, sha256, test, write

TEXT = b"first line\nsecond line\n\nlast line\n" * 3000
BINARY = pattern(3_000_000)
ORIGINS = [("nginx",), ("lighttpd",)]
BLKSIZE = "blksize=65464"


class World:
    """An origin with files, and the daemon with a link `link` to it."""

    def __init__(self, name, *arguments, modifiers="", scheme="http", files=None):
        self.opened = [directory() for _ in range(3)]
        root, home, there = (each.__enter__() for each in self.opened)
        self.files = {"text.txt": TEXT, "binary": BINARY, "stale/binary": BINARY} | (files or {})
        for file, contents in self.files.items():
            os.makedirs(os.path.dirname(f"{there}/{file}"), exist_ok=True)
            write(f"{there}/{file}", contents)
        for path, _, _ in os.walk(there):
            os.chmod(path, 0o755)
        self.there = there
        self.origin = Origin(name, home, there)
        os.symlink(self.origin.url(modifiers, scheme), f"{root}/link")
        arguments = [*arguments, "--proxy-ports", "any", "--ca-file", f"{home}/ca.pem"]
        self.daemon = Daemon(root, "--port", "0", "--listen", "127.0.0.1", *arguments)

    def get(self, file, *options):
        """A file through the link: it must arrive intact. What the server granted."""
        answer = get("127.0.0.1", self.daemon.port, f"link/{file}", BLKSIZE, *options)
        assert answer["sha256"] == sha256(self.files[file]), answer
        return answer["granted"]

    def signal(self, number, word):
        """Sends a signal to the daemon and waits for the record that follows."""
        known = len(self.daemon.records)
        self.daemon.process.send_signal(number)
        new = lambda: self.daemon.records[known:]
        return self.daemon.wait_for(lambda r: r["fields"]["message"] == word and r in new())["fields"]

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self.origin.__exit__()
        self.daemon.__exit__()
        for each in self.opened:
            each.__exit__(None, None, None)


@cases("{0} sends gzip, the client gets the text and its size", ORIGINS)
def gzip(name):
    with World(name) as world:
        assert world.get("text.txt", "tsize=0")["tsize"] == str(len(TEXT))
        world.origin.stop()
        assert [(status, encoding) for status, *_, encoding in world.origin.log()] == [("200", "gzip")]


@cases("{0} sends what is not to be compressed as it is", ORIGINS)
def identity(name):
    with World(name, modifiers="+nocompress") as world:
        assert world.get("text.txt", "tsize=0")["tsize"] == str(len(TEXT))
        world.origin.stop()
        assert [(status, encoding) for status, *_, encoding in world.origin.log()] == [("200", "-")]


@cases("{0} is not asked again for what is fresh", ORIGINS)
def fresh(name):
    with World(name) as world:
        world.get("binary")
        world.origin.stop()
        world.get("binary", "tsize=0")
        assert len(world.origin.log()) == 1


@cases("{0} is asked by ETag for what is stale, and for what has changed", ORIGINS)
def revalidated(name):
    with World(name) as world:
        for _ in range(2):
            world.get("stale/binary")
        # Another size makes another ETag, whatever the clock says.
        world.files["stale/binary"] = pattern(2_000_000, 2)
        write(f"{world.there}/stale/binary", world.files["stale/binary"])
        # lighttpd looks at a file at most once a second.
        end = time.monotonic() + DEADLINE
        while True:
            answer = get("127.0.0.1", world.daemon.port, "link/stale/binary", BLKSIZE)
            if answer["sha256"] == sha256(world.files["stale/binary"]):
                break
            assert answer["sha256"] == sha256(BINARY) and time.monotonic() < end, answer
        world.origin.stop()
        statuses = [status for status, *_ in world.origin.log()]
        assert statuses[:2] == ["200", "304"] and statuses[-1] == "200", statuses


@cases("{0} is asked by HTTPS and HTTP/2 with a private CA", ORIGINS)
def secure(name):
    with World(name, scheme="https") as world:
        for file in ("binary", "text.txt"):
            world.get(file)
        world.origin.stop()
        assert [entry[:2] for entry in world.origin.log()] == [["200", "HTTP/2.0"]] * 2


@test
def a_certificate_of_an_unknown_CA_is_refused():
    with World("nginx", scheme="https") as world, World("nginx") as other:
        os.symlink(other.origin.url(scheme="https"), f"{world.daemon.process.args[4]}/unknown")
        answer = get("127.0.0.1", world.daemon.port, "unknown/binary")
        assert (answer["error"], answer["length"]) == (0, 0), answer
        assert "ertificate" in world.daemon.request("unknown/binary")["reason"]
        assert not other.origin.log()


@test
def nginx_dies_in_mid_download_and_the_rest_is_fetched_by_range():
    body = pattern(16 << 20)
    with World("nginx", modifiers="+nocompress", files={"slow/file": body}) as world:
        restarted = []

        def restart():
            if not restarted and begun():
                world.origin.kill()
                world.origin.start()
                restarted.append(True)

        def begun():
            return listed(world) > 0

        fetch(world.daemon, [("link/slow/file", body)], {"blksize": 65464}, 1, restart)
        assert restarted, "too fast for this test"
        # It writes a request down when that is over, which may be after the client has all.
        world.origin.stop()
        log = [entry for entry in world.origin.log() if entry[0] == "206"]
        assert len(log) == 1 and log[0][3].startswith("bytes="), world.origin.log()


def listed(world):
    """Bytes of the download that is on its way."""
    world.signal(signal.SIGUSR1, "cache")
    sizes = [r["fields"]["size"] for r in world.daemon.records if r["fields"]["message"] == "cache download"]
    return sizes[-1] if sizes else 0


def resident(world):
    """Memory of the worker in KiB."""
    return int(world.daemon.status("r-tftpd-worker")["VmRSS"].split()[0])


def descriptors(world):
    """How many each process has; none where that can not be seen."""
    processes = world.daemon.processes()
    names = ("r-tftpd-broker", "r-tftpd-worker", "r-tftpd-fetcher")
    if os.geteuid() != 0:
        return None
    return {name: len(os.listdir(f"/proc/{processes[name]}/fd")) for name in names}


@test
def two_hundred_clients_for_one_cold_object_cause_one_request():
    body = pattern(64 << 20)
    limits = ["--max-connections", "200", "--cache-size", "256M"]
    with World("nginx", *limits, modifiers="+nocompress", files={"slow/big": body}) as world:
        world.get("binary")
        before, largest, looked = resident(world), 0, 0

        def look():
            nonlocal largest, looked
            if time.monotonic() - looked > 0.2:
                looked = time.monotonic()
                largest = max(largest, resident(world))

        began = time.monotonic()
        files = [("link/slow/big", body)] * 200
        fetch(world.daemon, files, {"blksize": 65464, "windowsize": 2, "tsize": 0}, 200, look)
        seconds = time.monotonic() - began
        asked = [entry for entry in world.origin.log() if entry[2] == "/slow/big"]
        assert len(asked) == 1, asked
        print(
            f"  {200 * len(body) / seconds / 1e6:.0f} MB/s; resident memory of the worker"
            f" {before} KiB before, {largest} KiB at most"
        )
        assert largest - before < 32 << 10, "the worker's memory grows with its clients"


@test
def a_thousand_objects_stay_within_the_limits_and_leave_no_descriptor_behind():
    files = {f"many/{number}": pattern(1000 + 97 * number, number) for number in range(1000)}
    limits = ["--cache-size", "2M", "--cache-entries", "40"]
    with World("nginx", *limits, files=files) as world:
        # What is made once and kept.
        warm = [(f"link/many/{number}", files[f"many/{number}"]) for number in range(20)]
        fetch(world.daemon, warm, {"blksize": 1428, "windowsize": 8}, 20)
        world.signal(signal.SIGUSR2, "cache cleared")
        before = settled(world)
        every = [(f"link/{file}", contents) for file, contents in files.items()]
        for _ in range(2):
            fetch(world.daemon, every, {"blksize": 1428, "windowsize": 32}, 20)
            cache = world.signal(signal.SIGUSR1, "cache")
            assert 0 < cache["entries"] <= 40 and 0 < cache["bytes"] <= 2 << 20, cache
        world.signal(signal.SIGUSR2, "cache cleared")
        after = settled(world)
        assert world.signal(signal.SIGUSR1, "cache")["entries"] == 0
        assert after == before, (before, after)
        print(f"  descriptors before {before}, after {after}")


def settled(world):
    """Descriptors once transfers are over and the origin has closed its idle connections."""
    end = time.monotonic() + DEADLINE
    last, since = None, 0
    while True:
        cache = world.signal(signal.SIGUSR1, "cache")
        now = (cache["descriptors"], descriptors(world))
        if now != last:
            last, since = now, time.monotonic()
        # The origin closes connections after a second: idle ones, and those that the fetcher opened
        # in advance and never used.
        if cache["descriptors"] == 0 and time.monotonic() - since > 2.5:
            return now
        assert time.monotonic() < end, f"descriptors do not settle: {now}"
        time.sleep(0.1)


main()
