//! What the supervisor tells the user about the others, beside that they serve.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::process::{End, Role};
use crate::control::Counts;

/// One log record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A process ended unasked.
    Died(u64, Role, End),
    /// A process broke the protocol, or reported too few limits.
    Breach(u64, Role, &'static str),
    /// A process has not answered pings for this time.
    Stuck(u64, Role, Duration),
    /// A generation did not report that it is ready.
    NotReady(u64),
    /// A broker did not confirm that it stopped reading.
    NotRetired(u64),
    /// The new generation is of no use, the old one goes on.
    ReloadFailed,
    /// The next generation starts after this time.
    Restarting(Duration),
    /// The next fetcher of this generation starts after this time.
    FetcherRestarting(u64, Duration),
    /// The fetcher did not report that it is ready.
    FetcherNotReady(u64),
    /// There is a fetcher again.
    FetcherBack(u64),
    /// This old generation has to give way to newer ones.
    Crowded(u64),
    /// SIGUSR1 or SIGUSR2 while nobody could take it.
    NobodyServes,
    /// The user wants an end; transfers may go on for this time.
    Draining(Duration),
    /// Transfers are cut off.
    DrainTimeout,
    /// A ping was answered.
    Counts(u64, Role, Counts),
}

impl Note {
    /// Writes the record.
    pub(super) fn log(&self) {
        match self {
            Self::Died(generation, role, end) => {
                error!(generation, "{role} died: {end}");
            }
            Self::Breach(generation, role, what) => {
                error!(generation, "{role} is not trusted any more: {what}");
            }
            Self::Stuck(generation, role, time) => {
                error!(generation, "{role} is stuck: no answer for {time:?}");
            }
            Self::NotReady(generation) => {
                error!(generation, "broker and worker were not ready within 10 s");
            }
            Self::NotRetired(generation) => {
                error!(
                    generation,
                    "broker did not stop reading requests within 10 s: killed"
                );
            }
            Self::ReloadFailed => {
                error!("reload failed: the old broker and worker go on serving");
            }
            Self::Restarting(delay) => {
                warn!(delay_ms = millis(*delay), "restarting broker and worker");
            }
            Self::FetcherRestarting(generation, delay) => warn!(
                generation,
                delay_ms = millis(*delay),
                "restarting the fetcher; meanwhile, links fail and files are served"
            ),
            Self::FetcherNotReady(generation) => {
                error!(generation, "fetcher was not ready within 5 s: killed");
            }
            Self::FetcherBack(generation) => info!(generation, "fetcher is back"),
            Self::Crowded(generation) => {
                warn!(
                    generation,
                    "too many old generations with transfers: the oldest is ended"
                );
            }
            Self::NobodyServes => warn!("signal ignored: nobody serves yet"),
            Self::Draining(limit) => info!(
                limit_ms = millis(*limit),
                "stopping: no new requests, transfers may finish; a second signal ends them"
            ),
            Self::DrainTimeout => warn!("drain timeout: transfers are cut off"),
            Self::Counts(generation, role, counts) => {
                let Counts {
                    transfers,
                    unproven,
                    waiting,
                    requests,
                    dropped,
                } = counts;
                debug!(
                    generation, %role, transfers, unproven, waiting, requests, dropped, "counts"
                );
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
