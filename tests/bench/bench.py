"""Runs our server and its peers one at a time, interleaved, and prints medians and ratios.

bench.py PROGRAMS PEERS [--short]: the directory of r-tftpd and r-tftpd-bench, and that of the peers'
programs. Needs root and a network namespace of its own: `tests/bench/run.sh` makes both.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

PROGRAMS, PEERS = map(os.path.abspath, sys.argv[1:3])
SHORT = "--short" in sys.argv
ROUNDS = 1 if SHORT else 3
LIMIT = 10 if SHORT else 60  # seconds for one measurement
HOST = "127.0.0.1"
TICKS = os.sysconf("SC_CLK_TCK")

# Name, bytes of the file, sessions, blksize, windowsize.
MIB = 1 << 20
SCENARIOS = (
    ("single 1468/64", 64 * MIB, 1, 1468, 64),
    ("single 1468/16", 64 * MIB, 1, 1468, 16),
    ("lock-step 512", 16 * MIB, 1, 512, 1),
    ("lock-step 1468", 32 * MIB, 1, 1468, 1),
    ("64 at once 1468/16", 16 * MIB, 64, 1468, 16),
    ("2000 at once 1468/8", 1 * MIB, 2000, 1468, 8),
)
if SHORT:
    SCENARIOS = (
        ("single 1468/64", 4 * MIB, 1, 1468, 64),
        ("lock-step 512", MIB, 1, 512, 1),
        ("50 at once 1468/8", MIB // 4, 50, 1468, 8),
    )


def servers(root):
    """The command of each server and the port it listens on."""
    peer = lambda name: os.path.join(PEERS, name)
    return {
        "r-tftpd": (
            [f"{PROGRAMS}/r-tftpd", "--root", root, "--listen", HOST, "--port", "6900",
             "--max-per-client", "65536", "-L", "compact"], 6900),
        "tftpd-hpa": (
            [peer("in.tftpd"), "-L", "-a", f"{HOST}:6901", "-s", "-u", "nobody", root], 6901),
        "atftpd": (
            [peer("atftpd"), "--daemon", "--no-fork", "--port", "6902", "--bind-address", HOST,
             "--maxthread", "4096", "--user", "nobody", "--group", "nogroup", "--logfile",
             "/dev/null", "--verbose=0", root], 6902),
        "dnsmasq": (
            [peer("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
             "--enable-tftp", f"--tftp-root={root}", "--tftp-max=4096", "--quiet-tftp",
             f"--listen-address={HOST}", "--bind-interfaces", "--user=nobody", "--pid-file"], 69),
    }


def pinned(core, command):
    """On a core of its own, where there are two."""
    return ["taskset", "-c", str(core), *command] if os.cpu_count() > 1 else command


def family(pid):
    """A process and all below it."""
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                rest = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(rest[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found


def cpu(pid):
    """Seconds of processor time of a process and all below it, ended ones included."""
    total = 0
    for one in family(pid):
        try:
            with open(f"/proc/{one}/stat") as file:
                total += sum(map(int, file.read().rsplit(")", 1)[1].split()[11:15]))
        except OSError:
            continue
    return total / TICKS


def answers(port):
    """Whether the server answers a request at all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        sock.sendto(b"\0\1no-such-file\0octet\0", (HOST, port))
        try:
            return bool(sock.recv(600))
        except OSError:
            return False


def measure(command, port, scenario, root):
    """One server, one scenario: the load generator's figures and the server's processor time."""
    _, size, sessions, blksize, windowsize = scenario
    server = subprocess.Popen(
        pinned(0, command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )
    try:
        end = time.monotonic() + 10
        while not answers(port):
            if time.monotonic() > end or server.poll() is not None:
                raise SystemExit(f"{command[0]} does not serve")
        before = cpu(server.pid)
        file = str(size)
        client = [f"{PROGRAMS}/r-tftpd-bench", f"{HOST}:{port}", file, f"{root}/{file}",
                  str(sessions), str(blksize), str(windowsize), str(LIMIT)]
        result = json.loads(subprocess.run(
            pinned(1, client), stdout=subprocess.PIPE, check=True).stdout)
        result["cpu"] = cpu(server.pid) - before
        return result
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(3)
        except subprocess.TimeoutExpired:
            pass
        # The whole session of this server, which was started above: tftpd-hpa's children.
        for pid in family(server.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        server.wait()


def main():
    """Every scenario, every server, in turn."""
    root = tempfile.mkdtemp(prefix="r-tftpd-bench-")
    os.chmod(root, 0o755)
    problems = 0
    try:
        for size in {scenario[1] for scenario in SCENARIOS}:
            with open(f"{root}/{size}", "wb") as file:
                file.write(os.urandom(size))
            os.chmod(f"{root}/{size}", 0o644)
        print(f"{'scenario':<22}{'server':<12}{'MB/s':>9}{'ratio':>8}{'CPU s/GB':>10}"
              f"{'finished':>10}{'p50 ms':>10}{'p99 ms':>10}")
        for scenario in SCENARIOS:
            name, size, sessions, *_ = scenario
            rounds = {}
            for _ in range(ROUNDS):
                for server, (command, port) in servers(root).items():
                    rounds.setdefault(server, []).append(measure(command, port, scenario, root))
            speed = {
                server: statistics.median(r["bytes"] / r["seconds"] / 1e6 for r in results)
                for server, results in rounds.items()
            }
            for server, results in rounds.items():
                middle = lambda key: statistics.median(r[key] for r in results)
                gigabytes = statistics.median(r["bytes"] for r in results) / 1e9
                least = min(r["finished"] for r in results)
                # tftpd-hpa's children are reaped unseen: its time can not be told.
                spent = middle("cpu") / gigabytes if gigabytes and server != "tftpd-hpa" else None
                # How many times as fast as this peer we are.
                ratio = speed["r-tftpd"] / speed[server] if speed[server] else float("inf")
                print(f"{name:<22}{server:<12}{speed[server]:>9.1f}{ratio:>8.2f}"
                      f"{'n/a' if spent is None else format(spent, '.2f'):>10}"
                      f"{least:>6}/{sessions}{middle('p50_ms'):>10.1f}{middle('p99_ms'):>10.1f}",
                      flush=True)
                problems += server == "r-tftpd" and least < sessions
    finally:
        shutil.rmtree(root)
    print(f"{len(SCENARIOS) - problems} passed, {problems} failed")
    sys.exit(1 if problems else 0)


main()
