//! What the supervisor tells each process when it starts: the command line, already checked.

use crate::net::Network;
use crate::wire::{Decode, Encode, Hello};

/// The most bytes of a start message. Lists of networks are the only part that grows.
pub const MAX_START: usize = 64 * 1024;

/// For the broker. Comes with the descriptors, in this order: channel to the worker; root directory;
/// with `fallback_directory` that one; with a proxy that has a `cache_directory` that one; the
/// listeners. The channel to the fetcher follows later, with [`crate::control::Order::Fetcher`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BrokerStart {
    /// Always [`Hello::OURS`].
    pub hello: Hello,
    /// How to write log records.
    pub log: LogSettings,
    /// Which lock-down is required.
    pub sandbox: Sandbox,
    /// Peers to answer; empty = all.
    pub allow: Vec<Network>,
    /// Peers not to answer, also when allowed.
    pub deny: Vec<Network>,
    /// Simultaneous requests of one address; 1 or more.
    pub max_per_client: u32,
    /// First and last port for reply sockets; none = any free port.
    pub port_range: Option<(u16, u16)>,
    /// The most requests that can be outstanding at once.
    pub max_outstanding: u32,
    /// Reply sockets that serve more than one request; 0 = none.
    pub max_kept: u16,
    /// Absolute path of the root, for the log.
    pub root: String,
    /// A second directory comes along, for what is not below the root.
    pub fallback_directory: bool,
    /// How links are answered; none = they are denied.
    pub proxy: Option<ProxyStart>,
}

/// For the broker: what may be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProxyStart {
    /// URL, with modifiers, for what is neither below the root nor in a second directory.
    pub fallback: Option<String>,
    /// A directory for cache files comes along; otherwise they are memory files.
    pub cache_directory: bool,
    /// Ranges (first and last) of ports that links may lead to; empty = any.
    pub ports: Vec<(u16, u16)>,
    /// Send the `X-TFTP-` headers.
    pub about: bool,
    /// The most fetches at once; 1 or more.
    pub max_fetches: u32,
    /// Largest body in bytes.
    pub max_object: u64,
}

/// For the worker. Comes with one descriptor: the channel to the broker.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WorkerStart {
    /// Always [`Hello::OURS`].
    pub hello: Hello,
    /// How to write log records.
    pub log: LogSettings,
    /// Which lock-down is required.
    pub sandbox: Sandbox,
    /// Proven transfers at once; 1 or more.
    pub max_connections: u32,
    /// Unproven transfers at once; 1 or more.
    pub max_unproven: u32,
    /// Milliseconds before a resend; 1 or more.
    pub timeout_ms: u64,
    /// Resends without progress before a transfer is given up; 1 or more.
    pub max_retries: u32,
    /// Largest blksize granted, in bytes, 8 to 65464.
    pub max_blksize: u16,
    /// Largest windowsize granted, in blocks, 1 to 65535.
    pub max_windowsize: u16,
    /// Answer options (RFC 2347); off only for testing clients.
    pub options: bool,
    /// Accept writes and discard the data; only for testing clients.
    pub wrq_devnull: bool,
    /// What the cache may use; means nothing without a proxy.
    pub cache: CacheStart,
}

/// For the worker: what the cache may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CacheStart {
    /// Bytes of all bodies together.
    pub bytes: u64,
    /// Bytes of one body; a larger one is refused.
    pub object: u64,
    /// Entries kept.
    pub entries: u32,
    /// Fetches at once; 1 or more. The broker grants as many.
    pub fetches: u32,
    /// Milliseconds that a stale entry can stand in for an origin that fails.
    pub stale_if_error_ms: u64,
    /// Origins are sent the `X-TFTP-` headers, and may answer by them.
    pub about: bool,
}

/// For the fetcher. Comes with the descriptors: channel to the broker, resolv.conf, hosts, then
/// files with CA certificates (PEM). What does not exist is an empty file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetcherStart {
    /// Always [`Hello::OURS`].
    pub hello: Hello,
    /// How to write log records.
    pub log: LogSettings,
    /// Which lock-down is required.
    pub sandbox: Sandbox,
    /// Ranges (first and last) of ports that links and redirects may lead to; empty = any.
    pub ports: Vec<(u16, u16)>,
    /// Port of the name servers: 53, other than in tests.
    pub dns_port: u16,
    /// Value of the `User-Agent` header: `r-tftpd/VERSION`.
    pub user_agent: String,
    /// Send the `X-TFTP-` headers.
    pub about: bool,
    /// Milliseconds until a connection must stand, with TLS; 1 or more.
    pub connect_timeout_ms: u64,
    /// Milliseconds without a byte from the origin until it is given up; 1 or more.
    pub read_timeout_ms: u64,
    /// Largest body in bytes, decoded.
    pub max_object: u64,
    /// Redirects followed for one fetch.
    pub max_redirects: u32,
}

/// How log records are written.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LogSettings {
    /// Layout of a record.
    pub format: LogFormat,
    /// Value of `RUST_LOG`; empty = `info`.
    pub filter: String,
    /// Start each line with its priority, as journald reads it: sd-daemon(3).
    pub priorities: bool,
}

/// Layout of a log record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LogFormat {
    /// No timestamp; for journald, which has its own.
    Compact,
    /// Timestamp, level, process and fields on one line.
    Full,
    /// One JSON object a line.
    Json,
}

/// Which lock-down is required (design: sandbox levels).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Sandbox {
    /// seccomp, `no_new_privs` and Landlock of any ABI, else no start.
    Strict,
    /// What the kernel has; what is missing is named in the start line.
    BestEffort,
}
