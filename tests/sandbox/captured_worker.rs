//! In the worker's place: its start, its descriptors, its lock-down, and then an attacker.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::process::{ExitCode, exit};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use r_tftpd::worker::sandbox;
use r_tftpd_broker::channel::{Channel, Datagram};
use r_tftpd_broker::control::{self, Counts, Order, Report};
use r_tftpd_broker::inbox::Inbox;
use r_tftpd_broker::settings::WorkerStart;
use r_tftpd_broker::start;
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE, Request, ToBroker, ToWorker};

use crate::probe::{Probe, WorkerPlace, number, report, say};
use crate::raw::call;
use crate::{descriptors, fetches, memory, messages, paths, world};

/// Every deed of a captured worker.
pub(crate) fn probes() -> Vec<Probe<WorkerPlace>> {
    [
        world::everywhere(),
        memory::everywhere(),
        descriptors::of_worker(),
        messages::of_worker(),
        fetches::of_worker(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The file that is served to prove that a generation works, and its contents.
pub(crate) const HELLO: (&str, &[u8]) = ("hello", b"inside: hello");

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
    let (epoll, facts) = sandbox::enter(start.sandbox, wait).unwrap();
    control.send(&Report::Ready(facts).to_bytes()).unwrap();
    let captured = Captured {
        control: Rc::new(control),
        broker: Rc::new(broker),
        probes,
        paths,
    };
    loop {
        let mut events = [EpollEvent::empty()];
        match epoll.wait(&mut events, EpollTimeout::NONE) {
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
    control: Rc<Channel>,
    broker: Rc<Channel>,
    probes: Vec<Probe<WorkerPlace>>,
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
            Ok(Ok(Order::User(_))) => (),
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
            send(
                &self.broker,
                &ToBroker::Done {
                    id: request.id,
                    proven: false,
                },
            );
        } else {
            self.serve(request.id, &name, reply);
        }
    }

    fn run(&self, index: usize, id: u64, reply: OwnedFd) {
        let name = self.probes[index].name.clone();
        let with_file = !name.starts_with("message: ");
        let file = if with_file {
            open(&self.broker, id, HELLO.0.into()).1
        } else {
            None
        };
        let (control, broker) = (Rc::clone(&self.control), Rc::clone(&self.broker));
        let place = WorkerPlace {
            control,
            broker,
            id,
            reply,
            file,
        };
        let result = (self.probes[index].run)(&place);
        report(&name, result);
        if with_file {
            send(&self.broker, &ToBroker::Done { id, proven: false });
        }
    }

    fn serve(&self, id: u64, name: &str, reply: OwnedFd) {
        let (_, file) = open(&self.broker, id, name.into());
        let mut datagram = vec![0, 3, 0, 1];
        datagram.extend(contents(&file.expect("a file to serve")));
        let length = datagram.len();
        call(
            libc::SYS_sendto,
            &[number(&reply), datagram.as_ptr().addr(), length, 0, 0, 0],
        )
        .unwrap();
        send(&self.broker, &ToBroker::Done { id, proven: false });
    }
}

/// Asks the broker for a file as the worker does.
pub(crate) fn open(
    broker: &Channel,
    id: u64,
    path: Vec<u8>,
) -> (Option<ToWorker>, Option<OwnedFd>) {
    send(broker, &ToBroker::Open { id, path });
    loop {
        match receive(broker) {
            // Requests that came meanwhile are asked again by their clients.
            Some((ToWorker::Request(_), _)) => (),
            Some((answer, file)) => return (Some(answer), file),
            None => return (None, None),
        }
    }
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
fn contents(file: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    let piece = [bytes.as_mut_ptr().addr(), bytes.len()];
    let arguments = [number(file), piece.as_ptr().addr(), 1, 0, 0, 0];
    let read = call(libc::SYS_preadv2, &arguments).unwrap();
    bytes.truncate(usize::try_from(read).unwrap());
    bytes
}

pub(crate) fn send(broker: &Channel, message: &ToBroker) {
    let mut buffer = [0; MAX_MESSAGE];
    let bytes = wire::encode(message, &mut buffer).unwrap();
    // A broker that is gone is noticed when it is read.
    let _ = broker.send(bytes);
}

thread_local! {
    /// What came with the last message.
    static INBOX: Cell<Inbox<ToWorker>> = Cell::default();
}

/// The next message of the broker with its descriptor; `None` when it is gone.
pub(crate) fn receive(broker: &Channel) -> Option<(ToWorker, Option<OwnedFd>)> {
    let mut inbox = INBOX.take();
    if inbox.is_empty() {
        let mut buffer = [0; MAX_MESSAGE + 1];
        let Datagram { bytes, descriptors } = broker.receive_with(&mut buffer).ok()?;
        inbox.fill(bytes, descriptors).unwrap();
    }
    let next = inbox.pop();
    INBOX.set(inbox);
    next
}
