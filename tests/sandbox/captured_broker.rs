//! In the broker's place: its start, its descriptors, its lock-down, and then an attacker.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{ExitCode, exit};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recvmsg};
use r_tftpd::self_test::captured;
use r_tftpd::self_test::probe::{BrokerPlace, Probe};
use r_tftpd::self_test::{self};
use r_tftpd_broker::broker::sandbox;
use r_tftpd_broker::channel::{Channel, Datagram};
use r_tftpd_broker::control::{self, Counts, Order, Report};
use r_tftpd_broker::settings::BrokerStart;
use r_tftpd_broker::start;
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE, ToWorker};

use crate::captured_worker::PROBE;
use crate::probe::{all, report, say};

/// Every deed of a captured broker.
pub(crate) fn probes() -> Vec<Probe> {
    all(&[self_test::BROKER])
}

/// The answer to a request that is no probe: proves that a generation lives.
pub(crate) const ALIVE: &str = "alive";

/// Takes the broker's place.
pub(crate) fn main() -> ExitCode {
    let control = start::take_control(c"r-tftpd-broker").unwrap();
    let (start, descriptors) = start::receive::<BrokerStart>(&control).unwrap();
    let mut place = captured::broker::place(control, &start, descriptors).unwrap();
    let probes = probes();
    let cache = place.cache.as_ref().map(AsFd::as_fd);
    let facts = sandbox::restrict([place.root.as_fd()], cache, start.sandbox).unwrap();
    let facts = sandbox::filter(facts, start.sandbox).unwrap();
    let mut buffer = [0; MAX_MESSAGE];
    let hello = wire::encode(&ToWorker::Hello(Hello::OURS), &mut buffer).unwrap();
    place.worker.send_with(hello, &[]).unwrap();
    place
        .control
        .send_with(&Report::Ready(facts).to_bytes(), &[])
        .unwrap();
    loop {
        let mut polled = [&place.control.as_fd(), &place.listener.as_fd()]
            .map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN));
        match ppoll(&mut polled, None, None) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(error) => panic!("ppoll: {error}"),
        }
        let [order, request] = polled.map(|polled| polled.any() == Some(true));
        if order {
            handle_order(&mut place);
        } else if request {
            handle_request(&place, &probes);
        }
    }
}

fn handle_order(place: &mut BrokerPlace) {
    let mut buffer = [0; control::SIZE + 1];
    let Ok(Datagram { bytes, descriptors }) = place.control.receive_with(&mut buffer) else {
        exit(1);
    };
    match Order::from_bytes(bytes) {
        Ok(Order::Go | Order::User(_)) => (),
        Ok(Order::Ping) => {
            place
                .control
                .send_with(&Report::Counts(Counts::default()).to_bytes(), &[])
                .unwrap();
        }
        Ok(Order::Fetcher) => {
            let [fetcher] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
            place.fetcher = Some(Channel::from_descriptor(fetcher));
        }
        Ok(_) => exit(0),
        Err(_) => exit(1),
    }
}

fn handle_request(place: &BrokerPlace, probes: &[Probe]) {
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
        Some(index) => report(probes[index].name, probes[index].run(place)),
        None => say(&name, ALIVE),
    }
}
