//! In the fetcher's place: its start, its descriptors, its lock-down, and then an attacker.

use std::os::fd::AsFd;
use std::process::{ExitCode, exit};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use r_tftpd::fetcher::sandbox;
use r_tftpd::self_test::deeds::reports;
use r_tftpd::self_test::probe::{FetcherPlace, Probe};
use r_tftpd::self_test::{self};
use r_tftpd_broker::channel::{Channel, Datagram};
use r_tftpd_broker::control::{self, Counts, Order, Report};
use r_tftpd_broker::fetch::{Failure, Fetch, FromFetcher, ToFetcher};
use r_tftpd_broker::settings::FetcherStart;
use r_tftpd_broker::start;
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE};

use crate::attacker;
use crate::captured_broker::ALIVE;
use crate::captured_worker::PROBE;
use crate::probe::{all, report, say};

/// Every deed of a captured fetcher.
pub(crate) fn probes() -> Vec<Probe> {
    let mut probes = all(&[self_test::FETCHER]);
    probes.extend(reports::OF_FETCHER.iter().chain(reports::ENDS_OF_FETCHER));
    probes
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
    let facts = if attacker::is_careless() {
        attacker::claim()
    } else {
        sandbox::lock_down(&start).unwrap()
    };
    let mut place = FetcherPlace {
        control,
        broker,
        job: 0,
        file: None,
        start,
    };
    send(&place, &FromFetcher::Hello(Hello::OURS));
    tell(&place, Report::Ready(facts));
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
            tell(place, Report::Counts(Counts::default()));
        }
        Ok(Ok(Order::Stop)) => exit(0),
        // It ends with its broker.
        Ok(Ok(_)) => (),
        _ => exit(1),
    }
}

fn handle_message(place: &mut FetcherPlace, probes: &[Probe]) {
    let mut buffer = [0; MAX_MESSAGE + 1];
    let Ok(Datagram { bytes, descriptors }) = place.broker.receive_with(&mut buffer) else {
        exit(0);
    };
    let message: ToFetcher = wire::decode::<_, MAX_MESSAGE>(bytes).unwrap();
    if let ToFetcher::Fetch(Fetch { job, rest, .. }) = message {
        place.job = job;
        place.file = descriptors.into_iter().next();
        let rest = String::from_utf8(rest).unwrap();
        if rest == attacker::DEAF {
            say(&rest, "deaf");
            loop {
                handle_order(place);
            }
        }
        if rest == attacker::HANG_UP {
            nix::sys::socket::shutdown(
                std::os::fd::AsRawFd::as_raw_fd(&place.broker),
                nix::sys::socket::Shutdown::Both,
            )
            .unwrap();
            loop {
                handle_order(place);
            }
        }
        if rest == attacker::FLOOD {
            let file = place.file.as_ref().unwrap();
            attacker::flood(&place.broker, file.as_fd());
        }
        if let Some(seed) = rest.strip_prefix(attacker::ATTACK) {
            attacker::fetcher(seed.parse().unwrap(), place);
            return;
        }
        match rest.strip_prefix(PROBE) {
            Some(index) => {
                let probe = &probes[index.parse::<usize>().unwrap()];
                report(probe.name, probe.run(place));
            }
            None => say(&rest, ALIVE),
        }
        let failure = Failure::Internal;
        let detail = "captured".to_owned();
        send(
            place,
            &FromFetcher::Failed {
                job,
                failure,
                detail,
            },
        );
    }
}

fn send(place: &FetcherPlace, message: &FromFetcher) {
    let mut buffer = [0; MAX_MESSAGE];
    let bytes = wire::encode(message, &mut buffer).unwrap();
    // A broker that has lost its trust does not listen any more.
    let _ = place.broker.send(bytes);
}

fn tell(place: &FetcherPlace, report: Report) {
    place.control.send(&report.to_bytes()).unwrap();
}
