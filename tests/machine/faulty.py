"""An HTTP server that fails in every way, on a port of loopback. Standard library only.

The first part of a path says how it behaves; the rest is the name of an object, whose contents are
always the same. What it did is counted.
"""

import collections
import http.server
import random
import socket
import struct
import threading
import time

from support import pattern

SIZES = (0, 100, 5_000, 60_000, 200_000)
# How paths begin: with a failing origin the client may be told so, with the others it must get the file.
HONEST = ("good", "stale", "kept", "cut")
FAILING = ("error", "stall", "hopeless", "none")


def contents(name):
    """What an object holds, by the digits at the end of its name."""
    number = int(name.rsplit("-", 1)[1])
    return pattern(SIZES[number % len(SIZES)], number)


class Origin:
    """The running server."""

    def __init__(self, seed):
        self.chance, self.lock = random.Random(seed), threading.Lock()
        self.done = collections.Counter()
        origin = self

        class Handler(Answer):
            """Knows its server."""

        Handler.origin = origin
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # Clients that leave are no trouble of ours.
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True)
        self.thread.start()

    def note(self, what):
        """One more of these."""
        with self.lock:
            self.done[what] += 1

    def one_in(self, count):
        """Whether it is this one's turn."""
        with self.lock:
            return self.chance.randrange(count) == 0

    def stop(self):
        """Ends it."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Answer(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 1  # An idle connection is closed.
    origin = None

    def log_message(self, *_):
        """Nothing is printed."""

    def do_GET(self):
        """As the path says."""
        behaviour, name = self.path.lstrip("/").split("/", 1)
        if behaviour == "none":
            return self.refuse(404)
        if behaviour == "error":
            if self.origin.one_in(3):
                return self.reset()
            return self.refuse(500 + self.origin.one_in(2) * 3)
        body, tag = contents(name), f'"{name}"'
        if behaviour == "stale" and self.headers.get("If-None-Match") == tag:
            self.origin.note("304")
            self.send_response(304)
            self.send_header("ETag", tag)
            self.end_headers()
            return None
        start = 0
        if "bytes=" in self.headers.get("Range", "") and self.headers.get("If-Range") == tag:
            start = int(self.headers["Range"].split("=")[1].split("-")[0])
        self.send_response(206 if start else 200)
        self.origin.note("206" if start else "200")
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if behaviour != "hopeless":
            self.send_header("ETag", tag)
        self.send_header("Cache-Control", {"good": "max-age=3", "kept": "max-age=600"}.get(
            behaviour, "no-cache" if behaviour == "stale" else "no-store"))
        self.end_headers()
        return self.send_body(behaviour, body[start:], start)

    def send_body(self, behaviour, body, start):
        """All of it, or not."""
        if behaviour in ("good", "stale", "kept") or behaviour == "cut" and start or len(body) < 2:
            self.wfile.write(body)
            return
        if behaviour != "stall" or not start:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
        if behaviour == "stall" and not start:
            self.origin.note("stalled")
            time.sleep(4)
        self.origin.note("cut off")
        if behaviour == "cut":
            # The client must get what was sent, so no reset, which may overtake it.
            self.close_connection = True
        else:
            self.reset()

    def refuse(self, status):
        """An error without body."""
        self.origin.note(str(status))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def reset(self):
        """The connection breaks."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
