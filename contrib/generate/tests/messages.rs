//! Every message that a user can meet is in a manual page: finds the messages in the sources.
#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use r_tftpd_generate::repository;

/// What the programs are made of.
const SOURCES: [&str; 2] = ["src", "broker/src"];

/// Texts that are no messages, or whose message is another one; each with the reason.
const EXCEPTIONS: [(&str, &str); 7] = [
    ("r-tftpd-self-test.{}", "a directory"),
    ("http+nocache://user:{SECRET}@127.0.0.1:{port}/", "a link"),
    ("bytes={have}-", "a header"),
    ("gzip, br, zstd, deflate", "a header"),
    ("max-stale={}", "a header"),
    ("no-cache, must-revalidate", "a header"),
    ("/proc/self/fd/{}", "a path"),
];

/// What is printed because somebody asked for it.
const PRINTED: [&str; 4] = [
    "src/cli/help.rs",
    "src/self_test/deeds/",
    "src/self_test/missing.rs",
    "src/self_test/report.rs",
];

/// Entries for what the library says that reads the command line.
const OF_CLAP: [&str; 4] = [
    "unexpected argument",
    "a value is required",
    "the argument",
    "invalid value",
];

#[test]
fn every_message_is_in_a_page() {
    let diagnostics = pages(true);
    let everywhere = pages(false);
    let excepted: BTreeSet<&str> = EXCEPTIONS.iter().map(|(text, _)| *text).collect();
    let mut missing = Vec::new();
    let mut used = BTreeSet::new();
    let messages = messages();
    assert!(messages.len() > 150, "{} messages found", messages.len());
    for Message { place, text, kind } in messages {
        if let Some(exception) = excepted.get(text.as_str()) {
            used.insert(*exception);
            continue;
        }
        let fragment = fragment(&text);
        let pages = match kind {
            Kind::Trouble => &diagnostics,
            Kind::News => &everywhere,
        };
        if !pages.contains(&fragment) {
            missing.push(format!("{place}: {fragment:?} of {text:?}"));
        }
    }
    assert!(
        missing.is_empty(),
        "not in the manual pages:\n{}",
        missing.join("\n")
    );
    assert_eq!(used, excepted, "exceptions for texts that are no more");
}

#[test]
fn every_entry_is_a_message() {
    let texts: Vec<String> = messages().into_iter().map(|message| message.text).collect();
    let texts = texts.join(" \0 ");
    let texts: Vec<&str> = texts.split_whitespace().map(trim).collect();
    let is_said = |words: &[&str]| texts.windows(words.len()).any(|found| found == words);
    let mut stale = Vec::new();
    for entry in entries() {
        // Capitals stand for what differs.
        let is_constant = |word: &&str| !word.chars().all(|letter| letter.is_ascii_uppercase());
        let words: Vec<&str> = entry.split_whitespace().map(trim).collect();
        let parts: Vec<&[&str]> = words
            .split(|word| !is_constant(word))
            .filter(|part| part.len() > 1)
            .collect();
        // Three words in a row are enough: entries may end early, or name one of several values.
        let is_known = parts
            .iter()
            .any(|part| part.windows(part.len().min(3)).any(is_said));
        let is_of_clap = OF_CLAP.iter().any(|text| entry.starts_with(text));
        if !parts.is_empty() && !is_known && !is_of_clap {
            stale.push(entry);
        }
    }
    assert!(stale.is_empty(), "no program says any more: {stale:#?}");
}

struct Message {
    place: String,
    text: String,
    kind: Kind,
}

/// Where a text has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Below DIAGNOSTICS.
    Trouble,
    /// Anywhere in the pages.
    News,
}

/// All texts of the programs that are more than a word.
fn messages() -> Vec<Message> {
    let mut found = Vec::new();
    for path in SOURCES
        .iter()
        .flat_map(|part| sources(&repository().join(part)))
    {
        // The help, and the table of a self-test.
        if PRINTED
            .iter()
            .any(|part| path.to_string_lossy().contains(part))
        {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let place = path
            .strip_prefix(repository())
            .unwrap()
            .display()
            .to_string();
        let tokens: TokenStream = source.parse().unwrap();
        let mut texts = Vec::new();
        collect(tokens, Context::Code, &mut texts);
        found.extend(texts.into_iter().map(|(text, kind)| Message {
            place: place.clone(),
            text,
            kind,
        }));
    }
    found
}

/// In what a literal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    /// Anything: a text counts if it has more than one word.
    Code,
    /// A log record or a text that is written: every text counts.
    Written(Kind),
}

fn collect(tokens: TokenStream, context: Context, found: &mut Vec<(String, Kind)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut test_only = false;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) if is_after_hash(&tokens, index) => {
                // An attribute; a documentation comment is one, too.
                test_only |= is_cfg_test(group);
            }
            TokenTree::Group(group) => {
                let skipped =
                    std::mem::take(&mut test_only) && group.delimiter() == Delimiter::Brace;
                if !skipped && let Some(context) = inside(&tokens, index, context) {
                    collect(group.stream(), context, found);
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => test_only = false,
            TokenTree::Literal(literal) => {
                let Ok(literal) =
                    syn::parse2::<syn::LitStr>(TokenTree::from(literal.clone()).into())
                else {
                    continue;
                };
                let text = literal.value();
                let kind = match context {
                    Context::Written(kind) => kind,
                    Context::Code if is_prose(&text) => Kind::Trouble,
                    _ => continue,
                };
                // Between placeholders there may be nothing; capitals alone are for programs.
                if fragment(&text).contains(char::is_lowercase) {
                    found.push((text, kind));
                }
            }
            _ => (),
        }
    }
}

/// What the group at `index` is; none: nothing in it is for users.
fn inside(tokens: &[TokenTree], index: usize, outer: Context) -> Option<Context> {
    let before = |back: usize| index.checked_sub(back).map(|at| tokens[at].to_string());
    let (is_macro, name) = match before(1).as_deref() {
        Some("!") => (true, before(2)),
        _ => (false, before(1)),
    };
    match (is_macro, name.as_deref().unwrap_or_default()) {
        // For developers.
        (
            true,
            "debug" | "trace" | "assert" | "assert_eq" | "debug_assert" | "panic" | "concat"
            | "env" | "option_env" | "matches",
        ) => None,
        (true, "error" | "warn") => Some(Context::Written(Kind::Trouble)),
        (true, "info") => Some(Context::Written(Kind::News)),
        // The tables of system calls, which the pages are made from, and that of a self-test.
        (true, "calls" | "groups") => None,
        (true, "write" | "writeln" | "format") | (false, "write_str") => {
            Some(Context::Written(Kind::Trouble))
        }
        _ => Some(outer),
    }
}

fn is_after_hash(tokens: &[TokenTree], index: usize) -> bool {
    let is = |at: usize, mark: char| matches!(&tokens[at], TokenTree::Punct(punct) if punct.as_char() == mark);
    index
        .checked_sub(1)
        .is_some_and(|at| is(at, '#') || (is(at, '!') && at > 0 && is(at - 1, '#')))
}

fn is_cfg_test(group: &Group) -> bool {
    group.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// Whether a text has two words beside each other.
fn is_prose(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_word = |word: &str| word.chars().filter(|letter| letter.is_alphabetic()).count() > 1;
    words
        .windows(2)
        .any(|pair| is_word(pair[0]) && is_word(pair[1]))
}

/// What one can search for, of the first constant part that has more than one word, else of the
/// longest: its first five words, or fewer, up to the colon behind which it says what to do.
fn fragment(text: &str) -> String {
    let mut parts = Vec::new();
    let mut depth = 0;
    let mut part = String::new();
    for letter in text.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 0 => {
                part.push(letter);
                continue;
            }
            _ => continue,
        }
        parts.push(std::mem::take(&mut part));
    }
    parts.push(part);
    let parts: Vec<Vec<&str>> = parts.iter().map(|part| beginning(part)).collect();
    let first = parts.iter().find(|part| part.len() > 1);
    let length = |part: &&Vec<&str>| part.iter().map(|word| word.len()).sum::<usize>();
    let longest = parts.iter().max_by_key(length);
    first
        .or(longest)
        .map(|part| part.join(" "))
        .unwrap_or_default()
}

/// The words of a constant part that one can search for.
fn beginning(part: &str) -> Vec<&str> {
    let mut words: Vec<&str> = trim(part).split_whitespace().take(5).collect();
    let end = words.iter().position(|word| word.ends_with([':', ';']));
    words.truncate(end.map_or(5, |end| (end + 1).max(3)));
    if let Some(last) = words.last_mut() {
        *last = trim(last);
    }
    words
}

fn trim(text: &str) -> &str {
    text.trim_matches(|mark: char| mark.is_whitespace() || ":;,.()`\"".contains(mark))
}

/// The text of all pages, or only what is below DIAGNOSTICS.
fn pages(diagnostics: bool) -> String {
    let pages = r_tftpd_generate::files().into_iter();
    let pages =
        pages.filter(|(path, _)| path.extension().is_some_and(|extension| extension == "8"));
    let mut text = String::new();
    for (_, page) in pages {
        let mut is_in = !diagnostics;
        for line in page.lines() {
            if let Some(section) = line.strip_prefix(".Sh ") {
                is_in = !diagnostics || section == "DIAGNOSTICS";
            }
            if is_in {
                text.push_str(&plain(line));
                text.push(' ');
            }
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The messages that have an entry below DIAGNOSTICS, as the pages write them.
fn entries() -> Vec<String> {
    let pages = r_tftpd_generate::files().into_iter();
    let pages =
        pages.filter(|(path, _)| path.extension().is_some_and(|extension| extension == "8"));
    let mut entries = Vec::new();
    for (_, page) in pages {
        let (_, diagnostics) = page.split_once(".Sh DIAGNOSTICS\n").unwrap();
        let (diagnostics, _) = diagnostics.split_once("\n.Sh ").unwrap();
        let lines = diagnostics.lines();
        for line in lines.filter_map(|line| line.strip_prefix(".It Sy ")) {
            // What stands in quotes.
            entries.extend(line.split('"').skip(1).step_by(2).map(plain));
        }
    }
    assert!(entries.len() > 150, "{} entries found", entries.len());
    entries
}

/// A line of mdoc as a reader sees it.
fn plain(line: &str) -> String {
    let line = line.replace("\\&", "").replace("\\e", "\\");
    if line.starts_with(".\\\"") {
        return String::new();
    }
    match line.strip_prefix('.') {
        None => line,
        Some(request) => request
            .split_once(' ')
            .map_or_else(String::new, |(_, rest)| rest.to_owned()),
    }
}

/// Every Rust file below a directory that is in the programs.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["tests", "simulator", "clients"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
