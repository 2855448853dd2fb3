//! How long to wait before a failed generation is replaced, and when to give up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Failures older than this are forgotten.
const WINDOW: Duration = Duration::from_secs(60);

/// More failures than this within [`WINDOW`]: give up, systemd or the user has to look.
const MAX_FAILURES: usize = 5;

/// Before the first restart.
const SHORTEST: Duration = Duration::from_millis(100);

/// However often it fails.
const LONGEST: Duration = Duration::from_secs(30);

/// The failures so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Within [`WINDOW`], oldest first.
    recent: VecDeque<Instant>,
    delay: Duration,
}

impl Failures {
    /// Counts one more failure: how long to wait before the restart; none = give up.
    pub(super) fn record(&mut self, now: Instant) -> Option<Duration> {
        self.recent
            .retain(|failure| now.saturating_duration_since(*failure) < WINDOW);
        let first = self.recent.is_empty();
        self.delay = if first {
            SHORTEST
        } else {
            LONGEST.min(self.delay * 2)
        };
        self.recent.push_back(now);
        (self.recent.len() <= MAX_FAILURES).then_some(self.delay)
    }

    /// As [`Self::record`] for what is never given up.
    pub(super) fn record_patiently(&mut self, now: Instant) -> Duration {
        self.record(now).unwrap_or(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_failure_within_a_minute_is_the_last() {
        let mut failures = Failures::default();
        let now = Instant::now();
        let delays: Vec<_> = (0..6)
            .map(|n| failures.record(now + n * WINDOW / 10))
            .collect();
        let expected = [100, 200, 400, 800, 1600].map(|ms| Some(Duration::from_millis(ms)));
        assert_eq!(delays[..5], expected);
        assert_eq!(delays[5], None);
    }

    #[test]
    fn steady_failures_wait_half_a_minute_at_most() {
        let mut failures = Failures::default();
        let start = Instant::now();
        let delays: Vec<_> = (0..20)
            .map(|n| failures.record(start + n * Duration::from_secs(15)))
            .collect();
        assert_eq!(delays[19], Some(LONGEST));
    }

    #[test]
    fn a_good_minute_forgives() {
        let mut failures = Failures::default();
        let now = Instant::now();
        failures.record(now);
        failures.record(now);
        assert_eq!(failures.record(now + WINDOW), Some(SHORTEST));
    }
}
