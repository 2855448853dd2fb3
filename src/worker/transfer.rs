//! One transfer: the task that connects a state machine with its socket, its file and the time.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep, sleep_until};

use super::engine::{Engine, Step};
use super::feed::{Feed, News, stalled};
use super::held::{Held, PACE, has_to_wait, hold};
use super::idle::IdleSocket;
use super::near::Near;
use super::places::Place;
use super::record::End;
use super::server::{Buffers, Server};
use super::socket::ReplySocket;
use super::source::{NotFilled, Source};
use super::ticket::{Ending, Phase, Ticket};
use super::window::Layout;
use crate::tftp::packet::Refusal;
use crate::tftp::session::Outcome;

/// Bytes of a datagram from a client that reads, that matter: an ACK has 4, msftwindow 5, an ERROR
/// rarely more than a line of text.
const ANSWER: usize = 516;

/// How much later a transfer reminds its client if that seems to have turned to a newer request
/// (see [`super::requests`]): a block of an old transfer could be taken for the answer to the new
/// one, which by then is known to the client or given up.
const REST: Duration = Duration::from_secs(5);

/// Pause before a full send queue is tried again; why not wait for room: [`crate::sys::watch`].
const QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// The task of a transfer, from its first packet to its record. `end` is what the record says if
/// the engine already has an outcome, `feed` where the source comes from while it is incomplete.
pub(crate) fn transfer(
    server: Rc<Server>,
    ticket: Rc<Ticket>,
    socket: IdleSocket,
    engine: Engine,
    source: Option<Source>,
    feed: Option<Box<Feed>>,
    end: Option<End>,
) -> impl Future<Output = ()> + 'static {
    let mut transfer = Transfer {
        server,
        ticket,
        engine,
        source,
        feed,
        place: None,
        near: Near::default(),
        held: None,
        answered: false,
        stood: Duration::ZERO,
        sent: 0,
        end,
    };
    let mut socket = socket.wake();
    // The variables move into the future once; an `async fn` would keep its arguments twice.
    async move {
        let end = match &mut socket {
            Ok(socket) => transfer.serve(socket).await,
            Err(error) => End::Failed(error.to_string()),
        };
        if let (Ok(socket), false) = (socket, matches!(end, End::Failed(_))) {
            let socket = IdleSocket::Used(socket);
            transfer.server.keep(&transfer.ticket, socket);
        }
        transfer.finish(&end);
    }
}

/// A transfer in progress.
struct Transfer {
    server: Rc<Server>,
    ticket: Rc<Ticket>,
    engine: Engine,
    /// What is sent; none if the client writes, and as long as there is nothing.
    source: Option<Source>,
    /// Makes the source grow; none once it is complete.
    feed: Option<Box<Feed>>,
    /// Taken at the first ACK.
    place: Option<Place>,
    near: Near,
    /// What the client in line sent last, for [`PACE`].
    held: Option<Held>,
    /// The client has sent anything at all: it is no forged address.
    answered: bool,
    /// How long datagrams were held. The engine's clock stood still meanwhile: it must not take our
    /// delay for a timeout or a round trip.
    stood: Duration,
    /// One past the last block that was ever sent.
    sent: u64,
    /// Why we ended it with an ERROR.
    end: Option<End>,
}

/// What a transfer waits for.
enum Event {
    /// Datagrams arrived and were given to the engine, or are held.
    Datagrams,
    /// The deadline has passed.
    Deadline,
    /// The client sent its request again.
    Repeated,
    /// The source has grown, or there will be no more of it.
    News(News),
    /// The transfer is first in line.
    Turn(Place),
    /// It has to end.
    Ending(Ending),
    /// The socket failed.
    Failed(io::Error),
}

impl Transfer {
    /// TFTP: send what is to be sent, wait for an answer or for the time to run out, until there
    /// is an outcome.
    async fn serve(&mut self, socket: &mut ReplySocket) -> End {
        if let Some(ending) = self.ticket.ending() {
            // While its netascii form was made: nothing was sent.
            return self.end_of_ending(ending, socket);
        }
        let mut now = Instant::now();
        let mut sleep = pin!(sleep_until((now + PACE).into()));
        loop {
            while let Some(step) = self.engine.poll_transmit() {
                socket.begin();
                match step {
                    Step::Packet(packet) => socket.send_packet(&packet),
                    Step::Blocks(blocks) => {
                        if let Err(error) = self.send_blocks(socket, blocks).await {
                            self.end = Some(End::ReadFailed(error.to_string()));
                            self.engine.refuse(Refusal::ReadFailed);
                        }
                    }
                }
            }
            if let Some(outcome) = self.engine.outcome(self.engine_time(now)) {
                return self.end.take().unwrap_or_else(|| self.end_of(outcome));
            }
            if socket.is_gone() {
                return End::Gone;
            }
            if self.finds_answer(socket) {
                now = Instant::now();
                continue;
            }
            let event = poll_fn(|cx| self.poll_event(cx, socket, sleep.as_mut())).await;
            now = Instant::now();
            match event {
                Event::Datagrams => (),
                Event::Deadline if self.held.is_some() => self.release(now),
                Event::Deadline if self.is_left() => return End::Replaced,
                // Without a deadline of the engine the client waits for the source.
                Event::Deadline if self.engine.deadline().is_none() => {
                    self.take_news(stalled(), now);
                }
                Event::Deadline => self.engine.handle_timeout(self.engine_time(now)),
                Event::News(news) => self.take_news(news, now),
                Event::Repeated => self.engine.handle_repeated_request(self.engine_time(now)),
                Event::Turn(place) => self.take_turn(place, now),
                Event::Ending(ending) => return self.end_of_ending(ending, socket),
                Event::Failed(error) => return End::Failed(error.to_string()),
            }
        }
    }

    /// Sends blocks with as few calls as possible: one vectored read, one send for up to 64 KiB.
    /// What is rarely needed is boxed, so that each transfer need not have room for it.
    async fn send_blocks(
        &mut self,
        socket: &mut ReplySocket,
        mut blocks: Range<u64>,
    ) -> io::Result<()> {
        let (Some(source), Engine::Send(session)) = (&self.source, &self.engine) else {
            return Ok(());
        };
        self.sent = self.sent.max(blocks.end);
        while !blocks.is_empty() {
            let blksize = session.granted().blksize;
            let layout = Layout::new(blocks.clone(), blksize, |index| session.block_bytes(index));
            let segment = layout.segment();
            let filled = {
                let Buffers { send, ahead, .. } = &mut *self.server.buffers.borrow_mut();
                let buffer = send.get_mut(..layout.len()).unwrap_or_default();
                ahead
                    .fill(self.ticket.id, source, &layout, buffer)
                    .map(|()| socket.send_window(buffer, segment))
            };
            let sent = match filled {
                Ok(sent) => sent,
                Err(NotFilled::Failed(error)) => return Err(error),
                Err(NotFilled::WouldBlock) => {
                    let buffer = Box::pin(source.fill_slowly(layout.clone())).await?;
                    socket.send_window(&buffer, segment)
                }
            };
            if sent < layout.len() {
                blocks.start += (sent / segment) as u64;
                Box::pin(sleep(QUEUE_PAUSE)).await;
            } else {
                blocks.start = layout.blocks().end;
            }
        }
        Ok(())
    }

    /// Looks for the answer to a block for a moment, if the client is near and nobody else is
    /// served: whether it is there.
    fn finds_answer(&mut self, socket: &mut ReplySocket) -> bool {
        let is_lock_step = match &self.engine {
            Engine::Send(session) => session.granted().windowsize == 1,
            Engine::Receive(..) => false,
        };
        if !is_lock_step || self.place.is_none() || self.server.places.taken() > 1 {
            return false;
        }
        let Some(moment) = self.near.moment() else {
            return false;
        };
        let found = self
            .take_datagrams(|buffer, slot, take| socket.receive_within(moment, buffer, slot, take));
        self.near.note(found);
        found
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut ReplySocket,
        sleep: Pin<&mut Sleep>,
    ) -> Poll<Event> {
        self.ticket.register(cx);
        if let Some(ending) = self.ticket.ending() {
            // The last ACK can have come together with the newer request, and the first one while
            // we were busy with others.
            self.take_datagrams(|buffer, slot, take| {
                socket.receive_within(Duration::ZERO, buffer, slot, take)
            });
            if ending == Ending::GaveWay && self.ticket.has_turn() {
                self.ticket.stay();
                return Poll::Ready(Event::Datagrams);
            }
            return Poll::Ready(Event::Ending(ending));
        }
        if let Some(place) = self.ticket.take_place() {
            return Poll::Ready(Event::Turn(place));
        }
        if self.ticket.take_repeated() {
            return Poll::Ready(Event::Repeated);
        }
        if let Poll::Ready(received) = self.poll_datagrams(cx, socket) {
            return Poll::Ready(received.map_or_else(Event::Failed, |()| Event::Datagrams));
        }
        // Not while the engine's clock stands still.
        if self.held.is_none()
            && let Some(feed) = &mut self.feed
            && let Poll::Ready(news) = feed.poll(cx, &self.server, &self.ticket)
        {
            return Poll::Ready(Event::News(news));
        }
        let due = self.engine.deadline();
        let deadline = match &self.held {
            Some(held) => Some(held.since + PACE),
            None => due.map(|deadline| {
                let rests = self.ticket.is_challenged() && self.engine.is_proven();
                deadline + self.stood + if rests { REST } else { Duration::ZERO }
            }),
        };
        let deadline = deadline.or_else(|| Some(self.feed.as_ref()?.deadline()));
        match deadline {
            Some(deadline) => poll_deadline(cx, sleep, deadline).map(|()| Event::Deadline),
            None => Poll::Pending,
        }
    }

    fn poll_datagrams(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut ReplySocket,
    ) -> Poll<io::Result<()>> {
        self.take_datagrams(|buffer, slot, take| socket.poll_receive(cx, buffer, slot, take))
    }

    /// What `receive` gives is held, or goes to the engine.
    fn take_datagrams<R>(
        &mut self,
        receive: impl FnOnce(&mut [u8], usize, &mut dyn FnMut(&[u8])) -> R,
    ) -> R {
        let slot = match &self.engine {
            Engine::Send(_) => ANSWER,
            Engine::Receive(..) => usize::from(self.engine.blksize()) + 5,
        };
        let Self {
            server,
            ticket,
            engine,
            place,
            held,
            answered,
            stood,
            ..
        } = self;
        let mut buffers = server.buffers.borrow_mut();
        let mut now = None;
        receive(&mut buffers.receive, slot, &mut |datagram| {
            let now = *now.get_or_insert_with(Instant::now);
            let engine_now = engine_time(now, *stood);
            *answered = true;
            ticket.set_challenged(false);
            let goes_on = if ticket.phase() == Phase::Waiting {
                !has_to_wait(engine, datagram, engine_now)
            } else {
                engine.is_proven() || prove(server, ticket, engine, place, datagram, engine_now)
            };
            if goes_on {
                engine.handle_datagram(datagram, engine_now);
            } else {
                hold(held, engine, datagram, now);
            }
        })
    }

    /// The source has grown, or has failed.
    fn take_news(&mut self, news: News, now: Instant) {
        match news {
            News::Body {
                file,
                extent,
                length,
            } => {
                let length = length.or(extent.complete.then_some(extent.len));
                let source = self
                    .source
                    .get_or_insert_with(|| Source::cached(file, length));
                if let Some(length) = length {
                    source.set_len(length);
                }
                self.engine.handle_extent(extent, self.engine_time(now));
                if extent.complete {
                    self.feed = None;
                }
            }
            News::Over(not_fetched) => {
                self.engine.refuse(not_fetched.refusal);
                self.end = Some(End::NotFetched(not_fetched));
                self.feed = None;
            }
        }
    }

    /// There is a place: nothing has to wait from now on.
    fn take_turn(&mut self, place: Place, now: Instant) {
        self.place = Some(place);
        self.ticket.set_phase(Phase::Proven);
        self.release(now);
    }

    /// What was held counts now.
    fn release(&mut self, now: Instant) {
        if let Some(held) = self.held.take() {
            self.stood += now.saturating_duration_since(held.since);
            self.engine
                .handle_datagram(&held.datagram, self.engine_time(now));
        }
    }

    fn engine_time(&self, now: Instant) -> Instant {
        engine_time(now, self.stood)
    }

    /// Tells the client, once, that the server is being stopped.
    fn stop(&mut self, socket: &mut ReplySocket) -> End {
        self.engine.refuse(Refusal::Stopping);
        while let Some(Step::Packet(packet)) = self.engine.poll_transmit() {
            socket.send_packet(&packet);
        }
        End::Stopped
    }

    /// Gives everything back and writes the record.
    fn finish(&mut self, end: &End) {
        if self.ticket.phase() == Phase::Waiting {
            self.server.places.leave_line(&self.ticket);
        }
        if let Engine::Send(session) = &self.engine {
            self.server.note_cut(&self.ticket, session.window_cut());
        }
        // What is being fetched is no longer wanted here; the server looks whether by anybody.
        self.feed = None;
        let result = self
            .engine
            .result(self.source.as_ref().and_then(Source::len));
        self.server
            .finish(&self.ticket, self.answered, end, &result);
        self.place = None;
    }

    /// The client did not answer in time and has made another request meanwhile.
    fn is_left(&self) -> bool {
        self.ticket.is_challenged() && !self.engine.is_proven()
    }

    fn end_of(&self, outcome: Outcome) -> End {
        match (outcome, &self.engine) {
            (Outcome::Complete, Engine::Receive(..)) => End::Discarded,
            (outcome, _) => End::Protocol(outcome),
        }
    }

    fn end_of_ending(&mut self, ending: Ending, socket: &mut ReplySocket) -> End {
        let now = self.engine_time(Instant::now());
        match (self.engine.outcome(now), ending) {
            (Some(outcome), _) => self.end.take().unwrap_or_else(|| self.end_of(outcome)),
            (None, Ending::Stopping) => self.stop(socket),
            (None, Ending::GaveWay) => End::GaveWay,
            (None, Ending::Replaced) => self.end_of_replaced(),
        }
    }

    /// A client that turns to the next file has got this one if all of it was sent.
    fn end_of_replaced(&self) -> End {
        let len = self.source.as_ref().and_then(Source::len);
        match (&self.engine, len) {
            (Engine::Send(session), Some(len)) => {
                let last = len / u64::from(session.granted().blksize) + 1;
                if session.is_proven() && self.sent > last {
                    End::Protocol(Outcome::Complete)
                } else {
                    End::Replaced
                }
            }
            (Engine::Receive(receiver, _), _) if receiver.outcome() == Some(Outcome::Complete) => {
                End::Discarded
            }
            _ => End::Replaced,
        }
    }
}

/// The engine's time: `stood` behind ours.
fn engine_time(now: Instant, stood: Duration) -> Instant {
    now.checked_sub(stood).unwrap_or(now)
}

/// A datagram of a client that had not answered. If the transfer goes on with it, it needs a place;
/// without one the client gets in line and the datagram has to wait: `false`.
fn prove(
    server: &Server,
    ticket: &Rc<Ticket>,
    engine: &Engine,
    place: &mut Option<Place>,
    datagram: &[u8],
    now: Instant,
) -> bool {
    // What it means is tried on a copy: a final ACK, an ERROR or junk needs no place.
    let mut next = engine.clone();
    next.handle_datagram(datagram, now);
    let left = if next.is_proven() {
        server.choose(ticket)
    } else {
        None
    };
    let goes_on = next.is_proven() && next.outcome(now).is_none();
    if !goes_on {
        return true;
    }
    server.prove(ticket);
    *place = server.places.take();
    if place.is_some() {
        ticket.set_phase(Phase::Proven);
        return true;
    }
    ticket.set_phase(Phase::Waiting);
    server.places.line_up(Rc::clone(ticket), left.as_deref());
    false
}

/// Ready when `deadline` has passed. The timer is left alone as long as it fires early: deadlines
/// move with every ACK, the timer only when it has fired.
fn poll_deadline(cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>, deadline: Instant) -> Poll<()> {
    if deadline < sleep.deadline().into_std() {
        sleep.as_mut().reset(deadline.into());
    }
    while sleep.as_mut().poll(cx).is_ready() {
        if deadline <= Instant::now() {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(deadline.into());
    }
    Poll::Pending
}
