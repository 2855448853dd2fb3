//! Links: symlink targets (and the value of `--fallback`) that name a URL to fetch from.
//!
//! `http://host/path` or `https://host/path`, the scheme followed by any of `+nocache` and
//! `+nocompress` in any order. Only what decides about a grant is read here (scheme, modifiers,
//! host, port); the fetcher parses the URL in full.

use std::fmt;
use std::net::Ipv6Addr;

/// The most bytes a link's URL can have.
pub const MAX_URL: usize = 1024;

/// A URL to fetch from, as the operator wrote it, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    url: String,
    port: u16,
    cache: bool,
    identity: bool,
}

/// Why a target that looks like a URL is no link. The text is for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadLink {
    /// Neither `http` nor `https`.
    Scheme(String),
    /// Neither `nocache` nor `nocompress`.
    Modifier(String),
    /// More than [`MAX_URL`] bytes.
    TooLong,
    /// A URL that means nothing, or not the same to everyone.
    Url(&'static str),
}

impl fmt::Display for BadLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(scheme) => {
                write!(
                    f,
                    "scheme {scheme:?} is not supported, only http and https are"
                )
            }
            Self::Modifier(modifier) => {
                write!(
                    f,
                    "modifier {modifier:?} is unknown, there are nocache and nocompress"
                )
            }
            Self::TooLong => write!(f, "longer than {MAX_URL} bytes"),
            Self::Url(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for BadLink {}

/// Credentials stay out of what is logged, also by accident.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("url", &self.display())
            .field("cache", &self.cache)
            .field("identity", &self.identity)
            .finish()
    }
}

impl Link {
    /// Reads the target of a dangling symlink. `None` = an ordinary path, no link.
    ///
    /// # Errors
    /// [`BadLink`] for what looks like a URL and can not be fetched.
    pub fn parse(target: &[u8]) -> Result<Option<Self>, BadLink> {
        let Some((head, tail)) = split_scheme(target) else {
            return Ok(None);
        };
        let mut words = head.split('+');
        let scheme = words.next().unwrap_or_default().to_ascii_lowercase();
        let standard_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(BadLink::Scheme(scheme)),
        };
        let (mut cache, mut identity) = (true, false);
        for modifier in words {
            match modifier {
                "nocache" => cache = false,
                "nocompress" => identity = true,
                _ => return Err(BadLink::Modifier(modifier.into())),
            }
        }
        let Some(tail) = tail.strip_prefix(b"//") else {
            return Err(BadLink::Url("no // after the scheme"));
        };
        let tail = str::from_utf8(tail).map_err(|_| BadLink::Url("not UTF-8"))?;
        if tail.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(BadLink::Url("a space, a control character or a backslash"));
        }
        let port = port(authority(tail))?.unwrap_or(standard_port);
        let url = format!("{scheme}://{tail}");
        if url.len() > MAX_URL {
            return Err(BadLink::TooLong);
        }
        Ok(Some(Self {
            url,
            port,
            cache,
            identity,
        }))
    }

    /// The URL without modifiers, with its credentials: for the fetcher alone.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port to connect to: the one named, else 80 or 443.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether answers may be cached (no `+nocache`).
    #[must_use]
    pub fn cache(&self) -> bool {
        self.cache
    }

    /// Whether to ask for the body as it is (`+nocompress`).
    #[must_use]
    pub fn identity(&self) -> bool {
        self.identity
    }

    /// The URL without credentials, for logs.
    #[must_use]
    pub fn display(&self) -> String {
        let (scheme, tail) = self.url.split_once("://").unwrap_or_default();
        let place = authority(tail);
        let after = tail.strip_prefix(place).unwrap_or_default();
        let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
        format!("{scheme}://{host}{after}")
    }
}

/// Splits `scheme+modifiers` from what follows its colon, if `target` looks like a URL: `://`
/// follows, or the scheme is one that nobody gives to a directory.
fn split_scheme(target: &[u8]) -> Option<(&str, &[u8])> {
    let colon = target.iter().position(|byte| *byte == b':')?;
    let (head, tail) = (target.get(..colon)?, target.get(colon + 1..)?);
    let head = str::from_utf8(head).ok()?;
    let scheme = head.split('+').next()?;
    let word = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    if !head.starts_with(|c: char| c.is_ascii_alphabetic()) || !head.chars().all(word) {
        return None;
    }
    let known = ["http", "https", "file", "ftp"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known));
    (known || tail.starts_with(b"//")).then_some((head, tail))
}

/// `user:password@host:port` of what follows `//`.
fn authority(tail: &str) -> &str {
    tail.find(['/', '?', '#'])
        .and_then(|end| tail.get(..end))
        .unwrap_or(tail)
}

/// The port in an authority; `None` if it names none.
fn port(authority: &str) -> Result<Option<u16>, BadLink> {
    let place = authority
        .rsplit_once('@')
        .map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let (address, after) = bracketed.split_once(']').ok_or(BadLink::Url("bad host"))?;
            address
                .parse::<Ipv6Addr>()
                .map_err(|_| BadLink::Url("bad IPv6 address"))?;
            match (after, after.strip_prefix(':')) {
                ("", _) => (address, None),
                (_, Some(port)) => (address, Some(port)),
                (_, None) => return Err(BadLink::Url("bad host")),
            }
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err(BadLink::Url("no host"));
    }
    match port {
        None | Some("") => Ok(None),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(0) | Err(_) => Err(BadLink::Url("bad port")),
            Ok(port) => Ok(Some(port)),
        },
        Some(_) => Err(BadLink::Url("bad port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(target: &str) -> Link {
        Link::parse(target.as_bytes()).unwrap().unwrap()
    }

    fn bad(target: &[u8]) -> BadLink {
        Link::parse(target).unwrap_err()
    }

    #[test]
    fn modifiers_come_in_any_order() {
        for (target, cache, identity) in [
            ("http://h/", true, false),
            ("http+nocache://h/", false, false),
            ("http+nocompress://h/", true, true),
            ("http+nocompress+nocache://h/", false, true),
            ("http+nocache+nocompress://h/", false, true),
            ("HTTP+nocache+nocache://h/", false, false),
        ] {
            let link = link(target);
            assert_eq!(
                (link.cache(), link.identity(), link.url()),
                (cache, identity, "http://h/")
            );
        }
    }

    #[test]
    fn the_port_is_the_one_named_or_the_scheme_s() {
        for (target, port) in [
            ("http://h", 80),
            ("https://h/x", 443),
            ("https+nocache://h:8443/x:1", 8443),
            ("http://u:7@h:81?a:2", 81),
            ("http://u@v:7@h:/", 80),
            ("http://[2001:db8::1]/", 80),
            ("http://[2001:db8::1]:8080#x", 8080),
        ] {
            assert_eq!(link(target).port(), port, "{target}");
        }
    }

    #[test]
    fn an_ordinary_path_is_no_link() {
        for target in [
            "",
            "file",
            "../x",
            "/srv/x",
            "a/http://h/",
            "c:x",
            "x:/y",
            "+a://h",
            "é://h",
        ] {
            assert_eq!(Link::parse(target.as_bytes()), Ok(None), "{target}");
        }
        assert_eq!(Link::parse(b"\xff://h/"), Ok(None));
    }

    #[test]
    fn another_scheme_or_modifier_is_refused_by_name() {
        for (target, scheme) in [
            ("ftp://h/", "ftp"),
            ("file:///etc/passwd", "file"),
            ("file:/etc/passwd", "file"),
            ("tftp://h/", "tftp"),
            ("gopher+nocache://h/", "gopher"),
        ] {
            assert_eq!(bad(target.as_bytes()), BadLink::Scheme(scheme.into()));
        }
        for (target, modifier) in [
            ("http+gzip://h/", "gzip"),
            ("http+://h/", ""),
            ("https+nocache+x://h/", "x"),
        ] {
            assert_eq!(bad(target.as_bytes()), BadLink::Modifier(modifier.into()));
        }
    }

    #[test]
    fn a_broken_url_is_refused() {
        for target in [
            "http:",
            "http:/h",
            "http://",
            "http:///x",
            "http://:80/",
            "http://u@/",
            "http://h:0/",
            "http://h:65536/",
            "http://h:8o/",
            "http://h:+80/",
            "http://[::1/",
            "http://[::1]x/",
            "http://[h]/",
            "http://h/a b",
            "http://h/a\tb",
            "http://h\\@x/",
            "http://h/\u{85}",
        ] {
            assert!(
                matches!(bad(target.as_bytes()), BadLink::Url(_)),
                "{target}"
            );
        }
        assert!(matches!(bad(b"http://h/\xff"), BadLink::Url(_)));
        let long = format!("http://h/{}", "x".repeat(MAX_URL));
        assert_eq!(bad(long.as_bytes()), BadLink::TooLong);
    }

    #[test]
    fn credentials_are_kept_and_never_shown() {
        let link = link("https+nocache://user:p%40ss@w:rd@host:8443/a@b?c@d");
        assert_eq!(link.url(), "https://user:p%40ss@w:rd@host:8443/a@b?c@d");
        assert_eq!(link.display(), "https://host:8443/a@b?c@d");
        assert!(!format!("{link:?}").contains("p%40ss"));
    }
}
