//! The system calls that are left to each process, from the lists that its lock-down uses.

use std::fs;

use crate::repository;
use crate::roff::plain;

/// The rows for one process: name and reason of each call.
pub(crate) fn table(process: &str) -> String {
    let rows: Vec<(String, String)> = match process {
        "broker" => own(r_tftpd_broker::broker::sandbox::system_calls()),
        "worker" => own(r_tftpd::worker::sandbox::system_calls()),
        "fetcher" => fetcher(),
        _ => panic!("no process {process}"),
    };
    assert!(rows.len() > 20, "{process}: {rows:?}");
    let mut page = String::from(".Bl -tag -width \"restart_syscall()\" -compact\n");
    // Neighbours with the same reason share a row.
    for row in rows.chunk_by(|one, next| one.1 == next.1) {
        let names: Vec<String> = row.iter().map(|(name, _)| format!("Fn {name}")).collect();
        page.push_str(&format!(".It {}\n", names.join(" , ")));
        page.extend(row.first().map(|(_, reason)| plain(reason)));
    }
    page.push_str(".El\n");
    page
}

/// As on x86-64 and in a release, wherever this is built and however.
fn own<'t>(calls: impl Iterator<Item = (&'t str, &'t str)>) -> Vec<(String, String)> {
    calls
        .filter(|(_, reason)| !reason.contains("in debug builds only"))
        .map(|(name, reason)| {
            let name = if name == "epoll_pwait" {
                "epoll_wait"
            } else {
                name
            };
            (name.to_owned(), reason.to_owned())
        })
        .collect()
}

/// The fetcher's list has no names at run time: they are read from its source, where a comment
/// says for each group what it is for, and a rule stands before the list for calls that are bound
/// to certain arguments.
fn fetcher() -> Vec<(String, String)> {
    let path = repository().join("src/fetcher/sandbox.rs");
    let source =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (rules, lists) = source
        .split_once("const ALLOWED: &[i64] = &[")
        .expect("a list");
    let (list, _) = lists.split_once("];").expect("the end of the list");
    let mut rows = Vec::new();
    let mut group = "";
    for line in list.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("// ") {
            group = comment.trim_end_matches('.');
        } else if let Some(name) = line.strip_prefix("libc::SYS_") {
            rows.push((name.trim_end_matches(',').to_owned(), group.to_owned()));
        }
    }
    for (name, reason) in BOUND {
        assert!(
            rules.contains(&format!("libc::SYS_{name}")),
            "{name} is bound by no rule"
        );
        rows.push((name.to_owned(), reason.to_owned()));
    }
    let known = rules.match_indices("libc::SYS_").count();
    assert!(
        known == BOUND.len(),
        "a rule for a call without a reason in BOUND"
    );
    rows
}

/// The fetcher's calls with rules for their arguments.
const BOUND: [(&str, &str); 8] = [
    ("socket", "TCP over IPv4 or IPv6 only"),
    (
        "sendto",
        "to the connected peer only, never with MSG_FASTOPEN",
    ),
    (
        "setsockopt",
        "no delay, keep-alive, user timeout; no other option",
    ),
    ("fcntl", "non-blocking or not, and to look"),
    ("mmap", "malloc; never executable"),
    ("mprotect", "malloc; never executable"),
    ("madvise", "malloc gives memory back"),
    ("tgkill", "abort(3) of this process"),
];
