"""What others have written: every crate of Cargo.lock keeps the rules of .cargo/deny.toml, and each rule can be broken.

Argument 2 is the directory of cargo-deny, else it is in PATH. Needs git, and the registry of crates. The database of
known vulnerabilities is not asked here, as it can not be had everywhere: a made-up one shows that it would be heeded.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib

from support import cases, directory, main, read, run, test, write

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIG = f"{TREE}/.cargo/deny.toml"
RULES = read(CONFIG).decode()
DENY = os.path.abspath(f"{sys.argv[2]}/cargo-deny") if len(sys.argv) > 2 else "cargo-deny"
# Where no database is: git is told to take another one instead.
DATABASE = "https://advisories.example/database"


def deny(*checks, rules=RULES, tree=TREE, environment=None):
    """Whether a tree passes, and what cargo-deny says of it; what it warns of counts as well."""
    with directory() as home:
        write(f"{home}/deny.toml", rules.encode())
        command = [DENY, "--color", "never", "--locked", "--config", f"{home}/deny.toml"]
        command += ["check", "--hide-inclusion-graph", "-D", "warnings", *checks]
        environment = {**os.environ, **(environment or {})}
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    return done.returncode == 0, done.stdout + done.stderr


def without(what):
    """The rules without a piece of them."""
    assert RULES.count(what) == 1, what
    return RULES.replace(what, "")


def also(section, line):
    """The rules with one more line in a section or list."""
    assert RULES.count(f"{section}\n") == 1, section
    return RULES.replace(f"{section}\n", f"{section}\n{line}\n")


@test
def licences_duplicates_build_scripts_and_sources_are_those_that_are_allowed():
    passes, said = deny("licenses", "bans", "sources")
    assert passes, said


@test
def each_exception_has_a_reason():
    rules = tomllib.loads(RULES)
    for exception in [*rules["advisories"]["ignore"], *rules["bans"]["skip"], *rules["bans"]["deny"]]:
        assert len(exception["reason"]) > 20, exception


def lists(name):
    """The lines of a list in the rules."""
    return re.search(rf"(?m)^{name} = \[\n((?: .*\n)*)\]", RULES)[1].splitlines(keepends=True)


@cases("without {1} the tree would not pass", [
    *(("licenses", line.split('"')[1], line, "rejected") for line in lists("allow")),
    *(("bans", line.split('"')[1], line, "duplicate") for line in lists("skip")),
    ("bans", "the permission to run a build script", '    "libc",\n', "build-script-not-allowed"),
])
def _(check, _name, line, error):
    passes, said = deny(check, rules=without(line))
    assert not passes and f"error[{error}]" in said, said


@cases("{1} would be found", [
    ("licenses", "a licence that is allowed in vain", also("allow = [", '    "EUPL-1.2",'), "license-not-encountered"),
    ("bans", "a duplicate that is allowed in vain", also("skip = [", '    "libc@0.1",'), "unmatched-skip"),
    ("bans", "a crate that is forbidden", also("deny = [", '    { crate = "libc", reason = "a test" },'), "banned"),
    ("sources", "another source than the registry", also("[sources]", "allow-registry = []"), "source-not-allowed"),
])
def _(check, _name, rules, error):
    passes, said = deny(check, rules=rules)
    assert not passes and f"[{error}]" in said, said


def repository(place, files):
    """Makes a git repository of some files."""
    for name, text in files.items():
        os.makedirs(os.path.dirname(f"{place}/{name}"), exist_ok=True)
        write(f"{place}/{name}", text.encode())
    git = ["git", "-C", place, "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "-m", "test"]):
        run([*git, *command])


PACKAGE = '[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2024"\nlicense = "{licence}"\n'


@test
def a_crate_from_git_or_of_no_free_licence_would_be_found():
    with directory() as place:
        other = PACKAGE.format(name="other", licence="LicenseRef-Proprietary")
        repository(f"{place}/other", {"Cargo.toml": other, "src/lib.rs": ""})
        os.makedirs(f"{place}/ours/src")
        write(f"{place}/ours/src/lib.rs", b"")
        ours = PACKAGE.format(name="ours", licence="MIT") + f'[dependencies]\nother = {{ git = "file://{place}/other" }}\n'
        write(f"{place}/ours/Cargo.toml", ours.encode())
        # What cargo fetches of it must not stay with the user.
        home = {"CARGO_HOME": f"{place}/home"}
        run(["cargo", "generate-lockfile", "--quiet"], cwd=f"{place}/ours", env={**os.environ, **home})
        for check, error in (("sources", "source-not-allowed"), ("licenses", "rejected")):
            passes, said = deny(check, tree=f"{place}/ours", environment=home)
            assert not passes and f"error[{error}]" in said, said


ADVISORY = """```toml
[advisory]
id = "{id}"
package = "{package}"
date = "2025-12-16"
{kind}
[versions]
patched = []
```

# A test

Made up.
"""
UNMAINTAINED = 'informational = "unmaintained"'


def heed(advisories):
    """What is said of the tree when these (id, package, kind) are all that is known."""
    with directory() as place:
        files = {
            f"crates/{package}/{name}.md": ADVISORY.format(id=name, package=package, kind=kind)
            for name, package, kind in advisories
        }
        repository(f"{place}/database", files)
        rules = also("[advisories]", f'db-urls = ["{DATABASE}"]\ndb-path = "{place}/copy"')
        instead = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{place}/database.insteadOf",
            "GIT_CONFIG_VALUE_0": DATABASE,
        }
        return deny("advisories", rules=rules, environment=instead)


KNOWN = [(one["id"], "bincode", UNMAINTAINED) for one in tomllib.loads(RULES)["advisories"]["ignore"]]


@test
def no_crate_was_withdrawn_by_its_author_and_what_is_known_and_excused_is_no_error():
    passes, said = heed(KNOWN)
    assert passes, said


@cases("{0} would be found", [
    ("a vulnerability", [*KNOWN, ("RUSTSEC-2099-0001", "libc", "")], "vulnerability"),
    ("a crate that nobody maintains", [*KNOWN, ("RUSTSEC-2099-0001", "libc", UNMAINTAINED)], "unmaintained"),
    ("an excuse that is needed no more", [("RUSTSEC-2099-0001", "no-such-crate", "")], "advisory-not-detected"),
])
def _(_name, advisories, error):
    passes, said = heed(advisories)
    assert not passes and f"[{error}]" in said, said


assert shutil.which(DENY), f"no {DENY}: cargo install --locked cargo-deny"
main()
