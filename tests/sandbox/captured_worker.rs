//! In the worker's place: its start, its descriptors, its lock-down, and then an attacker.

use std::cell::OnceCell;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitCode, exit};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use r_tftpd::self_test::captured::worker::{open, receive};
use r_tftpd::self_test::deeds::messages::tell;
use r_tftpd::self_test::deeds::reports;
use r_tftpd::self_test::probe::{Expected, Probe, WorkerPlace};
use r_tftpd::self_test::{self};
use r_tftpd::worker::sandbox;
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::{self, Counts, Order, Report};
use r_tftpd_broker::settings::WorkerStart;
use r_tftpd_broker::start;
use r_tftpd_broker::supervisor::self_test::{CONTENTS, FILE};
use r_tftpd_broker::wire::{Hello, Request, ToBroker, ToWorker};

use crate::probe::{all, number, report, say};
use crate::raw::call;
use crate::{attacker, paths};

/// Every deed of a captured worker.
pub(crate) fn probes() -> Vec<Probe> {
    let mut probes = all(&[self_test::WORKER]);
    probes.extend(reports::OF_WORKER.iter().chain(reports::ENDS_OF_WORKER));
    probes
}

/// The file that is served to prove that a generation works, and its contents.
pub(crate) const HELLO: (&str, &[u8]) = (FILE, CONTENTS);

/// The request for a deed begins with this; its number in the list of [`probes`] follows.
pub(crate) const PROBE: &str = "probe/";

/// The request for a path begins with this; its number in the list of paths follows.
pub(crate) const PATH: &str = "path/";

/// Takes the worker's place.
pub(crate) fn main() -> ExitCode {
    let control = start::take_control(c"r-tftpd-worker").unwrap();
    let (start, descriptors) = start::receive::<WorkerStart>(&control).unwrap();
    let [broker] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
    let broker = Channel::from_descriptor(broker);
    send(&broker, &ToBroker::Hello(Hello::OURS));
    let hello = receive(&broker).unwrap();
    assert!(matches!(hello, (ToWorker::Hello(hello), None) if hello.is_ours()));
    let probes = probes();
    let paths = paths::corpus();
    let wait = || {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&control, EpollEvent::new(EpollFlags::EPOLLIN, CONTROL))?;
        epoll.add(&broker, EpollEvent::new(EpollFlags::EPOLLIN, BROKER))?;
        Ok(epoll)
    };
    let (epoll, facts) = if attacker::is_careless() {
        (wait().unwrap(), attacker::claim())
    } else {
        sandbox::enter(start.sandbox, wait).unwrap()
    };
    control.send(&Report::Ready(facts).to_bytes()).unwrap();
    let captured = Captured {
        control: Arc::new(control),
        broker: Arc::new(broker),
        epoll,
        probes,
        paths,
    };
    loop {
        let mut events = [EpollEvent::empty()];
        match captured.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(_) if events[0].data() == CONTROL => captured.handle_order(),
            Ok(_) => captured.handle_message(),
            Err(Errno::EINTR) => (),
            Err(error) => panic!("epoll_wait: {error}"),
        }
    }
}

const CONTROL: u64 = 0;
const BROKER: u64 = 1;

struct Captured {
    control: Arc<Channel>,
    broker: Arc<Channel>,
    epoll: Epoll,
    probes: Vec<Probe>,
    paths: Vec<Vec<u8>>,
}

impl Captured {
    fn handle_order(&self) {
        let mut buffer = [0; control::SIZE + 1];
        match self.control.receive(&mut buffer).map(Order::from_bytes) {
            Ok(Ok(Order::Ping)) => {
                self.control
                    .send(&Report::Counts(Counts::default()).to_bytes())
                    .unwrap();
            }
            Ok(Ok(Order::Go | Order::User(_))) => (),
            Ok(Ok(_)) => exit(0),
            _ => exit(1),
        }
    }

    fn handle_message(&self) {
        match receive(&self.broker) {
            Some((ToWorker::Request(request), Some(reply))) => self.handle_request(request, reply),
            // A late answer to a hostile message.
            Some(_) => (),
            None => exit(1),
        }
    }

    fn handle_request(&self, request: Request, reply: OwnedFd) {
        let name = request.datagram[2..]
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let index = |prefix: &str| name.strip_prefix(prefix)?.parse::<usize>().ok();
        if let Some(index) = index(PROBE) {
            self.run(index, request.id, reply);
        } else if let Some(index) = index(PATH) {
            let path = self.paths[index].clone();
            let answer = open(&self.broker, request.id, path);
            say(&name, &describe(answer));
            send(&self.broker, &done(request.id, false));
        } else if let Some(seed) = index(attacker::ATTACK) {
            attacker::worker(seed, request.id, &self.broker, &self.epoll);
        } else if let Some(seed) = index(attacker::HOSTILE_PATH) {
            let path = attacker::path(seed, &self.paths);
            say(&name, &describe(open(&self.broker, request.id, path)));
            let id = request.id;
            send(&self.broker, &done(id, true));
        } else if name == attacker::FLOOD {
            attacker::flood(&self.broker, reply.as_fd());
        } else if name == attacker::FLOOD_SUPERVISOR {
            attacker::flood(&self.control, reply.as_fd());
        } else if name == attacker::DEAF {
            say(&name, "deaf");
            loop {
                self.handle_order();
            }
        } else {
            self.serve(request.id, &name, reply);
        }
    }

    fn run(&self, index: usize, id: u64, reply: OwnedFd) {
        let probe = self.probes[index];
        let place = WorkerPlace {
            control: Arc::clone(&self.control),
            broker: Arc::clone(&self.broker),
            id,
            reply: Some(reply),
            file: OnceCell::new(),
        };
        report(probe.name, probe.run(&place));
        if probe.expected != Expected::Replaced {
            send(&self.broker, &done(id, false));
        }
    }

    fn serve(&self, id: u64, name: &str, reply: OwnedFd) {
        let (_, file) = open(&self.broker, id, name.into());
        let Some(file) = file else {
            // One that an attack has left behind.
            send(&self.broker, &done(id, false));
            return;
        };
        let mut datagram = vec![0, 3, 0, 1];
        datagram.extend(contents(&file));
        let length = datagram.len();
        call(
            libc::SYS_sendto,
            &[number(&reply), datagram.as_ptr().addr(), length, 0, 0, 0],
        )
        .unwrap();
        send(&self.broker, &done(id, false));
    }
}

fn done(id: u64, proven: bool) -> ToBroker {
    let kept = false;
    ToBroker::Done { id, proven, kept }
}

/// What the broker granted for a path, or why not.
fn describe((answer, file): (Option<ToWorker>, Option<OwnedFd>)) -> String {
    match (answer, file) {
        (Some(ToWorker::File { .. }), Some(file)) => {
            format!("granted {}", String::from_utf8_lossy(&contents(&file)))
        }
        (Some(ToWorker::Link { link, .. }), None) => format!("linked {}", link.display),
        (Some(ToWorker::Missing { .. }), None) => "missing".to_owned(),
        (Some(ToWorker::Denied { reason, .. }), None) => format!("denied {reason:?}"),
        other => format!("unexpected {other:?}"),
    }
}

/// The first bytes of a file, by the one call that is left for that.
pub(crate) fn contents(file: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    let piece = [bytes.as_mut_ptr().addr(), bytes.len()];
    let arguments = [number(file), piece.as_ptr().addr(), 1, 0, 0, 0];
    let read = call(libc::SYS_preadv2, &arguments).unwrap();
    bytes.truncate(usize::try_from(read).unwrap());
    bytes
}

fn send(broker: &Channel, message: &ToBroker) {
    tell(broker, message).unwrap();
}
