//! Going on after an answer that broke off (RFC 9110, sections 13.1.5 and 14).

use std::time::Duration;

use reqwest::header::{
    self, ACCEPT_ENCODING, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderValue, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use reqwest::{Response, StatusCode};

/// The most resumptions of one fetch.
const TRIES: u32 = 3;

/// How to go on after the first answer of a fetch.
#[derive(Debug)]
pub(super) struct Resume {
    validator: Strong,
    /// The bytes in the file are those on the wire, so that a range of them can be asked.
    ranges: bool,
    /// Length of the whole body, if known.
    length: Option<u64>,
}

/// A validator that no two different bodies share.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Strong {
    Etag(HeaderValue),
    LastModified(HeaderValue),
}

impl Resume {
    /// `None` = this answer can not be resumed: nothing proves that a second one is the same.
    pub(super) fn of(headers: &HeaderMap, ranges: bool, length: Option<u64>) -> Option<Self> {
        Some(Self {
            validator: Strong::of(headers)?,
            ranges,
            length,
        })
    }

    /// Adds what makes a request ask for the body from `have` on.
    pub(super) fn ask(&self, headers: &mut HeaderMap, have: u64) {
        if !self.ranges || have == 0 {
            return;
        }
        let Ok(range) = HeaderValue::try_from(format!("bytes={have}-")) else {
            return;
        };
        headers.insert(RANGE, range);
        headers.insert(IF_RANGE, self.validator.value().clone());
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }

    /// How many bytes of the body of a further answer are already there, if it goes on where the
    /// first one broke off.
    pub(super) fn skip(&self, answer: &Response, have: u64) -> Result<u64, &'static str> {
        let headers = answer.headers();
        match answer.status() {
            StatusCode::OK => match Strong::of(headers) {
                Some(validator) if validator == self.validator => Ok(have),
                _ => Err("the origin has a different body now"),
            },
            StatusCode::PARTIAL_CONTENT => {
                if headers
                    .get(ETAG)
                    .is_some_and(|etag| self.validator.contradicts(etag))
                {
                    return Err("the origin has a different body now");
                }
                if headers.contains_key(header::CONTENT_ENCODING) {
                    return Err("the origin resumed with an encoding");
                }
                let value = headers
                    .get(CONTENT_RANGE)
                    .and_then(|value| value.to_str().ok());
                let (first, length) = value.and_then(content_range).ok_or("no Content-Range")?;
                let same = match (length, self.length) {
                    (Some(length), Some(before)) => length == before,
                    _ => true,
                };
                if same && first == have {
                    Ok(0)
                } else {
                    Err("another range than the one asked")
                }
            }
            _ => Err("the origin has no such body any more"),
        }
    }
}

impl Strong {
    fn of(headers: &HeaderMap) -> Option<Self> {
        if let Some(etag) = headers.get(ETAG) {
            let strong = etag.as_bytes().starts_with(b"\"") && etag.as_bytes().ends_with(b"\"");
            return (strong && etag.len() > 1).then(|| Self::Etag(etag.clone()));
        }
        // RFC 9110, section 8.8.2.2: strong if the origin sent it at least a second later.
        let last_modified = headers.get(LAST_MODIFIED)?;
        let time = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
        let age = time(headers.get(DATE)?)?
            .duration_since(time(last_modified)?)
            .ok()?;
        (age >= Duration::from_secs(1)).then(|| Self::LastModified(last_modified.clone()))
    }

    fn value(&self) -> &HeaderValue {
        match self {
            Self::Etag(value) | Self::LastModified(value) => value,
        }
    }

    fn contradicts(&self, etag: &HeaderValue) -> bool {
        matches!(self, Self::Etag(ours) if ours != etag)
    }
}

/// First byte and, unless it is `*`, the length of the whole out of
/// `bytes FIRST-LAST/LENGTH`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, length) = value.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let length = match length {
        "*" => None,
        digits => Some(digits.parse().ok()?),
    };
    let whole = length.is_none_or(|length| last.checked_add(1) == Some(length));
    (first <= last && whole).then_some((first, length))
}

/// The resumptions that a fetch has left, and the time between them.
#[derive(Debug, Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// Takes one and waits its time; `false` = none is left.
    pub(super) async fn next(&mut self) -> bool {
        if self.0 >= TRIES {
            return false;
        }
        // At once, then 250 ms, then 1 s: an origin that restarts needs a moment.
        let wait = match self.0 {
            0 => Duration::ZERO,
            1 => Duration::from_millis(250),
            _ => Duration::from_secs(1),
        };
        self.0 += 1;
        tokio::time::sleep(wait).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_strong_validators_count() {
        let date = ("date", "Mon, 02 Nov 2026 10:00:01 GMT");
        for (pairs, strong) in [
            (&[("etag", "\"a\"")][..], true),
            (&[("etag", "W/\"a\"")], false),
            (&[("etag", "a")], false),
            (&[("etag", "\"")], false),
            (
                &[("last-modified", "Mon, 02 Nov 2026 10:00:00 GMT"), date],
                true,
            ),
            (
                &[("last-modified", "Mon, 02 Nov 2026 10:00:01 GMT"), date],
                false,
            ),
            (&[("last-modified", "yesterday"), date], false),
            (&[("last-modified", "Mon, 02 Nov 2026 10:00:00 GMT")], false),
            (
                &[
                    ("etag", "W/\"a\""),
                    ("last-modified", "Mon, 02 Nov 2026 10:00:00 GMT"),
                    date,
                ],
                false,
            ),
            (&[], false),
        ] {
            assert_eq!(Strong::of(&headers(pairs)).is_some(), strong, "{pairs:?}");
        }
    }

    #[test]
    fn a_content_range_must_reach_the_end() {
        for (value, range) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes 5-8/10", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("items 5-9/10", None),
            ("bytes 5-18446744073709551615/18446744073709551615", None),
            ("bytes -5-9/10", None),
        ] {
            assert_eq!(content_range(value), range, "{value}");
        }
    }

    #[test]
    fn a_range_is_asked_only_of_bytes_that_are_there_as_sent() {
        let strong = headers(&[("etag", "\"a\"")]);
        let ask = |ranges, have| {
            let mut request = HeaderMap::new();
            Resume::of(&strong, ranges, Some(10))
                .unwrap()
                .ask(&mut request, have);
            request
        };
        assert_eq!(ask(true, 5)[RANGE], "bytes=5-");
        assert_eq!(ask(true, 5)[IF_RANGE], "\"a\"");
        assert!(ask(true, 0).is_empty());
        assert!(ask(false, 5).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_three_tries() {
        let mut tries = Tries::default();
        for _ in 0..TRIES {
            assert!(tries.next().await);
        }
        assert!(!tries.next().await);
    }
}
