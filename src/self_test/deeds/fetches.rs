//! Fetches that the real broker must not order for a worker: only what a link names is ever asked
//! of an origin, once for each request that named it. And files that it must not open.

use nix::errno::Errno;
use r_tftpd_broker::fetch::{MAX_VALIDATOR, Validators};
use r_tftpd_broker::supervisor::self_test::{DENIED_LINK, FILE, LINK, SECRET};
use r_tftpd_broker::wire::{Denial, ToBroker, ToWorker};

use super::super::captured::worker::{open, receive};
use super::super::probe::{
    DENIED, Expected, Outcome, POSSIBLE, Probe, REPLACED, WorkerPlace, deeds,
};
use super::messages::{done, say, tell};

/// The one deed that an honest worker does, too: the origin is asked.
pub const HONEST: &str = "message: fetch what a link names";

/// Here the origin may be asked before the second message is looked at.
pub const TWICE: &str = "message: Fetch twice";

/// Orders for the fetcher.
pub(in super::super) const ORDERS: &[Probe] = deeds! { Worker:
    POSSIBLE "message: fetch what a link names" job;
    REPLACED "message: Fetch twice" |place| {
        job(place)?;
        say(place, [fetch(place.id)])
    };
    REPLACED "message: Fetch before Open" |place| say(place, [fetch(place.id)]);
    REPLACED "message: Fetch of a file" |place| {
        match open(&place.broker, place.id, FILE.into()) {
            (Some(ToWorker::File { .. }), Some(_)) => say(place, [fetch(place.id)]),
            _ => Err(Errno::UnknownErrno),
        }
    };
    REPLACED "message: Fetch of what is missing" |place| {
        match open(&place.broker, place.id, b"r-tftpd-self-test/missing".into()) {
            (Some(ToWorker::Missing { .. }), None) => say(place, [fetch(place.id)]),
            _ => Err(Errno::UnknownErrno),
        }
    };
    REPLACED "message: Fetch of a link that is denied" |place| {
        match open(&place.broker, place.id, DENIED_LINK.into()) {
            (Some(ToWorker::Denied { .. }), None) => say(place, [fetch(place.id)]),
            _ => Err(Errno::UnknownErrno),
        }
    };
    REPLACED "message: Fetch for a request that is not there" |place| {
        link(place)?;
        say(place, [fetch(place.id + 1)])
    };
    REPLACED "message: Fetch after Done" |place| {
        link(place)?;
        say(place, [done(place.id), fetch(place.id)])
    };
    REPLACED "message: Fetch with too long a validator" |place| {
        link(place)?;
        let etag = Some(vec![b'x'; MAX_VALIDATOR + 1]);
        let validators = Validators { etag, ..Validators::default() };
        say(place, [ToBroker::Fetch { id: place.id, validators, netascii: false }])
    };
    REPLACED "message: Cancel of job 0 that nobody has" |place| say(place, [ToBroker::Cancel { job: 0 }]);
    REPLACED "message: Cancel of job 1 that nobody has" |place| say(place, [ToBroker::Cancel { job: 1 }]);
    REPLACED "message: Cancel of the largest number" |place| {
        say(place, [ToBroker::Cancel { job: u64::MAX }])
    };
};

const MISSING: Expected = Expected::Fails(Errno::ENOENT);
const NOT_REGULAR: Expected = Expected::Fails(Errno::EISDIR);

/// Files that the broker opens for nobody. The one in the middle of the root is there to see that
/// it opens others.
pub(in super::super) const PATHS: &[Probe] = deeds! { Worker:
    POSSIBLE "path: a file below the root" |place| ask(place, FILE);
    MISSING "path: a file that is not there" |place| ask(place, "r-tftpd-self-test/missing");
    DENIED "path: .. above the root" |place| ask(place, "../../../../../../../../etc/passwd");
    DENIED "path: .. in the middle" |place| {
        ask(place, "r-tftpd-self-test/directory/../../../../../../../../etc/passwd")
    };
    MISSING "path: from the root of the system" |place| {
        ask(place, "/r-tftpd-self-test//etc/passwd")
    };
    DENIED "path: a symlink to an absolute path" |place| ask(place, "r-tftpd-self-test/absolute");
    DENIED "path: a symlink that climbs" |place| ask(place, "r-tftpd-self-test/climbing");
    DENIED "path: through a symlink to /" |place| ask(place, "r-tftpd-self-test/to-root/etc/passwd");
    DENIED "path: through a symlink to /proc" |place| ask(place, "r-tftpd-self-test/to-proc/environ");
    DENIED "path: a magic link" |place| ask(place, "r-tftpd-self-test/magic");
    NOT_REGULAR "path: a directory" |place| ask(place, "r-tftpd-self-test/directory");
    NOT_REGULAR "path: a FIFO" |place| ask(place, "r-tftpd-self-test/fifo");
};

/// Asks for a path; as an error number, why it was not granted.
fn ask(place: &WorkerPlace, path: &str) -> Outcome {
    match open(&place.broker, place.id, path.into()) {
        (Some(ToWorker::File { .. }), Some(_)) => Ok(0),
        (Some(ToWorker::Missing { .. }), None) => Err(Errno::ENOENT),
        (Some(ToWorker::Denied { reason, .. }), None) => Err(match reason {
            Denial::OutsideRoot => Errno::EACCES,
            Denial::NotRegular => Errno::EISDIR,
            _ => Errno::EPROTO,
        }),
        _ => Err(Errno::UnknownErrno),
    }
}

/// Asks for what the link names, as a worker does.
fn job(place: &WorkerPlace) -> Outcome {
    link(place)?;
    tell(&place.broker, &fetch(place.id))?;
    match receive(&place.broker) {
        Some((ToWorker::Fetching { id, .. }, Some(_))) if id == place.id => Ok(0),
        _ => Err(Errno::UnknownErrno),
    }
}

/// Opens the link; the answer tells no credentials.
fn link(place: &WorkerPlace) -> Outcome {
    match open(&place.broker, place.id, LINK.into()) {
        (Some(ToWorker::Link { link, .. }), None) if !format!("{link:?}").contains(SECRET) => Ok(0),
        _ => Err(Errno::UnknownErrno),
    }
}

fn fetch(id: u64) -> ToBroker {
    ToBroker::Fetch {
        id,
        validators: Validators::default(),
        netascii: false,
    }
}
