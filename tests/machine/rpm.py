"""The packages for Fedora and RHEL: contrib/rpm/r-tftpd.spec is built, and what comes out is looked at, installed,
upgraded and removed. Needs root, and for `cargo vendor` the network, or every crate of Cargo.lock in the cache.

Debian's rpm has not the macros of Fedora and RHEL; `rpm-macros` stands in for them. What they do there is not proven
here, nor that the sources compile: the programs are those of argument 1.
"""

import bz2
import collections
import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

from support import (
    NAMES, PROGRAMS, Daemon, cases, directory, get, main, pattern, read, run, sha256, test, write,
)

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
SPEC = f"{REPOSITORY}/contrib/rpm/r-tftpd.spec"
TARGETS = [f"{arch}-unknown-linux-gnu" for arch in ("x86_64", "aarch64", "riscv64gc")]
CONTENTS = pattern(50_000)

# What differs between the two, as far as the spec can see: Fedora has one directory for programs, and makes users from
# sysusers.d by itself. `newer` is the next release of the package.
Distribution = collections.namedtuple("Distribution", "name sbindir makes_users macros")
FEDORA = Distribution("Fedora", "/usr/bin", True, {"fedora": "44", "dist": ".fc44", "_sbindir": "/usr/bin"})
NEWER = FEDORA._replace(name="newer", macros=FEDORA.macros | {"dist": ".fc44.1"})
RHEL = Distribution("RHEL", "/usr/sbin", False, {"rhel": "9", "dist": ".el9", "_sbindir": "/usr/sbin"})
both = functools.partial(cases, values=[(FEDORA,), (RHEL,)])


class Build:
    """The sources, and what rpmbuild makes of them."""

    def __init__(self, work):
        self.work = work
        self.sources = f"{work}/sources"
        self.tree = f"{work}/r-tftpd-{VERSION}"
        self.packages = {}  # (distribution, "r-tftpd" or "r-tftpd-selinux") -> file

    def pack(self):
        """The three sources, as contrib/rpm/README.md says."""
        os.mkdir(self.sources)
        os.mkdir(self.tree)
        git = ["git", "-c", "safe.directory=*", "-C", REPOSITORY]
        names = run([*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]).split(b"\0")
        names = [name for name in names if name and os.path.exists(os.path.join(REPOSITORY.encode(), name))]
        run(["cp", "--parents", "-p", *names, self.tree], cwd=REPOSITORY)
        tarball = f"{self.sources}/r-tftpd-{VERSION}.tar.gz"
        run(["tar", "-C", self.work, "-czf", tarball, os.path.basename(self.tree)])
        run(["cargo", "vendor", "--quiet", "--locked", "--versioned-dirs", "vendor"], cwd=self.tree)
        # A link to the crates in place of 250 MB that would only be unpacked again; and not compressed, whatever the
        # name says.
        os.symlink(f"{self.tree}/vendor", f"{self.work}/vendor")
        run(["tar", "-C", self.work, "-cf", f"{self.sources}/r-tftpd-{VERSION}-vendor.tar.xz", "vendor"])
        shutil.copy(f"{REPOSITORY}/contrib/sysusers/r-tftpd.conf", f"{self.sources}/r-tftpd.sysusers")

    def rpmbuild(self, distribution):
        """Both packages for a distribution."""
        top = f"{self.work}/{distribution.name}"
        macros = {"_topdir": top, "_rpmdir": top, "_sourcedir": self.sources, "_tmppath": self.work}
        macros |= distribution.macros
        defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
        command = ["rpmbuild", "-bb", "--nodeps", f"--load={HERE}/rpm-macros", *defines, SPEC]
        environment = os.environ | {"PROGRAMS": PROGRAMS, "UNIT_GRAPH": f"{self.work}/unit-graph"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        for line in done.stderr.splitlines():
            assert not line.startswith("warning:"), line
        for name, arch in (("r-tftpd", os.uname().machine), ("r-tftpd-selinux", "noarch")):
            package = f"{top}/{arch}/{name}-{VERSION}-1{distribution.macros['dist']}.{arch}.rpm"
            assert os.path.exists(package), package
            self.packages[distribution.name, name] = package
        shutil.rmtree(f"{top}/BUILD")

    def query(self, distribution, package, form):
        """What `rpm --query` says of a package."""
        return run(["rpm", "-qp", "--qf", form, self.packages[distribution.name, package]]).decode()


with open(f"{REPOSITORY}/Cargo.toml", "rb") as manifest:
    VERSION = tomllib.load(manifest)["workspace"]["package"]["version"]


@test
def the_sources_can_be_packed():
    BUILD.pack()


@both("both packages are built for {0.name}")
def both_packages_are_built(distribution):
    BUILD.rpmbuild(distribution)
    if distribution is FEDORA:
        BUILD.rpmbuild(NEWER)


@test
def nothing_but_the_vendored_crates_is_needed():
    # In a home of its own cargo finds no crate but those.
    with directory() as home:
        config = f'[source.crates-io]\nreplace-with = "v"\n[source.v]\ndirectory = "{BUILD.tree}/vendor"\n'
        write(f"{home}/config.toml", config.encode())
        metadata = run(
            ["cargo", "metadata", "--frozen", "--format-version", "1"],
            cwd=BUILD.tree, env=os.environ | {"CARGO_HOME": home},
        )
    with open(f"{REPOSITORY}/Cargo.lock", "rb") as lock:
        locked = tomllib.load(lock)["package"]
    assert len(json.loads(metadata)["packages"]) == len(locked) > 100


def clauses(expression):
    """An SPDX expression as a set of clauses, each a set of alternatives. Crates may write "/" for OR."""
    found = set()
    for clause in re.split(r" AND (?![^(]*\))", expression.strip()):
        alternatives = re.split(r" OR |\s*/\s*", clause.strip("() "))
        found.add(frozenset(one.strip() for one in alternatives))
    return found


@test
def the_licence_is_that_of_the_program_and_of_every_crate_in_it():
    linked = {}
    for target in TARGETS:
        command = ["cargo", "tree", "--offline", "--locked", "-p", "r-tftpd", "--target", target]
        command += ["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}|{l}"]
        for line in run(command, cwd=REPOSITORY).decode().splitlines():
            crate, licence = line.removesuffix(" (*)").split("|")
            assert licence, f"{crate} has no licence"
            linked[crate] = clauses(licence)
    wanted = set().union(*linked.values())
    named = clauses(BUILD.query(FEDORA, "r-tftpd", "%{LICENSE}"))
    assert named == wanted, (
        f"missing: {[(crate, found - named) for crate, found in linked.items() if found - named]}, "
        f"superfluous: {named - wanted}"
    )
    assert BUILD.query(FEDORA, "r-tftpd-selinux", "%{LICENSE}") == "GPL-3.0-or-later"
    # What each crate has is in the package, too.
    with unpacked(FEDORA, "r-tftpd") as root:
        told = read(f"{root}/usr/share/licenses/r-tftpd/LICENSE.dependencies").decode()
        manifest = read(f"{root}/usr/share/licenses/r-tftpd/cargo-vendor.txt").decode().splitlines()
    for crate in linked:
        crate = crate.split(" (")[0]
        assert re.search(rf": {re.escape(crate)}$", told, re.MULTILINE), f"{crate} is not in LICENSE.dependencies"
        assert crate in manifest or crate.startswith("r-tftpd"), f"{crate} is not in cargo-vendor.txt"


@contextlib.contextmanager
def unpacked(distribution, package):
    """The files of a package below a temporary directory."""
    with directory() as root:
        archive = run(["rpm2cpio", BUILD.packages[distribution.name, package]])
        run(["cpio", "-idm", "--quiet"], input=archive, cwd=root)
        yield root


def files(distribution, package):
    """The files of a package with type and mode, owner, and flags: c config, d documentation, g ghost, l licence."""
    form = "[%{FILENAMES}|%{FILEMODES:perms}|%{FILEUSERNAME}:%{FILEGROUPNAME}|%{FILEFLAGS:fflags}\n]"
    lines = BUILD.query(distribution, package, form).splitlines()
    return {line.split("|", 1)[0]: line.split("|", 1)[1] for line in lines}


@both("the main package has these files for {0.name}")
def the_main_package_has_these_files(distribution):
    plain, program, directory_, owner = "-rw-r--r--", "-rwxr-xr-x", "drwxr-xr-x", "root:root"
    wanted = {
        f"{distribution.sbindir}/r-tftpd": program,
        "/usr/libexec/r-tftpd": directory_,
        "/usr/libexec/r-tftpd/r-tftpd-broker": program,
        "/usr/libexec/r-tftpd/r-tftpd-worker": program,
        "/usr/libexec/r-tftpd/r-tftpd-fetcher": program,
        "/usr/lib/systemd/system/r-tftpd.socket": plain,
        "/usr/lib/systemd/system/r-tftpd.service": plain,
        "/usr/lib/systemd/system/r-tftpd-standalone.service": plain,
        "/usr/lib/sysusers.d/r-tftpd.conf": plain,
        "/usr/lib/tmpfiles.d/r-tftpd.conf": plain,
        "/usr/share/bash-completion/completions/r-tftpd": plain,
        "/usr/share/zsh/site-functions/_r-tftpd": plain,
        "/usr/share/fish/vendor_completions.d/r-tftpd.fish": plain,
        "/usr/share/doc/r-tftpd": directory_,
        "/usr/share/licenses/r-tftpd": directory_,
        "/var/lib/tftpboot": directory_,
    }
    wanted = {path: f"{mode}|{owner}|" for path, mode in wanted.items()}
    for path, mode, flags in (
        ("/etc/sysconfig/r-tftpd", plain, "cn"),
        ("/usr/share/man/man8/r-tftpd.8.gz", plain, "d"),
        ("/usr/share/man/man8/r-tftpd-worker.8.gz", plain, "d"),
        ("/usr/share/doc/r-tftpd/README.md", plain, "d"),
        ("/usr/share/doc/r-tftpd/CHANGELOG.md", plain, "d"),
        ("/usr/share/doc/r-tftpd/MIGRATION.md", plain, "d"),
        ("/usr/share/licenses/r-tftpd/LICENSE", plain, "l"),
        ("/usr/share/licenses/r-tftpd/LICENSE.dependencies", plain, "l"),
        ("/usr/share/licenses/r-tftpd/cargo-vendor.txt", plain, "l"),
        ("/var/cache/r-tftpd", directory_, "g"),
    ):
        wanted[path] = f"{mode}|{owner}|{flags}"
    assert files(distribution, "r-tftpd") == wanted, differences(files(distribution, "r-tftpd"), wanted)


def differences(found, wanted):
    """What two dictionaries have that the other has not."""
    return f"found: {dict(found.items() - wanted.items())}, wanted: {dict(wanted.items() - found.items())}"


@both("the policy's package has these files for {0.name}")
def the_policys_package_has_these_files(distribution):
    wanted = {
        "/usr/share/selinux/packages/targeted/r_tftpd.pp.bz2": "-rw-r--r--|root:root|",
        "/usr/share/selinux/devel/include/distributed/r_tftpd.if": "-rw-r--r--|root:root|",
        "/usr/share/doc/r-tftpd-selinux": "drwxr-xr-x|root:root|",
        "/usr/share/doc/r-tftpd-selinux/README.md": "-rw-r--r--|root:root|d",
        "/usr/share/licenses/r-tftpd-selinux": "drwxr-xr-x|root:root|",
        "/usr/share/licenses/r-tftpd-selinux/LICENSE": "-rw-r--r--|root:root|l",
        "/var/lib/selinux/targeted/active/modules/200/r_tftpd": "drwx------|root:root|g",
    }
    found = files(distribution, "r-tftpd-selinux")
    assert found == wanted, differences(found, wanted)


@test
def the_policy_is_a_compiled_module_of_that_name():
    with unpacked(RHEL, "r-tftpd-selinux") as root:
        module = bz2.decompress(read(f"{root}/usr/share/selinux/packages/targeted/r_tftpd.pp.bz2"))
    assert module[:4] == bytes.fromhex("8fff7cf9"), module[:4]  # SEPOL_MODULE_PACKAGE_MAGIC
    assert b"\x07\0\0\0r_tftpd" in module


@both("the options are Debian's but for the directory to serve on {0.name}")
def the_options_are_debians(distribution):
    with unpacked(distribution, "r-tftpd") as root:
        for mine, theirs in (
            ("etc/sysconfig/r-tftpd", "systemd/r-tftpd.default"),
            ("usr/lib/tmpfiles.d/r-tftpd.conf", "tmpfiles/r-tftpd.conf"),
        ):
            found = read(f"{root}/{mine}").decode()
            assert re.search(r"^(TFTPD_ROOT=|d )/var/lib/tftpboot\b", found, re.MULTILINE), found
            assert "/srv/tftp" not in found
            assert found == read(f"{REPOSITORY}/contrib/{theirs}").decode().replace("/srv/tftp", "/var/lib/tftpboot")
        # The units read that file, and start the program where the package has it. /usr/sbin is a link on Fedora.
        for unit in ("r-tftpd.service", "r-tftpd-standalone.service"):
            text = read(f"{root}/usr/lib/systemd/system/{unit}").decode()
            assert "\nEnvironmentFile=-/etc/sysconfig/r-tftpd\n" in text, unit
            assert re.search(r"^ExecStart=/usr/sbin/r-tftpd ", text, re.MULTILINE), unit


@both("packages require what they need on {0.name}")
def packages_require_what_they_need(distribution):
    release = f"{VERSION}-1{distribution.macros['dist']}"
    found = requires(distribution, "r-tftpd")
    assert f"(r-tftpd-selinux = {release} if selinux-policy-targeted)" in found, found
    assert "systemd" in found and ("shadow-utils" in found) != distribution.makes_users, found
    assert BUILD.query(distribution, "r-tftpd", "[%{RECOMMENDS}\n]").split() == ["ca-certificates"]
    found = requires(distribution, "r-tftpd-selinux")
    assert {"selinux-policy", "selinux-policy-base", "policycoreutils", "libselinux-utils"} <= found, found
    # No circle: the policy comes first.
    assert not any(one.startswith("r-tftpd") for one in found), found


def requires(distribution, package):
    """What a package requires, with versions."""
    form = "[%{REQUIRENAME} %{REQUIREFLAGS:depflags} %{REQUIREVERSION}\n]"
    return {line.strip() for line in BUILD.query(distribution, package, form).splitlines()}


SCRIPTLETS = ("PREIN", "POSTIN", "PREUN", "POSTUN", "PRETRANS", "POSTTRANS")


@both("scriptlets are complete and name units that there are on {0.name}")
def scriptlets_are_complete(distribution):
    present = {os.path.basename(path) for path in files(distribution, "r-tftpd")}
    for package in ("r-tftpd", "r-tftpd-selinux"):
        for tag in SCRIPTLETS:
            script = BUILD.query(distribution, package, f"%{{{tag}}}")
            # A macro that does not exist stays as it is, and rpmbuild says nothing.
            assert "%" not in script, (package, tag, script)
            run(["sh", "-n"], input=script.encode())
            for unit in re.findall(r"[\w@.-]+\.(?:service|socket)\b", script):
                assert unit in present, (tag, unit)
        # The same trap, in what is not a scriptlet.
        for tag in ("SUMMARY", "DESCRIPTION", "LICENSE", "[%{REQUIRENAME}\n]", "[%{FILENAMES}\n]"):
            text = BUILD.query(distribution, package, tag if "[" in tag else f"%{{{tag}}}")
            assert "%" not in text, (package, tag, text)


COMMANDS = (
    "cp", "fixfiles", "getent", "groupadd", "restorecon", "selinuxenabled", "semodule",
    "systemd-tmpfiles", "systemd-update-helper", "useradd",
)
# Says with what it was called, and that there is no such user.
RECORDER = '#!/bin/sh\necho "${0##*/} $*" >> /calls\ncase $0 in *getent) exit 2;; esac\n'


@contextlib.contextmanager
def system(distribution):
    """A root for rpm to install into, with a shell, and with commands that note how they were called."""
    with directory() as root:
        for name in ("usr/bin", "usr/sbin", "usr/lib64", "etc", "proc", "var/cache", "var/lib", "dev"):
            os.makedirs(f"{root}/{name}")
        if distribution.sbindir == "/usr/bin":
            os.rmdir(f"{root}/usr/sbin")
            os.symlink("bin", f"{root}/usr/sbin")
        for name in ("bin", "sbin", "lib", "lib64"):
            os.symlink(f"usr/{name}", f"{root}/{name}")
        os.makedirs(f"{root}/var/tmp")
        os.chmod(f"{root}/var/tmp", 0o1777)
        write(f"{root}/etc/passwd", b"r-tftpd:x:990:990::/:/usr/sbin/nologin\n")
        write(f"{root}/etc/group", b"r-tftpd:x:990:\n")
        for program in ("/bin/sh", *(f"{PROGRAMS}/{name}" for name in NAMES)):
            for library in re.findall(rb"/\S+", run(["ldd", program])):
                place = f"{root}/usr{library.decode().removeprefix('/usr')}"
                os.makedirs(os.path.dirname(place), exist_ok=True)
                shutil.copy(library, place)
        shutil.copy("/bin/sh", f"{root}/usr/bin/sh")
        for name in COMMANDS:
            write(f"{root}/usr/bin/{name}", RECORDER.encode())
            os.chmod(f"{root}/usr/bin/{name}", 0o755)
        yield root


def rpm(root, *arguments):
    """Runs rpm on that root; the calls its scriptlets made, and what they wrote."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(f"{root}/calls")
    done = subprocess.run(
        ["rpm", "--force-debian", "--root", root, "--nodeps", "--nosignature", *arguments],
        capture_output=True, text=True, timeout=60,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    try:
        return read(f"{root}/calls").decode().splitlines()
    except FileNotFoundError:
        return []


UPDATE = "systemd-update-helper"
SOCKET, SERVICE, STANDALONE = "r-tftpd.socket", "r-tftpd.service", "r-tftpd-standalone.service"
UNITS = " ".join(f"/usr/lib/systemd/system/{unit}" for unit in (STANDALONE, SERVICE, SOCKET))
RELABELLED = f"/usr/libexec/r-tftpd {UNITS} /var/cache/r-tftpd /var/lib/tftpboot /srv/tftp"


def policy_loaded(sbindir):
    """The calls for the policy, at the installation as at an upgrade."""
    module = "/usr/share/selinux/packages/targeted/r_tftpd.pp.bz2"
    before = ["selinuxenabled ", "cp file_contexts file_contexts.pre.targeted"]
    install = [f"semodule -n -s targeted -X 200 -i {module}"]
    after = ["selinuxenabled ", "fixfiles -C file_contexts.pre.targeted restore"]
    after += ["selinuxenabled ", f"restorecon -R -i {sbindir}/r-tftpd {RELABELLED}"]
    return before, install, after


@both("the installation makes user and directory, loads the policy and labels files on {0.name}")
def the_installation(distribution):
    packages = [BUILD.packages[distribution.name, name] for name in ("r-tftpd", "r-tftpd-selinux")]
    with system(distribution) as root:
        calls = rpm(root, "--install", *packages)
        before, install, after = policy_loaded(distribution.sbindir)
        user = ["getent group r-tftpd", "groupadd -r r-tftpd", "getent passwd r-tftpd"]
        user += ["useradd -r -g r-tftpd r-tftpd"]
        start = ["systemd-tmpfiles --create /usr/lib/tmpfiles.d/r-tftpd.conf"]
        start += [f"{UPDATE} install-system-units {SOCKET} {SERVICE}"]
        wanted = [before, install, after, start] + ([] if distribution.makes_users else [user])
        assert sorted(calls) == sorted(sum(wanted, [])), calls
        for part in wanted:
            assert subsequence(part, calls), (part, calls)
        # Labels only when all files of both packages are there, and rules before labels.
        assert calls[-4:] == after and calls.index(install[0]) > calls.index(before[1]), calls
        # Whatever has a label of its own in the policy is labelled.
        contexts = read(f"{REPOSITORY}/selinux/r_tftpd.fc").decode()
        patterns = [line.split()[0] for line in contexts.splitlines() if line.startswith("/")]
        below = re.compile("(" + "|".join(calls[-1].split()[3:]) + ")(/.*)?")
        for path in (*files(distribution, "r-tftpd"), "/srv/tftp"):
            if any(re.fullmatch(pattern, path) for pattern in patterns):
                assert below.fullmatch(path), f"{path} is not labelled"


def subsequence(part, whole):
    """Whether all of `part` comes in `whole`, in this order."""
    rest = iter(whole)
    return all(one in rest for one in part)


@test
def an_upgrade_restarts_the_services_and_leaves_the_socket_and_the_options_alone():
    older, newer = (
        [BUILD.packages[which, name] for name in ("r-tftpd", "r-tftpd-selinux")] for which in ("Fedora", "newer")
    )
    with system(FEDORA) as root:
        rpm(root, "--install", *older)
        options = f"{root}/etc/sysconfig/r-tftpd"
        write(options, b"TFTPD_ROOT=/my/root\n")
        calls = rpm(root, "--upgrade", *newer)
        before, install, after = policy_loaded("/usr/bin")
        assert [call for call in calls if call.startswith(UPDATE)] == [
            f"{UPDATE} mark-restart-system-units {SERVICE} {STANDALONE}"
        ], calls
        assert subsequence(before + install + after, calls), calls
        assert not any(" -r " in call for call in calls), calls  # the policy is not unloaded
        assert read(options) == b"TFTPD_ROOT=/my/root\n"


@test
def the_removal_stops_all_units_and_unloads_the_policy_and_leaves_what_was_served():
    packages = [BUILD.packages["Fedora", name] for name in ("r-tftpd", "r-tftpd-selinux")]
    with system(FEDORA) as root:
        rpm(root, "--install", *packages)
        os.mkdir(f"{root}/var/cache/r-tftpd")  # as systemd does
        store = f"{root}/var/lib/selinux/targeted/active/modules/200/r_tftpd"
        os.makedirs(store)  # as semodule does
        write(f"{store}/cil", b"")
        write(f"{root}/var/lib/tftpboot/file", CONTENTS)
        calls = rpm(root, "--erase", "r-tftpd", "r-tftpd-selinux")
        assert sorted(calls) == [
            "semodule -n -X 200 -s targeted -r r_tftpd",
            f"{UPDATE} remove-system-units {SOCKET} {SERVICE} {STANDALONE}",
        ], calls
        assert read(f"{root}/var/lib/tftpboot/file") == CONTENTS
        # semodule's files are semodule's to remove; and it ran after rpm.
        left = run(["find", root, "-mindepth", "1", "-name", "*r?tftpd*"]).decode().split()
        assert left == [store], left


@both("what is installed finds its programs and serves a file on {0.name}")
def what_is_installed_serves(distribution):
    with system(distribution) as root:
        rpm(root, "--install", "--noscripts", BUILD.packages[distribution.name, "r-tftpd"])
        write(f"{root}/var/lib/tftpboot/file", CONTENTS)
        enter = 'mount --bind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        inside = ["unshare", "--mount", "sh", "-c", enter, root]
        # By the name that the units use.
        program = "/usr/sbin/r-tftpd"
        assert run([*inside, program, "--version"]) == f"r-tftpd {VERSION}\n".encode()
        arguments = ["--port", "0", "--listen", "127.0.0.1"]
        options = {"prefix": inside, "program": program, "env": {"PATH": os.environ["PATH"]}}
        with Daemon("/var/lib/tftpboot", *arguments, **options) as daemon:
            assert get("127.0.0.1", daemon.port, "file", "blksize=1428")["sha256"] == sha256(CONTENTS)
            daemon.assert_unprivileged()
            for name, pid in daemon.processes().items():
                path = distribution.sbindir if name == "r-tftpd" else "/usr/libexec/r-tftpd"
                assert os.readlink(f"/proc/{pid}/exe") == f"{root}{path}/{name}", (name, pid)
            assert daemon.status("r-tftpd-worker")["Uid"].split() == ["990"] * 4


@test
def the_check_section_runs_the_unit_tests_of_both_libraries():
    graph = json.loads(read(f"{BUILD.work}/unit-graph"))
    roots = [graph["units"][index] for index in graph["roots"]]
    assert sorted((unit["target"]["name"], unit["target"]["kind"], unit["mode"]) for unit in roots) == [
        ("r_tftpd", ["lib"], "test"), ("r_tftpd_broker", ["lib"], "test")
    ], roots


@test
def versions_agree():
    assert BUILD.query(FEDORA, "r-tftpd", "%{VERSION}") == VERSION
    newest = BUILD.query(FEDORA, "r-tftpd", "%{CHANGELOGNAME}").splitlines()[0]
    assert newest.endswith(f" - {VERSION}-1"), newest
    rust = tomllib.loads(read(f"{REPOSITORY}/Cargo.toml").decode())["workspace"]["package"]["rust-version"]
    assert f"\nBuildRequires:  rust >= {rust}\n" in read(SPEC).decode()


# As Fedora has it configured: what its build system adds, what it has given up, names of licences, and what scriptlets
# of its own macros say. Debian's default is nobody's.
RPMLINT = r"""
CompressExtension = "gz"
ReleaseExtension = '\.(fc|el)\d+(?=\.|$)'
Checks = ["TmpFilesCheck", "SysVInitOnSystemdCheck", "SharedLibraryPolicyCheck"]
ValidLicenses = [LICENCES]
ValidLicenseExceptions = ["LLVM-exception"]
Filters = [
    ' no-signature', ' no-packager-tag', ' no-group-tag', ' no-buildroot-tag', ' postin-without-ghost-file-creation ',
    ' explicit-lib-dependency \S+-utils$', ' non-standard-dir-perm /var/lib/.* 700',
]
"""
WARNINGS = {
    # There is no home page yet, and the archives are made as contrib/rpm/README.md says.
    "no-url-tag", "invalid-url",
    # The programs are in /usr/sbin and /usr/libexec; units and the like belong in /usr/lib.
    "only-non-binary-in-usr-lib",
    # `cp` in the macro for labels.
    "dangerous-command-in-%pre",
    # rpmlint 2.4.0 takes the section, here 8, for the name of the page.
    "no-manual-page-for-binary",
}


@both("rpmlint finds nothing wrong with the packages for {0.name}")
def rpmlint_finds_nothing_wrong(distribution):
    packages = [BUILD.packages[distribution.name, name] for name in ("r-tftpd", "r-tftpd-selinux")]
    licences = set().union(*clauses(BUILD.query(distribution, "r-tftpd", "%{LICENSE}")))
    names = ", ".join(f'"{one.split(" WITH ")[0]}"' for one in sorted(licences))
    write(f"{WORK}/rpmlint.toml", RPMLINT.replace("LICENCES", names).encode())
    command = ["rpmlint", "-c", f"{WORK}/rpmlint.toml", SPEC, *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    output = done.stdout + done.stderr
    assert "2 packages and 1 specfiles checked; 0 errors" in output, output
    found = set(re.findall(r": W: (\S+)", output))
    assert found == set(WARNINGS), output


with directory() as WORK:
    BUILD = Build(WORK)
    main()
