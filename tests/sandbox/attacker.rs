//! What an attacker does who has more in mind than one deed: inside a captured process.

use std::os::fd::BorrowedFd;

use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use r_tftpd::self_test::captured::worker::receive;
use r_tftpd::self_test::probe::FetcherPlace;
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::Facts;
use r_tftpd_broker::fetch::{Failure, FromFetcher, Head, Validators};
use r_tftpd_broker::supervisor::self_test::{DIRECTORY, FILE};
use r_tftpd_broker::wire::{self, Encode, Hello, MAX_MESSAGE, MAX_SCRATCH, ToBroker, ToWorker};

use crate::captured_worker::contents;
use crate::driver::CARELESS;
use crate::probe::say;
use crate::raw::call;

/// Requests for attacks begin with this; a seed follows.
pub(crate) const ATTACK: &str = "attack/";

/// Requests for one path begin with this; a seed follows.
pub(crate) const HOSTILE_PATH: &str = "hostile-path/";

/// Descriptors for the broker, until it has had enough; and for the supervisor.
pub(crate) const FLOOD: &str = "flood";
/// See [`FLOOD`].
pub(crate) const FLOOD_SUPERVISOR: &str = "flood-supervisor";

/// Nothing is read any more but what the supervisor says.
pub(crate) const DEAF: &str = "deaf";

/// The channel to the broker is shut down, but nothing ends.
pub(crate) const HANG_UP: &str = "hang-up";

/// What an attempt came to, in the log.
pub(crate) const KEPT: &str = "kept";
/// See [`KEPT`].
pub(crate) const ESCAPE: &str = "ESCAPE";

/// Numbers by a seed: xorshift.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

/// Whether this process was started from the set that does not lock itself down: what others must
/// withstand if seccomp failed.
pub(crate) fn is_careless() -> bool {
    let own = std::env::current_exe().unwrap();
    let set = own.parent().and_then(|set| set.file_name());
    set.is_some_and(|set| set.to_string_lossy().starts_with(CARELESS))
}

/// What a process says that only claims to be locked down.
pub(crate) fn claim() -> Facts {
    Facts {
        uid: nix::unistd::geteuid().as_raw(),
        landlock_abi: 7,
        system_calls: 25,
        mdwe: true,
        no_new_privs: true,
        no_capabilities: true,
        openat2: false,
    }
}

/// A path that no client would send: pieces of hostile paths and bytes, in any order.
pub(crate) fn path(seed: usize, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut chance = Chance::new(seed);
    let mut path = Vec::new();
    for _ in 0..=chance.below(6) {
        match chance.below(8) {
            0 => path.extend(b"../"),
            1 => path.extend(b"/"),
            2 => path.extend(format!("{DIRECTORY}/").as_bytes()),
            3 => path.push(chance.next().to_le_bytes()[0]),
            4 => path.extend(b"to-root/etc/passwd"),
            6 => path.extend(FILE.as_bytes()),
            5 => path.extend(b"/proc/self/root/"),
            _ => path.extend(&corpus[chance.below(corpus.len())]),
        }
    }
    path.truncate(2048);
    path
}

fn encoded(message: &impl Encode) -> Vec<u8> {
    wire::encode(message, &mut [0; MAX_MESSAGE])
        .unwrap()
        .to_vec()
}

/// One message to the broker: right, wrong, or broken.
fn to_broker(chance: &mut Chance, id: u64, sent: &[Vec<u8>]) -> Vec<u8> {
    let near = id.wrapping_add_signed(i64::try_from(chance.below(5)).unwrap() - 2);
    let any = [near, chance.next(), 0, u64::MAX, id][chance.below(40).min(4)];
    let validators = Validators::default();
    let netascii = chance.below(2) == 0;
    let mut bytes = match chance.below(9) {
        0 => encoded(&ToBroker::Open {
            id: any,
            path: FILE.into(),
        }),
        1 => {
            let size = [10, MAX_SCRATCH, MAX_SCRATCH + 1, u64::MAX][chance.below(4)];
            encoded(&ToBroker::Scratch { id: any, size })
        }
        2 => encoded(&ToBroker::Proven { id: any }),
        3 => encoded(&ToBroker::Fetch {
            id: any,
            validators,
            netascii,
        }),
        4 => encoded(&ToBroker::Cancel { job: any }),
        5 => encoded(&ToBroker::Done {
            id: any,
            proven: netascii,
            kept: false,
        }),
        6 => encoded(&ToBroker::Hello(Hello::OURS)),
        7 if !sent.is_empty() => sent[chance.below(sent.len())].clone(),
        _ => (0..=chance.below(300))
            .map(|_| chance.next().to_le_bytes()[0])
            .collect(),
    };
    break_it(chance, &mut bytes);
    bytes
}

/// Every tenth message is damaged on the way.
fn break_it(chance: &mut Chance, bytes: &mut Vec<u8>) {
    match chance.below(30) {
        0 => bytes.truncate(1 + chance.below(bytes.len())),
        1 => {
            let at = chance.below(bytes.len());
            bytes[at] ^= 1 << chance.below(8);
        }
        2 => bytes.extend([0; 3]),
        _ => (),
    }
}

/// Says one thing after another to the broker, until it has had enough. Each attempt is told to the
/// log; the last one is garbage.
pub(crate) fn worker(seed: usize, id: u64, broker: &Channel, epoll: &Epoll) {
    let mut chance = Chance::new(seed);
    let mut sent = Vec::new();
    let mut files = 0;
    for attempt in 0..30 {
        // It begins as an honest one does: more is possible then.
        let bytes = match attempt {
            0 => encoded(&ToBroker::Open {
                id,
                path: FILE.into(),
            }),
            29 => vec![0xff; 100],
            _ => to_broker(&mut chance, id, &sent),
        };
        let gone = broker.send(&bytes).is_err();
        sent.push(bytes);
        let mut kept = true;
        // What comes of it, if anything does within some milliseconds.
        let mut events = [EpollEvent::empty()];
        let wait = EpollTimeout::from(3_u8);
        let ended = loop {
            if gone || epoll.wait(&mut events, wait) == Ok(0) {
                break gone;
            }
            match receive(broker) {
                Some((ToWorker::File { .. }, Some(file))) => {
                    files += 1;
                    kept &= files == 1 && contents(&file).starts_with(b"inside: ");
                }
                Some(_) => (),
                None => break true,
            }
        };
        say("attempt", if kept { KEPT } else { ESCAPE });
        if ended {
            return;
        }
    }
}

/// Says one thing after another to the broker, about its job and those of others.
pub(crate) fn fetcher(seed: usize, place: &FetcherPlace) {
    let mut chance = Chance::new(seed);
    let mut sent: Vec<Vec<u8>> = Vec::new();
    if let Some(file) = &place.file {
        let text = b"what an origin could have sent";
        let file = crate::probe::number(file);
        call(
            libc::SYS_pwrite64,
            &[file, text.as_ptr().addr(), text.len(), 0],
        )
        .unwrap();
    }
    for attempt in 0..30 {
        let near = place
            .job
            .wrapping_add_signed(i64::try_from(chance.below(3)).unwrap() - 1);
        let job = [place.job, place.job, place.job, near, chance.next()][chance.below(5)];
        let len = [0, 1, 30, 31, 1 << 20, u64::MAX][chance.below(6)];
        let mut bytes = match chance.below(8) {
            0 | 1 => encoded(&FromFetcher::Head(Head {
                job,
                status: [0, 99, 200, 200, 304, 404, 599, 600, 65535][chance.below(9)],
                headers: vec![("cache-control".into(), vec![b'x'; chance.below(2000)])],
                length: [None, Some(len)][chance.below(2)],
            })),
            2 | 3 => encoded(&FromFetcher::Extent { job, len }),
            4 => encoded(&FromFetcher::End { job, len }),
            5 => encoded(&FromFetcher::Failed {
                job,
                failure: Failure::Internal,
                detail: "x".repeat(chance.below(2000)),
            }),
            6 if !sent.is_empty() => sent[chance.below(sent.len())].clone(),
            _ => (0..=chance.below(300))
                .map(|_| chance.next().to_le_bytes()[0])
                .collect(),
        };
        break_it(&mut chance, &mut bytes);
        if attempt == 29 {
            bytes = vec![0xff; 100];
        }
        say("attempt", KEPT);
        if place.broker.send(&bytes).is_err() {
            return;
        }
        sent.push(bytes);
    }
}

/// Sends messages with as many descriptors as the kernel takes, until the other side is gone.
pub(crate) fn flood(channel: &Channel, descriptor: BorrowedFd<'_>) {
    let hello = encoded(&ToBroker::Hello(Hello::OURS));
    for _ in 0..1000 {
        say("attempt", KEPT);
        if channel.send_with(&hello, &[descriptor; 253]).is_err() {
            return;
        }
    }
}
