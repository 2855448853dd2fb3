//! The one record of each request: how it ended, and what it amounted to.

use std::ascii::escape_default;

use r_tftpd_broker::wire::Denial;
use tracing::{debug, info};

use super::ticket::Ticket;
use crate::tftp::options::Granted;
use crate::tftp::packet::{Kind, Mode, Refusal};
use crate::tftp::session::{Figures, Outcome};

/// The most characters of a name in a record.
const MAX_NAME: usize = 256;

/// How a request ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// As the protocol says.
    Protocol(Outcome),
    /// A write was taken in whole and thrown away.
    Discarded,
    /// The broker did not grant the file.
    Denied(Denial),
    /// The client asked anew from the same port.
    Replaced,
    /// The client's port is closed.
    Gone,
    /// The client was silent while it waited for its turn.
    LeftTheLine,
    /// The client had not answered yet, and newer requests needed the room.
    GaveWay,
    /// The server is being stopped.
    Stopped,
    /// The file could not be read to its end.
    ReadFailed(String),
    /// The system failed.
    Failed(String),
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

/// Writes the record of a request that has ended.
pub(crate) fn write(ticket: &Ticket, end: &End, result: &Result) {
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
    let request = ticket.request.as_ref();
    let seconds = ticket.arrived.elapsed().as_secs_f64();
    let Figures {
        bytes,
        blocks,
        retransmitted,
        timeouts,
        ignored,
    } = result.figures;
    info!(
        target: "r_tftpd::request",
        id,
        peer = %ticket.peer,
        local = %ticket.local,
        kind = request.map(|request| kind(request.kind)),
        file = request.map(|request| escape(&request.name)),
        mode = request.map(|request| mode(request.mode)),
        asked = request.map(|request| request.asked.to_string()),
        granted = result.granted.map(|granted| granted.to_string()),
        size = result.size,
        bytes,
        blocks,
        retransmitted,
        timeouts,
        ignored,
        duration_ms = rounded(seconds * 1e3),
        rate = rounded(bytes as f64 / seconds.max(1e-6) / 1e6),
        reason,
        "{word}"
    );
}

fn word(end: &End) -> &'static str {
    match end {
        End::Protocol(Outcome::Complete) => "complete",
        End::Protocol(Outcome::SizeProbe) => "size-probe",
        End::Protocol(Outcome::Aborted { .. }) => "client-abort",
        End::Protocol(Outcome::TimedOut) | End::LeftTheLine => "timeout",
        End::Protocol(Outcome::Refused(refusal)) => match refusal {
            Refusal::Missing => "missing",
            Refusal::Denied => "denied",
            Refusal::ReadOnly => "read-only",
            Refusal::Malformed => "malformed",
            Refusal::BadMode => "bad-mode",
            Refusal::Busy => "busy",
            Refusal::Stopping => "stopped",
            Refusal::TooLarge | Refusal::ReadFailed | Refusal::Internal => "failed",
        },
        End::Discarded => "discarded",
        End::Denied(Denial::Resources) | End::GaveWay => "busy",
        End::Denied(Denial::System) | End::ReadFailed(_) | End::Failed(_) => "failed",
        End::Denied(_) => "denied",
        End::Replaced => "replaced",
        End::Gone => "gone",
        End::Stopped => "stopped",
    }
}

fn reason(end: &End) -> Option<String> {
    let reason = match end {
        End::Protocol(Outcome::Aborted { code }) => return Some(format!("error {code}")),
        End::ReadFailed(reason) | End::Failed(reason) => return Some(reason.clone()),
        End::Protocol(Outcome::Refused(Refusal::TooLarge)) => "netascii form too large",
        End::LeftTheLine => "silent while waiting for its turn",
        End::GaveWay => "never answered, newer requests needed the room",
        End::Denied(denial) => match denial {
            Denial::OutsideRoot => "outside the root",
            Denial::NotRegular => "not a regular file",
            Denial::Permission => "no permission",
            Denial::Loop => "too many symlinks",
            Denial::BadPath => "bad path",
            Denial::Proxy => "names a URL, no proxy in this build",
            Denial::Resources => "a limit of the broker or the system",
            Denial::System => "the system failed",
        },
        _ => return None,
    };
    Some(reason.to_owned())
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
fn escape(name: &[u8]) -> String {
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
    use super::*;

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
