"""Real clients fetch files over loopback, IPv4 and IPv6: every file must arrive intact.

Needs curl, tftp-hpa (tftp), busybox and atftp; no root.
"""

import os
import subprocess

from support import DEADLINE, Daemon, cases, directory, main, pattern, read, write

SIZES = (0, 1, 511, 512, 513, 1024, 5 * 512, 3 * 1428, 100_000, 40_000_000)
FAMILIES = (("IPv4", "127.0.0.1"), ("IPv6", "::1"))
TEXT = b"first line\nsecond line\n\nlast line\n" * 100


def curl(*options):
    """curl's command."""
    host = lambda ip: f"[{ip}]" if ":" in ip else ip
    return lambda ip, port, file, out: [
        "curl", "-sS", "--max-time", "100", *options, f"tftp://{host(ip)}:{port}/{file}", "-o", out
    ]


def hpa(mode):
    """The command of tftp-hpa's client."""
    return lambda ip, port, file, out: ["tftp", "-m", mode, ip, str(port), "-c", "get", file, out]


def busybox(*options):
    """busybox's command."""
    return lambda ip, port, file, out: [
        "busybox", "tftp", *options, "-g", "-r", file, "-l", out, ip, str(port)
    ]


def atftp(*options):
    """atftp's command."""
    pairs = [part for option in options for part in ("--option", option)]
    return lambda ip, port, file, out: ["atftp", *pairs, "-g", "-r", file, "-l", out, ip, str(port)]


CLIENTS = {
    "curl": curl(),
    "curl without options": curl("--tftp-no-options"),
    "curl with blksize 8": curl("--tftp-blksize", "8"),
    "curl with blksize 1428": curl("--tftp-blksize", "1428"),
    "curl with blksize 65464": curl("--tftp-blksize", "65464"),
    "tftp-hpa": hpa("octet"),
    "busybox": busybox(),
    "busybox with blksize 1428": busybox("-b", "1428"),
    "busybox with blksize 65464": busybox("-b", "65464"),
    "atftp": atftp(),
    "atftp with blksize 1428": atftp("blksize 1428"),
    "atftp with blksize 8192": atftp("blksize 8192"),
    "atftp with tsize and timeout": atftp("tsize 0", "timeout 2"),
    "atftp with windowsize 16": atftp("windowsize 16"),
    "atftp with all options": atftp("tsize 0", "timeout 1", "blksize 1428", "windowsize 64"),
}
# The whole 40 MB only with blocks of 512 bytes or in windows: past the rollover, or fast.
PATIENT = ("curl", "tftp-hpa", "busybox", "atftp", "atftp with windowsize 16", "atftp with all options")


def fetch(daemon, command, ip, file, out):
    """Runs a client; what it wrote."""
    done = subprocess.run(command(ip, daemon.port, file, out), capture_output=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return read(out)


@cases("{0} over {1} gets files of every size", [(c, f, ip) for c in CLIENTS for f, ip in FAMILIES])
def sizes(client, family, ip):
    with directory() as root, directory() as out:
        for size in SIZES:
            write(f"{root}/{size}", pattern(size))
        with Daemon(root, "--port", "0", "--listen", ip) as daemon:
            for size in SIZES:
                if size > 1_000_000 and client not in PATIENT:
                    continue
                if size > 10_000 and client.endswith(" 8"):
                    continue
                if size == 0 and client.startswith("curl"):
                    # curl 7.88 fails on tsize=0, with tftpd-hpa as well: it gets the size, no more.
                    continue
                got = fetch(daemon, CLIENTS[client], ip, str(size), f"{out}/{size}")
                assert got == pattern(size), f"{size}: {len(got)} bytes arrived"
                assert daemon.request(str(size))["message"] in ("complete", "client-abort", "size-probe")


@cases("curl over {0} learns the size of an empty file", FAMILIES)
def empty(family, ip):
    with directory() as root, directory() as out:
        write(f"{root}/empty", b"")
        with Daemon(root, "--port", "0", "--listen", ip) as daemon:
            command = curl()(ip, daemon.port, "empty", f"{out}/empty")
            done = subprocess.run(command, capture_output=True, timeout=DEADLINE)
            assert done.returncode in (0, 71), done
            assert not os.path.exists(f"{out}/empty") or read(f"{out}/empty") == b""
        assert daemon.request("empty")["granted"].endswith("tsize=0")


@cases("{0} over {1} gets a text in netascii", [(c, f, ip) for c in ("tftp-hpa", "curl") for f, ip in FAMILIES])
def netascii(client, family, ip):
    with directory() as root, directory() as out:
        write(f"{root}/text", TEXT)
        with Daemon(root, "--port", "0", "--listen", ip) as daemon:
            command = {"tftp-hpa": hpa("netascii"), "curl": curl("--use-ascii")}[client]
            got = fetch(daemon, command, ip, "text", f"{out}/text")
            # curl leaves the line ends of the wire.
            assert got in (TEXT, TEXT.replace(b"\n", b"\r\n")), got[:100]


@cases("{0} is told that a file is missing", [(c,) for c in ("curl", "tftp-hpa", "busybox", "atftp")])
def missing(client):
    with directory() as root, directory() as out:
        with Daemon(root, "--port", "0", "--listen", "127.0.0.1") as daemon:
            command = CLIENTS[client]("127.0.0.1", daemon.port, "missing", f"{out}/x")
            done = subprocess.run(command, capture_output=True, timeout=DEADLINE)
            # tftp-hpa and atftp end with 0 all the same.
            assert done.returncode != 0 or done.stdout + done.stderr, done
            assert daemon.request("missing")["message"] == "missing"


@cases("{0} is refused to write", [(c,) for c in ("curl", "tftp-hpa", "busybox", "atftp")])
def write_refused(client):
    with directory() as root, directory() as out:
        write(f"{out}/x", b"upload")
        with Daemon(root, "--port", "0", "--listen", "127.0.0.1") as daemon:
            port = str(daemon.port)
            command = {
                "curl": ["curl", "-sS", "-T", f"{out}/x", f"tftp://127.0.0.1:{port}/x"],
                "tftp-hpa": ["tftp", "127.0.0.1", port, "-c", "put", f"{out}/x", "x"],
                "busybox": ["busybox", "tftp", "-p", "-l", f"{out}/x", "-r", "x", "127.0.0.1", port],
                "atftp": ["atftp", "-p", "-l", f"{out}/x", "-r", "x", "127.0.0.1", port],
            }[client]
            subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
            assert daemon.request("x")["message"] == "read-only"
            assert not os.listdir(root)


main()
