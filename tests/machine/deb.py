"""The Debian package: what is in it, and what installing, upgrading, removing and purging it do to a machine.

    deb.py target/release [DIRECTORY OF cargo-deb]

Makes the package from the programs, with the one command that users have for it, and leaves it in
`target/debian`. Needs root, lintian, shellcheck, mmdebstrap and systemd-container.
"""

import contextlib
import functools
import gzip
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zlib

from rootfs import ENVIRONMENT, chroot_run, machine_root
from support import NAMES, PROGRAMS, Daemon, directory, get, main, pattern, read, run, sha256, test, write

SOURCE = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
TOOLS = sys.argv[2] if len(sys.argv) > 2 else os.path.join(SOURCE, "target/tools/bin")
UNITS = ("r-tftpd.socket", "r-tftpd.service", "r-tftpd-standalone.service")
DEFAULT, PROFILE = "etc/default/r-tftpd", "etc/apparmor.d/usr.sbin.r-tftpd"
# Every file in the package; directories are what leads there.
FILES = {
    "usr/sbin/r-tftpd": 0o755,
    **{f"usr/libexec/r-tftpd/{name}": 0o755 for name in NAMES if name != "r-tftpd"},
    **{f"usr/lib/systemd/system/{unit}": 0o644 for unit in UNITS},
    **dict.fromkeys(
        (
            DEFAULT,
            PROFILE,
            "usr/lib/sysusers.d/r-tftpd.conf",
            "usr/lib/tmpfiles.d/r-tftpd.conf",
            "usr/share/man/man8/r-tftpd.8.gz",
            "usr/share/man/man8/r-tftpd-worker.8.gz",
            "usr/share/bash-completion/completions/r-tftpd",
            "usr/share/zsh/vendor-completions/_r-tftpd",
            "usr/share/fish/vendor_completions.d/r-tftpd.fish",
            "usr/share/doc/r-tftpd/copyright",
            "usr/share/doc/r-tftpd/changelog.gz",
            "usr/share/doc/r-tftpd/README.md",
            "usr/share/doc/r-tftpd/CHANGELOG.md",
            "usr/share/doc/r-tftpd/MIGRATION.md",
            "usr/share/doc/r-tftpd/examples/only-these-networks.conf",
        ),
        0o644,
    ),
}
AT_END = contextlib.ExitStack()
CONTENTS = pattern(50_000)


@functools.cache
def untouched():
    """The tree below those of all the tests; `AT_END` removes it."""
    return AT_END.enter_context(machine_root())


@contextlib.contextmanager
def machine():
    """The path of a small Debian that its user may change: what it changes lies in memory, above the common tree."""
    with directory() as place:
        run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", place])
        try:
            upper, work, merged = (f"{place}/{name}" for name in ("upper", "work", "merged"))
            for path in (upper, work, merged):
                os.mkdir(path)
            layers = f"lowerdir={untouched()},upperdir={upper},workdir={work}"
            run(["mount", "-t", "overlay", "-o", layers, "overlay", merged])
            try:
                yield merged
            finally:
                run(["umount", merged])
        finally:
            run(["umount", place])


@functools.cache
def package():
    """The path of the package, made when it is first asked for."""
    environment = dict(os.environ, PATH=f"{TOOLS}:{os.environ['PATH']}", CARGO_TARGET_DIR=os.path.dirname(PROGRAMS))
    made = run(["cargo", "deb", "--no-build", "--locked", "--offline", "--quiet"], cwd=SOURCE, env=environment)
    path = made.decode().split()[-1]
    print(f"package {path}", flush=True)
    return path


def field(name):
    """A field of the package's control file."""
    return run(["dpkg-deb", "--field", package(), name]).decode().strip()


@functools.cache
def members():
    """What the package unpacks: the entries of its archive by path."""
    archive = tarfile.open(fileobj=io.BytesIO(run(["dpkg-deb", "--fsys-tarfile", package()])))
    return {entry.name.removeprefix("./").rstrip("/"): entry for entry in archive}


@contextlib.contextmanager
def repacked(version, default=None, profile=None):
    """The path of a package like ours with another version, and other contents of the administrator's files."""
    with directory() as place:
        run(["dpkg-deb", "--raw-extract", package(), f"{place}/tree"])
        control = f"{place}/tree/DEBIAN/control"
        write(control, re.sub(rb"(?m)^Version: .*$", b"Version: " + version.encode(), read(control)))
        for path, contents in ((DEFAULT, default), (PROFILE, profile)):
            if contents:
                write(f"{place}/tree/{path}", contents)
        run(["dpkg-deb", "--build", "-Znone", f"{place}/tree", f"{place}/r-tftpd.deb"])
        yield f"{place}/r-tftpd.deb"


def install(root, path=None, *options):
    """What apt prints when it installs a package, ours by default, in a tree that has no network."""
    shutil.copy(path or package(), f"{root}/r-tftpd.deb")
    apt = ["apt-get", "install", "--yes", "--no-install-recommends", "--allow-downgrades", "--reinstall", *options]
    printed = chroot_run(root, [*apt, "/r-tftpd.deb"])
    os.unlink(f"{root}/r-tftpd.deb")
    assert state(root) == "install ok installed", printed
    return printed


def state(root):
    """As dpkg sees it."""
    query = ["dpkg-query", "--show", "--showformat=${Status}", "r-tftpd"]
    return chroot_run(root, query, check=False).stdout


def enabled(root):
    """How each unit is: enabled, disabled, masked or not-found."""
    asked = (chroot_run(root, ["systemctl", "is-enabled", unit], check=False) for unit in UNITS)
    return [one.stdout.strip() or "not-found" for one in asked]


def user(root):
    """The fields of the user's line in the tree's passwd, none if there is no such user."""
    lines = read(f"{root}/etc/passwd").decode().splitlines()
    return next((line.split(":") for line in lines if line.startswith("r-tftpd:")), None)


def tree(root):
    """Every path, with what matters of it: type, mode, owner, checksum or target."""
    found = {}
    for place, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(place, name)
            status = os.lstat(path)
            is_file = os.path.isfile(path) and not os.path.islink(path)
            contents = zlib.crc32(read(path)) if is_file else os.path.islink(path) and os.readlink(path)
            found[os.path.relpath(path, root)] = (status.st_mode, status.st_uid, status.st_gid, contents)
    return found


@test
def lintian_has_neither_errors_nor_warnings():
    lintian = ["lintian", "--profile", "debian", "--allow-root", "--fail-on", "error,warning", package()]
    done = subprocess.run(lintian, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not re.search("(?m)^[EW]:", done.stdout), done.stdout + done.stderr
    assert not any("lintian" in path for path in members()), "overrides"


@test
def it_holds_exactly_these_files_all_of_them_roots():
    files = {path: entry.mode for path, entry in members().items() if not entry.isdir()}
    assert files == FILES, set(files.items()) ^ set(FILES.items())
    for path, entry in members().items():
        assert (entry.uid, entry.gid) == (0, 0), path
        assert entry.isfile() or entry.isdir() and entry.mode == 0o755, path
        assert not entry.isdir() or any(file.startswith(f"{path}/") for file in FILES) or not path, path


@test
def every_page_and_list_in_it_is_the_one_in_this_tree():
    archive = tarfile.open(fileobj=io.BytesIO(run(["dpkg-deb", "--fsys-tarfile", package()])))
    for inside, outside in (
        (DEFAULT, "contrib/systemd/r-tftpd.default"),
        (PROFILE, "contrib/apparmor/usr.sbin.r-tftpd"),
        ("usr/share/man/man8/r-tftpd.8.gz", "contrib/man/r-tftpd.8"),
        ("usr/share/doc/r-tftpd/changelog.gz", "contrib/deb/changelog"),
        ("usr/share/doc/r-tftpd/copyright", "contrib/deb/copyright"),
    ):
        contents = archive.extractfile(members()[inside]).read()
        contents = gzip.decompress(contents) if inside.endswith(".gz") else contents
        assert contents == read(f"{SOURCE}/{outside}"), inside


@test
def the_administrators_files_are_conffiles():
    listed = run(["dpkg-deb", "--info", package(), "conffiles"]).decode().split()
    assert sorted(listed) == [f"/{PROFILE}", f"/{DEFAULT}"], listed


@test
def it_needs_nothing_but_the_c_library_what_reloads_it_and_what_makes_its_user():
    *libraries, kill, sysusers = field("Depends").split(", ")
    assert libraries[0].startswith("libc6 (>= ") and all(one.startswith("libgcc-s1") for one in libraries[1:]), libraries
    assert (kill, sysusers) == ("procps", "systemd | systemd-standalone-sysusers | systemd-sysusers")
    assert field("Recommends") == "ca-certificates"
    # Other servers may be installed beside it: a move from one to the other can be prepared.
    assert not field("Conflicts") and not field("Breaks") and not field("Provides")


@test
def its_version_is_that_of_the_programs_and_of_the_changelog():
    assert run([f"{PROGRAMS}/r-tftpd", "--version"]).decode().split()[1] == field("Version")
    newest = run(["dpkg-parsechangelog", "--file", f"{SOURCE}/contrib/deb/changelog", "--show-field", "Version"])
    assert newest.decode().strip() == field("Version")


@test
def every_crate_that_is_linked_is_in_the_copyright_file():
    run([sys.executable, f"{SOURCE}/contrib/deb/copyright.py", "--check"])


@test
def the_maintainer_scripts_are_sound_shell():
    with directory() as place:
        run(["dpkg-deb", "--control", package(), place])
        scripts = [f"{place}/{name}" for name in ("postinst", "prerm", "postrm")]
        for script in scripts:
            run(["sh", "-n", script])
        run(["shellcheck", "--shell", "sh", *scripts])


@test
def installed_it_has_a_user_a_root_enabled_units_and_serves():
    with machine() as root:
        assert not user(root)
        install(root)
        # systemd starts the first two at boot; none of them was started here.
        assert enabled(root) == ["enabled", "enabled", "disabled"], enabled(root)
        _, password, uid, gid, _, home, shell = user(root)
        assert password == "x" and home == "/" and shell == "/usr/sbin/nologin", user(root)
        assert 0 < int(uid) < 1000 and 0 < int(gid) < 1000
        status = os.stat(f"{root}/srv/tftp")
        assert (status.st_mode, status.st_uid, status.st_gid) == (0o40755, 0, 0), status
        version = chroot_run(root, ["r-tftpd", "--version"])
        assert version == run([f"{PROGRAMS}/r-tftpd", "--version"]).decode()
        write(f"{root}/srv/tftp/file", CONTENTS)
        inside = ["unshare", "--mount", "sh", "-c", f'mount -t proc proc {root}/proc && exec chroot {root} "$@"', "sh"]
        arguments = ("/srv/tftp", "--listen", "127.0.0.1", "--port", "0")
        with Daemon(*arguments, prefix=inside, program="/usr/sbin/r-tftpd", env=ENVIRONMENT) as daemon:
            answer = get("127.0.0.1", daemon.port, "file", "blksize=1428", "windowsize=8")
            assert answer["sha256"] == sha256(CONTENTS), answer
            daemon.assert_unprivileged()
            assert daemon.status("r-tftpd-worker")["Uid"].split() == [uid] * 4
            executable = os.readlink(f"/proc/{daemon.processes()['r-tftpd-worker']}/exe")
            assert executable.endswith("/usr/libexec/r-tftpd/r-tftpd-worker"), executable


@test
def an_upgrade_keeps_what_the_administrator_changed_and_renews_the_rest():
    with machine() as root:
        with repacked("0.4.0", default=b"TFTPD_ROOT=/old\n", profile=b"# old\n") as old:
            install(root, old)
        chroot_run(root, ["systemctl", "disable", *UNITS[:2]])
        chroot_run(root, ["systemctl", "enable", UNITS[2]])
        write(f"{root}/{DEFAULT}", b"TFTPD_ROOT=/mine\n")
        write(f"{root}/etc/apparmor.d/local/usr.sbin.r-tftpd", b"# mine\n")
        before = user(root)
        install(root, None, "-o", "Dpkg::Options::=--force-confold")
        assert read(f"{root}/{DEFAULT}") == b"TFTPD_ROOT=/mine\n"
        assert read(f"{root}/{DEFAULT}.dpkg-dist") == read(f"{SOURCE}/contrib/systemd/r-tftpd.default")
        assert read(f"{root}/{PROFILE}") == read(f"{SOURCE}/contrib/apparmor/usr.sbin.r-tftpd")
        assert read(f"{root}/etc/apparmor.d/local/usr.sbin.r-tftpd") == b"# mine\n"
        assert enabled(root) == ["disabled", "disabled", "enabled"], enabled(root)
        assert user(root) == before


@test
def installed_again_or_downgraded_nothing_changes():
    with machine() as root:
        install(root)
        write(f"{root}/{DEFAULT}", b"TFTPD_ROOT=/mine\n")
        os.chmod(f"{root}/srv/tftp", 0o2775)
        before = tree(f"{root}/etc"), os.stat(f"{root}/srv/tftp")
        install(root)
        with repacked("0.4.0") as old:
            install(root, old)
        after = tree(f"{root}/etc"), os.stat(f"{root}/srv/tftp")
        assert after == before


@test
def removed_it_leaves_configuration_and_comes_back_as_it_was():
    with machine() as root:
        install(root)
        write(f"{root}/{DEFAULT}", b"TFTPD_ROOT=/mine\n")
        write(f"{root}/srv/tftp/file", CONTENTS)
        chroot_run(root, ["apt-get", "remove", "--yes", "r-tftpd"])
        assert state(root) == "deinstall ok config-files", state(root)
        left = {path for path in FILES if os.path.lexists(f"{root}/{path}")}
        assert left == {DEFAULT, PROFILE}, left
        assert user(root) and read(f"{root}/srv/tftp/file") == CONTENTS
        install(root)
        assert read(f"{root}/{DEFAULT}") == b"TFTPD_ROOT=/mine\n"
        assert enabled(root) == ["enabled", "enabled", "disabled"], enabled(root)


@test
def purged_nothing_is_left_but_what_was_served_and_the_user():
    with machine() as root:
        before = tree(root)
        install(root)
        owner = user(root)
        write(f"{root}/srv/tftp/file", CONTENTS)
        # As systemd makes it for the service.
        os.mkdir(f"{root}/var/cache/r-tftpd", 0o700)
        write(f"{root}/var/cache/r-tftpd/file", CONTENTS)
        # What apparmor's own tools leave.
        for name in ("disable", "force-complain"):
            os.mkdir(f"{root}/etc/apparmor.d/{name}")
            os.symlink(f"/{PROFILE}", f"{root}/etc/apparmor.d/{name}/usr.sbin.r-tftpd")
        chroot_run(root, ["apt-get", "purge", "--yes", "r-tftpd"])
        after = tree(root)
        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        # Files that apt and dpkg keep for themselves, and the user's lines.
        own = re.compile(r"var/(lib|log|cache)/(dpkg|apt|systemd)(/|$)|var/log/(alternatives|dpkg).log$|run/|proc/")
        users = re.compile(r"etc/(passwd|group|g?shadow|\.pwd\.lock)-?$")
        left = {path for path in changed if not own.match(path) and not users.match(path)}
        assert left == {"srv/tftp", "srv/tftp/file"}, left
        assert not state(root) and user(root) == owner


@test
def without_systemd_but_its_sysusers_it_installs_and_goes():
    with machine() as root:
        for name in ("systemctl", "systemd-tmpfiles", "systemd-notify", "journalctl"):
            os.unlink(f"{root}/usr/bin/{name}")
        install(root)
        assert user(root)
        chroot_run(root, ["dpkg", "--purge", "r-tftpd"])
        assert not os.path.exists(f"{root}/{DEFAULT}")


@test
def the_apparmor_profile_is_loaded_and_unloaded_with_the_package():
    with machine() as root:
        # A kernel without AppArmor can load none: these write down how they are called.
        write(f"{root}/usr/bin/aa-enabled", b"#!/bin/sh\n")
        write(f"{root}/usr/sbin/apparmor_parser", b'#!/bin/sh\necho "$@" >> /calls\ntest -e "$4" || test -e "$2"\n')
        for path in ("usr/bin/aa-enabled", "usr/sbin/apparmor_parser"):
            os.chmod(f"{root}/{path}", 0o755)
        install(root)
        local = f"{root}/etc/apparmor.d/local/usr.sbin.r-tftpd"
        assert os.stat(local).st_mode == 0o100644 and all(line.startswith(b"#") for line in read(local).splitlines())
        chroot_run(root, ["dpkg", "--remove", "r-tftpd"])
        calls = read(f"{root}/calls").decode().splitlines()
        assert calls == [f"--replace --skip-read-cache --write-cache /{PROFILE}", f"--remove /{PROFILE}"], calls


# Runs in a machine that has booted: another server has port 69, then it gives it up.
BESIDE_ANOTHER_SERVER = r"""
exec >/transcript 2>&1
say() { echo "$1: $(echo $2)"; }
states() { systemctl is-enabled r-tftpd.socket r-tftpd.service; systemctl is-active r-tftpd.socket r-tftpd.service; }
pid() { systemctl show --property=MainPID --value r-tftpd.service; }
since() { systemctl show --property=ActiveEnterTimestampMonotonic --value r-tftpd.socket; }
systemd-run --quiet --unit=other perl -e '
    use Socket; socket(S, AF_INET, SOCK_DGRAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
    bind(S, sockaddr_in(69, INADDR_ANY)) or die; sleep'
until grep -q ':0045 ' /proc/net/udp; do sleep 0.1; done
dpkg --install /r-tftpd.deb
say 'installed' $?
say 'beside the other' "$(states)"
systemctl stop other
dpkg --install /r-tftpd.deb
say 'installed again' "$(states)"
systemctl enable --now r-tftpd.socket r-tftpd.service
say 'enabled' "$(states)"
pid=$(pid) since=$(since)
dpkg --install /r-tftpd.deb
say 'upgraded' "$(states)"
[ "$(pid)" != "$pid" ] && say 'service' 'restarted'
[ "$(since)" = "$since" ] && say 'socket' 'open all the time'
dpkg --purge r-tftpd
say 'purged' "$(states)"
say 'end' "$(ls -d /var/cache/r-tftpd /etc/systemd/system/*/r-tftpd* 2>&1 | grep -v 'cannot access')"
"""
UNIT = """
[Service]
Type=oneshot
ExecStart=/bin/sh /script
ExecStopPost=systemctl --no-block poweroff
[Install]
WantedBy=multi-user.target
"""


@test
def another_server_keeps_port_69_and_the_administrator_is_told_what_to_do():
    with machine() as root:
        shutil.copy(package(), f"{root}/r-tftpd.deb")
        write(f"{root}/script", BESIDE_ANOTHER_SERVER.encode())
        write(f"{root}/etc/systemd/system/script.service", UNIT.encode())
        chroot_run(root, ["systemctl", "enable", "script.service"])
        nspawn = ["systemd-nspawn", "--quiet", "--directory", root, "--register=no", "--keep-unit", "--boot"]
        nspawn += ["--console=pipe", "--private-network", "--capability=all"]
        # nspawn's own filter would answer openat2 and Landlock with errors of its own.
        run(nspawn, env=dict(os.environ, SYSTEMD_SECCOMP="0"), stdin=subprocess.DEVNULL)
        transcript = read(f"{root}/transcript").decode()
        for line in (
            "installed: 0",
            "beside the other: disabled disabled inactive inactive",
            "r-tftpd: another program has UDP port 69, so r-tftpd is installed but neither enabled nor started.",
            "installed again: disabled disabled inactive inactive",
            "enabled: enabled enabled active active",
            "upgraded: enabled enabled active active",
            "service: restarted",
            "socket: open all the time",
            "end: ",
        ):
            assert line in transcript.splitlines() or f"{line} " in transcript.splitlines(), (line, transcript)


with AT_END:
    main()
