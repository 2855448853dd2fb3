"""`cargo install --path .`: gives a set of programs that works, with nothing beside it.

Takes what `cargo build --release --locked` built, so that nothing is compiled again. Needs root, to
become another user, and cargo.
"""

import os
import subprocess

from support import NAMES, NOBODY, PROGRAMS, Daemon, directory, get, main, pattern, sha256, test, write

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONTENTS = pattern(50_000)


def installed(home):
    """Installs into a directory: where the programs are."""
    command = ["cargo", "install", "--path", REPOSITORY, "--locked", "--offline", "--root", home]
    # Not captured: it may compile for minutes, and who waits wants to see that.
    done = subprocess.run([*command, "--target-dir", os.path.dirname(PROGRAMS)], cwd=REPOSITORY, check=False)
    assert done.returncode == 0, command
    return f"{home}/bin"


@test
def cargo_installs_four_programs_that_serve_from_where_they_are_to_a_plain_user():
    with directory() as home, directory() as root:
        programs = installed(home)
        # No generator of pages, no tool of the tests.
        assert sorted(os.listdir(programs)) == sorted(NAMES), os.listdir(programs)
        write(f"{root}/file", CONTENTS)
        arguments = ["--port", "0", "--listen", "127.0.0.1"]
        with Daemon(root, *arguments, prefix=NOBODY, program=f"{programs}/r-tftpd") as daemon:
            answer = get("127.0.0.1", daemon.port, "file", "blksize=1428", "windowsize=8")
            assert answer["sha256"] == sha256(CONTENTS), answer
            daemon.assert_unprivileged()
            # Not those of a package on the same machine.
            processes = daemon.processes()
            assert set(processes) == set(NAMES), processes
            for name, pid in processes.items():
                assert os.readlink(f"/proc/{pid}/exe") == f"{programs}/{name}", name


main()
