#!/usr/bin/python3
"""Writes `copyright` beside this file: our licence, and that of every crate that is linked into the programs.

    contrib/deb/copyright.py            after a change of Cargo.lock
    contrib/deb/copyright.py --check    fails if the file is not what this would write

A package of Rust programs carries its crates inside, so their notices must come with it. The format is Debian's
(DEP-5). Of licences to choose from Apache-2.0 is taken, whose text every Debian has; the others are given in full.
Needs cargo and the sources of the crates, which a build leaves behind.
"""

import json
import os
import re
import subprocess
import sys
import textwrap

HERE = os.path.dirname(os.path.abspath(__file__))
OUTPUT = os.path.join(HERE, "copyright")
# Whose crates are listed. aarch64 links none but these.
TARGET = "x86_64-unknown-linux-gnu"
# Of licences to choose from, the first of these.
PREFERRED = ("Apache-2.0", "BSD-3-Clause", "MIT")
NOTICE_FILES = ("LICEN", "COPY", "NOTICE", "UNLICENSE")
# A file for one licence has its name; one that was not chosen is left out.
LICENCE_WORDS = ("MIT", "APACHE", "UNLICENSE", "BSD", "ZLIB", "ISC")
# Debian wants that text named, not repeated.
APACHE_TERMS = r"(?s) *Apache License\s+Version 2\.0, January 2004.*?limitations under the License\."
APACHE_PLACE = "The Apache License, Version 2.0: on Debian systems in /usr/share/common-licenses/Apache-2.0."

HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: r-tftpd
Comment: The first paragraph is about r-tftpd itself. The others are about the crates, and the standard library
 of Rust, that are linked into its programs; a crate's files are named as in a directory that
 "cargo vendor --versioned-dirs" makes.
 .
 Written by contrib/deb/copyright.py.

Files: *
Copyright: the authors of r-tftpd
License: GPL-3.0-or-later
 r-tftpd is free software: you can redistribute it and/or modify it under the terms of the GNU General Public
 License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any
 later version.
 .
 It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY; without even the implied warranty
 of MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more details.
 .
 On Debian systems the text of the GNU General Public License version 3 is in
 /usr/share/common-licenses/GPL-3.

Files: library/*
Copyright: the Rust Project contributors
License: Apache-2.0

License: Apache-2.0
 Licensed under the Apache License, Version 2.0: you may not use these files except in compliance with the
 License. On Debian systems its text is in /usr/share/common-licenses/Apache-2.0.
"""


def main():
    """Writes the file or compares it."""
    text = HEAD + "".join(f"\n{paragraph}" for paragraph in paragraphs(linked_crates()))
    if sys.argv[1:] == ["--check"]:
        with open(OUTPUT, encoding="utf-8") as file:
            if file.read() != text:
                sys.exit(f"{OUTPUT} is not up to date: run contrib/deb/copyright.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        with open(OUTPUT, "w", encoding="utf-8") as file:
            file.write(text)


def linked_crates():
    """The packages of other people that end in a program: neither tests, nor builds, nor macros need a notice."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", TARGET]
    metadata = json.loads(subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    needs = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
    waiting = [metadata["resolve"]["root"]]
    seen = set()
    found = []
    while waiting:
        identity = waiting.pop()
        package = packages[identity]
        if identity in seen or any("proc-macro" in target["kind"] for target in package["targets"]):
            continue
        seen.add(identity)
        if package["source"]:
            found.append(package)
        for need in needs[identity]:
            if any(kind["kind"] is None for kind in need["dep_kinds"]):
                waiting.append(need["pkg"])
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def paragraphs(crates):
    """One for each text, with all the crates that have it."""
    groups = {}
    for crate in crates:
        chosen = choose(crate["license"])
        if chosen == {"Apache-2.0"}:
            text = "\n".join(contents for name, contents in notices(crate) if name.startswith("NOTICE"))
        else:
            text = full_text(crate, chosen, crates)
        # The same words in other lines, or under another name's copyright, are the same licence.
        words = "".join(re.findall(r"\w+", re.sub(r"(?m)^.*copyright \S+ \d.*$", "", text.lower())))
        groups.setdefault((" and ".join(sorted(chosen)), words), []).append((crate, text))
    for (licence, _), members in sorted(groups.items()):
        files = "".join(f"\n {crate['name']}-{crate['version']}/*" for crate, _ in members)
        holders = "".join(f"\n {holder}" for holder in sorted({h for crate, _ in members for h in copyrights(crate)}))
        text = members[0][1]
        paragraph = f"Files:{files}\nCopyright:{holders}\nLicense: {licence}\n"
        if licence != "Apache-2.0":
            paragraph += indent(text)
        elif text:
            paragraph += f"Comment: its notice:\n .\n{indent(text)}"
        yield paragraph


def choose(expression):
    """The licences of an SPDX expression that are taken; an unknown form ends the program."""
    if not expression:
        sys.exit("a crate says no licence")
    chosen = set()
    for term in re.sub(r"\s*/\s*", " OR ", expression).split(" AND "):
        if not re.fullmatch(r"\([^()]+\)|[^()]+", term):
            sys.exit(f"cannot read the licence expression {expression!r}")
        alternatives = term.strip("()").split(" OR ")
        chosen.add(next((licence for licence in PREFERRED if licence in alternatives), alternatives[0]))
    return chosen


def full_text(crate, chosen, crates):
    """What a crate's files say of the licences chosen; one without has the files of its repository's others."""
    same = [crate] + [other for other in crates if other["repository"] and other["repository"] == crate["repository"]]
    unwanted = [word for word in LICENCE_WORDS if not any(word in licence.upper() for licence in chosen)]
    for candidate in same:
        texts = [text for name, text in notices(candidate) if not any(word in name.upper() for word in unwanted)]
        if texts:
            return "\n\n".join(texts)
    return sys.exit(f"{crate['name']} has no licence file")


def notices(crate):
    """Names and contents of the files that are about its licence."""
    directory = os.path.dirname(crate["manifest_path"])
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if name.upper().startswith(NOTICE_FILES) and os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                yield name, re.sub(APACHE_TERMS, APACHE_PLACE, file.read())


def copyrights(crate):
    """Who holds it, as its files say, else its metadata."""
    holders = set()
    for _, text in notices(crate):
        for line in re.findall(r"(?mi)^\W*copyright\s+((?:\(c\)|©|\d).*)$", text):
            # Forms to be filled in are no copyright, and a year alone has no holder.
            if re.search(r"[A-Za-z]", line) and not re.search(r"[\[{<](?:yyyy|year)", line, re.IGNORECASE):
                holders.add(re.sub(r"^(?:\([cC]\)|©)\s*", "", " ".join(line.split())).rstrip("*/ "))
    return holders or set(crate["authors"]) or {f"the authors of {crate['name']}"}


def indent(text):
    """As the format wants it: a space before each line, a dot for each empty one, no line of more than 120."""
    lines = []
    for line in text.replace("\f", "\n").strip().splitlines():
        lines += textwrap.wrap(line.expandtabs().rstrip(), 118, break_long_words=False, break_on_hyphens=False) or [""]
    return "".join(f" {line}\n" if line.strip() else " .\n" for line in lines)


main()
