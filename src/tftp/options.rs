//! What a client asks and what it is granted (RFC 2347, 2348, 2349, 7440).

use std::fmt;

use super::transfer::Limits;

/// The options of a request, each already in the range its RFC allows; `None` = not asked, or
/// asked with a value that is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// RFC 2348: bytes in a block, 8 to 65464.
    pub blksize: Option<u16>,
    /// RFC 2349: seconds before a resend, 1 to 255.
    pub timeout: Option<u8>,
    /// RFC 2349: the client wants to know the size (RRQ), or tells it (WRQ).
    pub tsize: Option<u64>,
    /// RFC 7440: blocks in a window, 1 to 65535.
    pub windowsize: Option<u16>,
}

impl Asked {
    /// Takes one option of a request, or ignores it: an unknown one, one whose value is none, one
    /// that was given already. Never a reason to refuse the request: node's client sends
    /// `timeout=3000`, Windows sends `msftwindow`.
    //= rfc2347#negotiation-protocol
    pub(super) fn take(&mut self, name: &[u8], value: &[u8]) {
        if name.eq_ignore_ascii_case(b"blksize") {
            self.blksize = self
                .blksize
                .or_else(|| at_least(BLKSIZE_MIN, BLKSIZE_MAX, value));
        } else if name.eq_ignore_ascii_case(b"windowsize") {
            self.windowsize = self.windowsize.or_else(|| at_least(1, u16::MAX, value));
        } else if name.eq_ignore_ascii_case(b"timeout") {
            let seconds = || {
                u8::try_from(number(value)?)
                    .ok()
                    .filter(|seconds| *seconds > 0)
            };
            self.timeout = self.timeout.or_else(seconds);
        } else if name.eq_ignore_ascii_case(b"tsize") {
            self.tsize = self.tsize.or_else(|| number(value));
        }
    }
}

/// As a record names it: `blksize=1468 tsize windowsize=64`, in this order, nothing for nothing.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Words::new(f);
        words.pair("blksize", self.blksize)?;
        words.pair("timeout", self.timeout)?;
        if self.tsize.is_some() {
            words.word("tsize")?;
        }
        words.pair("windowsize", self.windowsize)
    }
}

/// What holds for a transfer, and which of it the OACK names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Bytes in a block, 8 to 65464; 512 unless it was asked.
    pub blksize: u16,
    /// Blocks in a window, 1 to 65535; 1 (lock-step) unless it was asked.
    pub windowsize: u16,
    /// Seconds before a resend, 1 to 255, as asked; `None` = the server's own timeout.
    pub timeout: Option<u8>,
    /// Bytes of the file, as the OACK names them.
    pub tsize: Option<u64>,
    /// The OACK names the blksize.
    pub blksize_asked: bool,
    /// The OACK names the windowsize.
    pub windowsize_asked: bool,
}

impl Granted {
    /// Decides each option for itself: clamps it, or leaves it out. `tsize` is the size of the
    /// file as far as it is known; it is granted only if it was asked.
    //= rfc2347#negotiation-protocol
    //= rfc2348#blocksize-option-specification
    //= rfc2349#timeout-interval-option-specification
    //= rfc7440#section-3
    pub fn negotiate(asked: &Asked, limits: &Limits, tsize: Option<u64>) -> Self {
        let asked = if limits.options {
            *asked
        } else {
            Asked::default()
        };
        let blksize = asked.blksize.map_or(BLKSIZE_DEFAULT, |blksize| {
            blksize
                .min(limits.max_blksize)
                .min(largest_unfragmented(limits))
                .max(BLKSIZE_MIN)
        });
        let by_bytes = u16::try_from(WINDOW_BYTES_MAX / u32::from(blksize)).unwrap_or(u16::MAX);
        let windowsize = asked.windowsize.map_or(1, |windowsize| {
            windowsize.min(limits.max_windowsize).min(by_bytes).max(1)
        });
        Self {
            blksize,
            windowsize,
            timeout: asked.timeout,
            tsize: asked.tsize.and(tsize),
            blksize_asked: asked.blksize.is_some(),
            windowsize_asked: asked.windowsize.is_some(),
        }
    }

    /// Nothing is granted: there is no OACK, the transfer starts with block 1 (RRQ) or with the
    /// ACK of block 0 (WRQ).
    pub fn is_empty(&self) -> bool {
        !self.blksize_asked
            && !self.windowsize_asked
            && self.timeout.is_none()
            && self.tsize.is_none()
    }

    /// The OACK datagram: what was granted of what was asked, nothing else. EDK2 and node's client
    /// give up on an option they did not ask for.
    //= rfc2347#negotiation-protocol
    pub(super) fn oack(&self) -> Vec<u8> {
        let mut datagram = vec![0, 6];
        let mut option = |name: &str, value: Option<u64>| {
            if let Some(value) = value {
                datagram.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
            }
        };
        option("blksize", self.blksize_asked.then_some(self.blksize.into()));
        option("timeout", self.timeout.map(u64::from));
        option("tsize", self.tsize);
        option(
            "windowsize",
            self.windowsize_asked.then_some(self.windowsize.into()),
        );
        datagram
    }
}

/// As a record names it: what the OACK names, `blksize=1468 windowsize=64`.
impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Words::new(f);
        words.pair("blksize", self.blksize_asked.then_some(self.blksize))?;
        words.pair("timeout", self.timeout)?;
        words.pair("tsize", self.tsize)?;
        words.pair(
            "windowsize",
            self.windowsize_asked.then_some(self.windowsize),
        )
    }
}

/// Words with single spaces between them.
struct Words<'f, 'b> {
    f: &'f mut fmt::Formatter<'b>,
    separator: &'static str,
}

impl<'f, 'b> Words<'f, 'b> {
    fn new(f: &'f mut fmt::Formatter<'b>) -> Self {
        Self { f, separator: "" }
    }

    fn word(&mut self, word: impl fmt::Display) -> fmt::Result {
        write!(self.f, "{}{word}", self.separator)?;
        self.separator = " ";
        Ok(())
    }

    fn pair(&mut self, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.word(format_args!("{name}={value}")))
    }
}

/// The largest blksize whose DATA fits one IP packet of the path: the path takes the MTU, of which
/// IP, UDP (8 bytes) and TFTP (4 bytes) have their part. Fragments are lost on the way to many
/// boot ROMs, and U-Boot does not reassemble them.
fn largest_unfragmented(limits: &Limits) -> u16 {
    if limits.mtu == 0 {
        return BLKSIZE_MAX;
    }
    let headers = if limits.ipv6 { 40 } else { 20 } + 8 + 4;
    u16::try_from(limits.mtu.saturating_sub(headers)).unwrap_or(BLKSIZE_MAX)
}

/// A value from `least` on, with everything above `most` taken as `most`; `None` if it is less, or
/// no number.
fn at_least(least: u16, most: u16, value: &[u8]) -> Option<u16> {
    let clamped = u16::try_from(number(value)?).map_or(most, |value| value.min(most));
    (clamped >= least).then_some(clamped)
}

/// A decimal number: digits, at least one, nothing else, not above 2^64 - 1.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// RFC 1350: bytes in a block unless it is negotiated.
const BLKSIZE_DEFAULT: u16 = 512;
/// RFC 2348: the smallest block, in bytes.
const BLKSIZE_MIN: u16 = 8;
/// RFC 2348: the largest block, in bytes.
const BLKSIZE_MAX: u16 = 65464;
/// Largest window, in bytes: 65535 blocks of the default blksize, 512 of the largest. What a
/// client may have sent at it (and sent again after every loss) by one ACK must have some end, even
/// where the operator lifted `--max-windowsize`.
const WINDOW_BYTES_MAX: u32 = 32 * 1024 * 1024;

#[cfg(test)]
mod tests;
