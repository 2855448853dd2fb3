//! In the worker's place.

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use r_tftpd_broker::channel::{Channel, Datagram};
use r_tftpd_broker::control::Report;
use r_tftpd_broker::inbox::Inbox;
use r_tftpd_broker::settings::WorkerStart;
use r_tftpd_broker::start;
use r_tftpd_broker::supervisor::self_test::Scene;
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE, ToBroker, ToWorker};

use super::super::deeds::messages::tell;
use super::super::probe::{Probe, WorkerPlace};
use super::wait_for_go;
use crate::log;
use crate::worker::{sandbox, start_runtime};

/// As the worker starts, up to its lock-down; then the deed.
pub(in super::super) fn play(scene: Scene, probe: Probe) -> Result<Infallible, Box<dyn Error>> {
    let control = start::take_control(c"r-tftpd-worker")?;
    let (start, descriptors) = start::receive::<WorkerStart>(&control)?;
    let [broker] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| start::Error::Descriptors)?;
    let broker = Channel::from_descriptor(broker);
    log::start(&start.log);
    let mut buffer = [0; MAX_MESSAGE];
    broker.send(wire::encode(&ToBroker::Hello(Hello::OURS), &mut buffer)?)?;
    let (runtime, facts) = sandbox::enter(start.sandbox, start_runtime)?;
    control.send(&Report::Ready(facts).to_bytes())?;
    wait_for_go(&control)?;
    let mut place = WorkerPlace {
        control: Arc::new(control),
        broker: Arc::new(broker),
        id: 0,
        reply: None,
        file: OnceCell::new(),
    };
    if scene == Scene::Request {
        let request = wait_for_request(&place.broker)?;
        (place.id, place.reply) = (request.0, Some(request.1));
    }
    // In a thread that was there before the second stage of the filter: it has to bind all.
    let (done, wait) = mpsc::channel();
    runtime.spawn_blocking(move || {
        let outcome = probe.run(&place);
        let _ = done.send((outcome, place));
    });
    let (outcome, place) = wait.recv()?;
    super::tell(probe.expected, outcome, &place.control)
}

fn wait_for_request(broker: &Channel) -> io::Result<(u64, OwnedFd)> {
    loop {
        match receive(broker) {
            Some((ToWorker::Request(request), Some(reply))) => return Ok((request.id, reply)),
            Some(_) => (),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Asks the broker for a file as the worker does: its answer, and a descriptor if one came.
pub fn open(broker: &Channel, id: u64, path: Vec<u8>) -> (Option<ToWorker>, Option<OwnedFd>) {
    let _ = tell(broker, &ToBroker::Open { id, path });
    loop {
        match receive(broker) {
            // Requests that came meanwhile are asked again by their clients; greetings are none.
            Some((ToWorker::Request(_) | ToWorker::Hello(_), _)) => (),
            Some((answer, file)) => return (Some(answer), file),
            None => return (None, None),
        }
    }
}

thread_local! {
    /// What came with the last message.
    static INBOX: Cell<Inbox<ToWorker>> = Cell::default();
}

/// The next message of the broker with its descriptor; `None` when it is gone.
pub fn receive(broker: &Channel) -> Option<(ToWorker, Option<OwnedFd>)> {
    let mut inbox = INBOX.take();
    if inbox.is_empty() {
        let mut buffer = [0; MAX_MESSAGE + 1];
        let Datagram { bytes, descriptors } = broker.receive_with(&mut buffer).ok()?;
        inbox.fill(bytes, descriptors).ok()?;
    }
    let next = inbox.pop();
    INBOX.set(inbox);
    next
}
