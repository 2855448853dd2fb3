//! What came of a run, as one JSON object.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::session::{Counts, Session, Step};

/// Sums over all sessions.
#[derive(Debug, Default)]
pub struct Report {
    /// From the first request until the last session was over, or until time was.
    pub seconds: Duration,
    /// How much of this nothing had arrived: the clients could do more.
    pub waited: Duration,
    /// How long each finished session took from its request.
    times: Vec<Duration>,
    failed: BTreeMap<Step, usize>,
    unfinished: usize,
    counts: Counts,
    /// Bytes of slow readers, which nobody waits for.
    slow_bytes: u64,
    repair: Option<Duration>,
}

impl Report {
    /// A session that is over.
    pub fn count_over(&mut self, session: &Session, step: Step) {
        match step {
            Step::Finished => self.times.push(session.asked().elapsed()),
            failure => *self.failed.entry(failure).or_default() += 1,
        }
        self.count(session);
    }

    /// A session that had no time to end.
    pub fn count_unfinished(&mut self, session: &Session) {
        self.unfinished += usize::from(!session.is_slow());
        self.count(session);
    }

    fn count(&mut self, session: &Session) {
        if session.is_slow() {
            self.slow_bytes += session.counts.bytes;
        } else {
            self.counts.bytes += session.counts.bytes;
        }
        self.counts.requests_again += session.counts.requests_again;
        self.counts.acks_again += session.counts.acks_again;
        self.counts.unexpected += session.counts.unexpected;
        self.repair = self.repair.or(session.repair());
    }

    /// Milliseconds that `percent` of the finished sessions needed at most.
    fn percentile(times: &[Duration], percent: usize) -> f64 {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |time| milliseconds(*time))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = self.times.clone();
        times.sort_unstable();
        let failed: Vec<String> = self
            .failed
            .iter()
            .map(|(step, count)| match step {
                Step::Refused(code) => format!("\"error {code}\":{count}"),
                _ => format!("\"wrong bytes\":{count}"),
            })
            .collect();
        let Counts {
            bytes,
            requests_again,
            acks_again,
            unexpected,
        } = self.counts;
        write!(
            f,
            "{{\"finished\":{},\"unfinished\":{},\"failed\":{{{}}},\"bytes\":{bytes},\
             \"slow_bytes\":{},\"seconds\":{:.6},\"waited\":{:.6},\
             \"p50_ms\":{:.3},\"p99_ms\":{:.3},\"max_ms\":{:.3},\
             \"requests_again\":{requests_again},\"acks_again\":{acks_again},\
             \"unexpected\":{unexpected},\"repair_ms\":{}}}",
            times.len(),
            self.unfinished,
            failed.join(","),
            self.slow_bytes,
            self.seconds.as_secs_f64(),
            self.waited.as_secs_f64(),
            Self::percentile(&times, 50),
            Self::percentile(&times, 99),
            Self::percentile(&times, 100),
            self.repair
                .map_or("null".into(), |time| format!("{:.3}", milliseconds(time))),
        )
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
