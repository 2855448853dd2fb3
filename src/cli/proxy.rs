//! The options of the proxy, and what they mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use r_tftpd_broker::link::Link;
use r_tftpd_broker::supervisor::{CacheDirectory, ProxySettings};

use super::values::{self, Fallback, Ports};

/// Where origins listen unless their URL says otherwise.
const STANDARD_PORTS: [u16; 2] = [80, 443];

/// The section of `--help`.
const PROXY: &str = "Proxy";

/// Relaying requests to HTTP servers.
#[derive(Debug, Args)]
pub(super) struct Proxy {
    /// Where to look for what is not below the root: a URL to append names to, with modifiers as
    /// in links, or a directory
    ///
    /// The port of a URL need not be among --proxy-ports. A directory is served as the root is.
    #[arg(short, long, value_name = "URI", value_parser = values::fallback, help_heading = PROXY)]
    #[arg(value_hint = ValueHint::DirPath)]
    fallback: Option<Fallback>,

    /// Directory for cache files; they have no names. Neither within --root nor around it
    /// [default: CACHE_DIRECTORY, TMPDIR, /var/tmp or /tmp]
    ///
    /// Without it, the first of these that can be used is taken. Files are gone with the server,
    /// also after a crash. Where none can be made, they are in memory, with a warning.
    #[arg(short = 'C', long, value_name = "DIR", help_heading = PROXY)]
    #[arg(value_hint = ValueHint::DirPath)]
    cache_dir: Option<PathBuf>,

    /// Size of the cache in bytes; K, M, G and T are understood
    ///
    /// What has not been used for the longest time gives way. What is being sent stays until it is
    /// sent.
    #[arg(long, value_name = "BYTES", default_value = "1G")]
    #[arg(value_parser = values::bytes, help_heading = PROXY)]
    cache_size: u64,

    /// Largest object that is relayed, in bytes [default: half of --cache-size]
    ///
    /// It bounds what is not cached, too.
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, help_heading = PROXY)]
    cache_max_object: Option<u64>,

    /// Objects in the cache. Each takes a file descriptor
    ///
    /// Where the limit of descriptors is too low for the number, it is lowered with a warning.
    #[arg(long, value_name = "NUM", default_value = "1024")]
    #[arg(value_parser = values::count, help_heading = PROXY)]
    cache_entries: u32,

    /// Seconds for which what has become stale is served while its server fails
    ///
    /// 0 never serves anything stale.
    #[arg(long, value_name = "SECONDS", default_value = "3600")]
    #[arg(value_parser = values::stale, help_heading = PROXY)]
    stale_if_error: Duration,

    /// Ports that links may lead to: numbers and ranges such as 80,443,8000-8100, or any; that of
    /// --fallback always may [default: 80,443]
    ///
    /// Redirects may lead to the same ones. A link to another port is refused with code 2.
    #[arg(long, value_name = "PORTS", value_parser = values::ports, help_heading = PROXY)]
    proxy_ports: Option<Ports>,

    /// Seconds in which a server must answer, and send each next part
    ///
    /// Fractions are allowed.
    #[arg(long, value_name = "SECONDS", default_value = "20")]
    #[arg(value_parser = values::proxy_timeout, help_heading = PROXY)]
    proxy_timeout: Duration,

    /// File with certificates (PEM) to trust beside those of the system; can be given several times
    ///
    /// The user that r-tftpd runs as must be able to read it. It is read at the start and with each
    /// SIGHUP.
    #[arg(long, value_name = "FILE", help_heading = PROXY, value_hint = ValueHint::FilePath)]
    ca_file: Vec<PathBuf>,

    /// Do not tell servers which client asks for what (X-TFTP-Client, -File and -Mode)
    ///
    /// The headers X-TFTP-Client, X-TFTP-File and X-TFTP-Mode let a server answer each client
    /// differently. Such answers say so by "Vary" and are then cached for that client only.
    #[arg(long, help_heading = PROXY)]
    no_tftp_headers: bool,

    /// Never ask other servers; links that name URLs are denied
    ///
    /// No fetcher is started then. Clients get code 2, and the log names the link.
    #[arg(long, help_heading = PROXY)]
    disable_proxy: bool,
}

impl Proxy {
    /// The directory for what is not below the root.
    pub(super) fn fallback_directory(&self) -> Option<PathBuf> {
        match &self.fallback {
            Some(Fallback::Directory(path)) => Some(path.clone()),
            _ => None,
        }
    }

    /// How links are answered; none = they are denied.
    pub(super) fn settings(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Option<ProxySettings> {
        if self.disable_proxy {
            return None;
        }
        let (fallback, link) = match &self.fallback {
            Some(Fallback::Url { text, link }) => (Some(text.clone()), Some(link)),
            _ => (None, None),
        };
        Some(ProxySettings {
            fallback,
            cache_directory: self.cache_directory(variable),
            cache_size: self.cache_size,
            max_object: self.cache_max_object.unwrap_or(self.cache_size / 2).max(1),
            cache_entries: self.cache_entries,
            stale_if_error: self.stale_if_error,
            ports: self.ports(link),
            ca_files: self.ca_file.clone(),
            ca_bundle: variable("SSL_CERT_FILE").map(PathBuf::from),
            about: !self.no_tftp_headers,
            timeout: self.proxy_timeout,
            user_agent: concat!("r-tftpd/", env!("CARGO_PKG_VERSION")).into(),
        })
    }

    fn cache_directory(&self, variable: &dyn Fn(&str) -> Option<String>) -> CacheDirectory {
        if let Some(path) = &self.cache_dir {
            return CacheDirectory::Named(path.clone());
        }
        // systemd sets it for CacheDirectory=, with several separated by colons.
        let of_systemd = variable("CACHE_DIRECTORY");
        let of_systemd = of_systemd
            .as_deref()
            .and_then(|list| list.split(':').next());
        let candidates = of_systemd
            .map(PathBuf::from)
            .into_iter()
            .chain(variable("TMPDIR").map(PathBuf::from))
            .chain(["/var/tmp".into(), "/tmp".into()]);
        CacheDirectory::Candidates(candidates.collect())
    }

    /// The port of the fallback is one the user has named, too.
    fn ports(&self, fallback: Option<&Link>) -> Vec<(u16, u16)> {
        let mut ports = match &self.proxy_ports {
            Some(Ports::Any) => return Vec::new(),
            Some(Ports::Ranges(ranges)) => ranges.clone(),
            None => STANDARD_PORTS.map(|port| (port, port)).to_vec(),
        };
        let contains = |port| {
            ports
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&port))
        };
        let missing = fallback.map(Link::port).filter(|port| !contains(*port));
        ports.extend(missing.map(|port| (port, port)));
        ports
    }

    /// What has no effect with `--disable-proxy`.
    pub(super) fn warning(&self) -> Option<String> {
        let is_url = matches!(self.fallback, Some(Fallback::Url { .. }));
        let has_others = is_url || self.cache_dir.is_some() || !self.ca_file.is_empty();
        (self.disable_proxy && has_others).then(|| {
            "--fallback with a URL, --cache-dir and --ca-file have no effect with --disable-proxy"
                .into()
        })
    }
}
