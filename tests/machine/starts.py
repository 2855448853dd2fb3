"""Every way to be started, and what is left of the rights then. Needs root, and namespaces for a
port 69 of its own.
"""

import os
import pwd
import shutil
import socket
import subprocess
import sys

from support import (
    DAEMON, NAMES, NOBODY, PROGRAMS, Daemon, directory, fails, get, main, namespaces, pattern, run, sha256,
    test, write,
)

CONTENTS = pattern(50_000)
BIND_SERVICE = [*NOBODY, "--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service"]
# An unprivileged user may bind every port in a new namespace here and there: not in this test.
RESERVE = ["sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=1024"]


def root_with_file(path):
    """A file to serve."""
    write(f"{path}/file", CONTENTS)
    return path


def assert_serves(daemon, host="127.0.0.1", port=None, prefix=()):
    """A whole file, with options."""
    answer = get(host, port or daemon.port, "file", "blksize=1428", "windowsize=8", prefix=prefix)
    assert answer["sha256"] == sha256(CONTENTS), answer


@test
def started_by_root_it_becomes_another_user():
    with directory() as root:
        with Daemon(root_with_file(root), "--port", "0", "--listen", "127.0.0.1") as daemon:
            assert_serves(daemon)
            daemon.assert_unprivileged()
            for name in NAMES:
                status = daemon.status(name)
                assert int(status["CapBnd"], 16) == 0, status
                assert set(status["Groups"].split()) <= set(status["Gid"].split()), status


@test
def started_by_root_it_becomes_the_user_that_was_named():
    with directory() as root:
        arguments = ["--user", "daemon", "--port", "0", "--listen", "127.0.0.1"]
        with Daemon(root_with_file(root), *arguments) as daemon:
            assert_serves(daemon)
            daemon.assert_unprivileged()
            uid = str(pwd.getpwnam("daemon").pw_uid)
            assert daemon.status("r-tftpd-worker")["Uid"].split() == [uid] * 4


@test
def started_by_root_directories_above_the_root_need_not_be_readable():
    with directory() as closed:
        os.mkdir(f"{closed}/root")
        os.chmod(f"{closed}/root", 0o755)
        root_with_file(f"{closed}/root")
        os.chmod(closed, 0o700)
        with Daemon(f"{closed}/root", "--port", "0", "--listen", "127.0.0.1") as daemon:
            assert_serves(daemon)


@test
def started_by_root_a_file_that_only_root_can_read_is_denied():
    with directory() as root:
        root_with_file(root)
        write(f"{root}/closed", b"secret")
        os.chmod(f"{root}/closed", 0o600)
        with Daemon(root, "--port", "0", "--listen", "127.0.0.1") as daemon:
            assert get("127.0.0.1", daemon.port, "closed")["error"] == 2
            assert_serves(daemon)


@test
def started_by_root_a_root_closed_to_the_user_is_an_error():
    with directory() as root:
        os.chmod(root, 0o700)
        line = fails([DAEMON, "--port", "0", "--listen", "127.0.0.1", "--root", root])
        assert root in line and "nobody" in line, line


@test
def started_by_root_an_unknown_user_is_an_error():
    with directory() as root:
        line = fails([DAEMON, "--user", "no-such-user", "--port", "0", "--root", root])
        assert "no-such-user" in line, line


@test
def as_plain_user_it_serves_with_every_layer_of_the_sandbox():
    with directory() as root:
        arguments = ["--port", "0", "--listen", "127.0.0.1"]
        with Daemon(root_with_file(root), *arguments, prefix=NOBODY) as daemon:
            assert_serves(daemon)
            daemon.assert_unprivileged()
            fields = daemon.wait_for(lambda r: r["fields"]["message"] == "serving")["fields"]
            assert fields["landlock"] != "none" and fields["seccomp_worker"] != "none", fields


@test
def as_plain_user_port_69_is_an_error_that_says_what_to_do():
    with namespaces() as (server, _, _name), directory() as root:
        run([*server, *RESERVE])
        line = fails([*server, *NOBODY, DAEMON, "--root", root])
        assert "69" in line and "--port" in line, line


@test
def with_an_ambient_capability_it_binds_port_69_and_drops_it():
    with namespaces() as (server, client, _), directory() as root:
        run([*server, *RESERVE])
        prefix = [*server, *BIND_SERVICE]
        with Daemon(root_with_file(root), prefix=prefix) as daemon:
            assert daemon.port == 69
            assert_serves(daemon, "10.99.0.1", prefix=client)
            assert_serves(daemon, "fd99::1", prefix=client)
            daemon.assert_unprivileged()
            # What is left of the rights does not suffice to bind another such port.
            assert daemon.status("r-tftpd")["Uid"].split()[0] == "65534"


@test
def with_a_file_capability_it_binds_port_69_and_drops_it():
    with namespaces() as (server, client, _), directory() as root, directory() as programs:
        run([*server, *RESERVE])
        for name in NAMES:
            shutil.copy(f"{PROGRAMS}/{name}", programs)
        run(["setcap", "cap_net_bind_service=ep", f"{programs}/r-tftpd"])
        prefix, program = [*server, *NOBODY], f"{programs}/r-tftpd"
        with Daemon(root_with_file(root), prefix=prefix, program=program) as daemon:
            assert daemon.port == 69
            assert_serves(daemon, "10.99.0.1", prefix=client)
            daemon.assert_unprivileged()


@test
def started_by_root_in_a_namespace_it_serves_port_69_by_default():
    with namespaces() as (server, client, _), directory() as root:
        with Daemon(root_with_file(root), prefix=server) as daemon:
            assert daemon.listen == ["[::]:69"], daemon.listen
            assert_serves(daemon, "10.99.0.1", prefix=client)
            assert_serves(daemon, "fd99::1", prefix=client)
            daemon.assert_unprivileged()


# Hands its arguments' sockets over as systemd does: they are descriptors 3 and up.
LAUNCHER = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""


def activated(sockets):
    """What makes a command start with these sockets; a prefix and options for Popen."""
    numbers = list(range(3, 3 + len(sockets)))
    kept = [os.dup2(one.fileno(), 60 + index) for index, one in enumerate(sockets)]

    def place():
        for number, one in zip(numbers, kept):
            os.dup2(one, number)

    prefix = [*NOBODY, sys.executable, "-c", LAUNCHER, str(len(sockets))]
    return prefix, {"preexec_fn": place, "pass_fds": (*numbers, *kept)}


@test
def by_systemd_it_serves_the_sockets_it_is_given_and_what_is_queued_in_them():
    with directory() as root:
        root_with_file(root)
        sockets = []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            one = socket.socket(family, socket.SOCK_DGRAM)
            one.bind((address, 0))
            sockets.append(one)
        early = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        early.settimeout(10)
        early.sendto(b"\0\1file\0octet\0", sockets[0].getsockname())
        prefix, options = activated(sockets)
        with Daemon(root, "--systemd", prefix=prefix, **options) as daemon:
            datagram, sender = early.recvfrom(600)
            assert datagram == b"\0\3\0\1" + CONTENTS[:512] and sender[0] == "127.0.0.1"
            early.sendto(b"\0\5\0\0\0", sender)
            assert len(daemon.listen) == 2, daemon.listen
            assert_serves(daemon, "127.0.0.1", sockets[0].getsockname()[1])
            assert_serves(daemon, "::1", sockets[1].getsockname()[1])
            daemon.assert_unprivileged()


@test
def by_systemd_a_socket_of_another_kind_is_an_error():
    with directory() as root:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.bind(("127.0.0.1", 0))
        prefix, options = activated([one])
        assert fails([*prefix, DAEMON, "--systemd", "--root", root], **options)


main()
