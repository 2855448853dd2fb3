//! What the table of requests and the task of a transfer share: who asked for what, and messages
//! from one to the other.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

use r_tftpd_broker::wire::{Denial, Endpoint};

use super::idle::IdleSocket;
use super::places::Place;
use super::record::{CacheUse, Origin};
use crate::tftp::packet::{Mode, Request};

/// A request of a client from its arrival to its record.
pub(crate) struct Ticket {
    /// Names it between broker and worker.
    pub(crate) id: u64,
    /// Who asked.
    pub(crate) peer: Endpoint,
    /// The address of the reply socket.
    pub(crate) local: Endpoint,
    /// Bytes of the largest IP packet of the path, 0 = not known.
    pub(crate) mtu: u32,
    /// The number its reply socket can be kept under.
    pub(crate) number: Option<u16>,
    /// What was asked; none = it could not be read, see [`super::record::End::Unreadable`].
    pub(crate) request: Option<Request>,
    /// When it arrived.
    pub(crate) arrived: Instant,
    phase: Cell<Phase>,
    /// Held until the broker has answered and a transfer takes it over.
    socket: Cell<Option<IdleSocket>>,
    repeated: Cell<bool>,
    challenged: Cell<bool>,
    repetition: Cell<bool>,
    ending: Cell<Option<Ending>>,
    scratch: Cell<Option<Result<OwnedFd, Denial>>>,
    place: Cell<Option<Place>>,
    origin: RefCell<Option<Box<Origin>>>,
    waker: RefCell<Option<Waker>>,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The broker was asked to open the file.
    Opening,
    /// The broker was asked for a scratch file.
    AwaitingScratch,
    /// A transfer whose client has not answered yet.
    Unproven,
    /// The client has answered; all places are taken.
    Waiting,
    /// The client has answered and the transfer has a place.
    Proven,
}

/// Why a transfer ends that could go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client has turned to a newer request from the same port.
    Replaced,
    /// Too many unproven ones: the oldest gives way.
    GaveWay,
    /// The server is being stopped.
    Stopping,
}

impl Ticket {
    /// A request that arrived with `socket`.
    pub(crate) fn new(
        asked: &r_tftpd_broker::wire::Request,
        request: Option<Request>,
        socket: IdleSocket,
        arrived: Instant,
    ) -> Self {
        let r_tftpd_broker::wire::Request {
            id,
            peer,
            local,
            mtu,
            socket: socket_use,
            ..
        } = *asked;
        Self {
            id,
            peer,
            local,
            mtu,
            number: socket_use.number(),
            request,
            arrived,
            phase: Cell::new(Phase::Opening),
            socket: Cell::new(Some(socket)),
            repeated: Cell::default(),
            challenged: Cell::default(),
            repetition: Cell::default(),
            ending: Cell::default(),
            scratch: Cell::default(),
            place: Cell::default(),
            origin: RefCell::default(),
            waker: RefCell::default(),
        }
    }

    /// The client asked for the netascii form.
    pub(crate) fn is_netascii(&self) -> bool {
        let request = self.request.as_ref();
        request.is_some_and(|request| request.mode == Mode::Netascii)
    }

    /// The name leads to an origin.
    pub(crate) fn note_origin(&self, origin: Origin) {
        self.origin.replace(Some(Box::new(origin)));
    }

    /// What the cache does for it has changed; `trouble` is what went wrong with the origin.
    pub(crate) fn note_cache(&self, cache: CacheUse, trouble: Option<Rc<str>>) {
        if let Some(origin) = &mut *self.origin.borrow_mut() {
            origin.cache = cache;
            origin.trouble = trouble;
        }
    }

    /// The origin it comes from, for the record, once.
    pub(crate) fn take_origin(&self) -> Option<Box<Origin>> {
        self.origin.take()
    }

    /// How far it is.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// It got this far.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// It has a place or waits for one.
    pub(crate) fn has_turn(&self) -> bool {
        matches!(self.phase(), Phase::Waiting | Phase::Proven)
    }

    /// The reply socket; none = taken before, or it has to end.
    pub(crate) fn socket_to_answer(&self) -> Option<IdleSocket> {
        self.ending().map_or_else(|| self.take_socket(), |_| None)
    }

    /// The reply socket; none = taken before.
    pub(crate) fn take_socket(&self) -> Option<IdleSocket> {
        self.socket.take()
    }

    /// The client sent the same request again.
    pub(crate) fn repeat(&self) {
        self.repeated.set(true);
        self.wake();
    }

    /// Whether the client sent the same request again since the last call.
    pub(crate) fn take_repeated(&self) -> bool {
        self.repeated.take()
    }

    /// The client has made another request from the same port (`true`), or has kept to this one
    /// nevertheless (`false`): see [`super::requests`].
    pub(crate) fn set_challenged(&self, challenged: bool) {
        if self.challenged.replace(challenged) != challenged {
            self.wake();
        }
    }

    /// Whether the client, as far as known, may have turned to another request.
    pub(crate) fn is_challenged(&self) -> bool {
        self.challenged.get()
    }

    /// Whether it may be nothing but an earlier request of the client, sent again.
    pub(crate) fn set_repetition(&self, repetition: bool) {
        self.repetition.set(repetition);
    }

    /// Whether it may be nothing but an earlier request of the client, sent again.
    pub(crate) fn is_repetition(&self) -> bool {
        self.repetition.get()
    }

    /// Makes it end. The first reason counts.
    pub(crate) fn end(&self, ending: Ending) {
        if self.ending.get().is_none() {
            self.ending.set(Some(ending));
        }
        self.wake();
    }

    /// It need not end: the client has answered.
    pub(crate) fn stay(&self) {
        self.ending.set(None);
    }

    /// Why it has to end, if it has to.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending.get()
    }

    /// The broker's answer to the request for a scratch file.
    pub(crate) fn give_scratch(&self, scratch: Result<OwnedFd, Denial>) {
        self.scratch.set(Some(scratch));
        self.wake();
    }

    /// Takes the broker's answer, once.
    pub(crate) fn take_scratch(&self) -> Option<Result<OwnedFd, Denial>> {
        self.scratch.take()
    }

    /// Its turn has come.
    pub(crate) fn give_place(&self, place: Place) {
        self.place.set(Some(place));
        self.wake();
    }

    /// Takes the place that was given, once.
    pub(crate) fn take_place(&self) -> Option<Place> {
        self.place.take()
    }

    /// Wakes the task of `cx` at the next message.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => (),
            _ => *waker = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        let waker = self.waker.borrow();
        if let Some(waker) = &*waker {
            waker.wake_by_ref();
        }
    }
}
