//! Joins a link's URL and what a client asked below it, so that the client can choose nothing but
//! a place below the link.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use url::Url;

/// The URL to ask for.
///
/// Each part of `rest` between slashes becomes one path segment, percent-encoded; empty parts and
/// `.` say nothing, as in a file system. What a server might read in more than one way is refused,
/// with the reason.
pub(super) fn join(link: &str, rest: &[u8]) -> Result<Url, &'static str> {
    let link = Url::parse(link).map_err(|_| "the link's URL can not be parsed")?;
    if !matches!(link.scheme(), "http" | "https") || link.host().is_none() {
        return Err("the link's URL is not http or https");
    }
    let rest = str::from_utf8(rest).map_err(|_| "the name is not UTF-8")?;
    let parts = parts(rest)?;
    if parts.is_empty() {
        return Ok(link);
    }
    let mut joined = link.clone();
    joined
        .path_segments_mut()
        .map_err(|()| "the link's URL has no path")?
        .pop_if_empty()
        .extend(&parts);
    if is_below(&joined, &link) {
        Ok(joined)
    } else {
        Err("the name leads out of the link")
    }
}

/// The names between the slashes of `rest`.
fn parts(rest: &str) -> Result<Vec<&str>, &'static str> {
    let mut parts = Vec::new();
    for part in rest.split('/') {
        match part {
            "" | "." => (),
            part => {
                check(part)?;
                parts.push(part);
            }
        }
    }
    Ok(parts)
}

/// Refuses what some server or proxy on the way might take for a step upwards or for the end of
/// the path, also after decoding it again and again.
fn check(part: &str) -> Result<(), &'static str> {
    let mut text = Cow::Borrowed(part);
    loop {
        if text.contains(|c: char| c.is_control() || c == '\\') {
            return Err("the name has a control character or a backslash");
        }
        // Some servers cut path parameters off before they look: `..;x` is `..` to them.
        let dots = |step: &str| matches!(step.split(';').next(), Some("." | ".."));
        if text.split('/').any(dots) {
            return Err("the name has a .. or an encoded . or ..");
        }
        let decoded = percent_decode_str(&text)
            .decode_utf8()
            .map_err(|_| "the name has bytes encoded that are not UTF-8")?
            .into_owned();
        if decoded == *text {
            return Ok(());
        }
        if decoded.contains('/') {
            return Err("the name has an encoded slash");
        }
        text = Cow::Owned(decoded);
    }
}

/// What must hold of every URL we ask, checked again on the result.
fn is_below(joined: &Url, link: &Url) -> bool {
    let place = |url: &Url| {
        let text = |part: Option<&str>| part.map(str::to_owned);
        (
            url.scheme().to_owned(),
            url.username().to_owned(),
            text(url.password()),
            text(url.host_str()),
            url.port(),
            text(url.query()),
        )
    };
    place(joined) == place(link) && joined.path().starts_with(link.path())
}

#[cfg(test)]
mod tests {
    use r_tftpd_broker::link::Link;

    use super::*;

    fn joined(link: &str, rest: &str) -> String {
        join(link, rest.as_bytes()).unwrap().into()
    }

    #[test]
    fn names_are_appended_to_files_prefixes_and_queries() {
        for (link, rest, url) in [
            ("http://h/", "foo", "http://h/foo"),
            ("http://h", "foo/bar", "http://h/foo/bar"),
            ("http://h/i", "/x86//vmlinuz", "http://h/i/x86/vmlinuz"),
            ("http://h/i/", "./a/./b/", "http://h/i/a/b"),
            ("http://h/some-file", "", "http://h/some-file"),
            ("http://h/dir/", "", "http://h/dir/"),
            ("http://h/dir/", "/", "http://h/dir/"),
            (
                "https://u:p@h:8443/get?d=1",
                "f",
                "https://u:p@h:8443/get/f?d=1",
            ),
            ("http://h/%7Ea/", "b", "http://h/%7Ea/b"),
        ] {
            assert_eq!(joined(link, rest), url);
        }
    }

    #[test]
    fn what_means_something_in_a_url_is_encoded() {
        for (rest, path) in [
            ("a?b", "/t/a%3Fb"),
            ("a#b", "/t/a%23b"),
            ("@evil.test", "/t/@evil.test"),
            (":8080", "/t/:8080"),
            ("http://evil.test/x", "/t/http:/evil.test/x"),
            ("//evil.test/x", "/t/evil.test/x"),
            ("a b", "/t/a%20b"),
            ("100%", "/t/100%25"),
            ("a%20b", "/t/a%2520b"),
            ("ä", "/t/%C3%A4"),
            ("...", "/t/..."),
            ("..a/a..", "/t/..a/a.."),
        ] {
            for link in ["http://h/t", "http://h/t/"] {
                assert_eq!(joined(link, rest), format!("http://h{path}"));
            }
        }
    }

    #[test]
    fn what_could_climb_is_refused() {
        for rest in [
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "%2e%2e/x",
            "%2E%2e",
            ".%2e",
            "%2e",
            "%252e%252e/x",
            "%25252e.",
            "..\\x",
            "a\\b",
            "a%5cb",
            "a%255Cb",
            "a%2fb",
            "a%252Fb",
            "..%2fx",
            "..;/x",
            ".;a/x",
            "%2e%2e%3bx",
            "a\tb",
            "a\nb",
            "\0",
            "a%00b",
            "a%0d%0ab",
            "\u{7f}",
            "a%c0%ae",
            "\u{85}",
        ] {
            assert!(
                join("http://h/tftp/pub/", rest.as_bytes()).is_err(),
                "{rest:?}"
            );
        }
        assert!(join("http://h/", b"\xc0\xae\xc0\xae/x").is_err());
    }

    #[test]
    fn a_link_that_is_no_url_is_refused() {
        for link in [
            "",
            "h",
            "/x",
            "file:///etc/",
            "ftp://h/",
            "data:x",
            "http://",
            "http://a b/",
        ] {
            assert!(join(link, b"x").is_err(), "{link:?}");
        }
    }

    /// A small generator (xorshift) so that a failure can be repeated from the seed it prints.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 16).unwrap() % bound
        }

        fn pick<'a>(&mut self, pieces: &[&'a [u8]]) -> &'a [u8] {
            pieces[self.below(pieces.len())]
        }
    }

    const LINKS: [&str; 8] = [
        "http://h/tftp/pub/",
        "http://h/tftp/pub",
        "http://h",
        "https://u:p@h:8443/a/?q=/../x#f",
        "http://[2001:db8::1]:81/a/b/",
        "http://user@h/a%2fb/",
        "http://h:80/?",
        "https://h/é/",
    ];

    const PIECES: [&[u8]; 34] = [
        b"/",
        b"//",
        b".",
        b"..",
        b"...",
        b"%2e",
        b"%2E%2e",
        b"%25",
        b"%252e",
        b"\\",
        b"%5c",
        b"%2f",
        b"\t",
        b"\n",
        b"\r",
        b"\0",
        b"?",
        b"#",
        b"@",
        b":",
        b":8080",
        b"http:",
        b"evil.test",
        b"a",
        b"foo",
        b";",
        b"&",
        b" ",
        b"\xff",
        b"\xc0\xae",
        b"\xef\xbc\x8e",
        b"\x7f",
        b"%",
        b"|<>^`{}\"'",
    ];

    #[test]
    fn nothing_a_client_sends_leaves_the_link() {
        let mut joined = 0;
        for seed in 1..=200_000_u64 {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let link = LINKS[random.below(LINKS.len())];
            let mut rest = Vec::new();
            for _ in 0..random.below(9) {
                rest.extend(random.pick(&PIECES));
            }
            let Ok(url) = join(link, &rest) else {
                continue;
            };
            joined += 1;
            // As an origin sees it: parsed anew from its text.
            let (url, link) = (Url::parse(url.as_str()).unwrap(), Url::parse(link).unwrap());
            let rest = rest.escape_ascii();
            assert_eq!(url.scheme(), link.scheme(), "seed {seed}: {rest}");
            assert_eq!(url.host(), link.host(), "seed {seed}: {rest}");
            assert_eq!(url.port(), link.port(), "seed {seed}: {rest}");
            assert_eq!(url.username(), link.username(), "seed {seed}: {rest}");
            assert_eq!(url.password(), link.password(), "seed {seed}: {rest}");
            assert_eq!(url.query(), link.query(), "seed {seed}: {rest}");
            assert!(url.path().starts_with(link.path()), "seed {seed}: {rest}");
            let below = url.path().strip_prefix(link.path()).unwrap();
            let decoded = percent_decode_str(below).decode_utf8_lossy();
            assert!(
                !decoded.split(['/', '\\']).any(|s| s == ".."),
                "seed {seed}: {rest}"
            );
        }
        assert!(joined > 20_000, "only {joined} were no refusal");
    }

    #[test]
    fn broker_and_fetcher_read_the_same_port_and_host_out_of_a_link() {
        const PARTS: [&[u8]; 18] = [
            b"h",
            b":",
            b"80",
            b"8443",
            b"@",
            b"/",
            b"?",
            b"#",
            b"[::1]",
            b"u",
            b".",
            b"a",
            b"%40",
            b"%3a",
            b";",
            b"&",
            b"0",
            b"\xc3\xa9",
        ];
        for seed in 1..=200_000_u64 {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut target = b"http://".to_vec();
            for _ in 0..random.below(10) {
                target.extend(random.pick(&PARTS));
            }
            let Ok(Some(link)) = Link::parse(&target) else {
                continue;
            };
            let Ok(url) = Url::parse(link.url()) else {
                continue;
            };
            let text = link.url();
            assert_eq!(
                url.port_or_known_default(),
                Some(link.port()),
                "seed {seed}: {text}"
            );
            let shown = Url::parse(&link.display()).unwrap();
            assert_eq!(shown.host(), url.host(), "seed {seed}: {text}");
            assert_eq!(
                (shown.username(), shown.password()),
                ("", None),
                "seed {seed}: {text}"
            );
        }
    }
}
