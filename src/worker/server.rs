//! What a runtime thread knows: its requests, and what happens when a message of the broker or an
//! order arrives. Threads share nothing, so there could be any number of them.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use r_tftpd_broker::control::Counts;
use r_tftpd_broker::settings::WorkerStart;
use r_tftpd_broker::wire::{self, Denial, SocketUse, ToBroker, ToWorker};
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::ahead::Ahead;
use super::begin;
use super::cache::{Answer, LinkInfo};
use super::cuts::Cuts;
use super::feed::{self, Feed};
use super::idle::{IdleSocket, KeptSockets};
use super::link::{self, Link};
use super::places::Places;
use super::proxy::{Ended, Proxy};
use super::record::{self, CacheUse, End, Origin};
use super::requests::{Admission, Requests};
use super::source::Source;
use super::summary::Summaries;
use super::ticket::{Ending, Phase, Ticket};
use super::window::MAX_SEND;
use crate::sys::MANY;
use crate::tftp::packet::{Kind, Refusal, parse_request};
use crate::tftp::session::{Limits, Outcome};

/// The state of one runtime thread.
pub(crate) struct Server {
    settings: WorkerStart,
    /// The channel to the broker.
    pub(crate) link: Link,
    /// The places for proven transfers.
    pub(crate) places: Rc<Places>,
    /// For all transfers of the thread, one after another.
    pub(crate) buffers: RefCell<Buffers>,
    /// The cache.
    pub(crate) proxy: Proxy,
    requests: RefCell<Requests>,
    kept: KeptSockets,
    cuts: RefCell<Cuts>,
    stopping: Cell<Option<Stopping>>,
    ended: Notify,
    taken: Cell<u64>,
    dropped: Cell<u64>,
    /// Records that were not written.
    pub(crate) summaries: Summaries,
}

/// Where datagrams are laid out and received.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The datagrams of one send.
    pub(crate) send: Box<[u8]>,
    /// The datagrams of one receive.
    pub(crate) receive: Box<[u8]>,
    /// What a transfer in lock-step needs next.
    pub(crate) ahead: Ahead,
}

/// How the end has been ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// Nothing new comes; what is there is served.
    Retiring,
    /// What has no place ends at once.
    Draining,
}

impl Server {
    /// A server without requests.
    pub(crate) fn new(settings: WorkerStart, link: Link) -> Rc<Self> {
        Rc::new(Self {
            link,
            places: Places::new(settings.max_connections),
            buffers: RefCell::new(Buffers {
                send: vec![0; MAX_SEND].into(),
                // A block of the largest blksize with its header, and room to see that it is
                // longer than it may be.
                receive: vec![0; MAX_SEND.next_multiple_of(MANY)].into(),
                ahead: Ahead::new(),
            }),
            proxy: Proxy::new(&settings.cache),
            requests: RefCell::new(Requests::new(settings.max_unproven)),
            kept: KeptSockets::default(),
            cuts: RefCell::default(),
            stopping: Cell::default(),
            ended: Notify::new(),
            taken: Cell::default(),
            dropped: Cell::default(),
            summaries: Summaries::new(),
            settings,
        })
    }

    /// A message of the broker.
    ///
    /// # Errors
    /// [`link::Error::Violation`] for one that was not to be expected.
    pub(crate) fn handle(
        self: &Rc<Self>,
        message: ToWorker,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), link::Error> {
        match (message, descriptor) {
            (ToWorker::Request(request), descriptor) => {
                let socket = self.socket_of(request.socket, descriptor)?;
                self.handle_request(&request, socket)
            }
            (ToWorker::Close { number }, None) => {
                self.kept.close(number);
                Ok(())
            }
            (
                ToWorker::File {
                    id,
                    size,
                    in_memory,
                },
                Some(file),
            ) => {
                let ticket = self.asked(id, Phase::Opening)?;
                let source = Source::new(file, size, in_memory);
                self.start(ticket, |server, ticket, socket| {
                    begin::read(server, ticket, socket, source);
                });
                Ok(())
            }
            (ToWorker::Scratch { id }, Some(scratch)) => {
                self.asked(id, Phase::AwaitingScratch)?
                    .give_scratch(Ok(scratch));
                Ok(())
            }
            (ToWorker::Missing { id }, None) => {
                let ticket = self.asked(id, Phase::Opening)?;
                let outcome = Outcome::Refused(Refusal::Missing);
                self.refuse(&ticket, Refusal::Missing, &End::Protocol(outcome));
                Ok(())
            }
            (ToWorker::Denied { id, reason }, None) => self.handle_denied(id, reason),
            (ToWorker::Link { id, link }, None) => self.handle_link(id, link),
            (ToWorker::Fetching { id, job, in_memory }, Some(file)) => self
                .proxy
                .handle_granted(&self.link, id, job, file, in_memory),
            (message, None) => self.proxy.handle(&self.link, message),
            (_, Some(_)) => Err(link::Error::Violation("wrong number of descriptors")),
        }
    }

    /// What answers a request.
    fn socket_of(
        &self,
        socket: SocketUse,
        descriptor: Option<OwnedFd>,
    ) -> Result<IdleSocket, link::Error> {
        match (socket, descriptor) {
            (SocketUse::Again(number), None) => {
                let kept = self.kept.take(number);
                kept.ok_or(link::Error::Violation("a socket that was not kept"))
            }
            (SocketUse::Once | SocketUse::First(_), Some(descriptor)) => {
                Ok(IdleSocket::New(descriptor))
            }
            _ => Err(link::Error::Violation("wrong number of descriptors")),
        }
    }

    /// A request passed the broker's limits.
    fn handle_request(
        self: &Rc<Self>,
        asked: &wire::Request,
        socket: IdleSocket,
    ) -> Result<(), link::Error> {
        if self.requests.borrow().find(asked.id).is_some() {
            return Err(link::Error::Violation("an id twice"));
        }
        self.taken.set(self.taken.get() + 1);
        self.make_room(asked.replaces);
        let (request, refusal) = match parse_request(&asked.datagram) {
            Ok(request) if request.kind == Kind::Write && !self.settings.wrq_devnull => {
                let outcome = Outcome::Refused(Refusal::ReadOnly);
                let end = End::Protocol(outcome);
                (Some(request), Some((Refusal::ReadOnly, end)))
            }
            Ok(request) => (Some(request), None),
            Err(unreadable) => {
                let refusal = unreadable.refusal;
                (None, Some((refusal, End::Unreadable(unreadable))))
            }
        };
        let ticket = Rc::new(Ticket::new(asked, request, socket, Instant::now()));
        if self.stopping.get() == Some(Stopping::Draining) {
            // Unanswered: the client asks again, perhaps when the server is back.
            self.finish(&ticket, false, &End::Stopped, &record::Result::default());
            return Ok(());
        }
        if let Some((refusal, end)) = refusal {
            self.refuse(&ticket, refusal, &end);
            return Ok(());
        }
        if let Some(request) = &ticket.request {
            let admission = self.requests.borrow().admit(asked.peer, request);
            match admission {
                Admission::Repeat(there) => {
                    there.repeat();
                    self.link.send(&ToBroker::Done {
                        id: asked.id,
                        proven: false,
                        kept: self.keep_unused(&ticket),
                    });
                    return Ok(());
                }
                Admission::New { outdated } => {
                    if let Some(old) = outdated {
                        self.end(&old, Ending::Replaced);
                    }
                }
            }
        }
        let oldest = self.requests.borrow_mut().insert(Rc::clone(&ticket));
        if let Some(oldest) = oldest {
            self.end(&oldest, Ending::GaveWay);
            self.summaries.note_gave_way();
        }
        match &ticket.request {
            Some(request) if request.kind == Kind::Read => {
                self.link.send(&ToBroker::Open {
                    id: ticket.id,
                    path: request.name.clone(),
                });
            }
            _ => self.start(ticket, begin::discard),
        }
        Ok(())
    }

    /// The broker has no room for a request that is silent; if it still is one, it ends.
    fn make_room(&self, replaced: Option<u64>) {
        let requests = self.requests.borrow();
        let oldest = replaced.and_then(|id| requests.find(id)).cloned();
        drop(requests);
        if let Some(oldest) = oldest.filter(|oldest| !oldest.has_turn()) {
            self.end(&oldest, Ending::GaveWay);
            self.summaries.note_gave_way();
        }
    }

    fn handle_denied(&self, id: u64, reason: Denial) -> Result<(), link::Error> {
        if let Ok(ticket) = self.asked(id, Phase::AwaitingScratch) {
            ticket.give_scratch(Err(reason));
            return Ok(());
        }
        let ticket = self.asked(id, Phase::Opening)?;
        self.refuse(&ticket, begin::refusal_of(reason), &End::Denied(reason));
        Ok(())
    }

    /// The name leads to an origin.
    fn handle_link(self: &Rc<Self>, id: u64, link: LinkInfo) -> Result<(), link::Error> {
        let ticket = self.asked(id, Phase::Opening)?;
        if let Some(ending) = ticket.ending() {
            self.finish_early(&ticket, Some(ending));
            return Ok(());
        }
        let answer = self.proxy.request(&self.link, &ticket, &link);
        ticket.note_origin(Origin {
            url: link.display.clone(),
            cache: match &answer {
                Answer::Serve(entry) if !entry.is_fresh(Instant::now()) => CacheUse::Stale,
                Answer::Serve(_) | Answer::Refused(_) => CacheUse::Hit,
                Answer::Join(_) => CacheUse::Joined,
                Answer::Fetch { .. } | Answer::Busy => CacheUse::Miss,
            },
            trouble: None,
        });
        let not_fetched = match answer {
            Answer::Serve(entry) => {
                let source = Source::cached(Rc::clone(entry.file()), Some(entry.extent().len));
                self.start(ticket, |server, ticket, socket| {
                    begin::read(server, ticket, socket, source);
                });
                return Ok(());
            }
            Answer::Join(reader) | Answer::Fetch { reader, .. } => {
                let feed = Feed::new(reader, link);
                self.start(ticket, |server, ticket, socket| {
                    begin::fetched(server, ticket, socket, feed);
                });
                return Ok(());
            }
            Answer::Refused(status) => feed::refused(status),
            Answer::Busy => feed::busy(),
        };
        let refusal = not_fetched.refusal;
        self.refuse(&ticket, refusal, &End::NotFetched(not_fetched));
        Ok(())
    }

    /// The request that waits for this answer; it waits no longer.
    fn asked(&self, id: u64, phase: Phase) -> Result<Rc<Ticket>, link::Error> {
        let requests = self.requests.borrow();
        match requests.find(id) {
            Some(ticket) if ticket.phase() == phase => {
                ticket.set_phase(Phase::Unproven);
                Ok(Rc::clone(ticket))
            }
            _ => Err(link::Error::Violation("an answer to nothing")),
        }
    }

    /// Starts a transfer, unless it has to end before it begins.
    fn start(
        self: &Rc<Self>,
        ticket: Rc<Ticket>,
        begin: impl FnOnce(Rc<Self>, Rc<Ticket>, IdleSocket),
    ) {
        ticket.set_phase(Phase::Unproven);
        match ticket.socket_to_answer() {
            Some(socket) => begin(Rc::clone(self), ticket, socket),
            None => self.finish_early(&ticket, ticket.ending()),
        }
    }

    /// Answers a request with an ERROR, once.
    fn refuse(&self, ticket: &Ticket, refusal: Refusal, end: &End) {
        match ticket.socket_to_answer() {
            Some(socket) => self.refuse_by(ticket, socket, refusal, end),
            None => self.finish_early(ticket, ticket.ending()),
        }
    }

    /// Answers a request whose reply socket has been taken with an ERROR, once.
    pub(crate) fn refuse_by(
        &self,
        ticket: &Ticket,
        mut socket: IdleSocket,
        refusal: Refusal,
        end: &End,
    ) {
        socket.send_once(&refusal.datagram());
        self.keep(ticket, socket);
        self.finish(ticket, false, end, &record::Result::default());
    }

    /// The transfer of `ticket` needs its reply socket no longer, which is kept or closed.
    pub(crate) fn keep(&self, ticket: &Ticket, socket: IdleSocket) {
        if let Some(number) = ticket.number {
            self.kept.keep(number, socket);
        }
    }

    /// Keeps the reply socket if no transfer has taken it. Whether it is kept, now or since before.
    fn keep_unused(&self, ticket: &Ticket) -> bool {
        if let Some(socket) = ticket.take_socket() {
            self.keep(ticket, socket);
        }
        ticket.number.is_some_and(|number| self.kept.has(number))
    }

    /// Ends a request without an answer.
    pub(crate) fn finish_early(&self, ticket: &Ticket, ending: Option<Ending>) {
        let end = match ending {
            Some(Ending::GaveWay) => End::GaveWay,
            Some(Ending::Stopping) => End::Stopped,
            Some(Ending::Replaced) | None => End::Replaced,
        };
        self.finish(ticket, false, &end, &record::Result::default());
    }

    /// Makes a request end. What only waits for the broker closes its socket at once, unless that
    /// can be kept; its id lives until the broker has answered.
    fn end(&self, ticket: &Ticket, ending: Ending) {
        self.requests.borrow_mut().detach(ticket);
        ticket.end(ending);
        if ticket.phase() == Phase::Opening && ticket.number.is_none() {
            drop(ticket.take_socket());
        }
    }

    /// A request has ended: everything it held anywhere is given back. `proven` = its peer has
    /// answered.
    pub(crate) fn finish(&self, ticket: &Ticket, proven: bool, end: &End, result: &record::Result) {
        self.requests.borrow_mut().remove(ticket);
        drop(ticket.take_place());
        let kept = self.keep_unused(ticket);
        self.proxy
            .finish(&self.link, ticket.id, Ended { proven, kept });
        self.dropped
            .set(self.dropped.get() + result.figures.ignored);
        record::write(&self.summaries, ticket, proven, end, result);
        self.ended.notify_one();
    }

    /// The client has acknowledged something of `ticket`: if it had another request on the same
    /// port before, that one ends. Returns it.
    pub(crate) fn choose(&self, ticket: &Ticket) -> Option<Rc<Ticket>> {
        let left = self.requests.borrow().choose(ticket)?;
        self.end(&left, Ending::Replaced);
        Some(left)
    }

    /// The peer of a transfer has answered and the transfer goes on.
    pub(crate) fn prove(&self, ticket: &Ticket) {
        self.requests.borrow_mut().prove(ticket.id);
        self.link.send(&ToBroker::Proven { id: ticket.id });
    }

    /// The client kept only `windowsize` blocks of a window, if it was found to cut any.
    pub(crate) fn note_cut(&self, ticket: &Ticket, windowsize: Option<u16>) {
        if let Some(windowsize) = windowsize {
            self.cuts.borrow_mut().note(ticket.peer.ip, windowsize);
        }
    }

    /// What may be granted to the client of a request.
    pub(crate) fn limits(&self, ticket: &Ticket) -> Limits {
        let settings = &self.settings;
        let max_windowsize = settings.max_windowsize;
        Limits {
            timeout: Duration::from_millis(settings.timeout_ms),
            max_retries: settings.max_retries,
            max_blksize: settings.max_blksize,
            max_windowsize: self.cuts.borrow_mut().clamp(ticket.peer.ip, max_windowsize),
            options: settings.options,
            mtu: ticket.mtu,
            ipv6: ticket.peer.ip.is_ipv6(),
        }
    }

    /// Orders the end.
    pub(crate) fn stop(&self, stopping: Stopping) {
        self.stopping.set(Some(stopping));
        if stopping == Stopping::Draining {
            let requests: Vec<_> = self.requests.borrow().iter().cloned().collect();
            for ticket in requests
                .iter()
                .filter(|ticket| ticket.phase() != Phase::Proven)
            {
                self.end(ticket, Ending::Stopping);
            }
        }
        self.ended.notify_one();
    }

    /// Returns when the end was ordered and the last transfer has ended.
    pub(crate) async fn drained(&self) {
        loop {
            while self.stopping.get().is_none() || !self.requests.borrow().is_idle() {
                self.ended.notified().await;
            }
            if self.link.is_empty() {
                return;
            }
            // The order has overtaken requests that the broker had sent before: they come first.
            yield_now().await;
        }
    }

    /// The figures so far.
    pub(crate) fn counts(&self) -> Counts {
        let requests = self.requests.borrow();
        let waiting = requests
            .iter()
            .filter(|ticket| ticket.phase() == Phase::Waiting)
            .count();
        Counts {
            transfers: self.places.taken().into(),
            unproven: requests.unproven() as u64,
            waiting: waiting as u64,
            requests: self.taken.get(),
            dropped: self.dropped.get(),
        }
    }
}
