"""The package in a Debian that boots under a real systemd: installed, started in both ways, hurt, upgraded, purged.

    boot.py target/release PACKAGE.deb

The machine is a container of systemd-nspawn with a network of its own, so that port 69 is free. The tests change it
one after another, in the order in which they stand here. Needs root, mmdebstrap, systemd-container.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from rootfs import ENVIRONMENT, machine_root
from support import CLIENT, NAMES, cases, get, main, pattern, read, sha256, test, write

PACKAGE = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
DEADLINE = 60  # seconds that any one event may take: others use this computer, too
CONTENTS = pattern(300_000)
# Enough blocks that a transfer lasts while something else happens.
LONG = pattern(8_000_000, 2)
SERVICE, SOCKET, ALONE = "r-tftpd.service", "r-tftpd.socket", "r-tftpd-standalone.service"
OPTIONS = "/etc/default/r-tftpd"
ADDRESSES = [("127.0.0.1",), ("::1",)]
# As syslog(3) counts priorities.
ERROR, WARNING, INFO = "3", "4", "6"


class Machine:
    """A booted system. Commands run in it as root."""

    def __init__(self, root):
        self.root = root
        name = f"r-tftpd-test-{os.getpid()}"
        command = ["systemd-nspawn", "--quiet", f"--directory={root}", f"--machine={name}", "--register=no",
                   "--keep-unit", "--boot", "--console=pipe", "--private-network", "--capability=all"]
        # nspawn's own filter would answer openat2() and the calls of Landlock with errors.
        environment = dict(os.environ, SYSTEMD_SECCOMP="0")
        self.console = tempfile.TemporaryFile()
        self.groups = control_groups(name)
        enter = [f"echo $$ >{group}/cgroup.procs" for group in self.groups]
        # The machine ends with this process, whatever ends it.
        self.process = subprocess.Popen(
            ["sh", "-c", " && ".join([*enter, 'exec setpriv --pdeathsig KILL "$@"']), "machine", *command],
            stdin=subprocess.DEVNULL, stdout=self.console, stderr=subprocess.STDOUT, env=environment,
        )
        self.left = f"/run/systemd/nspawn/propagate/{name}"
        try:
            self.leader = wait_for(self._leader, "the machine to start")
            enter = ["nsenter", "--target", self.leader, "--net"]
            self.network = [*enter, "--"]
            self.prefix = [*enter, "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--"]
            # `degraded` where the kernel lacks what some unit of Debian wants.
            state = ["systemctl", "is-system-running"]
            wait_for(lambda: self.run(*state, check=False).strip() in ("running", "degraded"), "the machine to boot")
        except BaseException as error:
            self.end()
            self.console.seek(0)
            raise AssertionError(f"no machine: {error}\n{self.console.read().decode(errors='replace')}") from error

    def _leader(self):
        """The process id, outside, of the first process of the machine."""
        assert self.process.poll() is None, "systemd-nspawn ended"
        children = read(f"/proc/{self.process.pid}/task/{self.process.pid}/children").decode().split()
        for child in children:
            status = read(f"/proc/{child}/status").decode()
            if re.search(r"^NSpid:.*\t1$", status, re.M) and "Name:\tsystemd\n" in status:
                return child
        return None

    def end(self):
        """Ends every process of the machine."""
        with contextlib.suppress(AttributeError):
            # The kernel ends all others with it.
            os.kill(int(self.leader), signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.rmdir(self.left)
        # A group can be removed when its last process is gone.
        for group in self.groups:
            wait_for(lambda: removed(group), f"the processes in {group} to end")

    def run(self, *command, check=True):
        """What a command prints."""
        done = subprocess.run([*self.prefix, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=2 * DEADLINE, check=False, env=ENVIRONMENT)
        output = done.stdout + done.stderr
        if check and done.returncode:
            log = "" if command[0] == "journalctl" else self.journal()
            raise AssertionError(f"{command}: {done.returncode}\n{output}\n{log}")
        return done.stdout if done.returncode == 0 else output

    def write(self, path, text):
        """Writes a file in the machine."""
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        write(self.root + path, text if isinstance(text, bytes) else text.encode())

    def show(self, unit, *properties):
        """Properties of a unit."""
        shown = self.run("systemctl", "show", unit, *(f"--property={one}" for one in properties))
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return values[properties[0]] if len(properties) == 1 else values

    def is_active(self, unit):
        """Whether it is in use."""
        return self.show(unit, "ActiveState") == "active"

    def records(self):
        """All log records of our units: dictionaries."""
        units = [f"--unit={unit}" for unit in (SERVICE, SOCKET, ALONE)]
        lines = self.run("journalctl", "--no-pager", "--quiet", "--output=json", *units).splitlines()
        return [json.loads(line) for line in lines]

    def journal(self):
        """The last log lines, for people."""
        return "\n".join(str(record["MESSAGE"]) for record in self.records()[-40:])

    def now(self):
        """A moment for `logged`. Not one of journalctl's cursors, after which its filters miss a record."""
        return len(self.records())

    def logged(self, text, since=0, priority=None):
        """The first message with this text, and with this priority if one is given, from a moment on."""
        def find():
            for record in self.records()[since:]:
                if text in record["MESSAGE"] and priority in (None, record["PRIORITY"]):
                    return record["MESSAGE"]
            return None

        return wait_for(find, f"log record {text!r} of priority {priority}", self.journal)

    def processes(self, unit):
        """Process ids in the machine by name."""
        group = self.show(unit, "ControlGroup")
        found = {}
        for directory in ("systemd", "unified", ""):
            path = f"/sys/fs/cgroup/{directory}{group}/cgroup.procs"
            pids = self.run("cat", path, check=False).split()
            if pids and all(pid.isdigit() for pid in pids):
                for pid in pids:
                    found[self.status(pid)["Name"]] = pid
                break
        return found

    def status(self, pid):
        """The lines of /proc/PID/status."""
        text = read(f"/proc/{self.leader}/root/proc/{pid}/status").decode()
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    def drop_in(self, unit, section, *settings):
        """Sets settings of a unit from now on."""
        self.write(f"/etc/systemd/system/{unit}.d/test.conf", "\n".join([f"[{section}]", *settings, ""]))
        self.run("systemctl", "daemon-reload")

    def drop_out(self, *units):
        """Takes it back."""
        for unit in units:
            shutil.rmtree(f"{self.root}/etc/systemd/system/{unit}.d", ignore_errors=True)
        self.run("systemctl", "daemon-reload")

    def restart(self, unit=SERVICE):
        """Restarts it; returns its start line."""
        since = self.now()
        self.run("systemctl", "restart", unit)
        return self.logged("serving generation=", since)


def control_groups(name):
    """Makes control groups for a machine, which systemd-nspawn would else put into those of this process: two
    machines there would take each other's services for their own.
    """
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = {kind: path for _, kind, path in (line.strip().split(":", 2) for line in file)}
    groups = []
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, after = line.split(" - ")
            mount, (kind, _, options) = before.split()[4], after.split()
            # systemd keeps its processes in the second version's hierarchy, or in one with its name, or in both.
            named = "name=systemd" in options.split(",")
            if (kind == "cgroup2" or named) and os.access(mount, os.W_OK):
                group = os.path.normpath(f"{mount}/{own['name=systemd' if named else '']}/{name}")
                if group not in groups:
                    os.mkdir(group)
                    groups.append(group)
    assert groups, "no control groups of systemd or of version 2 are mounted"
    return groups


def removed(group):
    """Whether a control group could be removed with all below it."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return not os.path.exists(group)


def wait_for(wanted, what, details=lambda: ""):
    """What `wanted` returns as soon as that is something."""
    end = time.monotonic() + DEADLINE
    while True:
        found = wanted()
        if found:
            return found
        assert time.monotonic() < end, f"waited {DEADLINE} s for {what}\n{details()}"
        time.sleep(0.05)


def fetch(file, *options, host="127.0.0.1"):
    """A file from port 69 of the machine."""
    return get(host, 69, file, *options, prefix=machine.network)


def assert_serves(host="127.0.0.1"):
    """A whole file, with options."""
    answer = fetch("file", "blksize=1428", "windowsize=8", host=host)
    assert answer["sha256"] == sha256(CONTENTS), (answer, machine.journal())


def assert_confined(unit, bounding):
    """No process has a right to lose."""
    user = machine.run("id", "--user", "r-tftpd").strip()
    group = machine.run("id", "--group", "r-tftpd").strip()
    processes = machine.processes(unit)
    assert set(processes) == {name[:15] for name in NAMES}, processes  # the kernel keeps 15 bytes of a name
    for name, pid in processes.items():
        status = machine.status(pid)
        assert status["Uid"].split() == [user] * 4 and status["Gid"].split() == [group] * 4, (name, status)
        assert set(status["Groups"].split()) <= {group}, (name, status)
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[kind], 16) == 0, (name, kind, status[kind])
        assert int(status["CapBnd"], 16) == bounding, (name, status["CapBnd"])
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", (name, status)
    # Those that lock themselves down have filters of their own in addition to that of the unit.
    filters = {name: int(machine.status(pid)["Seccomp_filters"]) for name, pid in processes.items()}
    supervisor = filters.pop("r-tftpd")
    assert all(number > supervisor for number in filters.values()), (supervisor, filters)


def transfer(*options):
    """A client that is at work: its process."""
    command = [*machine.network, sys.executable, CLIENT, "127.0.0.1", "69", "long", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def assert_whole(client):
    """It got the whole file."""
    output, _ = client.communicate(timeout=DEADLINE)
    assert json.loads(output)["sha256"] == sha256(LONG), output


@contextlib.contextmanager
def options(text):
    """Other contents of the file with the options."""
    kept = read(machine.root + OPTIONS)
    machine.write(OPTIONS, text)
    try:
        yield
    finally:
        machine.write(OPTIONS, kept)


def queued():
    """Bytes that wait in the socket with port 69."""
    sockets = read(f"/proc/{machine.leader}/net/udp6").decode().splitlines()[1:]
    return sum(int(line.split()[4].split(":")[1], 16) for line in sockets if line.split()[1].endswith(":0045"))


def inside(command):
    """A command line of a shell outside that runs something in the machine."""
    return " ".join([*machine.prefix, command])


@test
def within_seconds_of_its_installation_it_serves_a_file_on_port_69():
    shutil.copy(PACKAGE, f"{machine.root}/root/r-tftpd.deb")
    os.chmod(f"{machine.root}/root/r-tftpd.deb", 0o644)
    start = time.monotonic()
    machine.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "/root/r-tftpd.deb")
    installed = time.monotonic()
    machine.write("/srv/tftp/file", CONTENTS)
    machine.write("/srv/tftp/long", LONG)
    assert_serves()
    served = time.monotonic()
    print(f"installed in {installed - start:.1f} s, first file served {served - installed:.1f} s later")
    assert served - start < 30, served - start


@cases("it answers on {}", ADDRESSES)
def it_answers_on(address):
    assert_serves(address)


@test
def socket_and_service_are_started_at_boot_and_the_alternative_is_not():
    for unit, enabled in ((SOCKET, "enabled"), (SERVICE, "enabled"), (ALONE, "disabled")):
        assert machine.run("systemctl", "is-enabled", unit, check=False).strip() == enabled, unit
        assert machine.is_active(unit) == (enabled == "enabled"), unit


@test
def the_package_depends_on_what_its_units_execute():
    # The machine has it anyway, as it can not ask a mirror; a small one of somebody else may not have it.
    owner = machine.run("dpkg-query", "--search", "*bin/kill").split(":")[0]
    depends = machine.run("dpkg-query", "--show", "--showformat=${Depends}", "r-tftpd")
    assert owner in re.split(r"[ ,]+", depends), f"kill, for reloads, is in {owner}, but only this is needed: {depends}"


@test
def systemd_knows_that_it_serves():
    shown = machine.show(SERVICE, "ActiveState", "SubState", "StatusText", "NRestarts", "Result")
    assert shown["StatusText"].startswith("serving"), shown
    del shown["StatusText"]
    assert shown == {"ActiveState": "active", "SubState": "running", "NRestarts": "0", "Result": "success"}, shown


@test
def the_start_line_says_that_everything_is_in_force():
    line = machine.logged("serving generation=", priority=INFO)
    for field in ('root="/srv/tftp"', 'listen="[::]:69"', 'capabilities="none"', "no_new_privs=true", 'paths="openat2"',
                  "receive_buffer=4194304", 'cache="/var/cache/r-tftpd"', 'proxy="on"'):
        assert field in line, (field, line)
    for layer in ("landlock", "seccomp_broker", "seccomp_worker", "seccomp_fetcher"):
        assert re.search(rf'\b{layer}="\d+"', line), (layer, line)


@test
def the_self_test_finds_no_surprise_beside_the_service():
    report = json.loads(machine.run("r-tftpd", "self-test", "--root", "/srv/tftp", "--json"))
    fails = [action for action in report["actions"] if action["verdict"] == "FAIL"]
    assert report["clean"] and report["user"] == "r-tftpd" and report["tried"] > 600, fails


@test
def no_process_of_the_service_has_a_right_to_lose():
    assert_confined(SERVICE, bounding=0)


@test
def a_label_of_selinux_or_apparmor_is_named():
    # Not checked: the machine shares the kernel, and has neither a policy nor profiles loaded by itself.
    for name, pid in machine.processes(SERVICE).items():
        try:
            label = read(f"/proc/{machine.leader}/root/proc/{pid}/attr/current").strip(b"\0\n").decode()
        except OSError:
            label = ""
        print(f"{name}: {label or 'no label, the kernel has neither SELinux nor AppArmor'}")


@test
def the_service_can_execute_nothing_else_and_write_nowhere_else():
    pid = machine.show(SERVICE, "MainPID")
    view = ["nsenter", "--target", pid, "--mount", "--"]
    for command in ("/usr/bin/true", "/bin/sh"):
        assert "Permission denied" in machine.run(*view, command, check=False), command
    mounts = read(f"/proc/{machine.leader}/root/proc/{pid}/mounts").decode().splitlines()
    options = {line.split()[1]: line.split()[3].split(",") for line in mounts}
    # What is writable for a process without rights: its directories, as others are in a mount that is read-only, or
    # belong to root as programs and libraries do.
    for path in ("/tmp", "/var/tmp", "/var/cache/r-tftpd"):
        assert "rw" in options[path] and "noexec" in options[path], (path, options[path])
    for path in ("/", "/run", "/dev/shm"):
        assert "ro" in options[path] and "noexec" in options[path], (path, options[path])
    assert "noexec" not in options["/usr/libexec/r-tftpd"], options


@test
def log_lines_have_their_priority_and_nothing_that_the_journal_has_itself():
    ours = [record for record in machine.records() if record["_TRANSPORT"] == "stdout"]
    assert ours
    for line in ours:
        message = line["MESSAGE"]
        # A message with bytes that are not printable comes as a list of numbers.
        assert isinstance(message, str) and "\x1b" not in message, line
        assert not re.search(r"\d\d:\d\d:\d\d", message), message
        assert not message.startswith("<"), message
        assert line["SYSLOG_IDENTIFIER"] == "r-tftpd", line
        level = re.match(r" *(ERROR|WARN|INFO|DEBUG|TRACE)?", message)[1]
        assert line["PRIORITY"] == {"ERROR": ERROR, "WARN": WARNING, "INFO": INFO}[level], line


@test
def a_worker_that_is_killed_is_replaced_and_that_is_logged_as_an_error():
    before, since = machine.processes(SERVICE), machine.now()
    main_pid = machine.show(SERVICE, "MainPID")
    machine.run("kill", "-KILL", before["r-tftpd-worker"])
    line = machine.logged("worker died", since, ERROR)
    assert "SIGKILL" in line, line
    machine.logged("restarting broker and worker", since, WARNING)
    machine.logged("serving generation=", since)
    assert_serves()
    after = machine.processes(SERVICE)
    assert after["r-tftpd-worker"] != before["r-tftpd-worker"]
    assert machine.show(SERVICE, "MainPID") == main_pid == after["r-tftpd"]
    assert machine.show(SERVICE, "NRestarts") == "0"
    assert_confined(SERVICE, bounding=0)


@test
def a_reload_starts_new_processes_and_cuts_no_transfer_off():
    before, since = machine.processes(SERVICE), machine.now()
    client = transfer("blksize=1428", "windowsize=4", "at=100", f"run={inside(f'systemctl reload {SERVICE}')}")
    machine.logged("reloaded generation=", since)
    assert_whole(client)
    assert_serves()
    wait_for(lambda: len(machine.processes(SERVICE)) == 4, "the old processes to end")
    after = machine.processes(SERVICE)
    assert after.pop("r-tftpd") == before.pop("r-tftpd"), (before, after)
    assert not set(before.values()) & set(after.values()), (before, after)
    wait_for(lambda: machine.show(SERVICE, "SubState") == "running", "the reload to end")
    assert machine.show(SERVICE, "StatusText").startswith("serving:")


@test
def many_reloads_at_once_stay_within_the_limits_of_the_service():
    client = transfer("blksize=1428", "windowsize=4", "at=100", "run=sleep 3")
    for _ in range(6):
        since = machine.now()
        machine.run("systemctl", "reload", SERVICE)
        machine.logged("reloaded generation=", since)
    assert_serves()
    assert_whole(client)
    assert machine.show(SERVICE, "NRestarts") == "0"


@test
def a_supervisor_that_is_killed_is_restarted_and_what_was_asked_before_is_answered():
    before = machine.processes(SERVICE)
    # Nobody takes the request, which is not repeated: it waits in the socket.
    machine.run("kill", "-STOP", before["r-tftpd-broker"])
    client = transfer("blksize=1428", "windowsize=32", f"silence={DEADLINE}")
    wait_for(lambda: queued() > 0, "the request to arrive")
    machine.run("kill", "-KILL", before["r-tftpd"])
    assert_whole(client)
    shown = machine.show(SERVICE, "MainPID", "NRestarts")
    assert shown["MainPID"] != before["r-tftpd"] and shown["NRestarts"] == "1", shown


@test
def a_process_that_hangs_is_replaced_before_the_watchdog_of_systemd_bites():
    machine.drop_in(SERVICE, "Service", "WatchdogSec=3s")
    machine.restart()
    main_pid, since = machine.show(SERVICE, "MainPID"), machine.now()
    machine.run("kill", "-STOP", machine.processes(SERVICE)["r-tftpd-broker"])
    machine.logged("broker is stuck", since, ERROR)
    machine.logged("serving generation=", since)
    assert_serves()
    assert machine.show(SERVICE, "MainPID") == main_pid


@test
def a_supervisor_that_hangs_is_restarted_by_the_watchdog_of_systemd():
    main_pid, since = machine.show(SERVICE, "MainPID"), machine.now()
    machine.run("kill", "-STOP", main_pid)
    machine.logged("Watchdog timeout", since)
    machine.logged("serving generation=", since)
    assert_serves()
    assert machine.show(SERVICE, "MainPID") != main_pid
    machine.drop_out(SERVICE)


@test
def with_restrict_suid_sgid_it_serves_by_walking_and_says_so():
    machine.drop_in(SERVICE, "Service", "RestrictSUIDSGID=yes")
    line = machine.restart()
    assert 'paths="walk"' in line, line
    machine.write("/srv/tftp/deep/er/file", CONTENTS)
    assert fetch("deep/er/file", "blksize=1428", "windowsize=8")["sha256"] == sha256(CONTENTS)
    machine.drop_out(SERVICE)
    assert 'paths="openat2"' in machine.restart()


@test
def files_of_a_group_are_served_once_the_service_is_in_the_group():
    machine.run("groupadd", "--force", "tftpfiles")
    machine.write("/srv/tftp/grouped", CONTENTS)
    machine.run("chown", "root:tftpfiles", "/srv/tftp/grouped")
    machine.run("chmod", "0640", "/srv/tftp/grouped")
    assert fetch("grouped")["error"] == 2
    machine.drop_in(SERVICE, "Service", "SupplementaryGroups=tftpfiles")
    machine.restart()
    assert fetch("grouped", "blksize=1428", "windowsize=8")["sha256"] == sha256(CONTENTS)
    machine.drop_out(SERVICE)


@test
def options_and_root_come_from_the_file():
    machine.write("/srv/other root/else", CONTENTS)
    with options('TFTPD_ROOT="/srv/other root"\nTFTPD_OPTS="--max-blksize 512  --max-windowsize 2"\n'):
        assert 'root="/srv/other root"' in machine.restart()
        answer = fetch("else", "blksize=1428", "windowsize=8")
        assert answer["sha256"] == sha256(CONTENTS), answer
        assert answer["granted"] == {"blksize": "512", "windowsize": "2"}, answer
    machine.restart()
    assert_serves()


@test
def what_the_units_comments_say_about_other_places_is_so():
    machine.write("/home/boot/file", CONTENTS)
    os.makedirs(f"{machine.root}/srv/home")
    os.makedirs(f"{machine.root}/data/tftp-cache")
    machine.run("chown", "r-tftpd", "/data/tftp-cache")
    # A root below /home, by a mount of its own; a cache elsewhere, by a drop-in.
    machine.run("mount", "--bind", "/home/boot", "/srv/home")
    machine.drop_in(SERVICE, "Service", "ReadWritePaths=/data/tftp-cache")
    with options('TFTPD_ROOT=/srv/home\nTFTPD_OPTS="--cache-dir /data/tftp-cache"\n'):
        assert 'cache="/data/tftp-cache"' in machine.restart()
        assert_serves()
    machine.drop_out(SERVICE)
    machine.restart()
    machine.run("umount", "/srv/home")


@test
def a_stop_lets_transfers_finish_and_ends_every_process():
    # Less than the transfer takes: the supervisor asks systemd for the time that --drain-timeout grants.
    machine.drop_in(SERVICE, "Service", "TimeoutStopSec=1s")
    since = machine.now()
    stop = f"systemctl stop --no-block {SOCKET} {SERVICE}"
    client = transfer("blksize=1428", "windowsize=32", "at=100", f"run={inside(stop)}; sleep 2")
    assert_whole(client)
    wait_for(lambda: machine.show(SERVICE, "ActiveState") == "inactive", "the service to end", machine.journal)
    assert machine.show(SERVICE, "Result") == "success"
    machine.logged("stopped", since)
    assert not machine.processes(SERVICE)
    assert fetch("file", "silence=0.2")["silent"]
    machine.drop_out(SERVICE)


@test
def the_socket_alone_starts_the_service_with_the_first_request():
    machine.run("systemctl", "start", SOCKET)
    assert not machine.is_active(SERVICE)
    assert_serves()
    assert machine.is_active(SERVICE)


@test
def wrong_options_end_the_service_with_the_reason_and_without_a_loop():
    since = machine.now()
    with options('TFTPD_OPTS="--max-windowsize 0"\n'):
        machine.run("systemctl", "restart", SERVICE, check=False)
        machine.logged("--max-windowsize", since, ERROR)
        shown = machine.show(SERVICE, "ActiveState", "ExecMainStatus", "NRestarts")
        assert shown == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}, shown
        # A request starts it again, and is still in the socket when it has failed: but not for ever.
        assert fetch("file", "silence=0.5")["silent"]
        wait_for(lambda: machine.show(SOCKET, "ActiveState") == "failed", "the socket to give up", machine.journal)
        starts = sum(record["MESSAGE"].startswith("Starting ") for record in machine.records()[since:])
        assert 1 < starts <= 12, starts
    # Once they are right, to restart the service suffices.
    machine.restart()
    assert machine.is_active(SOCKET)
    assert_serves()


@test
def systemd_itself_drops_what_comes_from_networks_that_the_drop_in_does_not_allow():
    example = read(os.path.join(os.path.dirname(CLIENT), "../../contrib/systemd/only-these-networks.conf")).decode()
    settings = [line[1:] for line in example.splitlines() if line.startswith("#IPAddress")]
    settings = [line for line in settings if "localhost" not in line]
    for unit, section in ((SOCKET, "Socket"), (SERVICE, "Service")):
        machine.drop_in(unit, section, *settings)
    machine.run("systemctl", "restart", SOCKET, SERVICE)
    assert fetch("file", "silence=0.2")["silent"]
    for unit, section in ((SOCKET, "Socket"), (SERVICE, "Service")):
        machine.drop_in(unit, section, *settings, "IPAddressAllow=localhost")
    machine.run("systemctl", "restart", SOCKET, SERVICE)
    assert_serves()
    machine.drop_out(SOCKET, SERVICE)
    machine.run("systemctl", "restart", SOCKET, SERVICE)


@test
def the_alternative_takes_the_place_of_both_and_binds_the_port_itself():
    machine.run("systemctl", "disable", "--now", SOCKET, SERVICE)
    machine.run("systemctl", "enable", "--now", ALONE)
    for address, in ADDRESSES:
        assert_serves(address)
    assert machine.show(ALONE, "StatusText").startswith("serving")
    assert not machine.is_active(SOCKET) and not machine.is_active(SERVICE)
    # CAP_NET_BIND_SERVICE: to empty the bounding set takes a capability that it never has.
    assert_confined(ALONE, bounding=1 << 10)


@test
def the_alternative_reloads_and_is_restarted_too():
    since, main_pid = machine.now(), machine.show(ALONE, "MainPID")
    machine.run("systemctl", "reload", ALONE)
    machine.logged("reloaded generation=", since)
    assert machine.show(ALONE, "MainPID") == main_pid
    since = machine.now()
    machine.run("kill", "-KILL", main_pid)
    machine.logged("serving generation=", since)
    assert_serves()


@test
def an_upgrade_restarts_the_alternative_where_that_is_in_use():
    main_pid, since = machine.show(ALONE, "MainPID"), machine.now()
    upgrade("+1")
    machine.logged("serving generation=", since)
    assert machine.show(ALONE, "MainPID") != main_pid
    assert_serves()
    assert not machine.is_active(SOCKET) and not machine.is_active(SERVICE)


@test
def the_default_takes_the_place_of_the_alternative():
    machine.run("systemctl", "disable", ALONE)
    machine.run("systemctl", "enable", "--now", SOCKET, SERVICE)
    assert machine.is_active(SOCKET) and not machine.is_active(ALONE)
    assert_serves()
    assert_confined(SERVICE, bounding=0)


@test
def an_upgrade_restarts_the_service_and_leaves_the_socket_open():
    main_pid, since = machine.show(SERVICE, "MainPID"), machine.now()
    opened = machine.show(SOCKET, "ActiveEnterTimestampMonotonic")
    upgrade("+2")
    machine.logged("serving generation=", since)
    assert machine.show(SERVICE, "MainPID") != main_pid
    assert machine.show(SOCKET, "ActiveEnterTimestampMonotonic") == opened
    assert_serves()
    assert machine.run("dpkg-query", "--show", "--showformat=${Version}", "r-tftpd").endswith("+2")


@test
def after_a_removal_nothing_runs_and_the_options_stay():
    machine.run("dpkg", "--remove", "r-tftpd")
    for unit in (SOCKET, SERVICE, ALONE):
        assert not machine.is_active(unit), unit
    assert "r-tftpd" not in machine.run("ps", "-A", "-o", "comm=")
    assert os.path.exists(machine.root + OPTIONS)
    assert fetch("file", "silence=0.2")["silent"]


@test
def after_a_purge_only_what_was_served_is_left():
    machine.run("dpkg", "--purge", "r-tftpd")
    found = machine.run("find", "/etc", "/usr", "/var/cache", "/var/lib/systemd", "-name", "*r-tftpd*", "-not", "-path",
                        "/etc/apparmor.d/local/*").split()
    assert not found, found
    assert read(f"{machine.root}/srv/tftp/file") == CONTENTS
    machine.run("systemctl", "daemon-reload")
    assert machine.show(SERVICE, "LoadState") == "not-found"
    assert "r-tftpd" not in machine.run("systemctl", "--failed", "--no-legend")


def upgrade(suffix):
    """Installs the same package with a higher version."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["dpkg-deb", "--raw-extract", PACKAGE, f"{place}/tree"], check=True)
        control = f"{place}/tree/DEBIAN/control"
        text = re.sub(r"^(Version: .*)$", rf"\1{suffix}", read(control).decode(), flags=re.M)
        write(control, text.encode())
        new = f"{machine.root}/root/r-tftpd{suffix}.deb"
        subprocess.run(["dpkg-deb", "--build", "-Znone", "--root-owner-group", f"{place}/tree", new], check=True,
                       capture_output=True)
    machine.run("dpkg", "--install", f"/root/r-tftpd{suffix}.deb")


@contextlib.contextmanager
def booted():
    """A machine that runs."""
    with machine_root() as root:
        start = time.monotonic()
        one = Machine(root)
        print(f"booted in {time.monotonic() - start:.1f} s")
        try:
            yield one
        finally:
            one.end()


assert PACKAGE and os.path.exists(PACKAGE), "which package? boot.py target/release target/debian/NAME.deb"
# What is to be done in the end is done also when this script is told to end.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
with booted() as machine:
    main()
