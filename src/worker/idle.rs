//! Reply sockets that no transfer uses: between a request and its transfer, and between two
//! requests, if the broker lends the socket again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use super::socket::{ReplySocket, send_once};

/// A reply socket that no transfer uses.
#[derive(Debug)]
pub(crate) enum IdleSocket {
    /// No transfer has used it. Not watched: a refused request needs no more than one send.
    New(OwnedFd),
    /// It has served a transfer.
    Used(ReplySocket),
}

impl IdleSocket {
    /// Sends one datagram, best effort.
    pub(crate) fn send_once(&mut self, packet: &[u8]) {
        match self {
            Self::New(socket) => send_once(socket, packet),
            Self::Used(socket) => socket.send_packet(packet),
        }
    }

    /// Takes it into use, within the runtime.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub(crate) fn wake(self) -> io::Result<ReplySocket> {
        match self {
            Self::New(socket) => ReplySocket::new(socket),
            Self::Used(mut socket) => {
                socket.forget_path();
                Ok(socket)
            }
        }
    }
}

/// The sockets that are kept for the next request, by the number that the broker gave them.
#[derive(Debug, Default)]
pub(crate) struct KeptSockets(RefCell<HashMap<u16, IdleSocket>>);

impl KeptSockets {
    /// Keeps one, in place of any other of the same number.
    pub(crate) fn keep(&self, number: u16, socket: IdleSocket) {
        self.0.borrow_mut().insert(number, socket);
    }

    /// Takes it out: to be used, or closed.
    pub(crate) fn take(&self, number: u16) -> Option<IdleSocket> {
        self.0.borrow_mut().remove(&number)
    }

    /// Whether it is kept.
    pub(crate) fn has(&self, number: u16) -> bool {
        self.0.borrow().contains_key(&number)
    }
}
