"""A crowd of TFTP clients of all kinds, honest and not, from one thread. Standard library only.

What they ask and what becomes of it depends on a seed, but for timing. Each honest file is compared
byte by byte.
"""

import collections
import random
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

REQUEST_SILENCE = 0.5  # s before a request is repeated
REQUESTS = 40
SILENCE = 0.7  # s before an ACK is repeated
ACKS = 40
ATTEMPTS = 4


@dataclass
class Job:
    """What a client does. Habits: `honest`; `junk`: honest, with junk beside; `aborts`, `probes`,
    `stops` after some blocks; `mute` never answers."""

    kind: str
    name: str
    expected: bytes | None  # None = it is missing
    habit: str = "honest"
    mode: str = "octet"
    options: dict = field(default_factory=dict)
    blocks: int = 0  # after which it aborts or stops
    attempt: int = 1


@dataclass
class Ended:
    """What became of a job."""

    job: Job
    port: int
    began: float
    ended: float
    answered: bool
    end: str  # intact, told, cut, left, wrong
    text: str = ""


class Client:
    """One job, from one port."""

    def __init__(self, server, job, chance):
        self.server, self.job, self.chance = server, job, chance
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.began = self.heard = time.monotonic()
        self.tid, self.repeats, self.end, self.text = None, 0, None, ""
        self.last, self.since_ack, self.reported = 0, 0, False
        self.blksize, self.window, self.received = 512, 1, bytearray()
        words = [job.name, job.mode, *(str(word) for pair in job.options.items() for word in pair)]
        self.request = b"\0\1" + b"".join(word.encode() + b"\0" for word in words)
        self.send(self.request)

    def send(self, packet):
        """To the server's TID once it is known."""
        try:
            if self.tid:
                self.socket.send(packet)
            else:
                self.socket.sendto(packet, self.server)
        except ConnectionRefusedError:
            # The answer to an earlier packet. What the server said before it closed its port comes first.
            self.handle_readable()
            self.cut("port closed")
        except BlockingIOError:
            pass  # As good as lost on the way.

    def cut(self, why):
        """The server has gone silent, if the client is not at its end by now."""
        if self.end is None:
            odd = self.job.habit in ("stops", "mute")
            self.end, self.text = ("left", "") if odd else ("cut", why)

    def ack(self):
        """Of the last block in order."""
        self.since_ack = 0
        if self.job.habit == "junk":
            self.send(b"\xff" + self.chance.randbytes(self.chance.randrange(40)))
        self.send(b"\0\4" + (self.last % 65536).to_bytes(2, "big"))

    def handle_readable(self):
        """Takes what has arrived, also what arrived before the server's port was closed."""
        closed = False
        while self.end is None:
            try:
                packet, sender = self.socket.recvfrom(70000)
            except BlockingIOError:
                if closed:
                    self.cut("port closed")
                return
            except ConnectionRefusedError:
                closed = True
                continue
            if self.tid is None:
                self.tid = sender
                self.socket.connect(sender)
            self.heard, self.repeats = time.monotonic(), 0
            self.handle(packet)

    def handle(self, packet):
        """One packet of the server."""
        opcode, number = packet[1], int.from_bytes(packet[2:4], "big")
        job = self.job
        if opcode == 5:
            self.end, self.text = "told", f"{number} {packet[4:-1].decode()}"
        elif job.habit == "mute":
            return
        elif opcode == 6 and self.last == 0:
            words = packet[2:-1].decode().split("\0")
            granted = dict(zip(words[::2], words[1::2]))
            self.blksize = int(granted.get("blksize", 512))
            self.window = int(granted.get("windowsize", 1))
            if job.habit == "probes":
                self.send(b"\0\5\0\x08User aborted the transfer\0")
                self.end = "left"
            else:
                self.ack()
        elif opcode == 3:
            self.handle_data(number, packet[4:])

    def handle_data(self, number, payload):
        """A block, expected or not."""
        job = self.job
        if number != (self.last + 1) % 65536:
            if self.window > 1 and not self.reported:
                self.reported = True
                self.ack()
            return
        if job.habit in ("aborts", "stops") and self.last >= job.blocks:
            if job.habit == "aborts":
                self.send(b"\0\5\0\0closed\0")
                self.end = "left"
            return
        self.last += 1
        self.reported = False
        self.received += payload
        self.since_ack += 1
        whole = len(payload) < self.blksize
        if whole or self.since_ack == self.window:
            self.ack()
        if whole:
            self.end = "intact" if self.received == job.expected else "wrong"

    def handle_time(self, now):
        """Repeats itself, or gives up."""
        odd = self.job.habit in ("stops", "mute")
        if odd:
            # Some keep their port open until the server has given up, others do not.
            if now - self.began > (6 if self.port % 2 else 0.3):
                self.end = "left"
        elif now - self.heard > (REQUEST_SILENCE if self.tid is None else SILENCE):
            self.heard, self.repeats = now, self.repeats + 1
            if self.repeats > (REQUESTS if self.tid is None else ACKS):
                self.cut("silence")
            elif self.tid is None:
                self.send(self.request)
            else:
                self.ack()


class Crowd(threading.Thread):
    """So many clients at once, whose jobs `make(chance)` invents, until it is stopped. A job that
    was cut off is asked again, as firmware does."""

    def __init__(self, port, seed, at_once, pause, make):
        super().__init__(daemon=True)
        self.server, self.chance = ("127.0.0.1", port), random.Random(seed)
        self.at_once, self.pause, self.make = at_once, pause, make
        self.stopping, self.trouble = threading.Event(), None
        self.ended, self.again = [], collections.deque()

    def run(self):
        """Whatever goes wrong in here is found by `stop`."""
        try:
            self._run()
        except BaseException as error:  # pylint: disable=broad-exception-caught
            self.trouble = error

    def _run(self):
        selector, begin_at, looked = selectors.DefaultSelector(), 0.0, 0.0
        while True:
            now = time.monotonic()
            stopping = self.stopping.is_set()
            if stopping and not selector.get_map() and not self.again:
                return
            if len(selector.get_map()) < self.at_once and now >= begin_at and (
                    self.again or not stopping):
                begin_at = now + self.pause
                job = self.again.popleft() if self.again else self.make(self.chance)
                client = Client(self.server, job, self.chance)
                selector.register(client.socket, selectors.EVENT_READ, client)
            for key, _ in selector.select(0.01):
                key.data.handle_readable()
                self.settle(selector, key.data)
            if now - looked > 0.05:
                looked = now
                for client in [key.data for key in selector.get_map().values()]:
                    client.handle_time(now)
                    self.settle(selector, client)

    def settle(self, selector, client):
        """Notes what became of a client that is at its end."""
        if client.end is None:
            return
        if client.socket.fileno() < 0:
            return
        selector.unregister(client.socket)
        client.socket.close()
        self.ended.append(Ended(client.job, client.port, client.began, time.monotonic(),
                                client.tid is not None, client.end, client.text))
        if client.end == "cut" and client.job.attempt < ATTEMPTS:
            client.job.attempt += 1
            self.again.append(client.job)

    def stop(self):
        """Lets what has begun come to its end."""
        self.stopping.set()
        self.join(120)
        assert not self.is_alive(), "clients do not end"
        if self.trouble:
            raise self.trouble


class Prober(threading.Thread):
    """Asks for a small file again and again: when was there service, and when none?"""

    def __init__(self, port, name, expected):
        super().__init__(daemon=True)
        self.server, self.name, self.expected = ("127.0.0.1", port), name, expected
        self.stopping = threading.Event()
        self.served = []  # when the request was sent first, when the file was there, from which port
        self.wrong = 0

    def run(self):
        """One after another."""
        while not self.stopping.wait(0.04):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                sock.settimeout(0.1)
                began = time.monotonic()
                while not self.stopping.is_set():
                    sock.sendto(b"\0\1" + self.name.encode() + b"\0octet\0", self.server)
                    try:
                        packet, sender = sock.recvfrom(600)
                    except TimeoutError:
                        continue
                    sock.sendto(b"\0\4\0\1", sender)
                    self.wrong += packet != b"\0\3\0\1" + self.expected
                    self.served.append((began, time.monotonic(), sock.getsockname()[1]))
                    break

    def stop(self):
        """Ends it."""
        self.stopping.set()
        self.join()

    def longest_gap(self):
        """Seconds between two served requests, at most."""
        times = [done for _, done, _ in self.served]
        return max(later - earlier for earlier, later in zip(times, times[1:]))

    def recovery(self, at):
        """Seconds from then until a request was answered that was sent later."""
        return min((done for began, done, _ in self.served if began >= at), default=float("inf")) - at
