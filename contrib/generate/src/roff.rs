//! Plain text to mdoc(7).

use clap::Command;

/// Variables of the environment that texts name.
const VARIABLES: [&str; 5] = [
    "CACHE_DIRECTORY",
    "LISTEN_FDS",
    "RUST_LOG",
    "SSL_CERT_FILE",
    "TMPDIR",
];

/// A paragraph: each sentence begins a line, no line is longer than 80 bytes. Words that are
/// options of `command`, absolute paths, variables or literal values (in double quotes) are
/// marked up as such.
pub(crate) fn paragraph(text: &str, command: &Command) -> String {
    lines(text, |word| mark_up(word, command))
}

/// Text without mark-up, in lines as [`paragraph`] makes them.
pub(crate) fn plain(text: &str) -> String {
    lines(text, |_| None)
}

fn lines(text: &str, mark_up: impl Fn(&str) -> Option<String>) -> String {
    let mut page = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if let Some(marked) = mark_up(word) {
            flush(&mut line, &mut page);
            page.push_str(&marked);
            page.push('\n');
            continue;
        }
        if line.len() + 1 + word.len() > 79 {
            flush(&mut line, &mut page);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&escape(word));
        if ends_sentence(word) {
            flush(&mut line, &mut page);
        }
    }
    flush(&mut line, &mut page);
    page
}

/// Text that means itself to roff.
pub(crate) fn escape(text: &str) -> String {
    let escaped = text.replace('\\', "\\e");
    if escaped.starts_with(['.', '\'']) {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}

fn flush(line: &mut String, page: &mut String) {
    if !line.is_empty() {
        page.push_str(line);
        page.push('\n');
        line.clear();
    }
}

fn ends_sentence(word: &str) -> bool {
    word.ends_with(['.', '?']) || word.ends_with(".)")
}

/// A word that is more than text, as a line of its own, with the punctuation around it.
fn mark_up(word: &str, command: &Command) -> Option<String> {
    let bare = word
        .trim_start_matches('(')
        .trim_end_matches(['.', ',', ';', ':', ')']);
    let start = word.find(bare)?;
    let (before, behind) = (&word[..start], &word[start + bare.len()..]);
    let inner = if let Some(literal) = bare
        .strip_prefix('"')
        .and_then(|bare| bare.strip_suffix('"'))
    {
        format!("Cm {}", escape(literal))
    } else if let Some(name) = bare.strip_prefix("--") {
        assert!(
            name == "help" || command.get_arguments().any(|a| a.get_long() == Some(name)),
            "a text names {bare}, which is no option"
        );
        format!("Fl -{name}")
    } else if let Some(name) = bare.strip_prefix('-').filter(|name| name.len() == 1) {
        format!("Fl {name}")
    } else if bare.len() > 1 && bare.starts_with('/') {
        format!("Pa {bare}")
    } else if VARIABLES.contains(&bare) {
        format!("Ev {bare}")
    } else if bare.starts_with("SIG") && bare.bytes().all(|byte| byte.is_ascii_uppercase()) {
        format!("Dv {bare}")
    } else {
        return None;
    };
    let opening = if before.is_empty() { "" } else { "Po " };
    let closing: String = behind
        .chars()
        .map(|mark| {
            if mark == ')' && !before.is_empty() {
                " Pc".into()
            } else {
                format!(" {mark}")
            }
        })
        .collect();
    Some(format!(".{opening}{inner}{closing}"))
}
