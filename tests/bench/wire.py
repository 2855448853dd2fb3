"""A network in which things go wrong: a namespace for the server, one for the clients, and a wire.

nftables lose what arrives, at random, in both namespaces; `r-tftpd-relay` carries frames from one to
the other, late, and on demand twice, out of order or damaged. Needs root.
"""

import contextlib
import ctypes
import os
import socket
import subprocess

SERVERS = [f"10.97.0.{number}" for number in range(1, 9)]  # so that several can use the same port
SERVER, CLIENT = SERVERS[0], "10.97.0.100"
CLONE_NEWNET = 0x40000000
# Python 3.11 has no names for these.
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
SO_RCVBUFFORCE = 33
ALL_FRAMES = 3  # ETH_P_ALL
RECEIVE_BUFFER = 32 << 20

LOSS = """
table ip wire {{
    chain in {{
        type filter hook input priority 0
        meta l4proto udp numgen random mod 1000 < {permille} counter drop
    }}
}}
"""

_libc = ctypes.CDLL(None, use_errno=True)


class Wire:
    """The namespaces; nothing goes wrong before `shape`."""

    def __init__(self, programs):
        self.program = os.path.join(programs, "r-tftpd-relay")
        self.names = {side: f"r-tftpd-wire-{os.getpid()}-{side}" for side in ("s", "w", "c")}
        self.relay = None
        try:
            for name in self.names.values():
                run("ip", "netns", "add", name)
                run("ip", "-n", name, "link", "set", "lo", "up")
            for side, addresses in (("s", SERVERS), ("c", [CLIENT])):
                end, middle = self.names[side], self.names["w"]
                run("ip", "-n", end, "link", "add", "e0", "type", "veth", "peer", f"{side}0", "netns", middle)
                # The kernel would hand whole windows over as one packet, and lose them as one.
                run("ip", "-n", end, "link", "set", "e0", "gso_max_segs", "1")
                for address in addresses:
                    run("ip", "-n", end, "address", "add", f"{address}/24", "dev", "e0")
                run("ip", "-n", end, "link", "set", "e0", "up")
                run("ip", "-n", middle, "link", "set", f"{side}0", "up")
            self.shape()
        except BaseException:
            self.close()
            raise

    def shape(self, loss=0, delay=0, **harm):
        """Percent lost in each direction, ms of delay in each, and options for the relay."""
        self.stop_relay()
        for side in "sc":
            with self.inside(side):
                subprocess.run(["nft", "delete", "table", "ip", "wire"], capture_output=True, check=False)
                run("nft", LOSS.format(permille=round(loss * 10)))
        with self.inside("w"):
            ends = [packet_socket(device) for device in ("s0", "c0")]
        options = [word for name, value in {"delay": delay, **harm}.items() for word in (f"--{name}", str(value))]
        self.relay = subprocess.Popen([self.program, *options], stdin=ends[0], stdout=ends[1])
        for end in ends:
            end.close()

    def lost(self):
        """Packets that nftables have dropped since `shape`: of the clients', of the server's."""
        counts = []
        for side in "sc":
            with self.inside(side):
                words = run("nft", "list", "table", "ip", "wire").decode().split()
            counts.append(int(words[words.index("packets") + 1]))
        return counts

    def server(self):
        """Where a server is to be started."""
        return self.inside("s")

    def clients(self):
        """Where clients are to be started."""
        return self.inside("c")

    @contextlib.contextmanager
    def inside(self, side):
        """What this thread starts or opens is in that namespace."""
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self.names[side]}") as there:
            enter(there)
            try:
                yield
            finally:
                enter(before)

    def stop_relay(self):
        """The wire is cut."""
        if self.relay:
            assert self.relay.poll() is None, f"the relay ended with status {self.relay.returncode}"
            self.relay.kill()
            self.relay.wait()
            self.relay = None

    def close(self):
        """Nothing is left."""
        try:
            self.stop_relay()
        finally:
            for name in self.names.values():
                subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


class Loopback:
    """Server and clients where we are."""

    def server(self):
        """Nowhere else."""
        return contextlib.nullcontext()

    clients = server

    def shape(self, **_):
        """Nothing goes wrong."""


def packet_socket(device):
    """Frames that arrive at a device, and a way to send some."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    sock.bind((device, ALL_FRAMES))
    return sock


def enter(namespace):
    """As setns(2)."""
    if _libc.setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def run(*command):
    """A command that must go well; what it says."""
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.decode()}")
    return done.stdout
