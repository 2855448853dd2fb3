"""Real HTTP servers on high ports of loopback, with configurations and logs of their own, and TFTP
clients enough to make them work. Standard library only.
"""

import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import time

from support import DEADLINE, NOBODY, read, run, write

CERTIFICATES = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = r-tftpd test
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = keyCertSign
[server]
basicConstraints = CA:FALSE
subjectAltName = IP:127.0.0.1
"""

NGINX = """\
daemon off;
master_process off;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 1000; }}
http {{
  log_format words '$status $server_protocol $request_uri "$http_range" "$sent_http_content_encoding"';
  access_log {home}/access.log words;
  client_body_temp_path {home}/1; proxy_temp_path {home}/2; fastcgi_temp_path {home}/3;
  uwsgi_temp_path {home}/4; scgi_temp_path {home}/5;
  types {{ text/plain txt; }}
  default_type application/octet-stream;
  gzip on; gzip_types text/plain; gzip_min_length 1; gzip_http_version 1.0;
  keepalive_timeout 1s; client_header_timeout 1s;
  root {files};
  server {{
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{tls} ssl http2;
    ssl_certificate {home}/server.pem;
    ssl_certificate_key {home}/server.key;
    location / {{ add_header Cache-Control max-age=600; }}
    location /stale/ {{ add_header Cache-Control no-cache; }}
    location /slow/ {{ limit_rate 24m; add_header Cache-Control max-age=600; }}
  }}
}}
"""

LIGHTTPD = """\
server.modules = ("mod_accesslog", "mod_deflate", "mod_openssl", "mod_setenv")
server.document-root = "{files}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{home}/error.log"
server.max-keep-alive-idle = 1
accesslog.filename = "{home}/access.log"
accesslog.format = "%s %H %U \\"%{{Range}}i\\" \\"%{{Content-Encoding}}o\\""
mimetype.assign = (".txt" => "text/plain", "" => "application/octet-stream")
deflate.mimetypes = ("text/plain")
deflate.allowed-encodings = ("gzip")
$SERVER["socket"] == "127.0.0.1:{tls}" {{
  ssl.engine = "enable"
  ssl.pemfile = "{home}/server.pem"
  ssl.privkey = "{home}/server.key"
}}
$HTTP["url"] =~ "^/stale/" {{ setenv.set-response-header = ("Cache-Control" => "no-cache") }}
else {{ setenv.set-response-header = ("Cache-Control" => "max-age=600") }}
"""


def free_port():
    """A TCP port of 127.0.0.1 that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def program(name):
    """Where a program is; a plain user's PATH may lack the directory of servers."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert path, f"{name} is not installed"
    return path


class Origin:
    """A running server for the files of a directory; `home` is for what it needs itself."""

    def __init__(self, name, home, files):
        self.name, self.home = name, home
        self.port, self.tls = free_port(), free_port()
        certificates(home)
        text = {"nginx": NGINX, "lighttpd": LIGHTTPD}[name]
        text = text.format(home=home, files=files, port=self.port, tls=self.tls)
        write(f"{home}/conf", text.encode())
        if os.geteuid() == 0:
            run(["chown", "-R", "65534:65534", home])
        self.start()

    def start(self):
        """Starts it, not as root, and waits until it accepts."""
        binary, conf = program(self.name), f"{self.home}/conf"
        command = {
            "nginx": [binary, "-p", self.home, "-e", f"{self.home}/error.log", "-c", conf],
            "lighttpd": [binary, "-D", "-f", conf],
        }[self.name]
        prefix = NOBODY if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            [*prefix, *command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        end = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.tls)).close()
                return
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, f"{self.name} does not accept"
            time.sleep(0.01)

    def kill(self):
        """Ends it in the middle of everything."""
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def stop(self):
        """Ends it in order: what it has logged is written then."""
        self.process.terminate()
        self.process.wait(DEADLINE)
        self.process.stderr.close()

    def log(self):
        """Its requests: status, version, path, range, encoding."""
        lines = read(f"{self.home}/access.log").decode().splitlines()
        return [[word.strip('"') for word in line.split()] for line in lines]

    def url(self, modifiers="", scheme="http"):
        """Of its files."""
        port = self.tls if scheme == "https" else self.port
        return f"{scheme}{modifiers}://127.0.0.1:{port}/"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


def certificates(home):
    """A CA, ca.pem, and a certificate of it for 127.0.0.1."""
    write(f"{home}/openssl", CERTIFICATES.encode())
    make = ["openssl", "req", "-x509", "-config", f"{home}/openssl", "-newkey", "rsa:2048", "-nodes"]
    run([*make, "-extensions", "ca", "-keyout", f"{home}/ca.key", "-out", f"{home}/ca.pem"])
    issuer = ["-CA", f"{home}/ca.pem", "-CAkey", f"{home}/ca.key"]
    keys = ["-keyout", f"{home}/server.key", "-out", f"{home}/server.pem"]
    run([*make, *issuer, "-extensions", "server", *keys])


class Transfer:
    """One client that reads one file and compares it with what it should be."""

    def __init__(self, server, name, body, options):
        self.server, self.body, self.tid, self.error = server, memoryview(body), None, None
        self.last, self.offset, self.done = 0, 0, False
        self.blksize, self.window = 512, 1
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        words = [name, "octet", *(str(word) for pair in options.items() for word in pair)]
        self.request = b"\0\1" + b"".join(word.encode() + b"\0" for word in words)
        self.send()

    def send(self):
        """The request or the last ACK; again after a silence."""
        self.heard = time.monotonic()
        ack = b"\0\4" + (self.last % 65536).to_bytes(2, "big")
        self.socket.sendto(self.request if self.tid is None else ack, self.tid or self.server)

    def receive(self, buffer):
        """Takes what has arrived."""
        while not self.done:
            try:
                length, sender = self.socket.recvfrom_into(buffer)
            except BlockingIOError:
                return
            self.tid = self.tid or sender
            if sender == self.tid:
                self.heard = time.monotonic()
                self.handle(buffer[1], buffer[:length])

    def handle(self, opcode, packet):
        if opcode == 5:
            self.error, self.done = bytes(packet[4:-1]).decode(), True
        elif opcode == 6 and self.last == 0:
            words = bytes(packet[2:-1]).decode().split("\0")
            granted = dict(zip(words[::2], words[1::2]))
            self.blksize = int(granted.get("blksize", 512))
            self.window = int(granted.get("windowsize", 1))
            self.send()
        elif opcode == 3 and int.from_bytes(packet[2:4], "big") == (self.last + 1) % 65536:
            payload = packet[4:]
            end = self.offset + len(payload)
            assert payload == self.body[self.offset : end], f"wrong bytes from {self.offset} on"
            self.last, self.offset = self.last + 1, end
            self.done = len(payload) < self.blksize
            if self.done:
                assert end == len(self.body), f"{end} bytes of {len(self.body)}"
            if self.done or self.last % self.window == 0:
                self.send()


def fetch(daemon, files, options, at_once, step=lambda: None):
    """Reads files, names with what they should hold, by so many clients at once.

    All must arrive intact. `step` is called a few times a second.
    """
    waiting, selector = list(reversed(files)), selectors.DefaultSelector()
    buffer = memoryview(bytearray(65536))
    heard = time.monotonic()
    while waiting or selector.get_map():
        while waiting and len(selector.get_map()) < at_once:
            transfer = Transfer(("127.0.0.1", daemon.port), *waiting.pop(), options)
            selector.register(transfer.socket, selectors.EVENT_READ, transfer)
        for key, _ in selector.select(0.1):
            key.data.receive(buffer)
            heard = time.monotonic()
        step()
        for transfer in [key.data for key in selector.get_map().values()]:
            if transfer.done:
                assert transfer.error is None, transfer.error
                selector.unregister(transfer.socket)
                transfer.socket.close()
            elif time.monotonic() - transfer.heard > 2:
                transfer.send()
        assert time.monotonic() - heard < DEADLINE, "nothing arrives any more"
