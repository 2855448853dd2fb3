//! Reply sockets that no transfer uses: between a request and its transfer, and between two
//! requests, if the broker lends the socket again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use r_tftpd_broker::memory::{self, Peak};

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
pub(crate) struct KeptSockets(RefCell<Table>);

#[derive(Debug, Default)]
struct Table {
    sockets: HashMap<u16, IdleSocket>,
    peak: Peak,
}

impl KeptSockets {
    /// Keeps one, in place of any other of the same number.
    pub(crate) fn keep(&self, number: u16, socket: IdleSocket) {
        let Table { sockets, peak } = &mut *self.0.borrow_mut();
        sockets.insert(number, socket);
        peak.rise(sockets.len());
    }

    /// Takes one out, to be used.
    pub(crate) fn take(&self, number: u16) -> Option<IdleSocket> {
        self.0.borrow_mut().sockets.remove(&number)
    }

    /// Whether it is kept.
    pub(crate) fn has(&self, number: u16) -> bool {
        self.0.borrow().sockets.contains_key(&number)
    }

    /// Closes one.
    pub(crate) fn close(&self, number: u16) {
        let Table { sockets, peak } = &mut *self.0.borrow_mut();
        sockets.remove(&number);
        if peak.has_ebbed(sockets.len()) {
            // Each has held back a page or more among those that the requests of a flood took.
            sockets.shrink_to_fit();
            memory::give_back();
        }
    }
}
