//! The headers of ours that an origin sees, and those of an origin's that we pass on.

use r_tftpd_broker::fetch::{About, Validators};
use reqwest::header::{
    AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, DATE, ETAG, EXPIRES, HeaderMap,
    HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, PRAGMA, VARY,
};

/// The headers that caching needs; no others leave the fetcher.
const KEPT: [HeaderName; 10] = [
    CACHE_CONTROL,
    EXPIRES,
    AGE,
    DATE,
    ETAG,
    LAST_MODIFIED,
    VARY,
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    PRAGMA,
];

/// The most bytes of names and values in a `Head`, so that it fits a message.
const MAX_KEPT: usize = 3072;

/// What goes into a `Head`; `cache_control` comes last. Headers that are too long for a message
/// make an answer that is not to be kept.
pub(super) fn kept(
    headers: &HeaderMap,
    cache_control: Option<&'static str>,
) -> Vec<(String, Vec<u8>)> {
    let pair = |name: &HeaderName, value: &[u8]| (name.as_str().to_owned(), value.to_vec());
    let mut kept = Vec::new();
    for (name, value) in headers {
        if KEPT.contains(name) {
            kept.push(pair(name, value.as_bytes()));
        }
    }
    kept.extend(cache_control.map(|value| pair(&CACHE_CONTROL, value.as_bytes())));
    // Six bytes for the two lengths of each.
    let size = kept
        .iter()
        .map(|(name, value)| name.len() + value.len() + 6)
        .sum::<usize>();
    if size > MAX_KEPT {
        vec![pair(&CACHE_CONTROL, b"no-store")]
    } else {
        kept
    }
}

/// `If-None-Match` and `If-Modified-Since`.
pub(super) fn conditions(validators: &Validators) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let pairs = [
        (IF_NONE_MATCH, &validators.etag),
        (IF_MODIFIED_SINCE, &validators.last_modified),
    ];
    for (name, value) in pairs {
        // They came from an origin as header values; what can not be one is left out.
        let value = value
            .as_ref()
            .and_then(|value| HeaderValue::from_bytes(value).ok());
        headers.extend(value.map(|value| (name, value)));
    }
    headers
}

/// `X-TFTP-Client`, `X-TFTP-File`, `X-TFTP-Mode`. In the last two, bytes other than visible ASCII
/// and the percent sign are percent-encoded: nothing a client sends can start a header.
pub(super) fn about(about: &About) -> HeaderMap {
    let values = [
        ("x-tftp-client", about.client.to_canonical().to_string()),
        ("x-tftp-file", encoded(&about.file)),
        ("x-tftp-mode", encoded(about.mode.as_bytes())),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in values {
        let value = HeaderValue::try_from(value).ok();
        headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
    }
    headers
}

fn encoded(bytes: &[u8]) -> String {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    let text = |byte: &u8| {
        if visible(*byte) {
            char::from(*byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    bytes.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use r_tftpd_broker::fetch::{FromFetcher, Head};
    use r_tftpd_broker::wire::{MAX_MESSAGE, encode};

    use super::*;

    #[test]
    fn only_what_caching_needs_is_kept_in_order() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_CONTROL, HeaderValue::from_static("max-age=1"));
        headers.append("set-cookie", HeaderValue::from_static("secret"));
        headers.append(CACHE_CONTROL, HeaderValue::from_static("public"));
        let kept = kept(&headers, Some("no-cache"));
        let values: Vec<_> = kept.iter().map(|(_, value)| &value[..]).collect();
        assert_eq!(values, [&b"max-age=1"[..], b"public", b"no-cache"]);
    }

    #[test]
    fn headers_too_long_for_a_message_make_an_answer_not_to_be_kept() {
        let mut headers = HeaderMap::new();
        for _ in 0..600 {
            headers.append(VARY, HeaderValue::from_static(""));
        }
        assert_eq!(
            kept(&headers, None),
            [("cache-control".into(), b"no-store".to_vec())]
        );
        let mut headers = HeaderMap::new();
        headers.insert(
            ETAG,
            HeaderValue::try_from("e".repeat(MAX_KEPT - 10)).unwrap(),
        );
        let headers = kept(&headers, None);
        assert_eq!(headers[0].0, "etag");
        let head = Head {
            job: u64::MAX,
            status: 200,
            headers,
            length: Some(u64::MAX),
        };
        assert!(encode(&FromFetcher::Head(head), &mut [0; MAX_MESSAGE]).is_ok());
    }

    #[test]
    fn nothing_a_client_sends_can_start_a_header() {
        let sent = About {
            client: "::ffff:192.0.2.7".parse().unwrap(),
            file: b"a b\r\nX-Evil: 1\0\xff%".to_vec(),
            mode: "octet\n".into(),
        };
        let headers = about(&sent);
        assert_eq!(headers["x-tftp-client"], "192.0.2.7");
        assert_eq!(headers["x-tftp-file"], "a%20b%0D%0AX-Evil:%201%00%FF%25");
        assert_eq!(headers["x-tftp-mode"], "octet%0A");
    }

    #[test]
    fn validators_that_are_no_header_values_are_left_out() {
        let validators = Validators {
            etag: Some(b"\"a\"\r\n".to_vec()),
            last_modified: Some(b"x".to_vec()),
        };
        let headers = conditions(&validators);
        assert_eq!((headers.get(IF_NONE_MATCH), headers.len()), (None, 1));
    }
}
