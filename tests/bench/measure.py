"""Measures one server in one scenario."""

import ctypes
import json
import mmap
import os
import resource
import shutil
import signal
import socket
import subprocess
import time

from groups import Memory, group
from servers import HOST, ORIGIN_PORT
from wire import CLIENT, Loopback

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES, CLIENT_CORES = set(CORES[:1]), set(CORES[1:2] or CORES[:1])
# More descriptors than most systems grant unasked; a transfer takes one or two.
DESCRIPTORS = 65536


class Unusable(Exception):
    """This server can not be measured, and why."""


class Bench:
    """The files that are served, and the programs that measure."""

    def __init__(self, programs, work, options):
        self.options = options  # for the load generator, in all scenarios
        self.place = Loopback()  # or a `Wire`, of which the scenario says how bad it is
        self.load = os.path.join(programs, "r-tftpd-load")
        self.origin = os.path.join(programs, "r-tftpd-origin")
        self.work = work
        self.root = os.path.join(work, "root")
        self.cache = os.path.join(work, "cache")
        os.chmod(work, 0o755)
        os.makedirs(self.root)
        os.makedirs(self.cache)
        os.chmod(self.cache, 0o1777)
        os.symlink(f"http://{HOST}:{ORIGIN_PORT}/", os.path.join(self.root, "remote"))

    def make_file(self, scenario):
        """What the scenario serves."""
        path = os.path.join(self.root, scenario.file)
        if not scenario.size or os.path.exists(path):
            return
        content = os.urandom(scenario.size)
        if scenario.text:
            # Printable, in lines of 64 characters.
            content = content.translate(bytes(32 + byte % 95 for byte in range(256)))
            content = b"\n".join(content[at:at + 63] for at in range(0, len(content), 64))
        with open(path, "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        os.chmod(path, 0o644)

    def measure(self, server, scenario):
        """The load generator's figures, and beside them what the server needed: cpu, private..."""
        self.make_file(scenario)
        members = group("r-tftpd-bench")
        origin = self.start_origin() if scenario.proxied else None
        process = None
        try:
            cores = SERVER_CORES | CLIENT_CORES if scenario.both_cores else SERVER_CORES
            with self.place.server():
                process = start(server.command, self.root, cores, members.enter)
            members.set_leader(process.pid)
            self.place.shape()
            with self.place.clients():
                wait_for(process, server)
            if scenario.warm_up:
                self.run_clients(server, scenario, ("--sessions", "1", "--total", "1"), None)
            self.prepare_page_cache(scenario)
            self.place.shape(**scenario.wire)
            held = Memory(members.members)
            before = members.cpu()
            result = self.run_clients(server, scenario, (), held)
            result["cpu"] = members.cpu() - before
            # Without control groups the time of children that nobody waits for is not known.
            if not members.exact and server.name == "tftpd-hpa":
                result["cpu"] = None
            result["private"], result["anonymous"] = held.private, held.anonymous
            result["processes"] = held.processes
            return result
        finally:
            end(process, members)
            members.close()
            if origin:
                origin.kill()
                origin.wait()
            for name in os.listdir(self.cache):
                path = os.path.join(self.cache, name)
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

    def start_origin(self):
        """The HTTP server, on the clients' core."""
        return start((self.origin, f"{HOST}:{ORIGIN_PORT}"), self.root, CLIENT_CORES)

    def run_clients(self, server, scenario, more, held):
        """Looks at the server's memory meanwhile."""
        name = f"remote/{scenario.file}" if scenario.proxied else scenario.file
        command = [self.load, "--server", f"{server.host}:{server.port}", "--name", name]
        if scenario.wire:
            command += ["--from", CLIENT]
        if scenario.size:
            command += ["--expect", os.path.join(self.root, scenario.file)]
        command += [*scenario.arguments(), *self.options, *more]
        with self.place.clients():
            clients = start(command, self.root, CLIENT_CORES, stdout=subprocess.PIPE)
        try:
            while True:
                if held:
                    held.look()
                try:
                    output, _ = clients.communicate(timeout=held.pause if held else None)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            clients.kill()
            clients.wait()
        if clients.returncode:
            raise SystemExit(f"the load generator failed: {' '.join(command)}")
        return json.loads(output)

    def prepare_page_cache(self, scenario):
        """The file is in it, or is not."""
        if not scenario.size:
            return
        path = os.path.join(self.root, scenario.file)
        with open(path, "rb") as file:
            if scenario.cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if cached := cached_pages(file.fileno()):
                    raise Unusable(f"{cached} pages of {path} stay in the page cache")
            else:
                while file.read(1 << 20):
                    pass


def descriptors():
    """How many a process may have: as many as we want, or as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, max(hard, DESCRIPTORS)))
    except (OSError, ValueError):
        return hard
    return DESCRIPTORS


def start(command, directory, cores, enter=lambda: None, **options):
    """A process on these cores, whose output nobody reads if `options` do not say otherwise."""
    limit = descriptors()

    def prepare():
        enter()
        os.sched_setaffinity(0, cores)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
    return subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, preexec_fn=prepare,
                            start_new_session=True, **options)


def cached_pages(descriptor):
    """Pages of a file that are in the page cache."""
    with mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE) as content:
        view = (ctypes.c_char * len(content)).from_buffer(content)
        pages = (ctypes.c_ubyte * -(-len(content) // mmap.PAGESIZE))()
        failed = ctypes.CDLL(None).mincore(view, ctypes.c_size_t(len(content)), pages)
        del view
    return 0 if failed else sum(page & 1 for page in pages)


def wait_for(process, server):
    """Until the server answers."""
    deadline = time.monotonic() + 10
    while not answers(server):
        if process.poll() is not None:
            raise Unusable(f"{server.name} ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise Unusable(f"{server.name} does not answer")


def answers(server):
    """Whether a server answers a request at all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        sock.sendto(b"\0\1no-such-file\0octet\0", (server.host, server.port))
        try:
            return bool(sock.recv(600))
        except OSError:
            return False


def end(process, members):
    """Politely, then not."""
    if process is None:
        return
    known = members.members()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        pass
    members.end(known)
    process.wait()
