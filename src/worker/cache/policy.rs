//! What HTTP allows to do with an answer. `http-cache-semantics` decides; here is only what joins
//! it to the cache, and what makes hostile or sloppy headers fit for it.

use std::time::{Duration, Instant, SystemTime};

use http::header::{
    ACCEPT_ENCODING, AGE, CACHE_CONTROL, DATE, ETAG, EXPIRES, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, PRAGMA, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_cache_semantics::{AfterResponse, BeforeRequest, CacheOptions, CachePolicy};

use super::terms::{About, LinkInfo, MAX_VALIDATOR, Now, Validators};

/// The request for the origin, as far as an answer can depend on it by `Vary`.
pub(super) type Asked = Request<()>;

/// The request for `link`. The URL is left out: each has its own key.
pub(super) fn asked(link: &LinkInfo, about: Option<&About>) -> Asked {
    let mut asked = Request::new(());
    let headers = asked.headers_mut();
    let encodings = if link.identity {
        "identity"
    } else {
        "gzip, br, zstd, deflate"
    };
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encodings));
    if let Some(About { client, file, mode }) = about {
        for (name, value) in [
            ("x-tftp-client", client.to_string()),
            // Any form does that differs when the name differs.
            ("x-tftp-file", file.escape_ascii().to_string()),
            ("x-tftp-mode", mode.escape_default().to_string()),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
    asked
}

/// What an answer's headers allow. They are judged as those of a status that may be kept, which is
/// for the caller to know.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    semantics: CachePolicy,
    headers: HeaderMap,
    taken: Now,
}

/// What a stored answer is to a new request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It can be served.
    Fresh,
    /// The origin has to be asked, with these validators if there are any; there are none when
    /// it answers a different request: `Vary`.
    Stale(Validators),
}

impl Policy {
    /// Judges `headers`, received `now`.
    pub(super) fn new(asked: &Asked, headers: &[(String, Vec<u8>)], now: Now) -> Self {
        Self::from_map(asked, normalized(headers), now)
    }

    fn from_map(asked: &Asked, headers: HeaderMap, now: Now) -> Self {
        let response = response(StatusCode::OK, headers.clone());
        let semantics = CachePolicy::new_options(asked, &response, now.date, OPTIONS);
        Self {
            semantics,
            headers,
            taken: now,
        }
    }

    /// Whether the answer may serve anybody but who asked for it: no `no-store`, no `private`, no
    /// `Vary: *`.
    pub(super) fn is_shareable(&self) -> bool {
        let all = self
            .headers
            .get_all(VARY)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let varies = all
            .flat_map(|value| value.split(','))
            .any(|name| name.trim() == "*");
        self.semantics.is_storable() && !varies
    }

    /// Whether it answers `asked` as well: the headers that `Vary` names are the same.
    pub(super) fn answers(&self, asked: &Asked) -> bool {
        match self.semantics.before_request(asked, self.taken.date) {
            BeforeRequest::Fresh(_) => true,
            BeforeRequest::Stale { matches, .. } => matches,
        }
    }

    /// What it is to `asked`.
    pub(super) fn standing(&self, asked: &Asked, now: Instant) -> Standing {
        match self.semantics.before_request(asked, self.date(now)) {
            BeforeRequest::Fresh(_) => Standing::Fresh,
            BeforeRequest::Stale { matches: false, .. } => Standing::Stale(Validators::default()),
            BeforeRequest::Stale {
                request,
                matches: true,
            } => {
                let value = |name| {
                    let value = request
                        .headers
                        .get(name)
                        .map(|value| value.as_bytes().to_vec());
                    value.filter(|value| value.len() <= MAX_VALIDATOR)
                };
                Standing::Stale(Validators {
                    etag: value(IF_NONE_MATCH),
                    last_modified: value(IF_MODIFIED_SINCE),
                })
            }
        }
    }

    /// Whether it may answer `asked` though it has been stale for less than `window`.
    pub(super) fn allows_stale(&self, asked: &Asked, window: Duration, now: Instant) -> bool {
        // A client of HTTP would ask for the same by this directive (RFC 9111 section 5.2.1.2).
        let Ok(directive) = HeaderValue::try_from(format!("max-stale={}", window.as_secs())) else {
            return false;
        };
        let mut asked = asked.clone();
        asked.headers_mut().insert(CACHE_CONTROL, directive);
        matches!(
            self.semantics.before_request(&asked, self.date(now)),
            BeforeRequest::Fresh(_)
        )
    }

    /// Whether a stored answer could ever be served, fresh, confirmed or stale.
    pub(super) fn is_useful(&self, asked: &Asked, window: Duration, now: Instant) -> bool {
        match self.standing(asked, now) {
            Standing::Fresh => true,
            Standing::Stale(validators) => {
                validators != Validators::default() || self.allows_stale(asked, window, now)
            }
        }
    }

    /// For how long it is fresh from `now`; zero when stale.
    pub(super) fn fresh_for(&self, now: Instant) -> Duration {
        self.semantics.time_to_live(self.date(now))
    }

    /// How old it is, with the time it spent in caches on the way.
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.semantics.age(self.date(now))
    }

    /// For how long an answer can be kept for which `default` holds where the origin says nothing.
    pub(super) fn negative_for(&self, default: Duration) -> Duration {
        let says = |value: &str| {
            ["max-age", "s-maxage", "no-cache"]
                .iter()
                .any(|directive| value.contains(directive))
        };
        let mut control = self.headers.get_all(CACHE_CONTROL).iter();
        let explicit = self.headers.contains_key(EXPIRES)
            || control.any(|value| value.to_str().is_ok_and(says));
        if !self.is_shareable() {
            Duration::ZERO
        } else if explicit {
            default.min(self.fresh_for(self.taken.clock))
        } else {
            default
        }
    }

    /// The policy after the origin has said 304 with `headers` to a request with the validators of
    /// this one; `None` when it speaks of another answer.
    pub(super) fn confirmed(
        &self,
        asked: &Asked,
        headers: &[(String, Vec<u8>)],
        now: Now,
    ) -> Option<Self> {
        let mut headers = normalized(headers);
        // Last-Modified may be missing (RFC 9110 section 15.4.5): then the answer is about the
        // validators of the question.
        if !headers.contains_key(ETAG) && !headers.contains_key(LAST_MODIFIED) {
            for name in [ETAG, LAST_MODIFIED] {
                if let Some(value) = self.headers.get(&name) {
                    headers.insert(name, value.clone());
                }
            }
        }
        let answer = response(StatusCode::NOT_MODIFIED, headers.clone());
        match self.semantics.after_response(asked, &answer, now.date) {
            AfterResponse::Modified(..) => None,
            // The crate's merged headers keep an old Age and lose what is new in the answer.
            AfterResponse::NotModified(..) => {
                Some(Self::from_map(asked, merged(&self.headers, &headers), now))
            }
        }
    }

    /// The date at `now`, unmoved by steps of the system's date since the answer came.
    fn date(&self, now: Instant) -> SystemTime {
        let elapsed = now.saturating_duration_since(self.taken.clock);
        self.taken
            .date
            .checked_add(elapsed)
            .unwrap_or(self.taken.date)
    }
}

fn response(status: StatusCode, headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The headers of a stored answer after a 304 (RFC 9111 section 3.2). Age and Date are always the
/// newer answer's, even if it has none; what describes the body stays.
fn merged(stored: &HeaderMap, newer: &HeaderMap) -> HeaderMap {
    let mut merged = stored.clone();
    merged.remove(AGE);
    merged.remove(DATE);
    for name in newer
        .keys()
        .filter(|name| !name.as_str().starts_with("content-"))
    {
        merged.remove(name);
        for value in newer.get_all(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    merged
}

/// The headers in the one form that the crate understands.
fn normalized(headers: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        let value = match name {
            CACHE_CONTROL | PRAGMA | VARY => HeaderValue::from_bytes(&lower_case(value)),
            AGE => HeaderValue::try_from(age(value).to_string()),
            _ => HeaderValue::from_bytes(value),
        };
        if let Ok(value) = value {
            map.append(name, value);
        }
    }
    forbid_stale(&mut map);
    map
}

/// Directives and header names are the same in any case (RFC 9111 section 5.2); the crate knows the
/// lower one only, and leaves out values that are no text. A tab may stand where a space may
/// (RFC 9110 section 5.6.3).
fn lower_case(value: &[u8]) -> Vec<u8> {
    let text = |byte: u8| match byte {
        b'\t' => b' ',
        b' '..=b'~' => byte.to_ascii_lowercase(),
        _ => b'?',
    };
    value.iter().map(|&byte| text(byte)).collect()
}

/// The first member of a list, at most 2^31 (RFC 9111 sections 1.2.2 and 5.1), 0 if it is no
/// number. The crate's sum of a larger one and a time overflows.
fn age(value: &[u8]) -> u32 {
    const MAX: u32 = 1 << 31;
    let first = value
        .split(|&byte| byte == b',')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if first.is_empty() || !first.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let digits = first.iter().map(|digit| u32::from(digit - b'0'));
    digits
        .fold(0, |sum: u32, digit| {
            sum.saturating_mul(10).saturating_add(digit)
        })
        .min(MAX)
}

/// Spells out for the crate which directives imply that a stale answer is of no use
/// (RFC 9111 section 4.2.4).
fn forbid_stale(headers: &mut HeaderMap) {
    let says = |name, directives: &[&str]| {
        let mut values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values.any(|value| directives.iter().any(|directive| value.contains(directive)))
    };
    let forbids = if headers.contains_key(CACHE_CONTROL) {
        says(CACHE_CONTROL, &["no-cache", "proxy-revalidate", "s-maxage"])
            .then_some("must-revalidate")
    } else {
        says(PRAGMA, &["no-cache"]).then_some("no-cache, must-revalidate")
    };
    if let Some(directive) = forbids {
        headers.append(CACHE_CONTROL, HeaderValue::from_static(directive));
    }
}

/// A shared cache that guesses nothing: an answer without a lifetime is asked for again each time,
/// which costs a 304. An operator who replaces a kernel on a plain web server, which sends
/// Last-Modified and no lifetime, does not wait days for the clients to get it.
const OPTIONS: CacheOptions = CacheOptions {
    shared: true,
    cache_heuristic: 0.0,
    immutable_min_time_to_live: Duration::ZERO,
    ignore_cargo_cult: false,
};
