//! In the broker's place: its start, its descriptors, its lock-down, and then an attacker.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{ExitCode, exit};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recvmsg};
use r_tftpd_broker::broker::sandbox;
use r_tftpd_broker::channel::{Channel, Datagram};
use r_tftpd_broker::control::{self, Counts, Order, Report};
use r_tftpd_broker::settings::BrokerStart;
use r_tftpd_broker::start;
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE, ToWorker};

use crate::captured_worker::PROBE;
use crate::probe::{Expected, Probe, number, report, say};
use crate::raw::call;
use crate::{broker_files, memory, world};

/// All that a captured broker has.
pub(crate) struct BrokerPlace {
    pub(crate) root: OwnedFd,
    pub(crate) cache: OwnedFd,
    pub(crate) listener: OwnedFd,
    /// To the fetcher, once the supervisor has handed it over.
    pub(crate) fetcher: RefCell<Option<Channel>>,
}

/// Every deed of a captured broker.
pub(crate) fn probes() -> Vec<Probe<BrokerPlace>> {
    [
        world::everywhere(),
        memory::everywhere(),
        broker_files::of_broker(),
        sockets(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The answer to a request that is no probe: proves that a generation lives.
pub(crate) const ALIVE: &str = "alive";

/// Takes the broker's place.
pub(crate) fn main() -> ExitCode {
    let control = start::take_control(c"r-tftpd-broker").unwrap();
    let (start, descriptors) = start::receive::<BrokerStart>(&control).unwrap();
    assert!(start.proxy.is_some_and(|proxy| proxy.cache_directory) && !start.fallback_directory);
    let [worker, root, cache, listener] = <[OwnedFd; 4]>::try_from(descriptors).unwrap();
    let worker = Channel::from_descriptor(worker);
    let probes = probes();
    let facts = sandbox::restrict([root.as_fd()], Some(cache.as_fd()), start.sandbox).unwrap();
    let facts = sandbox::filter(facts, start.sandbox).unwrap();
    let mut buffer = [0; MAX_MESSAGE];
    let hello = wire::encode(&ToWorker::Hello(Hello::OURS), &mut buffer).unwrap();
    worker.send_with(hello, &[]).unwrap();
    control
        .send_with(&Report::Ready(facts).to_bytes(), &[])
        .unwrap();
    let fetcher = RefCell::new(None);
    let place = BrokerPlace {
        root,
        cache,
        listener,
        fetcher,
    };
    loop {
        let mut polled = [&control.as_fd(), &place.listener.as_fd()]
            .map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN));
        match ppoll(&mut polled, None, None) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(error) => panic!("ppoll: {error}"),
        }
        let [order, request] = polled.map(|polled| polled.any() == Some(true));
        if order {
            handle_order(&control, &place);
        } else if request {
            handle_request(&place, &probes);
        }
    }
}

fn handle_order(control: &Channel, place: &BrokerPlace) {
    let mut buffer = [0; control::SIZE + 1];
    let Ok(Datagram { bytes, descriptors }) = control.receive_with(&mut buffer) else {
        exit(1);
    };
    match Order::from_bytes(bytes) {
        Ok(Order::Go | Order::User(_)) => (),
        Ok(Order::Ping) => {
            control
                .send_with(&Report::Counts(Counts::default()).to_bytes(), &[])
                .unwrap();
        }
        Ok(Order::Fetcher) => {
            let [fetcher] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
            place
                .fetcher
                .replace(Some(Channel::from_descriptor(fetcher)));
        }
        Ok(_) => exit(0),
        Err(_) => exit(1),
    }
}

fn handle_request(place: &BrokerPlace, probes: &[Probe<BrokerPlace>]) {
    let mut datagram = [0; 512];
    let mut pieces = [std::io::IoSliceMut::new(&mut datagram)];
    let listener = place.listener.as_raw_fd();
    let received = recvmsg::<()>(listener, &mut pieces, None, MsgFlags::MSG_DONTWAIT);
    let Ok(length) = received.map(|message| message.bytes) else {
        return;
    };
    let name = datagram[2..length]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    match name
        .strip_prefix(PROBE)
        .and_then(|index| index.parse::<usize>().ok())
    {
        Some(index) => report(&probes[index].name, (probes[index].run)(place)),
        None => say(&name, ALIVE),
    }
}

pub(crate) fn killed(
    name: &str,
    run: impl Fn(&BrokerPlace) -> Result<i64, Errno> + 'static,
) -> Probe<BrokerPlace> {
    Probe::new(name, Expected::Killed, run)
}

fn sockets() -> Vec<Probe<BrokerPlace>> {
    let mut probes = vec![
        Probe::kills("UDP socket that blocks", libc::SYS_socket, &[2, 2, 0]),
        Probe::kills("UDP-Lite socket", libc::SYS_socket, &[2, 0x8_0802, 136]),
        killed("listener: read its filter", |place| {
            call(
                libc::SYS_getsockopt,
                &[number(&place.listener), 1, 26, 0, 0],
            )
        }),
        killed("listener: status flags", |place| {
            call(libc::SYS_fcntl, &[number(&place.listener), 4, 0])
        }),
        killed("listener: owner", |place| {
            call(libc::SYS_fcntl, &[number(&place.listener), 8, 1])
        }),
        killed("fetcher: shut its channel down", |place| {
            let fetcher = place.fetcher.borrow();
            call(libc::SYS_shutdown, &[number(fetcher.as_ref().unwrap()), 2])
        }),
        killed("fetcher: who it is", |place| {
            let fetcher = place.fetcher.borrow();
            let fetcher = number(fetcher.as_ref().unwrap());
            call(libc::SYS_getsockopt, &[fetcher, 1, 17, 0, 0])
        }),
        killed("listener: shutdown", |place| {
            call(libc::SYS_shutdown, &[number(&place.listener), 2])
        }),
        killed("listener: ioctl", |place| {
            call(libc::SYS_ioctl, &[number(&place.listener), 0x8912, 0])
        }),
    ];
    for (name, level, option) in [
        ("bind to device", 1, 25),
        ("attach a filter", 1, 26),
        ("mark", 1, 36),
        ("broadcast", 1, 6),
        ("address reuse", 1, 2),
        ("transparent", 0, 19),
        ("multicast membership", 0, 35),
        ("IP options", 0, 4),
    ] {
        let name = format!("listener: option {name}");
        probes.push(killed(&name, move |place| {
            let value = [1_u8; 16];
            let value = value.as_ptr().addr();
            call(
                libc::SYS_setsockopt,
                &[number(&place.listener), level, option, value, 16],
            )
        }));
    }
    probes
}
