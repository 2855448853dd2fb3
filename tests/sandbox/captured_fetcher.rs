//! In the fetcher's place: its start, its descriptors, its lock-down, and then an attacker. What
//! needs no descriptor is tried where the sandbox of the fetcher is.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitCode, exit};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use r_tftpd::fetcher::sandbox;
use r_tftpd_broker::channel::{Channel, Datagram};
use r_tftpd_broker::control::{self, Counts, Facts, Order, Report};
use r_tftpd_broker::fetch::{Failure, Fetch, FromFetcher, Head, ToFetcher};
use r_tftpd_broker::settings::FetcherStart;
use r_tftpd_broker::start;
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE};

use crate::captured_broker::ALIVE;
use crate::captured_worker::PROBE;
use crate::probe::{Expected, Probe, errno, number, report, say};
use crate::raw::call;

type Fetcher = Probe<FetcherPlace>;

/// All that a captured fetcher has when a job has come.
pub(crate) struct FetcherPlace {
    /// To the supervisor.
    control: Channel,
    /// To the broker.
    broker: Channel,
    job: u64,
    /// The file that the broker granted.
    file: Option<OwnedFd>,
}

impl FetcherPlace {
    fn granted(&self) -> usize {
        number(self.file.as_ref().expect("a job comes with a file"))
    }
}

/// Every deed of a captured fetcher.
pub(crate) fn probes() -> Vec<Fetcher> {
    [file(), channels(), messages(), reports()]
        .into_iter()
        .flatten()
        .collect()
}

const CONTROL: u64 = 0;
const BROKER: u64 = 1;

/// Takes the fetcher's place.
pub(crate) fn main() -> ExitCode {
    let control = start::take_control(c"r-tftpd-fetcher").unwrap();
    let (start, descriptors) = start::receive::<FetcherStart>(&control).unwrap();
    let mut descriptors = descriptors.into_iter();
    let broker = Channel::from_descriptor(descriptors.next().unwrap());
    drop(descriptors);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    for (channel, name) in [(&control, CONTROL), (&broker, BROKER)] {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, name);
        epoll.add(channel, event).unwrap();
    }
    let probes = probes();
    let facts = sandbox::lock_down(&start).unwrap();
    let mut place = FetcherPlace {
        control,
        broker,
        job: 0,
        file: None,
    };
    send(&place, &FromFetcher::Hello(Hello::OURS)).unwrap();
    tell(&place, Report::Ready(facts)).unwrap();
    loop {
        let mut events = [EpollEvent::empty()];
        match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(_) if events[0].data() == CONTROL => handle_order(&place),
            Ok(_) => handle_message(&mut place, &probes),
            Err(Errno::EINTR) => (),
            Err(error) => panic!("epoll_wait: {error}"),
        }
    }
}

fn handle_order(place: &FetcherPlace) {
    let mut buffer = [0; control::SIZE + 1];
    match place.control.receive(&mut buffer).map(Order::from_bytes) {
        Ok(Ok(Order::Ping)) => {
            tell(place, Report::Counts(Counts::default())).unwrap();
        }
        Ok(Ok(Order::Stop)) => exit(0),
        // It ends with its broker.
        Ok(Ok(_)) => (),
        _ => exit(1),
    }
}

fn handle_message(place: &mut FetcherPlace, probes: &[Fetcher]) {
    let mut buffer = [0; MAX_MESSAGE + 1];
    let Ok(Datagram { bytes, descriptors }) = place.broker.receive_with(&mut buffer) else {
        exit(0);
    };
    let message: ToFetcher = wire::decode::<_, MAX_MESSAGE>(bytes).unwrap();
    if let ToFetcher::Fetch(Fetch { job, rest, .. }) = message {
        place.job = job;
        place.file = descriptors.into_iter().next();
        let rest = String::from_utf8(rest).unwrap();
        match rest.strip_prefix(PROBE) {
            Some(index) => {
                let probe = &probes[index.parse::<usize>().unwrap()];
                report(&probe.name, (probe.run)(place));
            }
            None => say(&rest, ALIVE),
        }
        let failure = Failure::Internal;
        let detail = "captured".to_owned();
        // A broker that has lost its trust does not listen any more.
        let _ = send(
            place,
            &FromFetcher::Failed {
                job,
                failure,
                detail,
            },
        );
    }
}

fn send(place: &FetcherPlace, message: &FromFetcher) -> Result<i64, Errno> {
    let mut buffer = [0; MAX_MESSAGE];
    let bytes = wire::encode(message, &mut buffer).unwrap();
    sent(place.broker.send(bytes))
}

fn tell(place: &FetcherPlace, report: Report) -> Result<i64, Errno> {
    sent(place.control.send(&report.to_bytes()))
}

fn sent(result: std::io::Result<()>) -> Result<i64, Errno> {
    result.map(|()| 0).map_err(|error| errno(&error))
}

fn killed(name: &str, run: impl Fn(&FetcherPlace) -> Result<i64, Errno> + 'static) -> Fetcher {
    Probe::new(name, Expected::Killed, run)
}

fn harmless(name: &str, run: impl Fn(&FetcherPlace) -> Result<i64, Errno> + 'static) -> Fetcher {
    Probe::new(name, Expected::Harmless, run)
}

fn replaced(name: &str, run: impl Fn(&FetcherPlace) -> Result<i64, Errno> + 'static) -> Fetcher {
    Probe::new(name, Expected::Replaced, run)
}

/// The granted file leads to no other one.
fn file() -> Vec<Fetcher> {
    const SHARED: usize = 1;
    let here = libc::AT_FDCWD as usize;
    let mut probes = vec![
        harmless("file: write", |place| {
            let text = b"x".as_ptr().addr();
            call(libc::SYS_pwrite64, &[place.granted(), text, 1, 0])
        }),
        Probe::new(
            "file: open it again",
            Expected::Fails(Errno::EACCES),
            move |place: &FetcherPlace| {
                let path = format!("/proc/self/fd/{}\0", place.granted());
                call(libc::SYS_openat, &[here, path.as_ptr().addr(), 2, 0])
            },
        ),
        Probe::new(
            "file: open what is beside it",
            Expected::Fails(Errno::EACCES),
            |place: &FetcherPlace| {
                let path = c"..".as_ptr().addr();
                call(libc::SYS_openat, &[place.granted(), path, 0, 0])
            },
        ),
        killed("file: name it", move |place| {
            let (empty, path) = (c"".as_ptr().addr(), c"/tmp/r-tftpd-probe".as_ptr().addr());
            let file = place.granted();
            call(libc::SYS_linkat, &[file, empty, here, path, 0x1000])
        }),
        killed("file: execute", |place| {
            let empty = c"".as_ptr().addr();
            call(libc::SYS_execveat, &[place.granted(), empty, 0, 0, 0x1000])
        }),
        killed("file: map executable", |place| {
            call(libc::SYS_mmap, &[0, 4096, 5, SHARED, place.granted(), 0])
        }),
        killed("file: send it into a channel", |place| {
            let channel = number(&place.broker);
            call(libc::SYS_sendfile, &[channel, place.granted(), 0, 100])
        }),
    ];
    for (name, system_call, argument) in [
        ("read at a place", libc::SYS_pread64, 0),
        ("cut", libc::SYS_ftruncate, 0),
        ("fallocate", libc::SYS_fallocate, 0),
        ("change its mode", libc::SYS_fchmod, 0o777),
        ("change its owner", libc::SYS_fchown, 0),
        ("lock", libc::SYS_flock, 2),
        ("ioctl", libc::SYS_ioctl, 0x4020_940d),
        ("directory entries", libc::SYS_getdents64, 0),
        ("fchdir", libc::SYS_fchdir, 0),
        ("extended attribute", libc::SYS_fsetxattr, 0),
        ("splice", libc::SYS_splice, 0),
        ("duplicate", libc::SYS_dup3, 2),
    ] {
        probes.push(killed(&format!("file: {name}"), move |place| {
            call(system_call, &[place.granted(), argument])
        }));
    }
    for (name, command, argument) in [("lease", 1024, 0), ("seal", 1033, 1), ("owner", 8, 1)] {
        probes.push(killed(&format!("file: fcntl {name}"), move |place| {
            call(libc::SYS_fcntl, &[place.granted(), command, argument])
        }));
    }
    probes
}

/// 127.0.0.1 port 69, as struct sockaddr_in.
const CLIENT: [u8; 16] = [2, 0, 0, 69, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The channels lead to broker and supervisor alone, and carry bytes alone.
fn channels() -> Vec<Fetcher> {
    let client = CLIENT.as_ptr().addr();
    let mut probes = vec![
        killed("a datagram to a client", move |_| {
            let socket = call(libc::SYS_socket, &[2, 2, 0])?;
            let socket = usize::try_from(socket).unwrap();
            call(libc::SYS_sendto, &[socket, client, 4, 0, client, 16])
        }),
        killed("a file to the broker", |place| {
            let file = place.file.as_ref().unwrap().as_fd();
            sent(place.broker.send_with(b"x", &[file]))
        }),
        killed("a file to the supervisor", |place| {
            let file = place.file.as_ref().unwrap().as_fd();
            sent(place.control.send_with(&[0; 64], &[file]))
        }),
    ];
    type End = fn(&FetcherPlace) -> usize;
    let ends: [(&str, End); 2] = [
        ("channel", |place| number(&place.broker)),
        ("control channel", |place| number(&place.control)),
    ];
    for (which, end) in ends {
        let name = |what: &str| format!("{which}: {what}");
        probes.push(killed(&name("send elsewhere"), move |place| {
            call(libc::SYS_sendto, &[end(place), client, 4, 0, client, 16])
        }));
        probes.push(Probe::new(
            &name("connect to a client"),
            Expected::Fails(Errno::EINVAL),
            move |place: &FetcherPlace| call(libc::SYS_connect, &[end(place), client, 16]),
        ));
        probes.push(Probe::new(
            &name("dissolve the connection"),
            Expected::Fails(Errno::EINVAL),
            move |place: &FetcherPlace| {
                let unspecified = [0_u8; 16];
                let unspecified = unspecified.as_ptr().addr();
                call(libc::SYS_connect, &[end(place), unspecified, 16])
            },
        ));
        for (what, level, option) in [
            ("pass credentials", 1, 16),
            ("a larger buffer", 1, 7),
            ("a filter", 1, 26),
        ] {
            probes.push(killed(&name(what), move |place| {
                let on = 1_i32.to_ne_bytes();
                let on = on.as_ptr().addr();
                call(libc::SYS_setsockopt, &[end(place), level, option, on, 4])
            }));
        }
        for (what, command, argument) in [("owner", 8, 1), ("signal", 10, 9), ("duplicate", 0, 9)] {
            probes.push(killed(&name(what), move |place| {
                call(libc::SYS_fcntl, &[end(place), command, argument])
            }));
        }
        for (what, system_call) in [("accept", libc::SYS_accept4), ("listen", libc::SYS_listen)] {
            probes.push(killed(&name(what), move |place| {
                call(system_call, &[end(place), 0, 0, 0])
            }));
        }
        probes.push(replaced(&name("shut down"), move |place| {
            call(libc::SYS_shutdown, &[end(place), 2])
        }));
    }
    probes
}

/// What the broker must not accept.
fn messages() -> Vec<Fetcher> {
    let head = |job, status| {
        FromFetcher::Head(Head {
            job,
            status,
            headers: Vec::new(),
            length: None,
        })
    };
    vec![
        replaced("message: Hello again", |place| {
            send(place, &FromFetcher::Hello(Hello::OURS))
        }),
        replaced("message: a job that was never given", move |place| {
            send(place, &head(place.job + 1, 200))
        }),
        replaced("message: a body without a head", |place| {
            let job = place.job;
            send(place, &FromFetcher::End { job, len: 1 })
        }),
        replaced("message: a body over the limit", move |place| {
            let job = place.job;
            send(place, &head(job, 200))?;
            let len = u64::MAX;
            send(place, &FromFetcher::Extent { job, len })
        }),
        replaced("message: no status", move |place| {
            send(place, &head(place.job, 0))
        }),
        replaced("message: a text for the log with control bytes", |place| {
            let (job, failure) = (place.job, Failure::Internal);
            let detail = "\x1b[2J\n".to_owned();
            send(
                place,
                &FromFetcher::Failed {
                    job,
                    failure,
                    detail,
                },
            )
        }),
        replaced("message: garbage", |place| {
            sent(place.broker.send(&[0xa5; 99]))
        }),
        replaced("message: too long", |place| {
            sent(place.broker.send(&[1; MAX_MESSAGE + 1]))
        }),
    ]
}

/// What the supervisor must not accept.
fn reports() -> Vec<Fetcher> {
    vec![
        replaced("control: Ready again", |place| {
            tell(place, Report::Ready(Facts::default()))
        }),
        replaced("control: Retired", |place| tell(place, Report::Retired)),
        replaced("control: Distrust", |place| tell(place, Report::Distrust)),
        replaced("control: garbage", |place| {
            sent(place.control.send(&[0xa5; 64]))
        }),
        replaced("control: too long", |place| {
            sent(place.control.send(&[1; 65]))
        }),
    ]
}
