//! The example of the manual of version 0.4.0, row by row, and what stands in for the fallback.

use r_tftpd_test_support::files::TempDir;
use r_tftpd_test_support::origin::{Asked, Raw, answer};

use crate::{FRESH, get, links, refused, serve};

/// Tells who was asked for what, in which encoding; fresh for long.
fn named(name: &'static str) -> Raw {
    Raw::answering(move |asked, _| answer("200 OK", FRESH, &told(name, asked)))
}

fn told(name: &str, asked: &Asked) -> Vec<u8> {
    let encoding = match asked.header("accept-encoding") {
        Some(accepted) if accepted.contains("gzip") => "compressed",
        other => other.unwrap_or("any"),
    };
    format!("{name} {} {encoding}", asked.path()).into_bytes()
}

/// The example, its hosts replaced by origins of this test.
struct Example {
    root: TempDir,
    domains: [Raw; 3],
    fallback: Raw,
}

impl Example {
    fn new() -> Self {
        let domains = ["domain1", "domain2", "domain3"].map(named);
        let [one, two, three] = domains.each_ref().map(Raw::place);
        let root = links(&[
            ("domain1", &format!("http+nocache://{one}/")),
            ("domain2", &format!("http+nocompress://{two}/")),
            (
                "remote-file",
                &format!("http+nocompress+nocache://{three}/some-file"),
            ),
        ]);
        root.write("existing", b"local file");
        root.write("subdir/file", b"another local file");
        let fallback = named("fallback");
        Self {
            root,
            domains,
            fallback,
        }
    }

    /// Asks twice for `name`; the origin of `row` must be asked `times`, the others never.
    #[track_caller]
    fn check(&self, name: &str, contents: &str, row: Option<&Raw>, times: usize) {
        let fallback = format!("http://{}/", self.fallback.place());
        let daemon = serve(&self.root, &["--fallback", &fallback]);
        for _ in 0..2 {
            let bytes = get(&daemon, name).unwrap();
            assert_eq!(String::from_utf8_lossy(&bytes), contents);
        }
        let all = self.domains.iter().chain([&self.fallback]);
        let asked: usize = all.map(Raw::requests).sum();
        assert_eq!((asked, row.map_or(0, Raw::requests)), (times, times));
    }
}

#[test]
fn an_existing_file_is_served_from_the_root() {
    Example::new().check("existing", "local file", None, 0);
}

#[test]
fn a_file_in_a_directory_is_served_from_the_root() {
    Example::new().check("subdir/file", "another local file", None, 0);
}

#[test]
fn a_link_with_nocache_is_a_directory_that_is_asked_every_time() {
    let example = Example::new();
    let contents = "domain1 /foo compressed";
    example.check("domain1/foo", contents, Some(&example.domains[0]), 2);
}

#[test]
fn a_link_with_nocompress_asks_for_identity_and_is_cached() {
    let example = Example::new();
    let contents = "domain2 /bar identity";
    example.check("domain2/bar", contents, Some(&example.domains[1]), 1);
}

#[test]
fn a_link_to_a_file_with_both_modifiers_asks_for_identity_every_time() {
    let example = Example::new();
    let contents = "domain3 /some-file identity";
    example.check("remote-file", contents, Some(&example.domains[2]), 2);
}

#[test]
fn what_is_not_here_is_fetched_from_the_fallback() {
    let example = Example::new();
    let contents = "fallback /not-here compressed";
    example.check("not-here", contents, Some(&example.fallback), 1);
}

#[test]
fn the_port_of_the_fallback_is_allowed_without_being_named() {
    let origin = named("fallback");
    let root = TempDir::new();
    let fallback = format!("http+nocompress://{}/sub", origin.place());
    let arguments = ["--fallback", &fallback];
    let daemon = r_tftpd_test_support::daemon::Daemon::start(
        crate::R_TFTPD.as_ref(),
        root.path(),
        &arguments,
    );
    let bytes = get(&daemon, "/a b/c").unwrap();
    assert_eq!(bytes, b"fallback /sub/a%20b/c identity");
}

#[test]
fn a_fallback_can_be_a_directory() {
    let (root, other) = (TempDir::new(), TempDir::new());
    root.write("both", b"of the root");
    other.write("both", b"of the fallback");
    other.write("sub/only", b"only there");
    let daemon = serve(&root, &["--fallback", other.path().to_str().unwrap()]);
    assert_eq!(get(&daemon, "both").unwrap(), b"of the root");
    assert_eq!(get(&daemon, "sub/only").unwrap(), b"only there");
    refused(&daemon, "nowhere", 1);
}

#[test]
fn without_the_proxy_links_are_denied_and_files_served() {
    let example = Example::new();
    let daemon = serve(&example.root, &["--disable-proxy"]);
    assert_eq!(get(&daemon, "existing").unwrap(), b"local file");
    refused(&daemon, "domain1/foo", 2);
    refused(&daemon, "not-here", 1);
    let line = daemon.wait_for(|record| record["fields"]["link"] == "domain1");
    let reason = line["fields"]["reason"].as_str().unwrap();
    assert!(reason.contains("--disable-proxy"), "{line}");
    let children = r_tftpd_test_support::processes::Process::children_of(daemon.supervisor().pid);
    assert!(
        children.iter().all(|child| child.name != "r-tftpd-fetcher"),
        "{children:?}"
    );
}
