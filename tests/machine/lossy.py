"""Networks that lose, delay, double, reorder and damage, between namespaces: whatever our server's
clients ask for arrives intact, and a table says how fast, beside Debian's servers at the same time.

    lossy.py PROGRAMS PEERS

Needs root, nftables, curl, tftp-hpa, atftp and busybox; in PROGRAMS the load generator and the relay
of tests/bench, and in PEERS what its peers.py fetches. nftables lose at random, so that two runs
differ; the relay's part depends on a seed.
"""

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys

from support import DEADLINE, PROGRAMS, Daemon, directory, main, pattern, read, test, write

PEERS = os.path.abspath(sys.argv[2])
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../bench"))
# pylint: disable=wrong-import-position
from measure import start, wait_for
from servers import all_servers
from wire import CLIENT, SERVER, SERVERS, Wire

LOAD = os.path.join(PROGRAMS, "r-tftpd-load")
# Everything that can happen to a datagram, in percent; `garble` also has the clients' ACKs damaged.
HARM = {"duplicate": 5, "reorder": 5, "corrupt": 2}
FILES = {"tiny": pattern(5_000, 4), "small": pattern(15_000, 1), "middle": pattern(100_000, 2), "large": pattern(400_000, 3)}
LOSSES, WINDOWS = (1, 5, 20), (1, 4, 16, 64)
CLIENTS = 4
SECONDS = 1.3  # for each cell of the table


class World:
    """Our server with files at one end of a wire, clients at the other."""

    def __init__(self, *arguments):
        self.arguments = arguments
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        self.root, self.out, self.cache = (self.stack.enter_context(directory()) for _ in range(3))
        os.chmod(self.cache, 0o1777)
        for name, contents in FILES.items():
            write(f"{self.root}/{name}", contents)
        self.wire = self.stack.enter_context(contextlib.closing(Wire(PROGRAMS)))
        with self.wire.server():
            address = ["--listen", SERVER, "--port", "6900", "--cache-dir", self.cache]
            self.daemon = self.stack.enter_context(Daemon(self.root, *address, *self.arguments))
        return self

    def __exit__(self, *problem):
        return self.stack.__exit__(*problem)

    def load(self, name, *options, server=(SERVER, 6900)):
        """The load generator's report; it compares every byte."""
        command = [LOAD, "--server", "%s:%d" % server, "--from", CLIENT, "--name", name, "--expect",
                   f"{self.root}/{name}", "--blksize", "1468", "--sleep", *map(str, options)]
        with self.wire.clients():
            done = subprocess.run(command, capture_output=True, check=True, timeout=3 * DEADLINE)
        return json.loads(done.stdout)

    def all_arrive(self, *runs):
        """Each run is the name of a file and options: all clients at once, and all must finish."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            results = list(pool.map(lambda run: self.load(*run, "--sessions", CLIENTS, "--limit", 60), runs))
        lost = self.wire.lost()
        slowest = [round(result["max_ms"] / 1000, 1) for result in results]
        repeated = sum(result["unexpected"] for result in results)
        print(f"  {CLIENTS * len(runs)} transfers, the slowest of each kind in {slowest} s; {lost[0]} datagrams lost to the"
              f" server, {lost[1]} to the clients, which got {repeated} that they did not expect")
        assert min(lost) > 0, "nothing was lost"
        for run, result in zip(runs, results):
            assert result["finished"] == CLIENTS and not result["failed"], (run, result)


@test
def loss_doubling_reordering_and_damage_break_no_transfer():
    with World() as world:
        world.wire.shape(loss=5, delay=1, garble=2, **HARM)
        world.all_arrive(
            ("small", "--windowsize", 1), ("middle", "--windowsize", 4),
            ("large", "--windowsize", 16), ("large", "--windowsize", 64),
            # EDK2's habit; and one that leaves all but the end of a window to the server.
            ("middle", "--windowsize", 4, "--ack-all"), ("large", "--windowsize", 64, "--silence", 5000),
        )


@test
def one_datagram_in_five_is_lost_and_every_file_arrives():
    # By default one client in a hundred would be given up in lock-step.
    with World("--max-retries", "12") as world:
        world.wire.shape(loss=20, delay=1)
        world.all_arrive(("tiny", "--windowsize", 1), ("middle", "--windowsize", 4),
                         ("large", "--windowsize", 16), ("large", "--windowsize", 64))


@test
def damage_that_the_checksum_shows_is_loss():
    with World() as world:
        world.wire.shape(corrupt=5)
        result = world.load("large", "--windowsize", 16, "--sessions", CLIENTS)
        assert result["finished"] == CLIENTS, result
        record = world.daemon.request("large")
        # Nothing damaged reaches the server, so nothing is ignored as junk.
        assert record["retransmitted"] > 0, record


@test
def real_clients_get_their_files_over_a_bad_wire():
    commands = {
        "curl": lambda name, out: ["curl", "-sS", "--tftp-blksize", "1428", "--max-time", "60", "-o", out,
                                   f"tftp://{SERVER}:6900/{name}"],
        "tftp-hpa": lambda name, out: ["tftp", "-m", "octet", SERVER, "6900", "-c", "get", name, out],
        "busybox": lambda name, out: ["busybox", "tftp", "-b", "1428", "-g", "-r", name, "-l", out,
                                      SERVER, "6900"],
        "atftp": lambda name, out: ["atftp", "--option", "blksize 1428", "-g", "-r", name, "-l", out,
                                    SERVER, "6900"],
        "atftp in windows": lambda name, out: ["atftp", "--option", "windowsize 8", "--option", "blksize 1428",
                                               "-g", "-r", name, "-l", out, SERVER, "6900"],
    }
    with World() as world:
        world.wire.shape(loss=2, delay=1, **HARM)

        def fetch(client):
            out = f"{world.out}/{client}"
            for attempt in range(1, 7):
                with world.wire.clients():
                    done = subprocess.run(commands[client]("small", out), capture_output=True, timeout=90, check=False)
                if os.path.exists(out) and read(out) == FILES["small"]:
                    return attempt
                # Debian's atftp gives up when the wire doubles its request or the answer to it.
                if b"unexpected OACK" not in done.stdout + done.stderr:
                    return done
            return done

        with concurrent.futures.ThreadPoolExecutor() as pool:
            ends = dict(zip(commands, pool.map(fetch, commands)))
        print(f"  attempts: {ends}")
        assert all(isinstance(end, int) for end in ends.values()), ends


@test
def goodput_beside_other_servers():
    with World() as world, contextlib.ExitStack() as stack:
        servers = {"r-tftpd": (SERVER, 6900)}
        for name, host in zip(("dnsmasq", "tftpd-hpa", "atftpd"), SERVERS[1:]):
            [server] = [one for one in all_servers(PROGRAMS, PEERS, world.root, world.cache, host)
                        if one.name == name]
            assert server.is_installed(), f"{server.command[0]} is missing: tests/bench/peers.py fetches it"
            with world.wire.server():
                process = start(server.command, world.root, os.sched_getaffinity(0))
            stack.callback(end, process)
            with world.wire.clients():
                wait_for(process, server)
            servers[name] = (host, server.port)
        print(f"  kB/s of {CLIENTS} clients at once, {SECONDS} s each, all servers at the same time; 2 ms there and back")
        print("  lost  windowsize" + "".join(f"{name:>12}" for name in servers))
        behind = []
        for loss in LOSSES:
            for windowsize in WINDOWS:
                world.wire.shape(loss=loss, delay=1)
                measure = lambda server: world.load(
                    "large", "--windowsize", windowsize, "--sessions", CLIENTS, "--total", 0, "--limit", SECONDS,
                    server=server)
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    results = dict(zip(servers, pool.map(measure, servers.values())))
                rates = {name: result["bytes"] / result["seconds"] / 1000 for name, result in results.items()}
                print(f"  {loss:>3} %  {windowsize:>10}" + "".join(f"{rate:>12.0f}" for rate in rates.values()))
                behind += [f"{loss} % {windowsize} {name}" for name in servers if rates[name] > rates["r-tftpd"]]
                assert not results["r-tftpd"]["failed"], results
                assert rates["r-tftpd"] > 0, "nothing arrives"
        print(f"  faster than r-tftpd in this run: {', '.join(behind) or 'none'}")


def end(process):
    """A peer and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


main()
