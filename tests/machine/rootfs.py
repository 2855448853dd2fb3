"""A small Debian 12 to install packages into and to boot: made once, then copied for each test.

    with machine_root() as root:
        chroot_run(root, ["dpkg", "--install", "/tmp/some.deb"])

Needs root, the network the first time, and the command mmdebstrap. The tree is kept in `target/machine`, under a
name that changes with what is asked for here.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile

SUITE = "bookworm"
# What a Debian has that boots, and what the package depends on, beside what dpkg itself needs.
PACKAGES = ("systemd", "systemd-sysv", "dbus", "procps")
# For commands in it. None of this machine's own: its SSL_CERT_FILE names a file that another may not have.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
CACHE = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../target/machine"))


@contextlib.contextmanager
def machine_root():
    """The path of a root file system that its user may change; gone afterwards."""
    os.makedirs(CACHE, exist_ok=True)
    copy = tempfile.mkdtemp(prefix="copy-", dir=CACHE)
    try:
        with _locked(CACHE):
            # Reflinks where the file system has them; 0.6 s where it has not.
            _run(["cp", "--archive", "--reflink=auto", f"{_tree()}/.", copy])
        yield copy
    finally:
        shutil.rmtree(copy)


def chroot_run(root, command, check=True):
    """Runs a command in the tree: no service manager, no network, its own processes, and all of them end with it.

    Returns its standard output, or what subprocess.run() does with `check=False`.
    """
    # The kernel ends every process of a process namespace with its first one, and mounts with their namespace.
    inside = ["unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", f"--mount-proc={root}/proc"]
    more = {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    environment = ["env", "--ignore-environment", *(f"{name}={value}" for name, value in (ENVIRONMENT | more).items())]
    return _run([*inside, "chroot", root, *environment, *command], check)


def _tree():
    """The path of the tree that is copied, made if it is not there."""
    recipe = ["mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", f"--include={','.join(PACKAGES)}", SUITE]
    key = hashlib.sha256(" ".join(recipe).encode()).hexdigest()[:12]
    tree = os.path.join(CACHE, f"{SUITE}-{key}")
    if not os.path.isdir(tree):
        new = tempfile.mkdtemp(prefix="new-", dir=CACHE)
        os.chmod(new, 0o755)
        try:
            _run([*recipe, new])
            # A tree of this name is whole.
            os.rename(new, tree)
        except BaseException:
            shutil.rmtree(new)
            raise
    return tree


@contextlib.contextmanager
def _locked(path):
    """Only one process at a time makes or copies the tree."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _run(command, check=True):
    """Its output, if it succeeds; a failure names the command and what it printed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    if not check:
        return done
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
