//! What the supervisor tells each process when it starts: the command line, already checked.

use crate::net::Network;
use crate::wire::{Decode, Encode, Hello};

/// The most bytes of a start message. Lists of networks are the only part that grows.
pub const MAX_START: usize = 64 * 1024;

/// For the broker. Comes with the descriptors: channel to the worker, root directory, listeners.
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
    /// Absolute path of the root, for the log.
    pub root: String,
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
}

/// How log records are written.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LogSettings {
    /// Layout of a record.
    pub format: LogFormat,
    /// Value of `RUST_LOG`; empty = `info`.
    pub filter: String,
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
