//! What the supervisor orders.

use std::fmt;
use std::io;
use std::rc::Rc;

use r_tftpd_broker::channel::{Channel, ReceiveError};
use r_tftpd_broker::control::{Malformed, Order, Report, SIZE};
use tracing::{info, warn};

use super::server::{Server, Stopping};
use crate::sys::watch;

/// Why the supervisor can no longer be followed; always fatal.
#[derive(Debug)]
pub(crate) enum Error {
    /// Reading failed, or the supervisor is gone.
    Receive(ReceiveError),
    /// An order that is none.
    Malformed(Malformed),
    /// Waiting for orders failed.
    Wait(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receive(ReceiveError::Closed) => f.write_str("supervisor is gone"),
            Self::Receive(error) => write!(f, "receiving from the supervisor: {error}"),
            Self::Malformed(error) => write!(f, "from the supervisor: {error}"),
            Self::Wait(error) => write!(f, "waiting for the supervisor: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// Obeys the supervisor until it says stop.
///
/// # Errors
/// [`Error`].
pub(crate) async fn obey(channel: Channel, server: &Rc<Server>) -> Result<(), Error> {
    let channel = watch(channel).map_err(Error::Wait)?;
    let mut buffer = [0; SIZE + 1];
    loop {
        let mut guard = channel.readable().await.map_err(Error::Wait)?;
        let bytes = match guard.get_inner().receive(&mut buffer) {
            Ok(bytes) => bytes,
            Err(ReceiveError::WouldBlock) => {
                guard.clear_ready();
                continue;
            }
            Err(error) => return Err(Error::Receive(error)),
        };
        match Order::from_bytes(bytes).map_err(Error::Malformed)? {
            // Requests come when the broker sends them; fetchers are the broker's.
            Order::Go | Order::Fetcher => (),
            Order::Retire => server.stop(Stopping::Retiring),
            Order::Drain => server.stop(Stopping::Draining),
            Order::Stop => return Ok(()),
            Order::Ping => report(guard.get_inner(), Report::Counts(server.counts())),
            Order::User(1) => {
                log_counts(server);
                server.proxy.log();
            }
            Order::User(_) => server.proxy.clear(&server.link),
        }
    }
}

/// Tells the supervisor something. A supervisor that does not read has asked for nothing either.
pub(crate) fn report(channel: &Channel, report: Report) {
    if let Err(error) = channel.send(&report.to_bytes()) {
        warn!(%error, "supervisor does not listen");
    }
}

fn log_counts(server: &Server) {
    let counts = server.counts();
    info!(
        transfers = counts.transfers,
        unproven = counts.unproven,
        waiting = counts.waiting,
        requests = counts.requests,
        dropped = counts.dropped,
        "counts"
    );
}
