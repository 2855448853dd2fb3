//! The one place where the broker waits, and what it does when something comes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tracing::{debug, info, warn};

use super::fetches::Fetches;
use super::kept::Kept;
use super::limits::Excess;
use super::receive::{Junk, Received};
use super::reply::{self, PortRange};
use super::requests::Requests;
use super::trouble::Trouble;
use super::{Broker, Error, Phase, system};
use crate::channel::{Channel, Datagram, ReceiveError};
use crate::control::{Counts, Order, Report, SIZE};
use crate::wire::{MAX_MESSAGE, Request, SocketUse, ToWorker};

/// Messages of the worker or the fetcher taken in one go: then others have their turn.
pub(super) const MESSAGES: usize = 64;

/// How long something rests that fails although the kernel calls it ready: a listener without
/// memory, the worker's channel with too many descriptors on their way.
const PAUSE: Duration = Duration::from_millis(5);

/// What has come.
#[derive(Debug, Default)]
struct Ready {
    control: bool,
    worker: bool,
    fetcher: bool,
    /// Orders for the fetcher can be sent.
    orders: bool,
    helpers: bool,
    /// Places in [`Broker::listeners`].
    listeners: Vec<usize>,
}

/// What rests for [`PAUSE`].
#[derive(Clone, Copy, Debug, Default)]
struct Resting {
    outbox: bool,
    orders: bool,
    listeners: bool,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

/// Why a datagram is not handed on.
#[derive(Debug)]
enum Dropped {
    /// With its sender, if it has one.
    Junk(Option<IpAddr>, Junk),
    Excess(IpAddr, Excess),
    /// No reply socket.
    Socket(SocketAddr, io::Error),
}

impl Broker {
    /// Serves until told to end.
    pub(super) fn serve(&mut self) -> Result<(), Error> {
        let result = self.run();
        self.tell_similar(Instant::now());
        match result {
            // The worker has finished its last transfer, and with it the generation.
            Err(Error::Worker(ReceiveError::Closed)) if self.phase == Phase::Retired => Ok(()),
            result => result,
        }
    }

    fn run(&mut self) -> Result<(), Error> {
        let mut resting = Resting::default();
        loop {
            let ready = self.wait(resting).map_err(system("ppoll"))?;
            let now = Instant::now();
            if self.similar.due().is_some_and(|due| due <= now) {
                self.tell_similar(now);
            }
            self.overload.calm(now);
            if ready.control && self.obey()? == Next::End {
                return Ok(());
            }
            if self.outbox.is_blocked() && (ready.worker || resting.outbox) {
                self.flush()?;
                resting.outbox = self.outbox.is_blocked();
            }
            // What is left of a batch since the outbox was full.
            self.hand_on(now)?;
            if self.phase == Phase::Retiring {
                self.flush()?;
            }
            if self.phase == Phase::Retiring && self.outbox.is_empty() {
                // Only now: from here on the worker may end when it has nothing left to do.
                self.phase = Phase::Retired;
                self.report(Report::Retired)?;
            }
            self.answers(ready.helpers, now)?;
            if ready.fetcher || resting.orders {
                self.send_orders()?;
                self.relay()?;
            }
            // The channel has room and yet takes nothing: too many descriptors on their way.
            resting.orders = (ready.orders || resting.orders) && self.has_orders();
            if ready.worker || !self.inbox.is_empty() {
                self.messages(now)?;
            }
            resting.listeners = self.receive(&ready.listeners, now)?;
            // After all that can find that the fetcher is gone.
            self.relay_lost()?;
            self.close_kept(now)?;
            // Last: all that was said in this turn.
            if !self.outbox.is_blocked() {
                self.flush()?;
            }
        }
    }

    /// Waits until something can be done. With a full outbox, nothing that would fill it is looked
    /// at: the worker is slow, and what waits in the sockets is not lost.
    fn wait(&self, resting: Resting) -> io::Result<Ready> {
        let is_blocked = self.outbox.is_blocked();
        let from_worker = match (is_blocked, resting.outbox) {
            (false, _) => PollFlags::POLLIN,
            (true, false) => PollFlags::POLLOUT,
            (true, true) => PollFlags::empty(),
        };
        let mut places = Vec::with_capacity(4 + self.listeners.len());
        places.push(PollFd::new(self.control.as_fd(), PollFlags::POLLIN));
        places.push(PollFd::new(self.worker.as_fd(), from_worker));
        let (mut helpers_at, mut fetcher_at, mut listeners_at) = (None, None, usize::MAX);
        if !is_blocked {
            let fetches = self.proxy.as_ref().map(|proxy| &proxy.fetches);
            if let Some((channel, has_orders)) = fetches.and_then(Fetches::channel) {
                let mut wanted = PollFlags::POLLIN;
                wanted.set(PollFlags::POLLOUT, has_orders && !resting.orders);
                fetcher_at = Some(places.len());
                places.push(PollFd::new(channel, wanted));
            }
            helpers_at = Some(places.len());
            places.push(PollFd::new(self.helpers.wake(), PollFlags::POLLIN));
            if self.phase == Phase::Serving && !resting.listeners {
                listeners_at = places.len();
                for listener in &self.listeners {
                    places.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
                }
            }
        }
        let is_resting = resting.outbox || resting.orders || resting.listeners;
        let close_due = if is_blocked { None } else { self.kept.due() };
        let due = [self.similar.due(), self.overload.due(), close_due]
            .into_iter()
            .flatten()
            .min();
        let left = |due: Instant| due.saturating_duration_since(Instant::now());
        let timeout = match (is_blocked, self.inbox.is_empty()) {
            // Messages wait that could be answered: only a look at the rest.
            (false, false) => Some(Duration::ZERO),
            _ => [is_resting.then_some(PAUSE), due.map(left)]
                .into_iter()
                .flatten()
                .min(),
        };
        match ppoll(&mut places, timeout.map(TimeSpec::from_duration), None) {
            Ok(_) => (),
            Err(Errno::EINTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let mut ready = Ready::default();
        for (at, place) in places.iter().enumerate() {
            if !place.any().unwrap_or(true) {
                continue;
            }
            match at {
                0 => ready.control = true,
                1 => ready.worker = true,
                _ if Some(at) == helpers_at => ready.helpers = true,
                _ if Some(at) == fetcher_at => {
                    let events = place.revents().unwrap_or(PollFlags::empty());
                    ready.fetcher = true;
                    ready.orders = events.contains(PollFlags::POLLOUT);
                }
                _ => ready.listeners.push(at.saturating_sub(listeners_at)),
            }
        }
        Ok(ready)
    }

    /// Whether the fetcher has still to be told something.
    fn has_orders(&self) -> bool {
        let fetches = self.proxy.as_ref().map(|proxy| &proxy.fetches);
        fetches
            .and_then(Fetches::channel)
            .is_some_and(|(_, has_orders)| has_orders)
    }

    /// Carries out what the supervisor orders.
    fn obey(&mut self) -> Result<Next, Error> {
        let mut buffer = [0; SIZE + 1];
        let Datagram {
            bytes,
            mut descriptors,
        } = match self.control.receive_with(&mut buffer) {
            Err(ReceiveError::WouldBlock) => return Ok(Next::GoOn),
            result => result.map_err(Error::Control)?,
        };
        match Order::from_bytes(bytes).map_err(|_| Error::Order)? {
            Order::Fetcher => match (descriptors.pop(), descriptors.pop()) {
                (Some(channel), None) => {
                    self.replace_fetcher(Channel::from_descriptor(channel))?;
                }
                _ => return Err(Error::Order),
            },
            _ if !descriptors.is_empty() => return Err(Error::Order),
            Order::Go if self.phase == Phase::Ready => self.phase = Phase::Serving,
            // Requests already received are still handed on; the rest is for the next generation.
            Order::Retire | Order::Drain => {
                self.phase = Phase::Retiring;
                self.listeners.clear();
            }
            Order::Ping => {
                let (transfers, unproven) = self.requests.counts();
                let (requests, dropped) = (self.requests.taken(), self.dropped);
                let counts = Counts {
                    transfers,
                    unproven,
                    waiting: 0,
                    requests,
                    dropped,
                };
                self.report(Report::Counts(counts))?;
            }
            Order::Stop => return Ok(Next::End),
            Order::Go | Order::User(_) => (),
        }
        Ok(Next::GoOn)
    }

    /// Answers the worker.
    fn messages(&mut self, now: Instant) -> Result<(), Error> {
        let mut buffer = [0; MAX_MESSAGE + 1];
        for _ in 0..MESSAGES {
            if self.outbox.is_blocked() {
                break;
            }
            if self.inbox.is_empty() {
                let bytes = match self.worker.receive(&mut buffer) {
                    Err(ReceiveError::WouldBlock) => break,
                    result => result.map_err(Error::Worker)?,
                };
                self.inbox.fill(bytes, Vec::new()).map_err(Error::Message)?;
            }
            if let Some((message, _)) = self.inbox.pop() {
                self.answer(message, now)?;
            }
        }
        Ok(())
    }

    /// Hands on what the helper threads have opened.
    fn answers(&mut self, is_ready: bool, now: Instant) -> Result<(), Error> {
        if is_ready {
            self.helpers.clear();
        }
        while !self.outbox.is_blocked() {
            let Some(answer) = self.helpers.answer() else {
                break;
            };
            let name = answer.path.as_c_str().to_bytes();
            self.grant(answer.id, name, answer.result, now)?;
        }
        Ok(())
    }

    /// Takes one batch from each listener that has something. True if one of them must rest.
    fn receive(&mut self, listeners: &[usize], now: Instant) -> Result<bool, Error> {
        let mut must_rest = false;
        for at in listeners {
            if self.outbox.is_blocked() {
                break;
            }
            let Some(listener) = self.listeners.get(*at) else {
                break;
            };
            match self.receiver.fill(listener, *at) {
                Ok(batch) => {
                    self.overload.note(batch, now);
                    self.hand_on(now)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                // An error report for an earlier datagram, or no memory: the next one may be good.
                Err(error) => {
                    must_rest = true;
                    if self.may_tell(None, Trouble::Listener, now) {
                        warn!(%error, "listener can not be read for the moment");
                    }
                }
            }
        }
        Ok(must_rest)
    }

    /// Hands received requests on to the worker, as long as its channel has room.
    fn hand_on(&mut self, now: Instant) -> Result<(), Error> {
        while !self.outbox.is_blocked() {
            let Some(received) = self.receiver.next() else {
                break;
            };
            let admitted = received
                .map_err(|(client, junk)| Dropped::Junk(client, junk))
                .and_then(|received| {
                    if !self.overload.admits(received.peer, now) {
                        return Err(Dropped::Excess(received.peer.ip(), Excess::Overload));
                    }
                    let ports = self.ports.as_ref();
                    admit(&received, &mut self.requests, &mut self.kept, ports, now)
                });
            match admitted {
                Ok((request, socket)) => self.send(ToWorker::Request(request), socket)?,
                Err(dropped) => self.drop(&dropped, now),
            }
        }
        Ok(())
    }

    /// Has the worker close the reply sockets that are not needed any more.
    fn close_kept(&mut self, now: Instant) -> Result<(), Error> {
        while !self.outbox.is_blocked() {
            let Some(number) = self.kept.poll_close(now) else {
                break;
            };
            self.send(ToWorker::Close { number }, None)?;
        }
        Ok(())
    }

    /// Counts a datagram that is not handed on; logs it when an operator can do something.
    fn drop(&mut self, dropped: &Dropped, now: Instant) {
        self.dropped += 1;
        let (client, trouble) = match dropped {
            Dropped::Junk(client, junk) => (*client, Trouble::Junk(*junk)),
            Dropped::Excess(client, excess) => (Some(*client), Trouble::Excess(*excess)),
            // The address has moved to another machine (VRRP), which will answer.
            Dropped::Socket(peer, error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                return debug!(%peer, %error, "{}", Trouble::Socket);
            }
            Dropped::Socket(peer, _) => (Some(peer.ip()), Trouble::Socket),
        };
        let peer = client.map(tracing::field::display);
        match (self.may_tell(client, trouble, now), dropped) {
            (false, _) => debug!(peer, "{trouble}"),
            (true, Dropped::Socket(peer, error)) => warn!(%peer, %error, "{trouble}"),
            (true, Dropped::Junk(..) | Dropped::Excess(_, Excess::Network)) => {
                info!(peer, "{trouble}");
            }
            (true, Dropped::Excess(..)) => warn!(peer, "{trouble}"),
        }
    }
}

/// Takes a request in and finds or makes its reply socket.
fn admit(
    received: &Received<'_>,
    requests: &mut Requests,
    kept: &mut Kept,
    ports: Option<&PortRange>,
    now: Instant,
) -> Result<(Request, Option<OwnedFd>), Dropped> {
    let peer = received.peer;
    let id = requests
        .admit(peer, now)
        .map_err(|excess| Dropped::Excess(peer.ip(), excess))?;
    let (socket, local, mtu, descriptor) = match kept.take(received) {
        Some((number, local, mtu)) => (SocketUse::Again(number), local, mtu, None),
        None => {
            let reply = reply::connect(received, ports).map_err(|error| {
                requests.withdraw(id, now);
                Dropped::Socket(peer, error)
            })?;
            let socket = kept
                .add(received, &reply)
                .map_or(SocketUse::Once, SocketUse::First);
            (socket, reply.local, reply.mtu, Some(reply.socket.into()))
        }
    };
    if let Some(number) = socket.number() {
        requests.note_socket(id, number);
    }
    let request = Request {
        id,
        peer: peer.into(),
        socket,
        local,
        mtu,
        replaces: requests.give_way(peer, now),
        datagram: received.datagram.to_vec(),
    };
    Ok((request, descriptor))
}
