//! The way to the worker. When it is full, one message waits and nothing new is taken in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use crate::channel::Channel;
use crate::wire::{MAX_MESSAGE, ToWorker, encode};

/// Sends to the worker.
#[derive(Debug)]
pub(super) struct Outbox {
    buffer: Box<[u8; MAX_MESSAGE]>,
    waiting: Option<(ToWorker, Option<OwnedFd>)>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            buffer: Box::new([0; MAX_MESSAGE]),
            waiting: None,
        }
    }

    /// Whether a message waits; until it is gone, [`Self::put`] must not be called.
    pub(super) fn is_blocked(&self) -> bool {
        self.waiting.is_some()
    }

    /// Puts a message in; [`Self::flush`] sends it.
    pub(super) fn put(&mut self, message: ToWorker, descriptor: Option<OwnedFd>) {
        self.waiting = Some((message, descriptor));
    }

    /// Tries to send the message that waits; if the worker has too many unread ones, it stays.
    ///
    /// # Errors
    /// As sendmsg(2): the worker is gone.
    pub(super) fn flush(&mut self, worker: &Channel) -> io::Result<()> {
        let Some((message, descriptor)) = &self.waiting else {
            return Ok(());
        };
        let bytes = encode(message, self.buffer.as_mut_slice()).map_err(io::Error::other)?;
        let descriptor = descriptor.as_ref().map(AsFd::as_fd);
        match worker.send_with(bytes, descriptor.as_slice()) {
            Err(error) if passes(&error) => Ok(()),
            result => {
                self.waiting = None;
                result
            }
        }
    }
}

/// Whether the other side is gone.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Whether a later attempt can succeed.
pub(super) fn passes(error: &io::Error) -> bool {
    let short_of_memory = [Errno::ENOBUFS, Errno::ENOMEM].map(|errno| Some(errno as i32));
    error.kind() == io::ErrorKind::WouldBlock || short_of_memory.contains(&error.raw_os_error())
}
