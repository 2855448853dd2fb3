"""What `contrib/systemd`, `contrib/sysusers` and `contrib/tmpfiles` say, as systemd 252 reads it: no machine is booted.
Needs the commands systemd-analyze, systemd-sysusers and systemd-tmpfiles, and root for the last two.
"""

import glob
import os
import re
import shutil
import subprocess

from support import DAEMON, NOBODY, Daemon, cases, directory, main, run, test, write

REPOSITORY = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
CONTRIB = f"{REPOSITORY}/contrib"
UNITS = f"{CONTRIB}/systemd"
# What systemd-analyze may rate each service at most, in tenths.
EXPOSURE = (("r-tftpd.service", 13), ("r-tftpd-standalone.service", 18))
SERVICES = [name for name, _ in EXPOSURE]
DROP_IN = "only-these-networks.conf"


def lines(name):
    """The settings of a unit in their order: (section, key, value)."""
    section, found = None, []
    with open(f"{UNITS}/{name}", encoding="utf-8") as file:
        for line in file:
            line = line.strip()
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, value = line.split("=", 1)
                found.append((section, key, value))
    return found


def values(name, key, section="Service"):
    """All values of a setting."""
    return [value for where, one, value in lines(name) if (where, one) == (section, key)]


def value(name, key, section="Service"):
    """The value of a setting that is there once."""
    found = values(name, key, section)
    assert len(found) == 1, (name, key, found)
    return found[0]


def seconds(text):
    """As systemd.time(7) writes them."""
    number, unit = re.fullmatch(r"(\d+)(s|min)", text).groups()
    return int(number) * {"s": 1, "min": 60}[unit]


def constant(path, name):
    """A number in the source text of the programs."""
    with open(f"{REPOSITORY}/{path}", encoding="utf-8") as file:
        return int(re.search(rf"const {name}: \w+ = (\d+);", file.read())[1])


def exposure(path, threshold):
    """Whether systemd rates a unit that well, and how it rates it."""
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rated = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert rated, (done.stdout, done.stderr)
    return done.returncode == 0, float(rated[1])


def complaints(names, change=None):
    """What systemd says about units in a system that has nothing but them and the programs they start."""
    with directory() as root:
        units = f"{root}/usr/lib/systemd/system"
        os.makedirs(units)
        for target in glob.glob("/lib/systemd/system/*.target"):
            shutil.copy(target, units)
        for name in (*SERVICES, "r-tftpd.socket"):
            shutil.copy(f"{UNITS}/{name}", units)
            for program in re.findall(r"^Exec\w+=(/usr/\S*bin/\S+)", open(f"{UNITS}/{name}").read(), re.M):
                os.makedirs(os.path.dirname(root + program), exist_ok=True)
                shutil.copy("/bin/true", root + program)
        if change:
            change(units)
        command = ["systemd-analyze", "verify", "--man=no", f"--root={root}", *names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # An unknown key is named, and the exit status is 0 all the same.
        return f"{done.stdout}{done.stderr}" + (f"exit status {done.returncode}" if done.returncode else "")


def append(name, text):
    """Makes a change for `complaints`: lines at the end of a unit."""

    def change(units):
        with open(f"{units}/{name}", "a", encoding="utf-8") as file:
            file.write(text)

    return change


def system_calls(name):
    """Every system call that the service's filter allows, groups resolved by systemd itself."""
    allowed = set(resolve("@default"))
    for value in values(name, "SystemCallFilter"):
        words = value.removeprefix("~").split()
        calls = {call for word in words for call in (resolve(word) if word.startswith("@") else [word])}
        if value.startswith("~"):
            allowed -= calls - set(resolve("@default"))
        else:
            allowed |= calls
    return allowed


def resolve(group):
    """The system calls of a group."""
    calls = []
    for line in run(["systemd-analyze", "syscall-filter", group], text=True).splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            calls += resolve(word)
        elif word and not word.startswith("#"):
            calls.append(word)
    return calls


@test
def this_is_the_systemd_that_the_ratings_are_for():
    version = run(["systemd-analyze", "--version"], text=True).split()[1]
    assert version == "252", f"systemd {version}: ratings differ between versions, run this on Debian 12"


@cases("{} is rated well enough", EXPOSURE)
def is_rated_well_enough(name, threshold):
    good, rated = exposure(f"{UNITS}/{name}", threshold)
    assert good and rated <= threshold / 10, f"{name}: {rated}"
    print(f"{name}: {rated}")


@cases("without one of its settings {} would not be", EXPOSURE)
def without_one_of_its_settings_it_would_not_be(name, threshold):
    with directory() as changed, open(f"{UNITS}/{name}", encoding="utf-8") as file:
        text = file.read().replace("RestrictNamespaces=yes\n", "")
        write(f"{changed}/{name}", text.encode())
        good, rated = exposure(f"{changed}/{name}", threshold)
        assert not good and rated > threshold / 10, rated


@test
def systemd_has_nothing_to_say_against_the_units():
    said = complaints(["r-tftpd.socket", *SERVICES])
    assert not said, said


@test
def systemd_would_say_that_a_setting_is_unknown():
    said = complaints(SERVICES, append("r-tftpd.service", "[Service]\nProtectEverything=yes\n"))
    assert "ProtectEverything" in said, said


@test
def the_drop_in_for_networks_does_nothing_until_it_is_uncommented_and_is_right_then():
    with open(f"{UNITS}/{DROP_IN}", encoding="utf-8") as file:
        text = file.read()
    assert all(line.startswith("#") for line in text.splitlines() if line), text
    settings = re.findall(r"^#(\[\w+\]|\w+=.*)$", text, re.M)
    assert settings[0] == "[Service]" and "IPAddressDeny=any" in settings, settings

    def install(units):
        for unit in ("r-tftpd.service", "r-tftpd.socket"):
            section = "[Socket]" if unit.endswith("socket") else "[Service]"
            os.mkdir(f"{units}/{unit}.d")
            lines = "\n".join([section, *settings[1:], ""])
            write(f"{units}/{unit}.d/{DROP_IN}", lines.encode())

    said = complaints(["r-tftpd.service", "r-tftpd.socket"], install)
    assert not said, said


@test
def both_services_differ_only_in_how_they_get_their_port():
    default, alone = (set(lines(name)) for name in SERVICES)
    differing = {(section, key) for section, key, _ in default ^ alone}
    assert differing == {
        ("Unit", "Description"), ("Unit", "Requires"), ("Unit", "Conflicts"), ("Unit", "After"), ("Install", "Also"),
        ("Service", "ExecStart"), ("Service", "PrivateUsers"), ("Service", "CapabilityBoundingSet"),
        ("Service", "AmbientCapabilities"), ("Service", "SystemCallFilter"),
    }, differing


@test
def with_the_socket_the_service_never_has_a_capability():
    unit = "r-tftpd.service"
    assert value(unit, "CapabilityBoundingSet") == value(unit, "AmbientCapabilities") == ""
    assert value(unit, "PrivateUsers") == "yes"
    assert not any(entry.startswith(("+", "!")) for key in ("ExecStart", "ExecReload") for entry in values(unit, key))


@test
def alone_it_has_the_one_capability_that_binds_the_port():
    unit = "r-tftpd-standalone.service"
    assert value(unit, "CapabilityBoundingSet") == value(unit, "AmbientCapabilities") == "CAP_NET_BIND_SERVICE"
    assert set(value(unit, "Conflicts", "Unit").split()) == {"r-tftpd.socket", "r-tftpd.service"}
    # Stopped before this one starts.
    assert {"r-tftpd.socket", "r-tftpd.service"} <= set(value(unit, "After", "Unit").split())


@test
def the_socket_takes_a_storm_and_tells_where_requests_were_sent_to():
    socket = {key: value for section, key, value in lines("r-tftpd.socket") if section == "Socket"}
    assert socket["ListenDatagram"] == "69" and socket["BindIPv6Only"] == "both", socket
    assert socket["PassPacketInfo"] == "yes" and socket["ReceiveBuffer"] == "4M", socket
    # Queued requests outlive the service.
    assert socket.get("FlushPending", "no") == "no", socket
    assert value("r-tftpd.socket", "WantedBy", "Install") == "sockets.target"
    assert value("r-tftpd.service", "Requires", "Unit") == value("r-tftpd.service", "Also", "Install")


@cases("{} is started with the options of both distributions' files", [(name,) for name in SERVICES])
def is_started_with_the_options_of_the_file(name):
    own = "--systemd " if name == "r-tftpd.service" else ""
    assert value(name, "ExecStart") == f"/usr/sbin/r-tftpd {own}--root ${{TFTPD_ROOT}} $TFTPD_OPTS"
    assert values(name, "EnvironmentFile") == ["-/etc/default/r-tftpd", "-/etc/sysconfig/r-tftpd"]
    with open(f"{UNITS}/r-tftpd.default", encoding="utf-8") as file:
        text = file.read()
    settings = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert settings == [value(name, "Environment"), 'TFTPD_OPTS=""'], settings


@cases("{} tells systemd how it does, and is restarted for as long as it takes", [(name,) for name in SERVICES])
def tells_systemd_how_it_does(name):
    assert value(name, "Type") == "notify" and value(name, "NotifyAccess") == "main"
    assert value(name, "KillMode") == "mixed"
    assert value(name, "ExecReload") == "/usr/bin/kill -HUP $MAINPID"
    assert value(name, "Restart") == "on-failure" and value(name, "RestartPreventExitStatus") == "2"
    # No limit: it must be back when what it waits for is back, however long that took.
    assert value(name, "StartLimitIntervalSec", "Unit") == "0"
    assert seconds(value(name, "RestartSec")) <= 5
    # Whom the kernel kills for memory is replaced by the supervisor.
    assert value(name, "OOMPolicy") == "continue"


@cases("{} starts when what it reads at the start is there", [(name,) for name in SERVICES])
def starts_when_what_it_reads_is_there(name):
    after = set(value(name, "After", "Unit").split())
    # A root opened before it is mounted would stay the empty directory below.
    assert {"remote-fs.target", "network-online.target", "nss-lookup.target"} <= after, after
    # But machines may boot from it before the network is complete.
    assert not values(name, "Wants", "Unit") and not values(name, "DefaultDependencies", "Unit")


@cases("{} runs as a user of its own with a cache of its own", [(name,) for name in SERVICES])
def runs_as_a_user_of_its_own(name):
    assert value(name, "User") == value(name, "Group") == value(name, "CacheDirectory") == "r-tftpd"
    assert value(name, "CacheDirectoryMode") == "0700" and value(name, "UMask") == "0077"
    assert not values(name, "DynamicUser")


@cases("the filter of {} leaves what the processes lock themselves down with", [(name,) for name in SERVICES])
def the_filter_leaves_what_the_processes_need(name):
    named = " ".join(values(name, "SystemCallFilter")).split()
    allowed = system_calls(name)
    for call in ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"):
        assert call in named and call in allowed, call
    # By name, as no group has them: the day that one has, the reason in the units is out of date.
    assert "landlock_restrict_self" not in resolve("@system-service")
    assert {"openat2", "execveat", "memfd_create", "recvmmsg", "pidfd_open", "prlimit64"} <= allowed
    assert value(name, "SystemCallErrorNumber") == "EPERM" and value(name, "SystemCallArchitectures") == "native"
    # It would answer openat2() with ENOSYS.
    assert not values(name, "RestrictSUIDSGID")


@cases("the filter of {} forbids what needs rights", [(name,) for name in SERVICES])
def the_filter_forbids_what_needs_rights(name):
    allowed = system_calls(name)
    forbidden = {"setuid", "setresuid", "chown", "mount", "ptrace", "bpf", "io_uring_setup", "keyctl", "unshare",
                 "chroot", "init_module", "reboot", "perf_event_open"}
    # unshare is for RestrictNamespaces= to forbid.
    assert not (forbidden - {"unshare"}) & allowed, forbidden & allowed
    assert value(name, "RestrictNamespaces") == "yes"
    assert ("capset" in allowed) == (name == "r-tftpd-standalone.service")
    assert set(value(name, "RestrictAddressFamilies").split()) == {"AF_UNIX", "AF_INET", "AF_INET6"}


@cases("{} can execute only what it consists of", [(name,) for name in SERVICES])
def can_execute_only_what_it_consists_of(name):
    assert value(name, "NoExecPaths") == "/ /run /tmp /var/tmp /var/cache/r-tftpd -/dev/shm"
    paths = value(name, "ExecPaths").split()
    assert paths == ["/usr/sbin/r-tftpd", "/usr/libexec/r-tftpd", "-/usr/bin/kill", "/usr/lib", "-/usr/lib64"], paths


@test
def the_descriptors_suffice_for_what_the_comment_says():
    # How the program counts: broker/src/supervisor/limits.rs. A process that lacks CAP_SYS_RESOURCE, as root in many
    # containers, could not set the limit to let it count by itself.
    limits = "broker/src/supervisor/limits.rs"
    each, unproven = constant(limits, "DESCRIPTORS_PER_TRANSFER"), constant(limits, "MAX_UNPROVEN")
    others = constant(limits, "MAX_FETCHES") + constant(limits, "RESERVED")
    descriptors = int(value("r-tftpd.service", "LimitNOFILE"))
    with open(f"{UNITS}/r-tftpd.service", encoding="utf-8") as file:
        comment = file.read()
    connections = int(re.search(r"--max-connections (\d+)", comment)[1])
    entries = int(re.search(r"--cache-entries (\d+)", comment)[1])
    assert (connections + unproven) * each + entries + others <= descriptors
    assert entries <= descriptors / 4  # all that the cache may have


@test
def the_threads_suffice_for_many_reloads():
    with directory() as root, Daemon(root, "--port", "0", "--listen", "127.0.0.1", prefix=NOBODY) as daemon:
        threads = {one: len(os.listdir(f"/proc/{pid}/task")) for one, pid in daemon.processes().items()}
    supervisor = threads.pop("r-tftpd")
    assert set(threads) == {"r-tftpd-broker", "r-tftpd-worker", "r-tftpd-fetcher"}, threads
    # Those that finish their transfers, the one that serves, and the one that starts; and the kill of ExecReload=.
    sets = constant("broker/src/supervisor/generations/mod.rs", "MAX_FINISHING") + 2
    most = supervisor + sets * sum(threads.values()) + 1
    assert most <= int(value("r-tftpd.service", "TasksMax")), (most, threads)


@cases("{} is given time to stop", [(name,) for name in SERVICES])
def is_given_time_to_stop(name):
    help_text = run([DAEMON, "--help"], text=True)
    drain = int(re.search(r"--drain-timeout.*?\[default: (\d+)\]", help_text, re.S)[1])
    assert seconds(value(name, "TimeoutStopSec")) >= 2 * drain


def in_a_system(function):
    """Gives a test a directory with the files for users and temporary files in their places."""

    def wrapped():
        with directory() as root:
            for kind in ("sysusers", "tmpfiles"):
                os.makedirs(f"{root}/usr/lib/{kind}.d")
                shutil.copy(f"{CONTRIB}/{kind}/r-tftpd.conf", f"{root}/usr/lib/{kind}.d")
            os.mkdir(f"{root}/etc")
            for name in ("passwd", "group"):
                write(f"{root}/etc/{name}", b"root:x:0:0:root:/root:/bin/sh\n" if name == "passwd" else b"root:x:0:\n")
            function(root)

    wrapped.__name__ = function.__name__
    return wrapped


def tmpfiles(root, *options):
    """Does what tmpfiles.d says, without a word."""
    done = subprocess.run(["systemd-tmpfiles", f"--root={root}", *options, "r-tftpd.conf"], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0 and not done.stdout + done.stderr, done


@test
@in_a_system
def sysusers_makes_a_user_and_a_group_that_nobody_can_log_in_as(root):
    for _ in range(2):  # once more changes nothing
        run(["systemd-sysusers", f"--root={root}", "r-tftpd.conf"])
        with open(f"{root}/etc/passwd", encoding="utf-8") as file:
            users = [line.strip().split(":") for line in file if line.startswith("r-tftpd:")]
        with open(f"{root}/etc/group", encoding="utf-8") as file:
            groups = [line.strip().split(":") for line in file if line.startswith("r-tftpd:")]
        assert len(users) == len(groups) == 1, (users, groups)
        assert 0 < int(users[0][2]) < 1000 and users[0][3] == groups[0][2], (users, groups)
        assert users[0][6] == "/usr/sbin/nologin", users


@test
@in_a_system
def tmpfiles_makes_the_directory_to_serve(root):
    tmpfiles(root, "--create")
    status = os.stat(f"{root}/srv/tftp")
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, 0, 0)


@test
@in_a_system
def tmpfiles_leaves_a_directory_that_is_there_alone(root):
    served = f"{root}/srv/tftp"
    os.makedirs(served)
    os.chmod(served, 0o2770)
    os.chown(served, 12, 34)
    write(f"{served}/file", b"contents")
    os.utime(f"{served}/file", (0, 0))
    os.utime(served, (0, 0))
    tmpfiles(root, "--create", "--clean", "--remove")
    status = os.stat(served)
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o2770, 12, 34), status
    assert os.listdir(served) == ["file"]


@test
@in_a_system
def tmpfiles_leaves_a_link_to_another_directory_alone(root):
    os.makedirs(f"{root}/srv")
    os.makedirs(f"{root}/data")
    os.symlink("/data", f"{root}/srv/tftp")
    subprocess.run(["systemd-tmpfiles", f"--root={root}", "--create", "r-tftpd.conf"], capture_output=True, check=False)
    assert os.readlink(f"{root}/srv/tftp") == "/data"


main()
