//! From a granted request to its transfer.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use r_tftpd_broker::wire::{Denial, MAX_SCRATCH, ToBroker};
use tokio::task::spawn_local;

use super::engine::Engine;
use super::netascii;
use super::record::End;
use super::server::Server;
use super::source::{Source, in_thread};
use super::ticket::{Phase, Ticket};
use super::transfer::transfer;
use crate::tftp::options::Asked;
use crate::tftp::packet::{Mode, Refusal};
use crate::tftp::receive::Receiver;
use crate::tftp::session::{Extent, Outcome, Session};

/// Starts to send a file to the client.
pub(crate) fn read(server: Rc<Server>, ticket: Rc<Ticket>, socket: OwnedFd, source: Source) {
    if ticket
        .request
        .as_ref()
        .is_some_and(|request| request.mode == Mode::Netascii)
    {
        spawn_local(read_netascii(server, ticket, socket, source));
    } else {
        let engine = Engine::Send(session(&server, &ticket, &source));
        spawn_local(transfer(server, ticket, socket, engine, Some(source), None));
    }
}

/// Starts to take a file from the client and to throw it away.
pub(crate) fn discard(server: Rc<Server>, ticket: Rc<Ticket>, socket: OwnedFd) {
    let asked = asked(&ticket);
    let receiver = Receiver::new(&asked, &server.limits(&ticket), Instant::now());
    let engine = Engine::Receive(receiver, asked.tsize);
    spawn_local(transfer(server, ticket, socket, engine, None, None));
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
async fn read_netascii(server: Rc<Server>, ticket: Rc<Ticket>, socket: OwnedFd, source: Source) {
    let (source, refused) = match translated(&server, &ticket, &source).await {
        Ok(Some(translation)) => (translation, None),
        Ok(None) => (source, None),
        Err((refusal, end)) => (source, Some((refusal, end))),
    };
    let mut session = session(&server, &ticket, &source);
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
        end,
    )
    .await;
}

fn session(server: &Server, ticket: &Ticket, source: &Source) -> Session {
    let extent = Extent {
        len: source.len(),
        complete: true,
    };
    Session::new(
        &asked(ticket),
        &server.limits(ticket),
        extent,
        Instant::now(),
    )
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
    let size = source.len();
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
