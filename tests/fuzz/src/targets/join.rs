//! What a client asks below a link: the URL that comes of it stays below the link, as every origin reads it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use r_tftpd_broker::link::Link;
use url::Url;

use crate::input::Input;

// Private to the fetcher.
#[path = "../../../../src/fetcher/join.rs"]
mod product;

const LINKS: [&str; 12] = [
    "http://h/tftp/pub/",
    "http://h/tftp/pub",
    "http://h",
    "https://u:p@h:8443/a/?q=/../x#f",
    "http://[2001:db8::1]:81/a/b/",
    "http://user@h/a%2fb/",
    "http://h:80/?",
    "https://h/\u{e9}/",
    "http://h/../a/./b//",
    "http://h//x//",
    "http://h/%2e%2e/x/",
    "http+nocache://h/#frag/",
];

/// A link, one of a list or by choice, and a name below it.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let target = match input.below(LINKS.len() + 4) {
        number if number < LINKS.len() => LINKS[number].as_bytes().to_vec(),
        _ => [b"http://", input.bytes(64)].concat(),
    };
    let Ok(Some(link)) = Link::parse(&target) else {
        return;
    };
    let rest = input.rest();
    let Ok(joined) = product::join(link.url(), rest) else {
        return;
    };

    let text = joined.as_str();
    let link = Url::parse(link.url()).expect("it was joined");
    // As an origin sees it: parsed anew.
    let joined = Url::parse(text).expect("a URL");
    assert_eq!(
        joined.as_str(),
        text,
        "means something else when it is parsed again"
    );
    assert!(
        !text
            .bytes()
            .any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'\\'),
        "{text:?}"
    );
    assert_eq!(
        (joined.scheme(), joined.host()),
        (link.scheme(), link.host()),
        "{text}"
    );
    assert_eq!(
        joined.port_or_known_default(),
        link.port_or_known_default(),
        "{text}"
    );
    assert_eq!(
        (joined.username(), joined.password()),
        (link.username(), link.password()),
        "{text}"
    );
    assert_eq!(joined.query(), link.query(), "{text}");
    let below = joined
        .path()
        .strip_prefix(link.path())
        .expect("the path leads out of the link");
    let is_whole = link.path().ends_with('/') || below.is_empty() || below.starts_with('/');
    assert!(is_whole, "the link's last name was changed: {text}");
    // However often it is decoded, and whatever it is cut at.
    let mut decoded = Cow::Borrowed(below);
    loop {
        for step in decoded.split(['/', '\\']) {
            let name = step.split(';').next().unwrap_or_default();
            assert!(name != ".." && name != ".", "a step upwards: {text}");
        }
        let again = percent_decode_str(&decoded)
            .decode_utf8_lossy()
            .into_owned();
        if again == *decoded {
            break;
        }
        let slashes = |text: &str| text.matches('/').count();
        let is_same = slashes(&again) == slashes(below);
        assert!(is_same, "an encoded slash: {text}");
        decoded = Cow::Owned(again);
    }
    assert!(
        !decoded.chars().any(char::is_control),
        "a control character: {text}"
    );
    // What was asked is all in it, and nothing but that.
    let asked = rest
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".");
    let got = below.split('/').filter(|part| !part.is_empty());
    let got: Vec<Vec<u8>> = got.map(|part| percent_decode_str(part).collect()).collect();
    assert!(
        asked.eq(got.iter().map(Vec::as_slice)),
        "another name: {text}"
    );
}
