//! The targets of symlinks: what is taken for a link means the same to broker and fetcher, and shows no credentials.

use r_tftpd_broker::link::{BadLink, Link, MAX_URL};
use url::Url;

/// The bytes as a target, as they are and behind a scheme.
pub fn run(data: &[u8]) {
    check(data);
    for head in [
        "http://",
        "https+nocache://",
        "http+nocompress+nocache://u:secret@",
    ] {
        check(&[head.as_bytes(), data].concat());
    }
}

fn check(target: &[u8]) {
    let link = match Link::parse(target) {
        Ok(Some(link)) => link,
        Ok(None) => {
            let lower = target.to_ascii_lowercase();
            let head = lower.split(|byte| *byte == b':').next().unwrap_or_default();
            let is_word = head
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'+');
            let is_known = is_word
                && ["http", "https"].iter().any(|scheme| {
                    head.split(|byte| *byte == b'+').next() == Some(scheme.as_bytes())
                });
            let has_host = lower
                .get(head.len()..)
                .is_some_and(|rest| rest.starts_with(b"://"));
            assert!(!(is_known && has_host), "a URL taken for a path");
            return;
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let by_length = error == BadLink::TooLong;
            assert!(!by_length || target.len() > MAX_URL, "not too long");
            return;
        }
    };
    let url = link.url();
    assert!(url.len() <= MAX_URL && url.is_ascii() || !target.is_ascii());
    assert!(
        !url.chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '\\'),
        "{url:?}"
    );
    let (scheme, tail) = url.split_once("://").expect("a scheme");
    assert!(matches!(scheme, "http" | "https"));
    // Behind the scheme and its modifiers it is as the operator wrote it.
    assert!(target.ends_with(tail.as_bytes()));
    let head = String::from_utf8_lossy(&target[..target.len() - tail.len()]).to_ascii_lowercase();
    let has = |modifier| head.contains(modifier);
    assert_eq!(
        (link.cache(), link.identity()),
        (!has("+nocache"), has("+nocompress"))
    );
    assert!(link.port() > 0);
    let shown = link.display();
    assert!(shown.len() <= url.len() && !shown.contains('\n'));
    let place = shown.split_once("://").map_or("", |(_, tail)| tail);
    let place = place.split(['/', '?', '#']).next().unwrap_or_default();
    assert!(!place.contains('@'), "credentials are shown: {shown}");
    assert!(format!("{link:?}").contains(&format!("{shown:?}")));
    // What the fetcher can not parse it does not ask.
    let Ok(parsed) = Url::parse(url) else { return };
    assert_eq!(
        parsed.port_or_known_default(),
        Some(link.port()),
        "another port: {url}"
    );
    let shown = Url::parse(&shown).expect("as good a URL");
    assert_eq!((shown.username(), shown.password()), ("", None), "{url}");
    assert_eq!(
        (shown.host(), shown.path(), shown.query()),
        (parsed.host(), parsed.path(), parsed.query()),
        "{url}"
    );
}
