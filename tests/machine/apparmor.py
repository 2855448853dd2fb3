"""The AppArmor profiles, as the kernel would read them: compiled by the distribution's parser, then
asked what each program may do, in the tables that the parser made. And the daemon, traced: all that
its processes really open, execute and send must be allowed.

No AppArmor in the kernel is needed, and none is used: that a kernel decides as these tables say is
not proven here. Needs root, and strace and apparmor_parser.
"""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time

from support import DEADLINE, NOBODY, PROGRAMS, Daemon, directory, get, main, pattern, sha256, test, write

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCE = f"{REPOSITORY}/contrib/apparmor/usr.sbin.r-tftpd"
ABI = "/etc/apparmor.d/abi/3.0"
SUPERVISOR = "r-tftpd"
CHILDREN = ("r-tftpd-broker", "r-tftpd-worker", "r-tftpd-fetcher")
PATHS = {SUPERVISOR: "/usr/sbin/r-tftpd"} | {name: f"/usr/libexec/r-tftpd/{name}" for name in CHILDREN}
ROOTS = ("/srv/tftp", "/var/lib/tftpboot", "/srv/tftpboot", "/tftpboot")
CACHE = "/var/cache/r-tftpd"
CONTENTS = pattern(50_000)


# ---- the compiler ----


def source():
    """The profiles' text."""
    with open(SOURCE, encoding="utf-8") as file:
        return file.read()


def parser(*arguments, text=None, local=None, features=None):
    """Runs the parser on the profiles, or on other ones, with what an administrator would add."""
    with directory() as home:
        # As /etc/apparmor.d, but for what the administrator of this machine added.
        for name in ("abi", "abstractions", "tunables"):
            os.symlink(f"/etc/apparmor.d/{name}", f"{home}/{name}")
        os.mkdir(f"{home}/local")
        if local:
            write(f"{home}/local/usr.sbin.r-tftpd", local.encode())
        write(f"{home}/usr.sbin.r-tftpd", (text or source()).encode())
        write(f"{home}/features", (features or read_text(ABI)).encode())
        command = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", "-j1"]
        command += ["--base", home, "--kernel-features", f"{home}/features", *arguments]
        command += ["--ofile", f"{home}/policy", f"{home}/usr.sbin.r-tftpd"]
        done = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
        output = (done.stdout + done.stderr).decode()
        if done.returncode:
            raise Refused(output)
        policy = b""
        with contextlib.suppress(FileNotFoundError), open(f"{home}/policy", "rb") as file:
            policy = file.read()
        return policy, output


class Refused(Exception):
    """The parser refuses the profiles."""


class Missed(Exception):
    """A mistake in the profiles that no question finds."""


def read_text(path):
    """A file of the system."""
    with open(path, encoding="utf-8") as file:
        return file.read()


# What a kernel has that can not tell one unix socket from another.
WITHOUT_UNIX = read_text(ABI).replace("network {af_unix {yes\n}\n", "network {")


# ---- what it made ----

EXECUTE, WRITE, READ, APPEND, MAP = 1, 2, 4, 8, 0x40
LETTERS = ((READ, "r"), (WRITE, "w"), (APPEND, "a"), (0x10, "l"), (0x20, "k"), (MAP, "m"), (EXECUTE, "x"))
CLASS_NETWORK, CLASS_SIGNAL = 14, 10
CAPABILITIES = {"dac_read_search": 2, "setgid": 6, "setuid": 7, "setpcap": 8, "net_bind_service": 10}


class Automaton:
    """A table of states; the kernel's security/apparmor/match.c reads it the same way."""

    TABLES = {1: "accept", 2: "base", 3: "check", 4: "default", 5: "classes", 8: "next"}
    START = 1
    DIFFERENTIAL = 0x80000000

    def __init__(self, blob):
        _, position, end = struct.unpack_from(">III", blob)
        self.classes = None
        while position < end:
            number, width, high, low = struct.unpack_from(">HHII", blob, position)
            assert high == 0
            kind = {1: "B", 2: "H", 4: "I"}[width]
            values = struct.unpack_from(f">{low}{kind}", blob, position + 12)
            if number in self.TABLES:
                setattr(self, self.TABLES[number], values)
            position += (12 + low * width + 7) & ~7

    def step(self, state, byte):
        """The next state; 0 = nothing matches any more."""
        symbol = self.classes[byte] if self.classes else byte
        while True:
            base = self.base[state]
            place = (base & 0xFFFFFF) + symbol
            if place < len(self.check) and self.check[place] == state:
                return self.next[place]
            state = self.default[state]
            if not base & self.DIFFERENTIAL:
                return state

    def walk(self, text, state=START):
        """The state after all of `text`."""
        for byte in text:
            state = self.step(state, byte)
        return state

    def below(self, state):
        """All states that some text leads to from `state`, which is left out."""
        found, left = set(), [state]
        while left:
            here = left.pop()
            for byte in range(1, 256):
                after = self.step(here, byte)
                if after and after not in found:
                    found.add(after)
                    left.append(after)
        return found


class Profile:
    """One compiled profile."""

    def __init__(self, name, blob):
        self.name = name
        automata = [found.start() for found in re.finditer(rb"\x1b\x5e\x78\x3d", blob)]
        ends = [*automata[1:], len(blob)]
        automata = [Automaton(blob[start:end]) for start, end in zip(automata, ends)]
        # The rules for anything but files, then those for files; before both, what the profile is
        # attached to if that is a pattern.
        self.policy, self.files = automata[-2:]
        self.attachment = automata[0] if len(automata) == 3 else None
        self.targets = self.names_of_targets(blob)
        caps = blob.index(b"\x04\x07\x00caps64\x00")
        # Four words before the name of their upper halves; the first is what is allowed.
        self.capabilities = struct.unpack("<BIBIBIBI", blob[caps - 20 : caps])[1]

    def is_attached_to(self, path):
        """Whether an exec of this file enters the profile, by who comes from none."""
        attachment = self.attachment
        return attachment is not None and attachment.accept[attachment.walk(path.encode())] != 0

    @staticmethod
    def names_of_targets(blob):
        """What execs can lead to: the only strings behind the rules for files."""
        names, (_, _, table) = [], blob.partition(b"\x04\x07\x00xtable\x00")
        while table.partition(b"\x05")[1]:
            table = table.partition(b"\x05")[2]
            (length,) = struct.unpack_from("<H", table)
            names.append(table[2 : 1 + length].decode())
            table = table[2 + length :]
        return names

    def accepted(self, path, owner=False):
        """The rights for a path, and how it is executed, as the tables have them."""
        accept = self.files.accept[self.files.walk(path.encode())]
        return accept & 0x3FFF if owner else (accept >> 14) & 0x3FFF

    def may(self, path, owner=False):
        """The rights for a path, as letters."""
        return letters(self.accepted(path, owner))

    def may_below(self, prefix):
        """All rights for anything that begins with `prefix`, as letters, whoever owns it."""
        rights = 0
        for state in self.files.below(self.files.walk(prefix.encode())):
            accept = self.files.accept[state]
            rights |= accept & 0x7F | (accept >> 14) & 0x7F
        return letters(rights)

    def transition(self, path):
        """Where an exec leads: the profile that is stacked, whether it may be stacked upon the
        present one, and whether the environment is cleaned."""
        accept = self.accepted(path)
        assert accept & EXECUTE, f"{self.name} may not execute {path}"
        index = (accept >> 10) & 0xF
        target = self.targets[index - 4] if index >= 4 else None
        return target, bool(accept & 0x200), not accept & 0x100

    def network(self, family, kind):
        """Whether it may use such a socket."""
        state = self.policy.step(Automaton.START, CLASS_NETWORK)
        state = self.policy.walk(struct.pack(">HH", family, kind), state)
        return self.policy.accept[state] & 0x7F != 0

    def signal(self, number, peer, right):
        """Whether it may send (WRITE) a signal to a label or receive (READ) one from it."""
        state = self.policy.step(Automaton.START, CLASS_SIGNAL)
        state = self.policy.walk(bytes([number]) + peer.encode(), state)
        return bool(self.policy.accept[state] & right)


def letters(rights):
    """As in a rule; w includes a."""
    if rights & WRITE:
        rights &= ~APPEND
    return "".join(letter for right, letter in LETTERS if rights & right)


def compiled(**options):
    """The profiles by name."""
    policy, _ = parser(**options)
    marker = b"\x04\x08\x00profile\x00\x07\x05"
    profiles = {}
    for part in policy.split(marker)[1:]:
        (length,) = struct.unpack_from("<H", part)
        name = part[2 : 1 + length].decode()
        profiles[name] = Profile(name, part)
    return profiles


# ---- the questions ----


def every_question(profiles):
    """All that is asked of a policy; fails where an answer is wrong."""
    assert set(profiles) == {SUPERVISOR, *CHILDREN}, set(profiles)
    supervisor = profiles[SUPERVISOR]
    assert supervisor.is_attached_to(PATHS[SUPERVISOR])
    assert not any(supervisor.is_attached_to(path) for path in ("/bin/sh", *map(PATHS.get, CHILDREN)))
    # A program's profile with a path would be the base of the stack, in place of the supervisor's.
    for name in CHILDREN:
        assert profiles[name].attachment is None, name
        target, inherits, cleans = supervisor.transition(PATHS[name])
        assert target == f"&{name}" and inherits and cleans, (name, target, inherits, cleans)
    for path in ("/bin/sh", "/usr/bin/true", "/usr/sbin/r-tftpd", "/usr/libexec/r-tftpd/other", "/srv/tftp/x"):
        assert "x" not in supervisor.may(path, True) + supervisor.may(path), path
    for name in CHILDREN:
        assert "x" not in profiles[name].may_below("/"), name
        assert profiles[name].capabilities == 0, name
    wanted = sum(1 << number for number in CAPABILITIES.values())
    assert supervisor.capabilities == wanted, bin(supervisor.capabilities)
    questions_about_files(profiles)
    questions_about_networks(profiles)
    questions_about_signals(profiles)


def questions_about_files(profiles):
    """Content, cache, and all the rest."""
    for root in ROOTS:
        for name, rights in ((SUPERVISOR, "r"), ("r-tftpd-broker", "r"), ("r-tftpd-worker", "r")):
            assert profiles[name].may(f"{root}/grub/grubx64.efi") == rights, (name, root)
            assert profiles[name].may_below(f"{root}/") == rights, (name, root)
        assert profiles["r-tftpd-fetcher"].may_below(root) == "", root
    cache = f"{CACHE}/#4711"
    for name, rights in (("r-tftpd-broker", "rw"), ("r-tftpd-worker", "r"), ("r-tftpd-fetcher", "rw")):
        assert profiles[name].may(cache, owner=True) == rights, name
        assert profiles[name].may(cache) == "", name
        assert profiles[name].may(f"{CACHE}/name", owner=True) == "", name
    for name in (SUPERVISOR, *CHILDREN):
        profile = profiles[name]
        # Nobody makes links, locks anything, or changes what is installed or how it is set up.
        everything = profile.may_below("/")
        assert set(everything) <= set("rwmx"), (name, everything)
        for prefix in ("/usr/", "/lib/", "/etc/", "/boot/", "/home/", "/root/", "/var/lib/", "/srv/", "/opt/"):
            assert "w" not in profile.may_below(prefix), (name, prefix)
        for prefix in ("/home/", "/root/", "/boot/", "/tmp/", "/var/tmp/", "/var/log/", "/opt/", "/etc/ssh/"):
            assert profile.may_below(prefix) == "", (name, prefix)
        assert profile.may("/etc/shadow") == "" and profile.may("/proc/sys/kernel/core_pattern") == "", name
        # What can be written can not be mapped for execution, and the other way round.
        for accept in profile.files.accept:
            for rights in (accept & 0x7F, (accept >> 14) & 0x7F):
                assert not (rights & WRITE and rights & (MAP | EXECUTE)), name
    for name in ("r-tftpd-broker", "r-tftpd-worker"):
        assert profiles[name].may("/etc/resolv.conf") == profiles[name].may("/etc/passwd") == "", name
    assert profiles["r-tftpd-fetcher"].may("/etc/resolv.conf") == "r"
    # Tells systemd, and all write their log.
    for name in PATHS:
        assert profiles[name].may("/run/systemd/notify") == ("w" if name == SUPERVISOR else ""), name
        assert profiles[name].may("/run/systemd/journal/stdout") == "rw", name
        for loader in ("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1", "lib64/ld-2.31.so"):
            assert profiles[name].may(f"/usr/{loader}") == profiles[name].may(f"/{loader}") == "rm", (name, loader)


def questions_about_networks(profiles):
    """Which kinds of sockets each may use."""
    internet = (socket.AF_INET, socket.AF_INET6)
    others = [family for family in range(1, 46) if family not in (*internet, socket.AF_UNIX)]
    for name, kinds in (
        ("r-tftpd-broker", {socket.SOCK_DGRAM}),
        ("r-tftpd-worker", {socket.SOCK_DGRAM}),
        ("r-tftpd-fetcher", {socket.SOCK_STREAM}),
        (SUPERVISOR, {socket.SOCK_DGRAM, socket.SOCK_STREAM}),
    ):
        for family in internet:
            found = {kind for kind in range(1, 11) if profiles[name].network(family, kind)}
            assert found == kinds, (name, family, found)
        wrong = [family for family in others for kind in range(1, 11) if profiles[name].network(family, kind)]
        assert not wrong, (name, wrong)


def questions_about_signals(profiles):
    """Who may end whom."""
    for name in CHILDREN:
        label = f"r-tftpd//&{name}"
        assert profiles[SUPERVISOR].signal(signal.SIGKILL, label, WRITE)
        assert profiles[name].signal(signal.SIGKILL, SUPERVISOR, READ)
        assert profiles[name].signal(signal.SIGABRT, label, WRITE), "abort(3)"
        assert profiles[name].signal(signal.SIGABRT, label, READ), "abort(3)"
        for number in range(1, 32):
            for peer in ("unconfined", SUPERVISOR, "sshd", "/usr/sbin/cron"):
                allowed = peer == SUPERVISOR and number == signal.SIGABRT
                assert profiles[name].signal(number, peer, WRITE) == allowed, (name, number, peer)
    assert profiles[SUPERVISOR].signal(signal.SIGTERM, "unconfined", READ)
    assert not profiles[SUPERVISOR].signal(signal.SIGKILL, "unconfined", WRITE)
    assert not profiles[SUPERVISOR].signal(signal.SIGTERM, "r-tftpd//&r-tftpd-worker", READ)


@test
def the_profiles_compile_without_a_warning():
    parser("--warn=all", "--Werror")


@test
def the_profiles_compile_for_a_kernel_that_can_not_tell_one_unix_socket_from_another():
    assert "af_unix" not in WITHOUT_UNIX
    profiles = compiled(features=WITHOUT_UNIX)
    for name in (SUPERVISOR, *CHILDREN):
        # Then it is all or nothing for a kind of socket.
        assert profiles[name].network(socket.AF_UNIX, socket.SOCK_SEQPACKET), name
        stream = profiles[name].network(socket.AF_UNIX, socket.SOCK_STREAM)
        assert stream == (name == SUPERVISOR), name


@test
def each_program_may_do_what_it_must_and_nothing_else():
    every_question(compiled())


@test
def a_directory_in_the_local_file_is_served_and_nothing_else_changes():
    before = compiled()
    after = compiled(local="/data/boot/** r,\n")
    file = "/data/boot/pxelinux.0"
    for name in (SUPERVISOR, "r-tftpd-broker", "r-tftpd-worker"):
        assert before[name].may(file) == "" and after[name].may(file) == "r", name
        assert after[name].may_below("/data/other/") == "", name
    every_question(after)


@test
def a_mistake_in_the_local_file_is_refused():
    for rule in ("/data/boot/** rx,\n", "capability net_bind_servise,\n", "/data/boot/** r\n"):
        try:
            parser(local=rule)
        except Refused:
            continue
        raise AssertionError(rule)


# What somebody could change, and what the questions then must find.
MISTAKES = {
    "a plain transition": ("mrPix -> &r-tftpd-worker", "mrPx -> r-tftpd-worker"),
    "a stack without a base": ("mrPix -> &r-tftpd-worker", "mrPx -> &r-tftpd-worker"),
    "a worker with a path": ("r-tftpd-worker flags", "r-tftpd-worker /usr/libexec/r-tftpd/r-tftpd-worker flags"),
    "a dirty environment": ("mrPix -> &r-tftpd-fetcher", "mrpix -> &r-tftpd-fetcher"),
    "a worker that writes": ("owner @{r_tftpd_cache}/#[0-9]* r,", "owner @{r_tftpd_cache}/#[0-9]* rw,"),
    "cache files of others": ("  owner @{r_tftpd_cache}/#[0-9]* r,", "  @{r_tftpd_cache}/#[0-9]* r,"),
    "content that is written": ("  @{r_tftpd_roots}/** r,", "  @{r_tftpd_roots}/** rw,"),
    "one capability more": ("  network inet stream,", "  network inet stream,\n  capability sys_admin,"),
    "raw sockets": ("  network inet stream,", "  network inet stream,\n  network inet raw,"),
    "a shell": ("  network inet stream,", "  network inet stream,\n  /bin/sh ix,"),
    "all of /etc": ("  /etc/ld.so.{cache,preload} r,", "  /etc/** r,"),
    "any signal": ("signal (send) set=(kill) peer=@{r_tftpd_labels}", "signal (send)"),
}


@test
def the_questions_find_what_is_wrong():
    every_question(compiled())
    for mistake, (right, wrong) in MISTAKES.items():
        assert right in source(), mistake
        try:
            every_question(compiled(text=source().replace(right, wrong)))
        except AssertionError:
            continue
        raise Missed(mistake)


# ---- the daemon ----

CALLS = "openat,openat2,execve,execveat,mmap,socket,socketpair,kill,tgkill,recvmsg,clone,clone3,fork,vfork"


class Trace:
    """What the processes of a traced daemon did, by profile: files with rights, sockets, signals."""

    def __init__(self, text, cache):
        self.files = {name: set() for name in PATHS}
        self.sockets = {name: set() for name in PATHS}
        self.signals = set()
        self.cache = cache
        # By process and thread.
        self.names = {}
        for pid, call in complete_calls(text):
            self.take(pid, call)

    def take(self, pid, call):
        """One call."""
        name = self.names.get(pid)
        if found := re.match(r'execve\("([^"]*)"|execveat\(\d+<([^>]*)>', call):
            path = installed(found[1] or found[2])
            if name and path != PATHS[SUPERVISOR]:
                self.files[name].add(("x", path))
            if path in PATHS.values():
                self.names[pid] = os.path.basename(path)
                # As the kernel does, which no trace shows.
                self.files[self.names[pid]].add(("mr", path))
        elif name is None:
            # What changes the user and hands the socket over.
            return
        elif found := re.match(r"(?:clone|clone3|fork|vfork)\(.* = (\d+)$", call):
            # Until its exec, a new process is what its parent is; a thread for ever.
            self.names[found[1]] = name
        elif found := re.match(r"openat2?\(.*?, (?:\{flags=)?(O_[A-Z_|]+).* = \d+<(/[^>]*)>", call):
            flags = found[1].split("|")
            if "O_PATH" not in flags:
                self.files[name].add(({"O_RDONLY": "r", "O_RDWR": "rw"}[flags[0]], installed(found[2])))
        elif found := re.match(r"mmap\([^<]*, (PROT_[A-Z_|]+), MAP_[A-Z_|]+, \d+<(/[^>]*)>", call):
            if "PROT_EXEC" in found[1]:
                self.files[name].add(("mr", installed(found[2])))
        elif found := re.match(r"socket(?:pair)?\(AF_(\w+), SOCK_(\w+)", call):
            self.sockets[name].add((found[1], found[2]))
        elif found := re.match(r"t?g?kill\((?:\d+, )?(\d+), (SIG\w+)", call):
            self.signals.add((name, found[2], self.names.get(found[1])))
        elif call.startswith("recvmsg(") and "SCM_RIGHTS" in call:
            # Directories are handed over without any right.
            paths = re.findall(r"\d+<(/[^>]*)>", call.split("cmsg_data=", 1)[1])
            for path in (path for path in paths if not os.path.isdir(path)):
                writes = path.startswith(f"{self.cache}/") and name == "r-tftpd-fetcher"
                self.files[name].add(("rw" if writes else "r", path))


def installed(path):
    """Where a program is when it is installed."""
    return PATHS.get(os.path.basename(path), path) if path.startswith(PROGRAMS) else path


def complete_calls(text):
    """The successful calls of a trace, as (process, call)."""
    unfinished = {}
    for line in text.splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            unfinished[pid] = call.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", call):
            call = unfinished.pop(pid, "") + resumed[1]
        if " = -1 " not in call:
            yield pid, re.sub(r"\)\s+= ", ") = ", call)


class Rig:
    """A traced daemon with a root, a cache, and an origin; `prefix` is put before its command."""

    def __init__(self, stack, *arguments, prefix=(), **options):
        self.root, self.cache, home = (stack.enter_context(directory()) for _ in range(3))
        write(f"{self.root}/file", CONTENTS)
        os.chmod(self.cache, 0o777)
        origin = subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", "--directory", self.root, "--bind", "127.0.0.1", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        stack.callback(lambda: (origin.kill(), origin.wait(), origin.stdout.close()))
        port = re.search(r" port (\d+)", origin.stdout.readline())[1]
        os.symlink(f"http://127.0.0.1:{port}/", f"{self.root}/link")
        self.trace = f"{home}/trace"
        tracer = ["strace", "-D", "-f", "-y", "--signal=none", "-o", self.trace, "-e", f"trace={CALLS}"]
        arguments = [*arguments, "--cache-dir", self.cache, "--proxy-ports", port]
        self.daemon = Daemon(self.root, *arguments, prefix=[*tracer, *prefix], **options)

    def use(self, port):
        """A local file, one from the origin, a new generation, and all that once more."""
        for generation in (1, 2):
            for file in ("file", "link/file"):
                answer = get("127.0.0.1", port, file, "blksize=1428")
                assert answer["sha256"] == sha256(CONTENTS), answer
            if generation == 1:
                self.daemon.process.send_signal(signal.SIGHUP)
                self.daemon.wait_for(lambda r: r["fields"].get("generation") == 2 and r["fields"].get("listen"))

    def finish(self):
        """Ends the daemon: what was traced."""
        self.daemon.__exit__()
        last = re.compile(rf"^{self.daemon.process.pid} +\+\+\+ exited with 0", re.MULTILINE)
        end = time.monotonic() + DEADLINE
        while not last.search(text := read_text(self.trace)):
            assert time.monotonic() < end, text[-1000:]
            time.sleep(0.01)
        return Trace(text, self.cache)


def denials(trace, root, cache, text=None):
    """What was done and is not allowed, by the program's profile or by the supervisor's below it."""
    local = f"{root}/** r,\nowner {cache}/#[0-9]* rw,\n"
    fine = compiled(text=text, local=local)
    # Which kinds of unix sockets there are is only to be read from the other tables.
    coarse = compiled(text=text, local=local, features=WITHOUT_UNIX)
    denied = set()
    for name in PATHS:
        for one in {name, SUPERVISOR}:
            for rights, path in trace.files[name]:
                if not set(rights) <= set(fine[one].may(path, owner=path.startswith(f"{cache}/"))):
                    denied.add((one, rights, path))
            for family, kind in trace.sockets[name]:
                numbers = (getattr(socket, f"AF_{family}"), getattr(socket, f"SOCK_{kind}"))
                if not coarse[one].network(*numbers):
                    denied.add((one, family, kind))
    for name, number, target in trace.signals:
        label = target if target == SUPERVISOR else f"{SUPERVISOR}//&{target}"
        if not fine[name].signal(getattr(signal, number), label, WRITE):
            denied.add((name, number, label))
    return denied


# Rules that the daemon can not do without.
NEEDED = (
    "/{,usr/}lib{,32,64}/{,**/}*.so{,.*} mr,", "/etc/ld.so.{cache,preload} r,", "@{PROC}/@{pid}/maps r,",
    "@{r_tftpd_trust} r,", "network inet dgram,", "network inet stream,", "/dev/null rw,",
    "/usr/libexec/r-tftpd/r-tftpd-worker mr,", "unix (send, receive) type=seqpacket",
)


def assert_allowed(trace, root, cache):
    """All is allowed, and would not be with one rule less."""
    assert not denials(trace, root, cache), denials(trace, root, cache)
    for rule in NEEDED:
        assert rule in source(), rule
        # Without the rule, or what it is for.
        less = re.sub(re.escape(f"  {rule}") + ".*", "", source())
        if rule.startswith("unix"):
            less = re.sub(r"  unix .*type=seqpacket.*", "", source())
        assert denials(trace, root, cache, less), f"not needed: {rule}"


def assert_was_seen(trace, cache):
    """The trace is of the daemon at work: a reader of traces that sees nothing would find no denial."""
    for name in CHILDREN:
        assert ("x", PATHS[name]) in trace.files[SUPERVISOR], trace.files[SUPERVISOR]
    handed = [rights for rights, path in trace.files["r-tftpd-worker"] if path.startswith(cache)]
    assert handed and set(handed) == {"r"}, handed
    written = [rights for rights, path in trace.files["r-tftpd-fetcher"] if path.startswith(cache)]
    assert written and set(written) == {"rw"}, written
    assert ("INET", "DGRAM") in trace.sockets["r-tftpd-broker"] and not trace.sockets["r-tftpd-worker"]
    assert trace.sockets["r-tftpd-fetcher"] == {("INET", "STREAM")}, trace.sockets
    assert ("UNIX", "SEQPACKET") in trace.sockets[SUPERVISOR]


@test
def what_the_daemon_does_is_allowed_when_root_starts_it():
    with contextlib.ExitStack() as stack:
        rig = Rig(stack, "--port", "0", "--listen", "127.0.0.1")
        rig.use(rig.daemon.port)
        trace = rig.finish()
        assert_was_seen(trace, rig.cache)
        assert_allowed(trace, rig.root, rig.cache)


# Hands a socket over as systemd does, as descriptor 3.
LAUNCHER = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[1], sys.argv[1:])
"""


@test
def what_the_daemon_does_is_allowed_when_systemd_starts_it():
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        kept = os.dup2(listener.fileno(), 60)
        stack.callback(os.close, kept)
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify = f"{stack.enter_context(directory())}/notify"
        manager.bind(notify)
        os.chmod(notify, 0o666)
        rig = Rig(
            stack, "--systemd", prefix=[*NOBODY, sys.executable, "-c", LAUNCHER],
            preexec_fn=lambda: os.dup2(kept, 3), pass_fds=(3, kept), env=os.environ | {"NOTIFY_SOCKET": notify},
        )
        rig.use(port)
        trace = rig.finish()
        manager.setblocking(False)
        told = []
        with contextlib.suppress(BlockingIOError):
            while True:
                told.append(manager.recv(4096))
        assert any(b"READY=1" in message for message in told), told
        assert_was_seen(trace, rig.cache)
        assert ("UNIX", "DGRAM") in trace.sockets[SUPERVISOR], trace.sockets
        assert_allowed(trace, rig.root, rig.cache)


main()
