//! What the tests need to run the daemon and to talk to it.
//!
//! - [`daemon`]: starts the daemon, reads its log, stops it, sees that nothing is left behind.
//! - [`client`]: a TFTP client that does as it is told.
//! - [`origin`]: HTTP servers that do as they are told.
//! - [`files`]: temporary directories and file contents that can be recomputed.
//! - [`processes`]: what the system tells about a process.
//!
//! Everything here panics when something is not as expected: that is how a test fails. Nothing
//! sleeps: what is waited for is an event, with [`DEADLINE`].

pub mod client;
pub mod daemon;
pub mod files;
pub mod origin;
pub mod processes;

use std::time::Duration;

/// How long any single event may take before the test fails. Generous, as test machines are busy.
pub const DEADLINE: Duration = Duration::from_secs(30);
