//! Keeps the log readable whatever clients do: see [`r_tftpd_broker::similar`].
//!
//! A transfer that brought its client what it asked for is always written: it costs its client more
//! than a record. Everything else a client can cause at little cost, much of it with a forged
//! address; how many it was is told at the end of a span.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Instant;

use r_tftpd_broker::similar::Similar;
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tracing::{info, warn};

/// Records of one client and outcome that are written in a span. Boot firmware and loaders ask for
/// up to some thirty names that need not exist.
const OF_CLIENT: u32 = 100;

/// Records of one outcome that are written in a span: all the outcomes that forged addresses can
/// cause together stay below the 10 000 in 30 s from which on journald drops records unseen.
const OF_OUTCOME: u32 = 1000;

/// What was and was not written.
pub(crate) struct Summaries {
    similar: RefCell<Similar<Kind>>,
    /// Something is kept in mind.
    began: Notify,
}

/// Unproven requests that give way have no records but one line for all.
const GAVE_WAY: Kind = Kind {
    outcome: "gave way",
    answered: false,
};

/// What makes records similar, beside their client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Kind {
    /// The message of the record.
    pub(crate) outcome: &'static str,
    /// The client has answered, so its address is its own: forged ones take no lines from it.
    pub(crate) answered: bool,
}

impl Summaries {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            similar: RefCell::new(Similar::new(OF_OUTCOME)),
            began: Notify::new(),
        }
    }

    /// Whether a record of this kind is written; otherwise it is counted.
    pub(crate) fn pass(&self, client: IpAddr, kind: Kind) -> bool {
        self.count(Some(client), kind, OF_CLIENT)
    }

    /// An unproven request gives way: the first of a span is told at once.
    pub(crate) fn note_gave_way(&self) {
        if self.count(None, GAVE_WAY, 1) {
            log_gave_way(1);
        }
    }

    fn count(&self, client: Option<IpAddr>, kind: Kind, most: u32) -> bool {
        let mut similar = self.similar.borrow_mut();
        if similar.due().is_none() {
            self.began.notify_one();
        }
        similar.pass(client, kind, most, Instant::now())
    }

    /// Tells at the end of each span what was not written in it.
    pub(crate) async fn tell(&self) -> Infallible {
        loop {
            let due = self.similar.borrow().due();
            match due {
                Some(due) if due <= Instant::now() => self.tell_now(),
                Some(due) => sleep_until(due.into()).await,
                None => self.began.notified().await,
            }
        }
    }

    /// Tells what was not written so far, and begins a new span.
    pub(crate) fn tell_now(&self) {
        let (summaries, span) = self.similar.borrow_mut().take(Instant::now());
        for summary in summaries {
            if summary.kind == GAVE_WAY {
                log_gave_way(summary.similar);
                continue;
            }
            info!(
                target: "r_tftpd::request",
                outcome = summary.kind.outcome,
                peer = summary.client.map(tracing::field::display),
                similar = summary.similar,
                clients = summary.clients,
                seconds = span.as_secs().max(1),
                "+{} similar",
                summary.similar
            );
        }
    }
}

fn log_gave_way(count: u64) {
    warn!(
        count,
        "requests of clients that never answered gave way to newer ones"
    );
}
