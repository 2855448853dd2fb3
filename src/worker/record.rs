//! The one record of each request: how it ended, and what it amounted to.

use std::ascii::escape_default;
use std::rc::Rc;

use r_tftpd_broker::wire::Denial;
use tracing::{Level, debug, enabled, event};

use super::summary::{Kind as Similar, Summaries};
use super::ticket::Ticket;
use crate::tftp::options::Granted;
use crate::tftp::packet::{Kind, Mode, Refusal, Unreadable};
use crate::tftp::session::{Figures, Outcome};

/// The most characters of a name in a record.
const MAX_NAME: usize = 256;

/// How a request ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// As the protocol says.
    Protocol(Outcome),
    /// The request could not be read, or only in part.
    Unreadable(Unreadable),
    /// A write was taken in whole and thrown away.
    Discarded,
    /// The broker did not grant the file.
    Denied(Denial),
    /// The client turned to a newer request from the same port.
    Replaced,
    /// The client's port is closed.
    Gone,
    /// The client had not answered yet, and newer requests needed the room.
    GaveWay,
    /// The server is being stopped.
    Stopped,
    /// The origin did not give the file.
    NotFetched(Box<NotFetched>),
    /// The file could not be read to its end.
    ReadFailed(String),
    /// The system failed.
    Failed(String),
}

/// Why a file could not be fetched. Rare, so it does not make each [`End`] larger.
#[derive(Clone, Debug)]
pub(crate) struct NotFetched {
    /// What the client was told.
    pub(crate) refusal: Refusal,
    /// For the log.
    pub(crate) reason: String,
}

/// Where a file comes from that is not below the root.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The URL without credentials.
    pub(crate) url: String,
    /// What the cache did for it.
    pub(crate) cache: CacheUse,
    /// What went wrong with the origin, though a stale answer was there.
    pub(crate) trouble: Option<Rc<str>>,
}

/// What the cache did for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheUse {
    /// A fresh answer was there, also one that there is no file.
    Hit,
    /// It was fetched.
    Miss,
    /// A stale answer was there, and the origin failed.
    Stale,
    /// It was being fetched for another request.
    Joined,
    /// A stale answer was there, and the origin confirmed it.
    Revalidated,
}

/// What a request amounted to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Result {
    /// What was negotiated.
    pub(crate) granted: Option<Granted>,
    /// Bytes of the file in the form asked for, as far as it was known.
    pub(crate) size: Option<u64>,
    /// The counts.
    pub(crate) figures: Figures,
}

/// Writes the record of a request that has ended, or counts it among those that are similar.
/// `answered` = its client has answered.
pub(crate) fn write(
    summaries: &Summaries,
    ticket: &Ticket,
    answered: bool,
    end: &End,
    result: &Result,
) {
    let word = word(end);
    let id = ticket.id;
    let reason = reason(end);
    // One line for each forged request would fill the log of a server under attack: those are
    // summed up where they are made to give way.
    if matches!(end, End::GaveWay) {
        let peer = &ticket.peer;
        debug!(target: "r_tftpd::request", id, %peer, reason, "{word}");
        return;
    }
    // The client was served by its first request; that this one was sent twice is no news.
    if ticket.is_repetition() && is_left_alone(end) {
        let peer = &ticket.peer;
        let reason = "the client kept to its earlier request";
        debug!(target: "r_tftpd::request", id, %peer, reason, "repeated");
        return;
    }
    let kind = Similar {
        outcome: word,
        answered,
    };
    let passes = is_always_written(end) || summaries.pass(ticket.peer.ip, kind);
    if !passes && !enabled!(target: "r_tftpd::request", Level::DEBUG) {
        return;
    }
    let asked = Asked::new(ticket, end);
    let origin = ticket.take_origin();
    let origin = origin.as_deref();
    let reason = reason.or_else(|| Some(origin?.trouble.as_deref()?.to_owned()));
    let seconds = ticket.arrived.elapsed().as_secs_f64();
    // Where nothing was transferred there is nothing to count.
    let figures = Some(result.figures).filter(|figures| *figures != Figures::default());
    let megabytes = figures.map(|figures| figures.bytes as f64 / 1e6);
    macro_rules! record {
        ($level:expr) => {
            event!(
                target: "r_tftpd::request",
                $level,
                id,
                peer = %ticket.peer,
                local = %ticket.local,
                kind = asked.kind,
                file = asked.file,
                mode = asked.mode,
                asked = asked.options,
                granted = result.granted.map(|granted| granted.to_string()),
                size = result.size,
                bytes = figures.map(|figures| figures.bytes),
                blocks = figures.map(|figures| figures.blocks),
                retransmitted = figures.map(|figures| figures.retransmitted),
                timeouts = figures.map(|figures| figures.timeouts),
                ignored = figures.map(|figures| figures.ignored),
                duration_ms = rounded(seconds * 1e3),
                rate = megabytes.map(|megabytes| rounded(megabytes / seconds.max(1e-6))),
                origin = origin.map(|origin| escape(origin.url.as_bytes())),
                cache = origin.map(|origin| cache_use(origin.cache)),
                reason,
                "{word}"
            )
        };
    }
    if passes {
        record!(Level::INFO);
    } else {
        record!(Level::DEBUG);
    }
}

/// What a client asked for, as far as it could be read.
#[derive(Debug, Default)]
struct Asked {
    kind: Option<&'static str>,
    file: Option<String>,
    mode: Option<String>,
    options: Option<String>,
}

impl Asked {
    fn new(ticket: &Ticket, end: &End) -> Self {
        match (&ticket.request, end) {
            (Some(request), _) => Self {
                kind: Some(kind(request.kind)),
                file: Some(escape(&request.name)),
                mode: Some(mode(request.mode).to_owned()),
                options: Some(request.asked.to_string()),
            },
            (None, End::Unreadable(unreadable)) => Self {
                kind: unreadable.kind.map(kind),
                file: unreadable.name.as_deref().map(escape),
                mode: unreadable.mode.as_deref().map(escape),
                options: None,
            },
            (None, _) => Self::default(),
        }
    }
}

/// Whether the client got what it asked for: each of those records counts.
fn is_always_written(end: &End) -> bool {
    matches!(end, End::Protocol(Outcome::Complete) | End::Discarded)
}

/// Whether the client wanted nothing of this request: it was silent, its port closed, or it said
/// so.
//= rfc1350#section-4
fn is_left_alone(end: &End) -> bool {
    match end {
        End::Protocol(Outcome::Aborted { code }) => *code == UNKNOWN_TID,
        End::Protocol(Outcome::TimedOut) | End::Gone | End::Replaced => true,
        _ => false,
    }
}

/// The error code for a packet of a TID that the receiver does not know (RFC 1350 appendix I).
const UNKNOWN_TID: u16 = 5;

fn word(end: &End) -> &'static str {
    match end {
        End::Protocol(Outcome::Complete) => "complete",
        End::Protocol(Outcome::SizeProbe) => "size-probe",
        End::Protocol(Outcome::Aborted { .. }) => "client-abort",
        End::Protocol(Outcome::TimedOut) => "timeout",
        End::Protocol(Outcome::Refused(refusal)) | End::Unreadable(Unreadable { refusal, .. }) => {
            word_of_refusal(*refusal)
        }
        End::NotFetched(not_fetched) => word_of_refusal(not_fetched.refusal),
        End::Discarded => "discarded",
        End::Denied(Denial::Resources) | End::GaveWay => "busy",
        End::Denied(Denial::System) | End::ReadFailed(_) | End::Failed(_) => "failed",
        End::Denied(_) => "denied",
        End::Replaced => "replaced",
        End::Gone => "gone",
        End::Stopped => "stopped",
    }
}

fn word_of_refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Missing => "missing",
        Refusal::Denied => "denied",
        Refusal::ReadOnly => "read-only",
        Refusal::Malformed => "malformed",
        Refusal::BadMode => "bad-mode",
        Refusal::Busy => "busy",
        Refusal::Stopping => "stopped",
        Refusal::TooLarge | Refusal::ReadFailed | Refusal::NotFetched | Refusal::Internal => {
            "failed"
        }
    }
}

fn reason(end: &End) -> Option<String> {
    let reason = match end {
        End::Protocol(Outcome::Aborted { code }) => return Some(format!("error {code}")),
        End::ReadFailed(reason) | End::Failed(reason) => return Some(reason.clone()),
        End::NotFetched(not_fetched) => return Some(not_fetched.reason.clone()),
        End::Protocol(Outcome::Refused(Refusal::TooLarge)) => "netascii form too large",
        End::GaveWay => "never answered, newer requests needed the room",
        End::Denied(denial) => match denial {
            Denial::OutsideRoot => "outside the root",
            Denial::NotRegular => "not a regular file",
            Denial::Permission => "no permission",
            Denial::Loop => "too many symlinks",
            Denial::BadPath => "bad path",
            Denial::Proxy => "names a URL that is not fetched, the broker says why",
            Denial::Resources => "a limit of the broker or the system",
            Denial::System => "the system failed",
        },
        _ => return None,
    };
    Some(reason.to_owned())
}

fn cache_use(cache: CacheUse) -> &'static str {
    match cache {
        CacheUse::Hit => "hit",
        CacheUse::Miss => "miss",
        CacheUse::Stale => "stale",
        CacheUse::Joined => "joined",
        CacheUse::Revalidated => "revalidated",
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "read",
        Kind::Write => "write",
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Octet => "octet",
        Mode::Netascii => "netascii",
    }
}

/// A name as plain ASCII: control characters, quotes, backslashes and all bytes above 126 escaped,
/// so that no name can forge a line or move a cursor; cut off where it gets too long.
pub(crate) fn escape(name: &[u8]) -> String {
    let mut escaped = String::new();
    for byte in name {
        if escaped.len() >= MAX_NAME {
            escaped.push_str("...");
            break;
        }
        escaped.extend(escape_default(*byte).map(char::from));
    }
    escaped
}

/// Three digits behind the point are enough for people and machines.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use r_tftpd_broker::wire;

    use super::super::idle::IdleSocket;
    use super::super::tests::harness::file;
    use super::*;
    use crate::tftp::packet::parse_request;

    #[test]
    fn a_request_of_a_bad_mode_is_named() {
        let address = SocketAddr::from(([192, 0, 2, 1], 1000)).into();
        let request = wire::Request {
            id: 1,
            peer: address,
            local: address,
            mtu: 0,
            socket: wire::SocketUse::Once,
            replaces: None,
            datagram: b"\0\x02boot\nfile\0mail\0".to_vec(),
        };
        let ticket = Ticket::new(
            &request,
            None,
            IdleSocket::New(file(b"").into()),
            Instant::now(),
        );
        let end = End::Unreadable(parse_request(&request.datagram).unwrap_err());
        let asked = Asked::new(&ticket, &end);
        assert_eq!(word(&end), "bad-mode");
        assert_eq!(asked.kind, Some("write"));
        assert_eq!(asked.file.as_deref(), Some("boot\\nfile"));
        assert_eq!(asked.mode.as_deref(), Some("mail"));
    }

    #[test]
    fn a_name_can_not_forge_a_record() {
        assert_eq!(escape(b"pxelinux.cfg/01-aa bb"), "pxelinux.cfg/01-aa bb");
        assert_eq!(escape(b"\\Boot\\BCD"), "\\\\Boot\\\\BCD");
        assert_eq!(
            escape(b"a\n\x1b[2J\"\xe2\x80\xae"),
            "a\\n\\x1b[2J\\\"\\xe2\\x80\\xae"
        );
    }

    #[test]
    fn a_long_name_is_cut_off() {
        let escaped = escape(&[0xff; 2000]);
        assert_eq!(escaped.len(), MAX_NAME + 3);
        assert!(escaped.ends_with("\\xff..."));
    }
}
