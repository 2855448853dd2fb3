//! Messages that the real broker and the real supervisor must not accept from a worker. They are
//! fatal: the generation is replaced.

use nix::errno::Errno;
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::{Facts, Report};
use r_tftpd_broker::wire::{self, MAX_MESSAGE, MAX_PATH, MAX_SCRATCH, ToBroker};

use crate::probe::{Expected, Probe, WorkerPlace, errno, number};
use crate::raw::call;

type Worker = Probe<WorkerPlace>;

/// Every message; a name that begins with "message: " is run before any file is opened.
pub(crate) fn of_worker() -> Vec<Worker> {
    let mut probes = to_broker();
    probes.extend(broken());
    probes.extend(to_supervisor());
    probes.push(Probe::new(
        "message: flood",
        Expected::Replaced,
        |place: &WorkerPlace| {
            for _ in 0..20_000 {
                send(&place.broker, &ToBroker::Proven { id: place.id })?;
            }
            Ok(0)
        },
    ));
    probes
}

/// Well-formed messages at the wrong time or with the wrong contents.
fn to_broker() -> Vec<Worker> {
    let open = |id| ToBroker::Open {
        id,
        path: b"hello".to_vec(),
    };
    vec![
        says("Open of a request that is not there", move |id| {
            vec![open(id + 1)]
        }),
        says("Open of the largest number", move |_| vec![open(u64::MAX)]),
        says("Open twice", move |id| vec![open(id), open(id)]),
        says("Open after Done", move |id| {
            vec![ToBroker::Done { id, proven: true }, open(id)]
        }),
        says("Open of too long a path", |id| {
            vec![ToBroker::Open {
                id,
                path: vec![b'x'; MAX_PATH + 1],
            }]
        }),
        says("Scratch without a file", |id| {
            vec![ToBroker::Scratch { id, size: 10 }]
        }),
        says("Scratch twice", move |id| {
            let scratch = || ToBroker::Scratch { id, size: 10 };
            vec![open(id), scratch(), scratch()]
        }),
        says("Scratch too large", move |id| {
            vec![
                open(id),
                ToBroker::Scratch {
                    id,
                    size: MAX_SCRATCH + 1,
                },
            ]
        }),
        says("Scratch of a request that is not there", |id| {
            vec![ToBroker::Scratch {
                id: id + 7,
                size: 10,
            }]
        }),
        says("Done twice", |id| {
            vec![
                ToBroker::Done { id, proven: true },
                ToBroker::Done { id, proven: true },
            ]
        }),
        says("Done of a request that is not there", |id| {
            vec![ToBroker::Done {
                id: id + 1,
                proven: false,
            }]
        }),
        says("Proven of a request that is not there", |id| {
            vec![ToBroker::Proven { id: id + 1 }]
        }),
        says("Proven after Done", |id| {
            vec![ToBroker::Done { id, proven: true }, ToBroker::Proven { id }]
        }),
        says("Hello again", |_| vec![ToBroker::Hello(wire::Hello::OURS)]),
    ]
}

/// Datagrams that are no message.
fn broken() -> Vec<Worker> {
    let mut probes = vec![
        sends("nothing", |_| Vec::new()),
        sends("a byte", |_| vec![0]),
        sends("garbage", |_| (0..=255).rev().collect()),
        sends("a message cut short", |id| {
            let mut bytes = encoded(&ToBroker::Open {
                id,
                path: b"hello".to_vec(),
            });
            bytes.pop();
            bytes
        }),
        sends("bytes behind a message", |id| {
            let mut bytes = encoded(&ToBroker::Open {
                id,
                path: b"hello".to_vec(),
            });
            bytes.push(0);
            bytes
        }),
        sends("a length that is a lie", |_| {
            vec![1, 1, 253, 0, 0, 0, 0, 1, 0, 0, 0]
        }),
        sends("a byte too many", |_| vec![0; MAX_MESSAGE + 1]),
        sends("far too many bytes", |_| vec![1; 100_000]),
        sends("an unknown message", |_| vec![200, 0, 0, 0]),
    ];
    probes.push(Probe::new(
        "message: the channel is closed",
        Expected::Replaced,
        |place: &WorkerPlace| call(libc::SYS_close, &[number(&place.broker)]),
    ));
    probes
}

/// What the supervisor must not accept.
fn to_supervisor() -> Vec<Worker> {
    let control = |name: &str, bytes: &'static [u8]| {
        let name = format!("control: {name}");
        Probe::new(&name, Expected::Replaced, move |place: &WorkerPlace| {
            place
                .control
                .send(bytes)
                .map(|()| 0)
                .map_err(|error| errno(&error))
        })
    };
    let mut probes = vec![
        control("a byte", b"x"),
        control("garbage", &[0xa5; 64]),
        control("too long", &[1; 65]),
        control("far too long", &[1; 9000]),
    ];
    for (name, report) in [
        ("Retired", Report::Retired),
        ("Ready again", Report::Ready(Facts::default())),
    ] {
        let name = format!("control: {name}");
        probes.push(Probe::new(
            &name,
            Expected::Replaced,
            move |place: &WorkerPlace| {
                place
                    .control
                    .send(&report.to_bytes())
                    .map(|()| 0)
                    .map_err(|error| errno(&error))
            },
        ));
    }
    probes.push(Probe::new(
        "control: closed",
        Expected::Replaced,
        |place: &WorkerPlace| call(libc::SYS_close, &[number(&place.control)]),
    ));
    probes
}

fn says(name: &str, messages: impl Fn(u64) -> Vec<ToBroker> + 'static) -> Worker {
    let name = format!("message: {name}");
    Probe::new(&name, Expected::Replaced, move |place: &WorkerPlace| {
        for message in messages(place.id) {
            send(&place.broker, &message)?;
        }
        Ok(0)
    })
}

fn sends(name: &str, bytes: impl Fn(u64) -> Vec<u8> + 'static) -> Worker {
    let name = format!("message: {name}");
    Probe::new(&name, Expected::Replaced, move |place: &WorkerPlace| {
        place
            .broker
            .send(&bytes(place.id))
            .map(|()| 0)
            .map_err(|error| errno(&error))
    })
}

fn send(broker: &Channel, message: &ToBroker) -> Result<i64, Errno> {
    broker
        .send(&encoded(message))
        .map(|()| 0)
        .map_err(|error| errno(&error))
}

fn encoded(message: &ToBroker) -> Vec<u8> {
    wire::encode(message, &mut [0; 2 * MAX_MESSAGE])
        .unwrap()
        .to_vec()
}
