//! How the values of options are read. Every error names the reason and an example.

use std::time::Duration;

/// Seconds with an optional fraction, from `shortest` to `longest` seconds.
fn seconds(text: &str, shortest: f64, longest: f64, example: &str) -> Result<Duration, String> {
    let error = || {
        format!("must be a number of seconds from {shortest} to {longest}; for example {example}")
    };
    let seconds: f64 = text.parse().map_err(|_| error())?;
    if !(shortest..=longest).contains(&seconds) {
        return Err(error());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| error())
}

/// Time before a resend: no less than a round trip in a LAN, no more than RFC 2349 can say.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    seconds(text, 0.01, 255.0, "1.5")
}

/// Time for transfers to finish after SIGTERM; up to an hour.
pub(super) fn drain_timeout(text: &str) -> Result<Duration, String> {
    seconds(text, 0.0, 3600.0, "5")
}

/// A whole number from `least` to `most`.
fn number(text: &str, least: u32, most: u32, example: u32) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("must be a number from {least} to {most}; for example {example}"))
}

/// A limit for the number of anything.
pub(super) fn count(text: &str) -> Result<u32, String> {
    number(text, 1, 1_000_000, 100)
}

/// Resends before a transfer is given up.
pub(super) fn retries(text: &str) -> Result<u32, String> {
    number(text, 1, 255, 5)
}

/// RFC 2348: the bytes of a block.
pub(super) fn blksize(text: &str) -> Result<u16, String> {
    number(text, 8, 65464, 1468).and_then(narrow)
}

/// RFC 7440: the blocks of a window.
pub(super) fn windowsize(text: &str) -> Result<u16, String> {
    number(text, 1, 65535, 64).and_then(narrow)
}

/// A UDP port; 0 = any free one.
pub(super) fn port(text: &str) -> Result<u16, String> {
    number(text, 0, 65535, 69).and_then(narrow)
}

fn narrow(number: u32) -> Result<u16, String> {
    u16::try_from(number).map_err(|error| error.to_string())
}

/// First and last port. Those below 1024 take rights that are dropped at the start.
pub(super) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let parse = |text: &str| text.parse::<u16>().ok();
    text.split_once('-')
        .and_then(|(first, last)| Some((parse(first)?, parse(last)?)))
        .filter(|(first, last)| (1024..=*last).contains(first))
        .ok_or_else(|| {
            "must be two ports from 1024 to 65535, the lower one first; for example 50000-50999"
                .to_owned()
        })
}
