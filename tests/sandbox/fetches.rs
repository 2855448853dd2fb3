//! Fetches that the real broker must not order for a worker: only what a link names is ever asked
//! of an origin, once for each request that named it.

use nix::errno::Errno;
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::fetch::{MAX_VALIDATOR, Validators};
use r_tftpd_broker::wire::{ToBroker, ToWorker};

use crate::captured_worker::{HELLO, open, receive, send};
use crate::probe::{Expected, Probe, WorkerPlace};

type Worker = Probe<WorkerPlace>;

/// The link to the origin, the part of it that no worker may learn, and a link that is denied.
pub(crate) const LINK: &str = "linked";
pub(crate) const SECRET: &str = "secret";
pub(crate) const DENIED: &str = "linked-to-ftp";

/// The one deed that an honest worker does, too: the origin is asked.
pub(crate) const HONEST: &str = "message: fetch what a link names";

/// Here the origin may be asked before the second message is looked at.
pub(crate) const TWICE: &str = "message: Fetch twice";

/// Every deed.
pub(crate) fn of_worker() -> Vec<Worker> {
    let mut probes = vec![
        Probe::new(HONEST, Expected::Harmless, |place: &WorkerPlace| {
            job(place).map(|_| 0)
        }),
        Probe::new(TWICE, Expected::Replaced, |place: &WorkerPlace| {
            job(place)?;
            send(&place.broker, &fetch(place.id));
            Ok(0)
        }),
        replaced("Fetch before Open", |_, id| vec![fetch(id)]),
        replaced("Fetch of a file", |broker, id| {
            let (answer, file) = open(broker, id, HELLO.0.into());
            assert!(matches!(answer, Some(ToWorker::File { .. })) && file.is_some());
            vec![fetch(id)]
        }),
        replaced("Fetch of what is missing", |broker, id| {
            let (answer, _) = open(broker, id, b"missing".into());
            assert!(matches!(answer, Some(ToWorker::Missing { .. })));
            vec![fetch(id)]
        }),
        replaced("Fetch of a link that is denied", |broker, id| {
            let (answer, _) = open(broker, id, DENIED.into());
            assert!(matches!(answer, Some(ToWorker::Denied { .. })));
            vec![fetch(id)]
        }),
        replaced("Fetch for a request that is not there", |broker, id| {
            link(broker, id);
            vec![fetch(id + 1)]
        }),
        replaced("Fetch after Done", |broker, id| {
            link(broker, id);
            vec![ToBroker::Done { id, proven: true }, fetch(id)]
        }),
        replaced("Fetch with too long a validator", |broker, id| {
            link(broker, id);
            let etag = Some(vec![b'x'; MAX_VALIDATOR + 1]);
            let validators = Validators {
                etag,
                ..Validators::default()
            };
            let netascii = false;
            vec![ToBroker::Fetch {
                id,
                validators,
                netascii,
            }]
        }),
    ];
    for job in [0, 1, u64::MAX] {
        let name = format!("Cancel of job {job} that nobody has");
        probes.push(replaced(&name, move |_, _| vec![ToBroker::Cancel { job }]));
    }
    probes
}

/// Asks for what the link names, as a worker does.
fn job(place: &WorkerPlace) -> Result<u64, Errno> {
    link(&place.broker, place.id);
    send(&place.broker, &fetch(place.id));
    match receive(&place.broker) {
        Some((ToWorker::Fetching { id, job, .. }, Some(_))) if id == place.id => Ok(job),
        other => panic!("no fetch but {other:?}"),
    }
}

/// Opens the link; the answer tells no credentials.
fn link(broker: &Channel, id: u64) {
    let (answer, file) = open(broker, id, LINK.into());
    assert!(matches!(answer, Some(ToWorker::Link { .. })) && file.is_none());
    assert!(!format!("{answer:?}").contains(SECRET));
}

fn fetch(id: u64) -> ToBroker {
    ToBroker::Fetch {
        id,
        validators: Validators::default(),
        netascii: false,
    }
}

/// A deed after which the generation is replaced: some steps, and then these messages.
fn replaced(name: &str, steps: impl Fn(&Channel, u64) -> Vec<ToBroker> + 'static) -> Worker {
    let name = format!("message: {name}");
    Probe::new(&name, Expected::Replaced, move |place: &WorkerPlace| {
        for message in steps(&place.broker, place.id) {
            send(&place.broker, &message);
        }
        Ok(0)
    })
}
