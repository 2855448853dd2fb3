"""What is written: manual pages without a complaint, completions that complete, links that lead somewhere.

Needs mandoc, bash-completion, zsh and fish. Takes no programs: the documents are those of the tree.
"""

import os
import re
import subprocess
import tempfile

from support import cases, main, read, run, test

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGES = ("r-tftpd.8", "r-tftpd-worker.8")
COMPLETIONS = os.path.join(TREE, "contrib/completions")
# About the machine, not about the page: which other manuals it has, and in which index.
OF_THE_MACHINE = re.compile(r"referenced manual not found|outdated mandoc\.db")


def page(name):
    """The path of a manual page."""
    return os.path.join(TREE, "contrib/man", name)


@cases("{} is clean for mandoc, style included", [(name,) for name in PAGES])
def _(name):
    done = subprocess.run(
        ["mandoc", "-T", "lint", page(name)], capture_output=True, text=True, timeout=60, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert not [line for line in lines if not OF_THE_MACHINE.search(line)], lines


@cases("{} has the sections that operators look for", [(name,) for name in PAGES])
def _(name):
    text = read(page(name)).decode()
    sections = re.findall(r"^\.Sh (.*)$", text, re.MULTILINE)
    wanted = ["NAME", "SYNOPSIS", "DESCRIPTION", "SIGNALS", "FILES", "EXIT STATUS", "DIAGNOSTICS", "SECURITY"]
    if name == "r-tftpd.8":
        wanted += ["OPTIONS", "SYSTEMD", "LOG RECORDS", "ENVIRONMENT", "EXAMPLES"]
    assert not set(wanted) - set(sections), sections


@cases("commands of {} are shown as they have to be typed", [(name,) for name in PAGES])
def _(name):
    source = read(page(name)).decode()
    commands = re.findall(r"^\.Dl (.*)$", source, re.MULTILINE)
    assert len(commands) > 2, commands
    shown = run(["mandoc", "-T", "ascii", "-O", "width=400", page(name)]).decode()
    # Bold and underlined letters are typed over.
    shown = re.sub(".\b", "", shown)
    lines = {line.strip() for line in shown.splitlines()}
    for command in commands:
        assert command.replace("\\&", "") in lines, command


@test
def pages_refer_to_pages_of_ours_that_are_there():
    for name in PAGES:
        for other, section in re.findall(r"^\.Xr (r-tftpd\S*) (\d)", read(page(name)).decode(), re.MULTILINE):
            assert os.path.exists(page(f"{other}.{section}")), (name, other, section)


@cases(
    "{1} parses",
    [("bash", "r-tftpd.bash"), ("zsh", "_r-tftpd"), ("fish", "r-tftpd.fish")],
)
def _(shell, name):
    run([shell, "-n", os.path.join(COMPLETIONS, name)])


# What is typed, and what must and must not be offered for the last word.
TYPED = [
    ("--lo", {"--log-format"}, {"--root"}),
    ("--sandbox ", {"strict", "best-effort"}, {"file", "sub"}),
    ("--log-format js", {"json"}, {"compact"}),
    ("--user daem", {"daemon"}, {"file"}),
    ("--ca-file fi", {"file"}, set()),
    ("--root su", {"sub"}, {"file"}),
    ("--cache-dir su", {"sub"}, {"file"}),
    ("--port ", set(), {"file", "sub"}),
]


def assert_offers(shell, complete):
    """What a shell offers for each of `TYPED`, in a directory with a file and a directory."""
    with tempfile.TemporaryDirectory() as directory:
        os.mkdir(os.path.join(directory, "sub"))
        open(os.path.join(directory, "file"), "w", encoding="ascii").close()
        for typed, wanted, unwanted in TYPED:
            offered = set(complete(typed, directory))
            assert wanted <= offered, (shell, typed, offered)
            assert not unwanted & offered, (shell, typed, offered)


# Asks for completions as readline does: by the function and options that `complete` was told. `plusdirs`, which the
# function may ask for, is readline's to do.
BASH = r"""
. /usr/share/bash-completion/bash_completion
. "$1/r-tftpd.bash"
compopt() { [[ "$*" == '-o plusdirs' ]] && plusdirs=1; return 0; }
read -r function < <(complete -p r-tftpd | sed -n 's/.* -F \([^ ]*\).*/\1/p')
read -ra COMP_WORDS <<<"r-tftpd $2"
[[ "$2" == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
"$function" r-tftpd "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\n' "${COMPREPLY[@]}"
[[ -z ${plusdirs-} ]] || compgen -d -- "${COMP_WORDS[-1]}"
"""


@test
def bash_offers_options_values_users_and_files():
    def complete(typed, directory):
        command = ["bash", "--norc", "-c", BASH, "bash", COMPLETIONS, typed]
        return run(command, cwd=directory).decode().split("\n")

    assert_offers("bash", complete)


@test
def fish_offers_options_values_users_and_files():
    def complete(typed, directory):
        script = f"source {COMPLETIONS}/r-tftpd.fish; complete -C 'r-tftpd {typed}'"
        with tempfile.TemporaryDirectory() as home:
            lines = run(["fish", "--no-config", "-c", script], cwd=directory, env={**os.environ, "HOME": home})
        # A word, and behind a tab what it means; directories have a slash.
        return [line.split("\t")[0].rstrip("/") for line in lines.decode().splitlines()]

    assert_offers("fish", complete)


# The line editor of zsh in a terminal of its own: types, asks for the list of all matches, and prints what compadd was
# given.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "cd $2; PROMPT=; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D"
zpty -w shell "zstyle ':completion:*' list-colors ''; zstyle ':completion:*:users' users root daemon nobody"
zpty -w shell "list() { compadd() { local -a hits; builtin compadd -O hits \"\$@\"; \
(( \$#hits )) && print -rl -- OFFER-\$^hits; builtin compadd \"\$@\" }; _main_complete; print END-OF-LIST }"
zpty -w shell "zle -C list complete-word list; bindkey '^X' list; print READY-\$((1+1))"
zpty -r shell text '*READY-2*'
zpty -n -w shell "r-tftpd $3"$'\x18'
zpty -r shell text '*END-OF-LIST*'
print -r -- "$text"
zpty -d shell
"""


@test
def zsh_offers_options_values_users_and_files():
    def complete(typed, directory):
        text = run(["zsh", "-f", "-c", ZSH, "zsh", COMPLETIONS, directory, typed], stdin=subprocess.DEVNULL).decode()
        return [word.rstrip("/") for word in re.findall(r"OFFER-(\S+)", text)]

    assert_offers("zsh", complete)


def documents():
    """Every Markdown page of the tree."""
    for directory, subdirectories, files in os.walk(TREE):
        subdirectories[:] = [
            name
            for name in subdirectories
            if name == ".github" or not name.startswith(".") and name not in ("target", "vendor")
        ]
        yield from (os.path.join(directory, name) for name in files if name.endswith(".md"))


def anchors(text):
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@test
def links_between_documents_lead_somewhere():
    found = 0
    for path in documents():
        text = read(path).decode()
        # What is shown as code links to nothing.
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"[a-z]+:", target):
                continue
            found += 1
            name, _, anchor = target.partition("#")
            other = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
            assert os.path.exists(other), f"{path}: {target}"
            assert not anchor or anchor in anchors(read(other).decode()), f"{path}: {target}"
    assert found > 5, found


SECURITY = os.path.join(TREE, ".github/SECURITY.md")
# What the harness of each language takes for a test of that name. What a captured process does has its name as text.
TESTS = {
    ".rs": r"#\[(?:tokio::)?test[^\n]*\n(?:\s*#[^\n]*\n)*\s*(?:async )?fn {}\(",
    ".py": r"@(?:test|cases\([^@]*\))\ndef {}\(",
}


def proofs(text):
    """The claims of the page, each with its proofs: (claim, [(file, [names of tests])])."""
    found = []
    # A paragraph or list item is one line.
    text = re.sub(r"\n {2,}(?=`)", " ", text)
    for line in text.splitlines():
        proof = re.fullmatch(r"- `([^`]+\.(?:rs|py|sh))`: (.*)", line)
        if line.startswith("**"):
            found.append((line, []))
        elif proof:
            names = re.findall(r"`([^`]+)`", proof[2])
            found[-1][1].append((proof[1], names))
    return found


def is_there(source, name, suffix):
    """Whether a source has a test of that name."""
    is_function = suffix in TESTS and re.search(TESTS[suffix].format(re.escape(name)), source)
    return bool(is_function) or f'"{name}"' in source


@test
def every_claim_about_security_names_tests_that_are_there():
    claims = proofs(read(SECURITY).decode())
    for claim, files in claims:
        assert files, f"no proof of: {claim}"
        for path, names in files:
            source = read(os.path.join(TREE, path)).decode()
            for name in names:
                assert is_there(source, name, os.path.splitext(path)[1]), f"{path} has no test {name}"
            # A script that is run by hand, or a target of the fuzzer, is a proof as a whole.
            assert names or not path.startswith("tests/machine"), path
    assert sum(len(names) for _, files in claims for _, names in files) > 200, claims


@test
def a_test_that_has_gone_or_is_none_would_be_missed():
    source = "#[test]\nfn a_promise() {}\n\nfn a_helper() {}\n"
    assert is_there(source, "a_promise", ".rs")
    assert not is_there(source, "a_helper", ".rs") and not is_there(source, "a_prom", ".rs")
    source = '@test\ndef a_promise():\n    pass\n\n\ndef a_helper():\n    probe("a deed")\n'
    assert is_there(source, "a_promise", ".py") and is_there(source, "a deed", ".py")
    assert not is_there(source, "a_helper", ".py") and not is_there(source, "a", ".py")


main()
