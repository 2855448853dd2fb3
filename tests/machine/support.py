"""What the tests in this directory share: the daemon, its log, temporary directories, namespaces.

Each script takes the directory of the programs as its argument, runs its tests one after another,
prints a line for each and at last `N passed, N failed`. Python 3, standard library only.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback

PROGRAMS = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else "."
DAEMON = os.path.join(PROGRAMS, "r-tftpd")
NAMES = ("r-tftpd", "r-tftpd-broker", "r-tftpd-worker", "r-tftpd-fetcher")
CLIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "client.py")
DEADLINE = 30  # seconds that any one event may take
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]

_tests = []


def test(function):
    """Registers a test; its name says what it proves."""
    _tests.append((function.__name__.replace("_", " "), function))
    return function


def cases(name, values):
    """Registers one test for each value."""

    def register(function):
        for value in values:
            _tests.append((name.format(*value), lambda value=value: function(*value)))
        return function

    return register


def main():
    """Runs what was registered."""
    failed = 0
    for name, function in _tests:
        try:
            function()
            print(f"test {name} ... ok", flush=True)
        except Exception:  # whatever went wrong is a failure of this one test
            failed += 1
            print(f"test {name} ... FAILED\n{traceback.format_exc()}", flush=True)
    print(f"{len(_tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def pattern(length, seed=1):
    """Bytes that differ from block to block."""
    out = bytearray()
    counter = 0
    while len(out) < length:
        out += hashlib.sha512(b"%d %d" % (seed, counter)).digest()
        counter += 1
    return bytes(out[:length])


@contextlib.contextmanager
def directory():
    """A directory that everybody can read."""
    path = tempfile.mkdtemp(prefix="r-tftpd-test-")
    os.chmod(path, 0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def write(path, contents):
    """Writes a file that everybody can read."""
    with open(path, "wb") as file:
        file.write(contents)
    os.chmod(path, 0o644)


def read(path):
    """A file's contents."""
    with open(path, "rb") as file:
        return file.read()


def run(command, **options):
    """Runs a command that must succeed."""
    done = subprocess.run(command, capture_output=True, timeout=120, **options)
    assert done.returncode == 0, f"{command}: {done.returncode} {done.stdout!r} {done.stderr!r}"
    return done.stdout


class Daemon:
    """A running daemon; `prefix` is put before its command."""

    def __init__(self, root, *arguments, prefix=(), program=DAEMON, **options):
        command = [*prefix, program, "--log-format", "json", "--root", root, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
        )
        self.records, self.others = [], []
        self.changed = threading.Condition()
        self.closed = False
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            fields = self.wait_for(lambda record: record["fields"]["message"] == "serving")["fields"]
        except BaseException:
            self.process.kill()
            raise
        self.listen = fields["listen"].split(",")
        self.port = int(self.listen[0].rsplit(":", 1)[1])

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                try:
                    self.records.append(json.loads(line))
                except ValueError:
                    self.others.append(line)
                self.changed.notify_all()
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def wait_for(self, wanted):
        """The first record, old or new, that is as wanted."""
        end = time.monotonic() + DEADLINE
        with self.changed:
            while True:
                for record in self.records:
                    if wanted(record):
                        return record
                left = end - time.monotonic()
                assert left > 0 and not self.closed, f"no such record: {self.records} {self.others}"
                self.changed.wait(left)

    def count(self, message):
        """How many records with this message there are."""
        return sum(record["fields"]["message"] == message for record in self.records)

    def wait_for_many(self, number, message):
        """Until there are so many records with this message."""
        with self.changed:
            found = self.changed.wait_for(lambda: self.count(message) >= number, DEADLINE)
        assert found, f"{self.count(message)} of {number}: {message}"

    def wait_until_closed(self):
        """Until all processes have ended."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.closed, DEADLINE), "processes left behind"

    def request(self, file):
        """The record of a request for a file."""
        return self.wait_for(
            lambda r: r["target"] == "r_tftpd::request" and r["fields"].get("file") == file
        )["fields"]

    def processes(self):
        """Process ids by name, the supervisor included."""
        found = {"r-tftpd": self.process.pid}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    stat = read(f"/proc/{entry}/stat").decode()
                    name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") :]
                    if int(rest.split()[2]) == self.process.pid:
                        found[name] = int(entry)
        return found

    def status(self, name):
        """The lines of /proc/PID/status of a process."""
        text = read(f"/proc/{self.processes()[name]}/status").decode()
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    def assert_unprivileged(self):
        """None is uid 0, none has a capability, all have no_new_privs."""
        for name in NAMES:
            status = self.status(name)
            assert "0" not in status["Uid"].split() + status["Gid"].split(), status
            for key in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                assert int(status[key], 16) == 0, (name, key, status[key])
            assert status["NoNewPrivs"] == "1", status
            if name != "r-tftpd":
                assert status["Seccomp"] == "2", status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.wait_until_closed()
        assert self.process.wait() == 0, self.process.returncode
        assert not self.others, self.others


def fails(command, **options):
    """What a command prints that must fail with status 1 and one line."""
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE, text=True, **options)
    assert done.returncode == 1, (done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if " WARN " not in line]
    assert len(lines) == 1, lines
    return lines[0]


def get(host, port, file, *options, prefix=()):
    """Reads a file with our own client: its answer (granted, sha256, length, error, tid)."""
    command = [*prefix, sys.executable, CLIENT, host, str(port), file, *options]
    return json.loads(run(command))


def sha256(contents):
    """As our client tells it."""
    return hashlib.sha256(contents).hexdigest()


@contextlib.contextmanager
def namespaces():
    """A server's and a client's network namespace, joined by a pair of devices with MTU 1500.

    The server is 10.99.0.1, 10.99.0.5 and fd99::1 on `s0`, the client 10.99.0.2 and fd99::2 on `c0`.
    """
    server, client = (f"r-tftpd-{os.getpid()}-{side}" for side in "sc")
    try:
        for name in (server, client):
            run(["ip", "netns", "add", name])
            run(["ip", "-n", name, "link", "set", "lo", "up"])
        run(["ip", "-n", server, "link", "add", "s0", "type", "veth", "peer", "c0", "netns", client])
        for name, device, addresses in (
            (server, "s0", ("10.99.0.1/24", "10.99.0.5/24", "fd99::1/64")),
            (client, "c0", ("10.99.0.2/24", "fd99::2/64")),
        ):
            ip = ["ip", "-n", name]
            # Addresses are usable at once.
            run(["ip", "netns", "exec", name, "sysctl", "-qw", f"net.ipv6.conf.{device}.accept_dad=0"])
            for address in addresses:
                broadcast = [] if ":" in address else ["brd", "+"]
                run([*ip, "address", "add", address, *broadcast, "dev", device])
            run([*ip, "link", "set", device, "up"])
        # Link-local addresses come when the kernel has noticed that the link is up.
        end = time.monotonic() + DEADLINE
        for name, device in ((server, "s0"), (client, "c0")):
            while not run(["ip", "-n", name, "-6", "route", "show", "fe80::/64", "dev", device]):
                assert time.monotonic() < end, f"no link-local address on {device}"
        yield ["ip", "netns", "exec", server], ["ip", "netns", "exec", client], server
    finally:
        for name in (server, client):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
