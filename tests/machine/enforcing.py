"""The SELinux policy at work: a Debian 12 in an emulated machine, enforcing, that serves and is looked at.

Not part of tests/run.sh: it takes five to ten minutes, and network for the packages of the machine. Needs root and
the packages mmdebstrap, qemu-system-x86, e2fsprogs, policycoreutils, semodule-utils, selinux-policy-dev. No
KVM is used, as it is missing or broken in many containers; x86-64 only.

    /usr/bin/python3 tests/machine/enforcing.py target/release

This file is also what runs inside of the machine, as a service (`guest` below).
"""

import functools
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
GUEST = "/root/enforcing"  # where the machine has this file, the client and, at last, the results
PACKAGES = (
    "systemd-sysv,dbus,auditd,selinux-policy-default,policycoreutils,selinux-utils,kmod,udev,iproute2,procps,"
    "python3,ca-certificates,linux-image-cloud-amd64,initramfs-tools,libnss-systemd"
)
PATIENCE = 1500  # seconds; an emulated machine on a busy one is slow
ROOT = "/srv/tftp"
TEXT = b"line\nline\r\n" * 1000
BODY = bytes(range(256)) * 400
DOMAINS = {
    "r-tftpd": "r_tftpd_t",
    "r-tftpd-broker": "r_tftpd_broker_t",
    "r-tftpd-worker": "r_tftpd_worker_t",
    "r-tftpd-fetcher": "r_tftpd_fetcher_t",
}


# ---- inside ----

def shell(command):
    """What a command prints, whether or not it succeeds."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout + done.stderr


def get(name, *options):
    """The client's answer."""
    return json.loads(shell(f"python3 {GUEST}/client.py 127.0.0.1 69 {name} silence=8 {' '.join(options)}"))


def processes():
    """Name and domain of each process of ours."""
    found = {}
    for line in shell("ps -eo label:80,comm").splitlines():
        context, _, name = line.strip().rpartition(" ")
        if name.startswith("r-tftpd"):
            found[name] = context.strip()
    return found


def denials():
    """The denials so far in which r-tftpd plays a part: who, what, on what, of which class."""
    pattern = r"denied +\{ ([^}]*) \}.* scontext=\S*?:\S*?:(\w+)\S* tcontext=\S*?:\S*?:(\w+)\S* tclass=(\w+)"
    time.sleep(1)
    found = []
    for path in glob.glob("/var/log/audit/audit.log*"):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                match = re.search(pattern, line)
                if match and ("r-tftpd" in line or "r_tftpd" in line):
                    found.append([match[2], match[1], match[3], match[4]])
    return found


def start(*arguments, properties=()):
    """Starts the daemon in a unit of its own, by systemd."""
    options = " ".join(f"-p {one}" for one in ("Type=notify", *properties))
    shell(f"systemd-run -q --unit test {options} /usr/sbin/r-tftpd --root {ROOT} {' '.join(arguments)}")


def stop():
    """Stops whatever serves."""
    shell("systemctl stop test r-tftpd-standalone r-tftpd.socket r-tftpd; systemctl reset-failed")


def guest():
    """All steps, one after another; each leaves its answers and all denials so far."""
    results = {}

    def step(name, *answers):
        results[name] = {"answers": answers, "processes": processes(), "denials": denials()}

    shell("ip link set lo up; echo '127.0.0.1 origin.test' >> /etc/hosts; restorecon /etc/hosts")
    origin = subprocess.Popen([sys.executable, f"{GUEST}/origin.py"])
    end = time.monotonic() + 120
    while "active" != shell("systemctl is-active r-tftpd.service").strip() and time.monotonic() < end:
        time.sleep(1)
    results["mode"] = shell("getenforce").strip()
    worker = shell("pgrep -x r-tftpd-worker").strip()
    results["limits"] = shell(f"cat /proc/{worker}/limits")
    results["status"] = shell(f"cat /proc/{worker}/status")
    step("started")
    step("files", get("text"), get("sub/text", "blksize=1428", "windowsize=8"), get("link/text"), get("missing"))
    step("labels", get("rw/text"), get("public/text"))
    step("directory", get("sub"))
    shell("systemctl reload r-tftpd")
    time.sleep(3)
    step("reloaded", get("text"))
    shell("pkill -9 -x r-tftpd-worker")
    time.sleep(3)
    step("worker killed", get("text"))
    shell("setsebool r_tftpd_proxy on")
    step("proxy", get("web/body"), get("web/body"))
    shell("mkdir /etc/systemd/system/r-tftpd.service.d")
    with open("/etc/systemd/system/r-tftpd.service.d/walk.conf", "w", encoding="ascii") as file:
        file.write("[Service]\nRestrictSUIDSGID=yes\n")
    shell("systemctl daemon-reload; systemctl restart r-tftpd")
    step("walk", get("link/text"))
    stop()
    shell("rm -r /etc/systemd/system/r-tftpd.service.d; systemctl daemon-reload")
    shell("systemctl start r-tftpd-standalone")
    step("standalone", get("text"))
    stop()
    start()
    step("by root", get("text"))
    stop()
    start("--cache-dir", "/var/cache/r-tftpd")
    step("by root with a cache", get("web/body"))
    stop()
    shell("setsebool r_tftpd_proxy off; systemctl start r-tftpd.socket r-tftpd")
    step("wrong label", get("wrong"))
    step("no boolean", get("web/other"))
    origin.terminate()
    with open(f"{GUEST}/results.json", "w", encoding="ascii") as file:
        json.dump(results, file)


ORIGIN = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = bytes(range(256)) * 400
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 80), Handler).serve_forever()
"""

UNIT = f"""
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 {GUEST}/enforcing.py guest
ExecStopPost=/usr/bin/systemctl poweroff
StandardOutput=journal+console
"""

if sys.argv[1:] == ["guest"]:
    guest()
    sys.exit()


# ---- outside ----

from support import PROGRAMS, main, run, sha256, test, write  # noqa: E402: the machine has no such file

scratch = tempfile.TemporaryDirectory(prefix="r-tftpd-test-")


def install(tree):
    """What the packages install, without the packages, and what is to be served."""
    def put(source, target, mode=0o644):
        os.makedirs(f"{tree}{target}", exist_ok=True)
        shutil.copy(source, f"{tree}{target}")
        os.chmod(f"{tree}{target}/{os.path.basename(source)}", mode)

    put(f"{PROGRAMS}/r-tftpd", "/usr/sbin", 0o755)
    for name in ("broker", "worker", "fetcher"):
        put(f"{PROGRAMS}/r-tftpd-{name}", "/usr/libexec/r-tftpd", 0o755)
    for path in glob.glob(f"{REPOSITORY}/contrib/systemd/r-tftpd*.s*"):
        put(path, "/usr/lib/systemd/system")
    put(f"{REPOSITORY}/contrib/sysusers/r-tftpd.conf", "/usr/lib/sysusers.d")
    put(f"{REPOSITORY}/contrib/tmpfiles/r-tftpd.conf", "/usr/lib/tmpfiles.d")
    run(["systemd-sysusers", f"--root={tree}"])
    for name in ("enforcing.py", "client.py"):
        put(f"{REPOSITORY}/tests/machine/{name}", GUEST)
    write(f"{tree}{GUEST}/origin.py", ORIGIN.encode())
    write(f"{tree}/etc/systemd/system/enforcing.service", UNIT.encode())
    run(["systemctl", f"--root={tree}", "enable", "r-tftpd.service", "r-tftpd.socket"])
    wants = f"{tree}/etc/systemd/system/multi-user.target.wants"
    os.symlink("/etc/systemd/system/enforcing.service", f"{wants}/enforcing.service")
    for directory in ("sub", "rw", "public"):
        os.makedirs(f"{tree}{ROOT}/{directory}")
        write(f"{tree}{ROOT}/{directory}/text", TEXT)
    for name in ("text", "wrong"):
        write(f"{tree}{ROOT}/{name}", TEXT)
    os.symlink("sub", f"{tree}{ROOT}/link")
    os.symlink("http+nocompress://origin.test/", f"{tree}{ROOT}/web")


def label(tree):
    """Our module in the machine's policy, and every file labelled by it."""
    module = f"{scratch.name}/module"
    os.mkdir(module)
    for path in glob.glob(f"{REPOSITORY}/selinux/r_tftpd.*"):
        shutil.copy(path, module)
    run(["make", "-f", "/usr/share/selinux/devel/Makefile", "r_tftpd.pp"], cwd=module)
    run(["semodule", "-p", tree, "-s", "default", "-n", "-i", f"{module}/r_tftpd.pp"])
    with open(f"{tree}/etc/selinux/config", "w", encoding="ascii") as file:
        file.write("SELINUX=enforcing\nSELINUXTYPE=default\n")
    contexts = f"{tree}/etc/selinux/default/contexts/files/file_contexts"
    run(["setfiles", "-F", "-r", tree, contexts, tree])
    others = {
        "rw": "tftpdir_rw_t", "rw/text": "tftpdir_rw_t", "public": "public_content_t",
        "public/text": "public_content_t", "wrong": "user_home_t",
    }
    for path, name in others.items():
        os.setxattr(f"{tree}{ROOT}/{path}", "security.selinux", f"system_u:object_r:{name}:s0\0".encode())


@functools.cache
def machine():
    """The results of a machine that has run."""
    tree, image = f"{scratch.name}/tree", f"{scratch.name}/image"
    assert not os.path.exists(tree), "it has failed before"
    print("installing a machine ...", flush=True)
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", f"--include={PACKAGES}", "bookworm", tree]
    subprocess.run(command, check=True, timeout=PATIENCE)
    with open(f"{tree}/etc/fstab", "w", encoding="ascii") as file:
        file.write("/dev/vda / ext4 defaults 0 0\n")
    install(tree)
    label(tree)
    (kernel,), (initrd,) = glob.glob(f"{tree}/boot/vmlinuz-*"), glob.glob(f"{tree}/boot/initrd.img-*")
    with open(image, "wb") as file:
        file.truncate(2 << 30)
    run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image])
    print("running it ...", flush=True)
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1500", "-nographic",
        "-no-reboot", "-net", "none", "-kernel", kernel, "-initrd", initrd,
        "-drive", f"file={image},format=raw,if=virtio,cache=unsafe",
        "-append", "root=/dev/vda rw console=ttyS0 security=selinux selinux=1 audit=1 audit_backlog_limit=8192",
    ]
    console = f"{scratch.name}/console"
    with open(console, "wb") as file:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False, timeout=PATIENCE)
    results = run(["debugfs", "-R", f"cat {GUEST}/results.json", image], text=True)
    with open(console, encoding="utf-8", errors="replace") as file:
        assert results, f"the machine has left no results: {file.read()[-5000:]}"
    return json.loads(results)


def served(step, contents):
    """Every answer of a step is this file."""
    for answer in machine()[step]["answers"]:
        assert answer["sha256"] == sha256(contents), (step, answer)


@test
def it_is_enforcing():
    assert machine()["mode"] == "Enforcing", machine()["mode"]


@test
def each_process_has_its_domain_however_it_was_started():
    for name, step in machine().items():
        if isinstance(step, dict):
            expected = {process: f"system_u:system_r:{domain}:s0" for process, domain in DOMAINS.items()}
            assert step["processes"] == expected, (name, step["processes"])


@test
def limits_and_ignored_signals_outlive_the_exec():
    soft = re.search(r"Max open files +(\d+)", machine()["limits"])[1]
    assert int(soft) == 65536, soft
    ignored = int(re.search(r"SigIgn:\s*(\w+)", machine()["status"])[1], 16)
    for signal in (1, 2, 10, 12, 13, 15):
        assert ignored >> (signal - 1) & 1, (signal, hex(ignored))


@test
def files_of_all_labels_are_served_in_every_way_to_be_started():
    assert [answer["error"] for answer in machine()["files"]["answers"]] == [None, None, None, 1]
    for step in ("labels", "reloaded", "worker killed", "walk", "standalone", "by root"):
        served(step, TEXT)


@test
def links_are_followed_with_the_boolean_and_not_without():
    served("proxy", BODY)
    served("by root with a cache", BODY)
    assert machine()["no boolean"]["answers"][0]["error"] == 0


@test
def a_directory_is_refused_without_a_denial_and_a_wrong_label_with_one():
    assert [machine()[step]["answers"][0]["error"] for step in ("directory", "wrong label")] == [2, 2]


@test
def nothing_is_denied_that_should_not_be():
    before = machine()["by root with a cache"]["denials"]
    assert not before, before
    last = {tuple(denial) for denial in machine()["no boolean"]["denials"]}
    assert last == {
        ("r_tftpd_broker_t", "read", "user_home_t", "file"),
        ("r_tftpd_broker_t", "getattr", "user_home_t", "file"),
        ("r_tftpd_fetcher_t", "create", "r_tftpd_fetcher_t", "tcp_socket"),
    }, last


main()
