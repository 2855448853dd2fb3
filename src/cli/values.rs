//! How the values of options are read. Every error names the reason and an example.

use std::path::PathBuf;
use std::time::Duration;

use r_tftpd_broker::link::Link;

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

/// Time that stale entries can stand in; up to a month.
pub(super) fn stale(text: &str) -> Result<Duration, String> {
    seconds(text, 0.0, 2_592_000.0, "3600")
}

/// Time for an answer of an origin.
pub(super) fn proxy_timeout(text: &str) -> Result<Duration, String> {
    seconds(text, 0.01, 3600.0, "20")
}

/// Bytes, with an optional unit of 1024, 1024² and so on.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let error = || {
        "must be a number of bytes above 0, with K, M, G or T behind it if you like; for example \
         512M"
            .to_owned()
    };
    let units = ["K", "M", "G", "T"];
    let (digits, shift) = units
        .iter()
        .zip([10, 20, 30, 40])
        .find_map(|(unit, shift)| {
            let digits = text.strip_suffix(unit);
            let digits = digits.or_else(|| text.strip_suffix(unit.to_lowercase().as_str()));
            digits.map(|digits| (digits, shift))
        })
        .unwrap_or((text, 0));
    let number: u64 = digits.parse().map_err(|_| error())?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(error)
}

/// Where to look for what is not below the root.
#[derive(Clone, Debug)]
pub(super) enum Fallback {
    /// An origin.
    Url {
        /// As the user gave it.
        text: String,
        /// What it says.
        link: Link,
    },
    /// A local directory.
    Directory(PathBuf),
}

/// A URL, or what does not look like one.
pub(super) fn fallback(text: &str) -> Result<Fallback, String> {
    match Link::parse(text.as_bytes()) {
        Ok(Some(link)) => Ok(Fallback::Url {
            text: text.into(),
            link,
        }),
        Ok(None) => Ok(Fallback::Directory(text.into())),
        Err(error) => Err(format!(
            "{error}; for example http://fallback.example.org/ or \
             https+nocache://fallback.example.org/boot/ or /srv/fallback"
        )),
    }
}

/// `--proxy-ports`.
#[derive(Clone, Debug)]
pub(super) enum Ports {
    Any,
    /// First and last of each.
    Ranges(Vec<(u16, u16)>),
}

/// `any`, or a list of ports and ranges.
pub(super) fn ports(text: &str) -> Result<Ports, String> {
    if text == "any" {
        return Ok(Ports::Any);
    }
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (1..=last).contains(&first).then_some((first, last))
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    ranges.map(Ports::Ranges).ok_or_else(|| {
        "must be ports and ranges from 1 to 65535, or any; for example 80,443,8000-8100".to_owned()
    })
}
