//! Which URL may be fetched for whom, and what the worker may know of it.

use std::hash::{BuildHasher, RandomState};

use super::cache_file::CacheFiles;
use super::fetches::Fetches;
use crate::fetch::{About, Fetch, MAX_ABOUT, MAX_REST, MAX_URL, Validators};
use crate::link::{BadLink, Link};
use crate::settings::ProxyStart;
use crate::wire::{Endpoint, LinkInfo, MAX_DISPLAY};

/// Whether and how links are answered.
#[derive(Debug)]
pub(super) struct Proxy {
    /// For what is neither below the root nor in a second directory.
    pub(super) fallback: Option<Link>,
    pub(super) files: CacheFiles,
    pub(super) fetches: Fetches,
    /// Empty = any.
    ports: Vec<(u16, u16)>,
    about: bool,
    /// For keys of links: two, as 64 bits can be made to collide by who may try often.
    hashes: [RandomState; 2],
}

/// What is kept of a link until the worker asks to fetch it: the worker never learns it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lead {
    link: Link,
    /// What was asked below the link.
    rest: Vec<u8>,
    /// The whole name that was asked.
    name: Vec<u8>,
}

impl Proxy {
    /// Reads the settings.
    ///
    /// # Errors
    /// The fallback is no link.
    pub(super) fn new(start: ProxyStart, files: CacheFiles) -> Result<Self, BadLink> {
        let fallback = match start.fallback {
            Some(url) => Some(Link::parse(url.as_bytes())?.ok_or(BadLink::Url("no URL"))?),
            None => None,
        };
        Ok(Self {
            fallback,
            files,
            fetches: Fetches::new(start.max_fetches, start.max_object),
            ports: start.ports,
            about: start.about,
            hashes: [RandomState::new(), RandomState::new()],
        })
    }

    /// Whether `--proxy-ports` has the link's port.
    pub(super) fn allows(&self, link: &Link) -> bool {
        let has = |(first, last): &(u16, u16)| (*first..=*last).contains(&link.port());
        self.ports.is_empty() || self.ports.iter().any(has)
    }

    /// What is kept of a link, and what the worker is told.
    pub(super) fn lead(&self, link: Link, rest: Vec<u8>, name: &[u8]) -> (Lead, LinkInfo) {
        let about = (link.url(), link.cache(), link.identity(), rest.as_slice());
        let info = LinkInfo {
            key: self.hashes.each_ref().map(|keyed| keyed.hash_one(about)),
            display: display(&link, &rest),
            cache: link.cache(),
            identity: link.identity(),
        };
        let name = name.get(..MAX_ABOUT).unwrap_or(name).to_vec();
        (Lead { link, rest, name }, info)
    }

    /// The order for the fetcher.
    pub(super) fn order(
        &self,
        job: u64,
        lead: Lead,
        client: Endpoint,
        validators: Validators,
        netascii: bool,
    ) -> Fetch {
        let mode = if netascii { "netascii" } else { "octet" };
        let about = self.about.then(|| About {
            client: client.ip,
            file: lead.name,
            mode: mode.into(),
        });
        Fetch {
            job,
            url: lead.link.url().into(),
            rest: lead.rest,
            identity: lead.link.identity(),
            validators,
            about,
        }
    }
}

/// The URL without credentials and what was asked below it, cut to what a message may have.
fn display(link: &Link, rest: &[u8]) -> String {
    let mut text = link.display();
    if !rest.is_empty() {
        if !text.ends_with('/') {
            text.push('/');
        }
        text.push_str(&rest.escape_ascii().to_string());
    }
    let end = (0..=MAX_DISPLAY.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

// A name that may be asked is a rest that may be sent; the parser of links bounds the URL.
const _: () = assert!(crate::wire::MAX_PATH <= MAX_REST && MAX_URL <= MAX_DISPLAY);

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(ports: &[(u16, u16)]) -> Proxy {
        let start = ProxyStart {
            fallback: None,
            cache_directory: false,
            ports: ports.to_vec(),
            about: true,
            max_fetches: 1,
            max_object: 1,
        };
        Proxy::new(start, CacheFiles::new(None)).unwrap()
    }

    fn link(url: &str) -> Link {
        Link::parse(url.as_bytes()).unwrap().unwrap()
    }

    fn info(proxy: &Proxy, url: &str, rest: &str) -> LinkInfo {
        proxy.lead(link(url), rest.into(), b"name").1
    }

    #[test]
    fn the_key_tells_apart_what_is_fetched_differently() {
        let proxy = proxy(&[]);
        let key = |url: &str, rest: &str| info(&proxy, url, rest).key;
        assert_eq!(key("http://h/", "a"), key("http://h/", "a"));
        let all = [
            key("http://h/", "a"),
            key("http://h/a", ""),
            key("http://h/", "b"),
            key("https://h/", "a"),
            key("http+nocache://h/", "a"),
            key("http+nocompress://h/", "a"),
            key("http://u:p@h/", "a"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all.iter().skip(at + 1).any(|other| other == one), "{at}");
            assert_ne!(one[0], one[1]);
        }
    }

    #[test]
    fn the_worker_learns_no_credentials_and_no_more_than_a_message_can_have() {
        let proxy = proxy(&[]);
        let shown = info(&proxy, "http://user:secret@h/dir", "a\u{ff} b").display;
        assert_eq!(shown, "http://h/dir/a\\xc3\\xbf b");
        let shown = info(&proxy, "http://h/", &"ä".repeat(1000)).display;
        assert_eq!(shown.len(), MAX_DISPLAY);
    }

    #[test]
    fn only_the_ports_named_are_allowed_and_none_means_any() {
        for (ports, url, allowed) in [
            (&[][..], "http://h:1/", true),
            (&[(80, 80), (443, 443)], "http://h/", true),
            (&[(80, 80), (443, 443)], "https://h/", true),
            (&[(80, 80), (443, 443)], "http://h:8080/", false),
            (&[(8000, 8100)], "http://h:8100/", true),
            (&[(8000, 8100)], "http://h/", false),
        ] {
            assert_eq!(proxy(ports).allows(&link(url)), allowed, "{url}");
        }
    }

    #[test]
    fn a_fetch_names_the_client_unless_that_is_off() {
        let mut proxy = proxy(&[]);
        let client = Endpoint {
            ip: "192.0.2.1".parse().unwrap(),
            port: 1069,
            scope: 0,
        };
        let order = |proxy: &Proxy| {
            let (lead, _) = proxy.lead(link("http+nocompress://h/"), b"f".to_vec(), b"d/f");
            proxy.order(7, lead, client, Validators::default(), true)
        };
        let fetch = order(&proxy);
        assert_eq!((fetch.job, fetch.url.as_str()), (7, "http://h/"));
        assert!(fetch.identity && fetch.rest == b"f");
        let about = fetch.about.unwrap();
        assert_eq!((about.client, about.mode.as_str()), (client.ip, "netascii"));
        assert_eq!(about.file, b"d/f");
        proxy.about = false;
        assert_eq!(order(&proxy).about, None);
    }
}
