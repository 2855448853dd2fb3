//! What a captured process can still do, tried from inside: `r-tftpd self-test`.
//!
//! - [`probe`]: what a deed is, and what has to come of it; [`deeds`]: all of them.
//! - `captured`: processes that do one deed in place of their work.
//! - `report`: what came of it all, for people and as JSON; `missing`: what a kernel lacks, and
//!   what follows from that.
//!
//! The tests of the sandbox do the same deeds from the places of real processes.

pub mod captured;
pub mod deeds;
mod missing;
pub mod probe;
mod report;

use std::process::ExitCode;

use r_tftpd_broker::supervisor::self_test::Scene::{Alone, Request};

use self::deeds::{
    descriptors, directories, fetcher as fetching, fetches, memory, messages, world,
};
use self::probe::{Group, Needs};
pub use self::report::run;

/// Rights that Landlock has learnt: the ABI that brought each, what it is, and what follows where it
/// is missing.
#[must_use]
pub fn rights() -> [(u32, &'static str, &'static str); 4] {
    missing::RIGHTS
}

/// Plays a captured worker, if that is what this process was started for.
#[must_use]
pub fn worker() -> Option<ExitCode> {
    captured::main("r-tftpd-worker", WORKER, captured::worker::play)
}

/// Plays a captured broker, if that is what this process was started for.
#[must_use]
pub fn broker() -> Option<ExitCode> {
    captured::main("r-tftpd-broker", BROKER, captured::broker::play)
}

/// Plays a captured fetcher, if that is what this process was started for.
#[must_use]
pub fn fetcher() -> Option<ExitCode> {
    captured::main("r-tftpd-fetcher", FETCHER, captured::fetcher::play)
}

/// A row of a table of groups.
macro_rules! groups {
    ($($name:literal, $scene:ident, $needs:ident: $($part:ident)::+;)*) => {
        &[$(Group { name: $name, scene: $scene, needs: Needs::$needs, probes: $($part)::+ },)*]
    };
}

/// What a captured worker tries.
pub const WORKER: &[Group] = groups! {
    "files", Alone, Nothing: world::FILES;
    "processes", Alone, Nothing: world::PROCESSES;
    "sockets", Alone, Nothing: world::SOCKETS;
    "privileges", Alone, Nothing: world::PRIVILEGES;
    "kernel", Alone, Nothing: world::KERNEL;
    "numbers", Alone, Nothing: world::NUMBERS;
    "old calls", Alone, Nothing: world::LEGACY;
    "common calls", Alone, Nothing: world::TRIED;
    "calls that others may", Alone, Nothing: descriptors::NONE;
    "memory", Alone, Nothing: memory::CALLS;
    "reply socket", Request, Nothing: descriptors::SOCKET;
    "granted file", Request, Nothing: descriptors::FILES;
    "granted file again", Request, Nothing: descriptors::FILE_AGAIN;
    "channels", Request, Nothing: descriptors::CHANNELS;
    "handing over", Request, Nothing: descriptors::HANDING_OVER;
    "paths", Request, Nothing: fetches::PATHS;
    "messages to the broker", Request, Nothing: messages::ORDERLY;
    "broken messages", Request, Nothing: messages::BROKEN;
    "end of the channel", Request, Nothing: messages::CLOSED;
    "fetches", Request, Proxy: fetches::ORDERS;
};

/// What a captured broker tries.
pub const BROKER: &[Group] = groups! {
    "files", Alone, Nothing: world::FILES;
    "processes", Alone, Nothing: world::PROCESSES;
    "sockets", Alone, Nothing: world::SOCKETS;
    "privileges", Alone, Nothing: world::PRIVILEGES;
    "kernel", Alone, Nothing: world::KERNEL;
    "numbers", Alone, Nothing: world::NUMBERS;
    "old calls", Alone, Nothing: world::LEGACY;
    "common calls", Alone, Nothing: world::TRIED;
    "memory", Alone, Nothing: memory::CALLS;
    "root", Alone, Nothing: directories::FILES;
    "opened files", Alone, Nothing: directories::OPENED;
    "cache directory", Alone, CacheDirectory: directories::CACHED;
    "cache files", Alone, CacheDirectory: directories::UNNAMED_FILES;
    "listener", Alone, Nothing: directories::SOCKETS;
    "channel to the fetcher", Alone, Proxy: directories::FETCHERS;
};

/// What a captured fetcher tries.
pub const FETCHER: &[Group] = groups! {
    "files", Alone, Proxy: world::FILES;
    "processes", Alone, Proxy: world::PROCESSES;
    "sockets", Alone, Proxy: world::SOCKETS;
    "privileges", Alone, Proxy: world::PRIVILEGES;
    "kernel", Alone, Proxy: world::KERNEL;
    "numbers", Alone, Proxy: world::NUMBERS;
    "old calls", Alone, Proxy: world::LEGACY;
    "common calls", Alone, Proxy: fetching::TRIED;
    "memory", Alone, Proxy: memory::CALLS;
    "sockets and TCP", Alone, Proxy: fetching::SOCKETS;
    "ports", Alone, Ports: fetching::OTHER_PORTS;
    "past Landlock", Alone, Proxy: fetching::FAST_OPEN;
    "granted file", Request, Proxy: fetching::FILES;
    "granted file again", Request, Proxy: fetching::FILE_AGAIN;
    "channels", Request, Proxy: fetching::CHANNELS;
    "messages to the broker", Request, Proxy: fetching::MESSAGES;
};
