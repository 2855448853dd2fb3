"""The self-test, as root, a service manager and a package start it. Needs root, and namespaces for a port 69 of its own.
"""

import json
import os
import pwd
import subprocess

from support import DAEMON, NOBODY, Daemon, directory, get, main, namespaces, pattern, run, sha256, test, write

CONTENTS = pattern(50_000)
BIND_SERVICE = [*NOBODY, "--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service"]
MOST = 20  # seconds


def left_behind():
    """Directories of self-tests."""
    return [name for name in os.listdir("/tmp") if name.startswith("r-tftpd-self-test.")]


def self_test(*arguments, prefix=(), expected=0):
    """The report of a self-test."""
    command = [*prefix, DAEMON, "self-test", "--json", *arguments]
    before = left_behind()
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, text=True)
    assert set(left_behind()) <= set(before), "files are left"
    report = json.loads(done.stdout) if done.stdout else {"actions": []}
    fails = [action for action in report["actions"] if action["verdict"] == "FAIL"]
    assert done.returncode == expected, (done.returncode, done.stderr, fails)
    return report


def assert_clean(report, user):
    """Nothing surprised, as this user, in time."""
    fails = [action for action in report["actions"] if action["verdict"] == "FAIL"]
    assert report["clean"] and not fails, fails
    assert report["tried"] > 600 and report["passed"] + report["possible"] == report["tried"], report
    assert report["uid"] == pwd.getpwnam(user).pw_uid and report["uid"] != 0, report["uid"]
    assert report["seconds"] < MOST, report["seconds"]
    for process in ("broker", "worker", "fetcher"):
        facts = report["processes"][process]
        assert facts["no_capabilities"] and facts["no_new_privs"] and facts["system_calls"] > 20, facts


@test
def started_by_root_it_tries_everything_as_another_user():
    with directory() as root:
        report = self_test("--root", root, "--user", "nobody")
        assert_clean(report, "nobody")
        print(f"{report['tried']} actions in {report['seconds']:.1f} s, Landlock "
              f"{report['processes']['broker']['landlock_abi']}, recovery within {report['slowest_recovery_ms']} ms")


@test
def as_plain_user_it_tries_the_same():
    with directory() as root:
        assert_clean(self_test("--root", root, prefix=NOBODY), "nobody")


@test
def a_capability_for_the_port_is_of_no_use_to_a_captured_process():
    with directory() as root:
        assert_clean(self_test("--root", root, prefix=BIND_SERVICE), "nobody")


@test
def beside_a_service_with_the_same_options_neither_is_in_the_way_of_the_other():
    with namespaces() as (server, _, _name), directory() as root:
        write(f"{root}/file", CONTENTS)
        options = ["--max-connections", "8", "--allow-net", "127.0.0.1", "--port-range", "50000-50001"]
        with Daemon(root, *options, prefix=server) as daemon:
            assert daemon.port == 69
            report = self_test("--root", root, *options, "--systemd", prefix=server)
            assert_clean(report, "nobody")
            answer = get("127.0.0.1", 69, "file", prefix=server)
            assert answer["sha256"] == sha256(CONTENTS), answer
        assert os.listdir(root) == ["file"]


@test
def a_root_closed_to_the_user_keeps_it_from_starting_as_it_keeps_the_service():
    with directory() as root:
        os.chmod(root, 0o700)
        done = subprocess.run([DAEMON, "self-test", "--root", root], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and root in done.stderr and not done.stdout, done


@test
def a_bad_option_is_no_surprise():
    done = subprocess.run([DAEMON, "self-test", "--sandbox", "off"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "strict" in done.stderr, done


@test
def people_read_what_is_in_force():
    with directory() as root:
        text = run([DAEMON, "self-test", "--root", root, "--disable-proxy"]).decode()
        release = os.uname().release
        assert f"on Linux {release}" in text and "In force:" in text and " 0 surprises; " in text, text[-2000:]


if __name__ == "__main__":
    main()
