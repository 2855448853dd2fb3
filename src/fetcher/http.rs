//! One GET, with its redirects, to places we may ask.

use std::sync::Arc;
use std::time::Duration;

use r_tftpd_broker::fetch::Failure;
use r_tftpd_broker::settings::FetcherStart;
use reqwest::header::{ACCEPT_ENCODING, CACHE_CONTROL, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tracing::{info, warn};
use url::Url;

use super::dns::Resolver;
use super::failed::Failed;

/// The HTTP clients and what they may be asked.
#[derive(Debug)]
pub(super) struct Origins {
    /// Asks for compressed bodies and decodes them.
    decoding: Client,
    /// Asks for bodies as they are and leaves them so.
    plain: Client,
    /// Ranges of ports, first and last; empty = any.
    ports: Vec<(u16, u16)>,
    max_redirects: u32,
}

/// What to ask.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Where; with credentials, if the link has some.
    pub(super) url: Url,
    /// Never decode the body.
    pub(super) identity: bool,
    /// For every origin on the way.
    pub(super) headers: HeaderMap,
    /// For the link's own origin alone: who asked is nobody else's business.
    pub(super) about: HeaderMap,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// The last response, with its body to come.
    pub(super) response: Response,
    /// A `Cache-Control` that follows from the redirects on the way.
    pub(super) cache_control: Option<&'static str>,
}

impl Origins {
    /// Builds the clients; `bundles` are PEM files with the certificates to trust, and no others
    /// are.
    ///
    /// # Errors
    /// What rustls and reqwest refuse.
    pub(super) fn new(
        start: &FetcherStart,
        bundles: &[Vec<u8>],
        resolver: &Resolver,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let tls = tls(bundles)?;
        let client = |decode: bool| {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(Arc::new(resolver.clone()))
                .no_proxy()
                .redirect(Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .user_agent(&start.user_agent)
                .connect_timeout(Duration::from_millis(start.connect_timeout_ms))
                .read_timeout(Duration::from_millis(start.read_timeout_ms))
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MAX_IDLE)
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
                .http2_keep_alive_interval(Some(PING))
                .http2_keep_alive_timeout(PING)
                .gzip(decode)
                .brotli(decode)
                .zstd(decode)
                .deflate(decode)
                .build()
        };
        let (ports, max_redirects) = (start.ports.clone(), start.max_redirects);
        Ok(Self {
            decoding: client(true)?,
            plain: client(false)?,
            ports,
            max_redirects,
        })
    }

    /// Asks, and follows redirects.
    ///
    /// # Errors
    /// [`Failed`]; a status that means failure is none.
    pub(super) async fn get(&self, question: &Question) -> Result<Answer, Failed> {
        let mut url = question.url.clone();
        let mut cache_control = None;
        let mut redirects = 0;
        loop {
            self.check_port(&url)?;
            let response = self.send(question, &url).await?;
            let Some(next) = target(&response, &url)? else {
                return Ok(Answer {
                    response,
                    cache_control,
                });
            };
            redirects += 1;
            if redirects > self.max_redirects {
                let detail = format!("more than {} redirects", self.max_redirects);
                return Err(Failed::new(Failure::Redirects, detail));
            }
            cache_control = strictest(cache_control, &response);
            url = next;
        }
    }

    async fn send(&self, question: &Question, url: &Url) -> Result<Response, Failed> {
        let client = if question.identity {
            &self.plain
        } else {
            &self.decoding
        };
        let mut request = client.get(url.clone());
        if question.identity {
            request = request.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        request = request.headers(question.headers.clone());
        if url.origin() == question.url.origin() {
            request = request.headers(question.about.clone());
        }
        request.send().await.map_err(|error| Failed::http(&error))
    }

    /// The kernel refuses other ports too, where it can.
    fn check_port(&self, url: &Url) -> Result<(), Failed> {
        let port = url.port_or_known_default().unwrap_or_default();
        let allowed = |(first, last): &(u16, u16)| (*first..=*last).contains(&port);
        if self.ports.is_empty() || self.ports.iter().any(allowed) {
            return Ok(());
        }
        let host = url.host_str().unwrap_or_default();
        let detail = format!("{host}: port {port} is not among --proxy-ports");
        Err(Failed::new(Failure::PortNotAllowed { port }, detail))
    }
}

/// Trusts the certificates in `bundles`.
fn tls(bundles: &[Vec<u8>]) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let mut refused = 0;
    for bundle in bundles {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(bundle)
            .filter_map(Result::ok)
            .collect();
        refused += roots.add_parsable_certificates(certificates).1;
    }
    if roots.is_empty() {
        warn!("no CA certificates: https links will fail");
    } else {
        info!(
            certificates = roots.len(),
            refused, "CA certificates loaded"
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// Where a response redirects to. Credentials stay with their origin.
fn target(response: &Response, from: &Url) -> Result<Option<Url>, Failed> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else {
        return Ok(None);
    };
    let refused = |reason| Failed::new(Failure::Redirects, reason);
    let location = str::from_utf8(location.as_bytes());
    let location = location.map_err(|_| refused("a redirect that is not UTF-8"))?;
    let mut url = from
        .join(location)
        .map_err(|_| refused("a redirect to no URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("a redirect to another scheme than http and https"));
    }
    let (user, password) = if url.origin() == from.origin() {
        (from.username(), from.password())
    } else {
        ("", None)
    };
    let kept = url
        .set_username(user)
        .and_then(|()| url.set_password(password));
    kept.map_err(|()| refused("a redirect to no host"))?;
    Ok(Some(url))
}

/// What a redirect says about keeping the answer it leads to under the URL it came from
/// (RFC 9110, section 15.4: only 301 and 308 are kept without being told so).
fn strictest(before: Option<&'static str>, redirect: &Response) -> Option<&'static str> {
    let values = redirect.headers().get_all(CACHE_CONTROL).iter();
    let text: Vec<_> = values
        .map(|value| value.as_bytes().to_ascii_lowercase())
        .collect();
    let text = text.join(&b","[..]);
    let says = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
    if before == Some(NO_STORE) || says(b"no-store") || says(b"private") {
        return Some(NO_STORE);
    }
    let permanent = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::PERMANENT_REDIRECT,
    ];
    let kept = permanent.contains(&redirect.status()) && text.is_empty();
    if kept { before } else { Some(NO_CACHE) }
}

const NO_STORE: &str = "no-store";
const NO_CACHE: &str = "no-cache";

/// Connections without a request are closed after this time.
const IDLE: Duration = Duration::from_secs(30);

/// Connections without a request that are kept for one origin.
const MAX_IDLE: usize = 8;

/// Bytes under way for one HTTP/2 body: 1 MiB fills 1 Gbit/s at 8 ms.
const STREAM_WINDOW: u32 = 1 << 20;

/// Bytes under way in one HTTP/2 connection.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// HTTP/2 connections that do not answer a ping within this time are given up.
const PING: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)]) -> Response {
        let mut builder = hyper::http::Response::builder().status(status);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body("").unwrap().into()
    }

    fn redirect(from: &str, location: &str) -> Result<Option<String>, Failure> {
        let from = Url::parse(from).unwrap();
        target(&response(302, &[("location", location)]), &from)
            .map(|url| url.map(String::from))
            .map_err(|failed| failed.failure)
    }

    #[test]
    fn a_redirect_stays_with_http_and_credentials_with_their_origin() {
        let from = "http://u:p@h/a/b";
        for (location, url) in [
            ("c", "http://u:p@h/a/c"),
            ("/c", "http://u:p@h/c"),
            ("http://h:80/c", "http://u:p@h/c"),
            ("http://x:y@h/c", "http://u:p@h/c"),
            ("https://h/c", "https://h/c"),
            ("http://h:81/c", "http://h:81/c"),
            ("//evil.test/c", "http://evil.test/c"),
            ("http://x:y@evil.test/c", "http://evil.test/c"),
        ] {
            assert_eq!(redirect(from, location), Ok(Some(url.into())), "{location}");
        }
        for location in [
            "file:///etc/passwd",
            "ftp://h/",
            "data:,x",
            "http://",
            "http://[/",
        ] {
            assert_eq!(
                redirect(from, location),
                Err(Failure::Redirects),
                "{location}"
            );
        }
    }

    #[test]
    fn only_a_redirect_with_a_location_is_followed() {
        let from = Url::parse("http://h/").unwrap();
        for status in [200, 300, 304, 305, 404] {
            assert!(
                target(&response(status, &[("location", "/x")]), &from)
                    .unwrap()
                    .is_none()
            );
        }
        assert!(target(&response(302, &[]), &from).unwrap().is_none());
    }

    #[test]
    fn redirects_that_may_change_forbid_to_keep_the_answer_unasked() {
        for (status, cache_control, result) in [
            (302, None, Some(NO_CACHE)),
            (307, None, Some(NO_CACHE)),
            (301, None, None),
            (308, None, None),
            (301, Some("max-age=5"), Some(NO_CACHE)),
            (301, Some("Private"), Some(NO_STORE)),
            (302, Some("a, NO-STORE"), Some(NO_STORE)),
        ] {
            let headers: Vec<_> = cache_control
                .iter()
                .map(|value| ("cache-control", *value))
                .collect();
            assert_eq!(strictest(None, &response(status, &headers)), result);
            assert_eq!(
                strictest(Some(NO_STORE), &response(status, &headers)),
                Some(NO_STORE)
            );
        }
        assert_eq!(
            strictest(Some(NO_CACHE), &response(301, &[])),
            Some(NO_CACHE)
        );
    }
}
