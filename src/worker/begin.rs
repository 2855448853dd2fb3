//! From a granted request to its transfer.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use r_tftpd_broker::wire::{Denial, MAX_SCRATCH, ToBroker};
use tokio::task::spawn_local;
use tokio::time::sleep_until;

use super::engine::Engine;
use super::feed::{Feed, News, stalled};
use super::idle::IdleSocket;
use super::netascii;
use super::record::End;
use super::server::Server;
use super::source::{Source, in_thread};
use super::ticket::{Ending, Phase, Ticket};
use super::transfer::transfer;
use crate::tftp::options::{Asked, Granted};
use crate::tftp::packet::Refusal;
use crate::tftp::receive::Receiver;
use crate::tftp::session::{Extent, Outcome, Session};

/// How long an origin is waited for before the client gets an OACK: the time in which most clients
/// repeat their request first.
const HOLD: Duration = Duration::from_secs(1);

/// Starts to send a file to the client.
pub(crate) fn read(server: Rc<Server>, ticket: Rc<Ticket>, socket: IdleSocket, source: Source) {
    if ticket.is_netascii() {
        spawn_local(read_netascii(server, ticket, socket, source));
    } else {
        let engine = Engine::Send(whole(&server, &ticket, &source));
        let transfer = transfer(server, ticket, socket, engine, Some(source), None, None);
        spawn_local(transfer);
    }
}

/// Starts to send what is being fetched, as soon as there is anything to send.
///
/// **A client that waits** is kept alive by what TFTP has: its own repetitions, which cost nobody
/// anything.
/// - It repeats its request, which is recognised and causes neither a fetch nor a packet: to most
///   clients the first packet of the server means that the file exists, so it has to wait until
///   that is known.
/// - If it asked for options and not for the size, it can get an OACK before anything is known: it
///   does when it repeats its request, or after [`HOLD`] at the latest. It acknowledges the OACK,
///   block 1 is held back, and it repeats its ACK with all of its patience anew. An origin that
///   says in time that there is no file is still heard before that.
/// - Who asks for the size (PXELINUX, GRUB, iPXE) gets nothing until it is known: from the headers,
///   or with the end of a compressed body.
///
/// Nothing is repeated by us before there was a first packet. A request whose origin brings nothing
/// for [`STALL`](super::feed::STALL) is refused.
pub(crate) fn fetched(server: Rc<Server>, ticket: Rc<Ticket>, socket: IdleSocket, feed: Feed) {
    spawn_local(await_origin(server, ticket, socket, feed));
}

/// Starts to take a file from the client and to throw it away.
pub(crate) fn discard(server: Rc<Server>, ticket: Rc<Ticket>, socket: IdleSocket) {
    let asked = asked(&ticket);
    let receiver = Receiver::new(&asked, &server.limits(&ticket), Instant::now());
    let engine = Engine::Receive(receiver, asked.tsize);
    spawn_local(transfer(server, ticket, socket, engine, None, None, None));
}

/// What the client is told when the broker does not grant something.
pub(crate) fn refusal_of(denial: Denial) -> Refusal {
    match denial {
        Denial::Resources => Refusal::Busy,
        Denial::System => Refusal::Internal,
        _ => Refusal::Denied,
    }
}

/// Translates the file first.
async fn read_netascii(server: Rc<Server>, ticket: Rc<Ticket>, socket: IdleSocket, source: Source) {
    let (source, refused) = match translated(&server, &ticket, &source).await {
        Ok(Some(translation)) => (translation, None),
        Ok(None) => (source, None),
        Err((refusal, end)) => (source, Some((refusal, end))),
    };
    let mut session = whole(&server, &ticket, &source);
    let end = refused.map(|(refusal, end)| {
        session.refuse(refusal);
        end
    });
    transfer(
        server,
        ticket,
        socket,
        Engine::Send(session),
        Some(source),
        None,
        end,
    )
    .await;
}

/// What a request waits for whose file is being fetched.
enum Event {
    /// There is something new.
    News(News),
    /// An OACK is due.
    Oack,
    /// It has to end.
    Ending(Ending),
}

async fn await_origin(server: Rc<Server>, ticket: Rc<Ticket>, socket: IdleSocket, mut feed: Feed) {
    let asked = asked(&ticket);
    let limits = server.limits(&ticket);
    let sized = asked.tsize.is_some() && limits.options;
    let session = |extent, length| {
        let session = Session::new(&asked, &limits, extent, length, Instant::now());
        Engine::Send(session)
    };
    let options = !Granted::negotiate(&asked, &limits, None).is_empty();
    let early = options && !sized && !ticket.is_netascii();
    let oack_due = Instant::now() + HOLD;
    let mut sleep = pin!(sleep_until(oack_due.into()));
    let (engine, source) = loop {
        let deadline = if early { oack_due } else { feed.deadline() };
        sleep.as_mut().reset(deadline.into());
        let event = poll_fn(|cx| {
            ticket.register(cx);
            if let Some(ending) = ticket.ending() {
                return Poll::Ready(Event::Ending(ending));
            }
            // Before the news: the first packet answers all repetitions there were.
            let repeated = ticket.take_repeated();
            if let Poll::Ready(news) = feed.poll(cx, &server, &ticket) {
                return Poll::Ready(Event::News(news));
            }
            if repeated && early {
                return Poll::Ready(Event::Oack);
            }
            let elapsed = sleep.as_mut().poll(cx);
            elapsed.map(|()| {
                if early {
                    Event::Oack
                } else {
                    Event::News(stalled())
                }
            })
        });
        match event.await {
            Event::News(News::Body {
                file,
                extent,
                length,
            }) => {
                let length = length.or(extent.complete.then_some(extent.len));
                let source = || Source::cached(file, length);
                if ticket.is_netascii() {
                    if extent.complete {
                        let source = source();
                        spawn_local(read_netascii(server, ticket, socket, source));
                        return;
                    }
                } else if length.is_some() || !sized {
                    break (session(extent, length), Some(source()));
                }
            }
            Event::Oack => break (session(Extent::default(), None), None),
            Event::News(News::Over(not_fetched)) => {
                drop(feed);
                let refusal = not_fetched.refusal;
                return server.refuse_by(&ticket, socket, refusal, &End::NotFetched(not_fetched));
            }
            Event::Ending(Ending::Stopping) => {
                drop(feed);
                return server.refuse_by(&ticket, socket, Refusal::Stopping, &End::Stopped);
            }
            Event::Ending(ending) => {
                drop(feed);
                return server.finish_early(&ticket, Some(ending));
            }
        }
    };
    let feed = feed.is_open().then(|| Box::new(feed));
    spawn_local(transfer(server, ticket, socket, engine, source, feed, None));
}

/// The session of a file that is there in whole.
fn whole(server: &Server, ticket: &Ticket, source: &Source) -> Session {
    let extent = Extent {
        len: source.len().unwrap_or_default(),
        complete: true,
    };
    let limits = server.limits(ticket);
    Session::new(&asked(ticket), &limits, extent, None, Instant::now())
}

fn asked(ticket: &Ticket) -> Asked {
    ticket
        .request
        .as_ref()
        .map(|request| request.asked)
        .unwrap_or_default()
}

/// The netascii form of a file; none if it is the file itself.
async fn translated(
    server: &Server,
    ticket: &Ticket,
    source: &Source,
) -> Result<Option<Source>, (Refusal, End)> {
    let size = source.len().unwrap_or_default();
    let unreadable = |error: io::Error| (Refusal::ReadFailed, End::ReadFailed(error.to_string()));
    let file = Arc::clone(source.file());
    let measuring = move || netascii::measure(&file, size);
    let length = in_thread(measuring).await.map_err(unreadable)?;
    if length == size {
        return Ok(None);
    }
    if length > MAX_SCRATCH {
        let refusal = Refusal::TooLarge;
        return Err((refusal, End::Protocol(Outcome::Refused(refusal))));
    }
    ticket.set_phase(Phase::AwaitingScratch);
    server.link.send(&ToBroker::Scratch {
        id: ticket.id,
        size: length,
    });
    let answer = poll_fn(|cx| {
        ticket.register(cx);
        ticket.take_scratch().map_or(Poll::Pending, Poll::Ready)
    });
    let scratch = answer
        .await
        .map_err(|denial| (refusal_of(denial), End::Denied(denial)))?;
    let file = Arc::clone(source.file());
    let translating = move || netascii::translate(&file, size, scratch, length);
    let scratch = in_thread(translating).await.map_err(unreadable)?;
    Ok(Some(Source::new(scratch, length, true)))
}
