//! TLS with a private CA, HTTP/2.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, Version};
use r_tftpd_broker::fetch::Failure;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, Stream};

use crate::harness::{Fetcher, setup};
use r_tftpd_test_support::origin::{Raw, hang_up, pattern, served};

/// A CA, and a server with a certificate of it for `name`.
fn certified(name: &str, alpn: &[&[u8]]) -> (String, ServerConfig) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    (ca.pem(), config)
}

#[test]
fn https_trusts_the_handed_over_ca_and_speaks_http_2_and_1() {
    let body = pattern(5_000_000);
    for (alpn, version) in [
        (&b"h2"[..], Version::HTTP_2),
        (b"http/1.1", Version::HTTP_11),
    ] {
        let (ca, config) = certified("origin.test", &[alpn]);
        let (seen, sent) = (Arc::new(AtomicUsize::new(0)), Bytes::from(body.clone()));
        let counter = Arc::clone(&seen);
        let address = served(Some(config), move |request| {
            if request.version() == version {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            let body = Full::new(sent.clone());
            async move {
                Response::builder()
                    .header("etag", "\"a\"")
                    .body(body)
                    .unwrap()
            }
        });
        let mut setup = setup();
        setup.certificates = ca.into_bytes();
        setup.start.ports = vec![(address.port(), address.port())];
        let mut fetcher = Fetcher::start(&setup);
        for _ in 0..2 {
            let fetched = fetcher.get(&format!("https://origin.test:{}/", address.port()));
            assert_eq!(fetched.whole(), body);
            assert_eq!(fetched.length(), Some(5_000_000));
        }
        assert_eq!(seen.load(Ordering::SeqCst), 2, "{version:?}");
        fetcher.stop();
    }
}

#[test]
fn a_body_that_ends_with_its_tls_connection_must_be_closed_in_order() {
    for in_order in [true, false] {
        let (ca, config) = certified("origin.test", &[]);
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut tls = ServerConnection::new(config).unwrap();
            let mut both = Stream::new(&mut tls, &mut stream);
            let mut asked = [0; 1];
            both.read_exact(&mut asked).unwrap();
            both.write_all(b"HTTP/1.1 200 OK\r\n\r\nbody").unwrap();
            if in_order {
                both.conn.send_close_notify();
            }
            both.flush().unwrap();
            hang_up(&mut stream);
        });
        let mut setup = setup();
        setup.certificates = ca.into_bytes();
        let mut fetcher = Fetcher::start(&setup);
        let fetched = fetcher.get(&format!("https://origin.test:{port}/"));
        if in_order {
            assert_eq!(fetched.whole(), b"body");
        } else {
            assert_eq!(fetched.failure(), Failure::BrokenOff);
        }
        fetcher.stop();
    }
}

#[test]
fn another_ca_another_name_or_no_tls_at_all_fails_as_tls() {
    let empty = |_| async { Response::new(Full::default()) };
    let (ca, config) = certified("other.test", &[]);
    let other_name = served(Some(config), empty).port();
    let (_, config) = certified("origin.test", &[]);
    let other_ca = served(Some(config), empty).port();
    let plain = Raw::fixed(b"".as_slice()).address.port();
    let mut setup = setup();
    setup.certificates = ca.into_bytes();
    let mut trusting = Fetcher::start(&setup);
    setup.certificates = b"no certificate".to_vec();
    let mut trusting_nobody = Fetcher::start(&setup);
    let url = |port| format!("https://origin.test:{port}/");
    assert_eq!(trusting.get(&url(other_name)).failure(), Failure::Tls);
    assert_eq!(trusting.get(&url(other_ca)).failure(), Failure::Tls);
    assert_eq!(trusting_nobody.get(&url(other_ca)).failure(), Failure::Tls);
    assert_eq!(trusting.get(&url(plain)).failure(), Failure::Tls);
    trusting.stop();
    trusting_nobody.stop();
}
