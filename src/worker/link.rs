//! The channel to the broker.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recvmsg};
use r_tftpd_broker::channel::{Channel, ReceiveError};
use r_tftpd_broker::inbox::Inbox;
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE, ToBroker, ToWorker};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::sys::watch;

/// Messages handled before transfers get their turn.
const BATCH: usize = 64;

/// Pause before a full channel is tried again; why not wait for room: [`watch`].
const PAUSE: Duration = Duration::from_millis(1);

/// The channel to the broker; each thread of the runtime has its own.
#[derive(Debug)]
pub(crate) struct Link {
    channel: AsyncFd<Channel>,
    /// Datagrams to be sent, the last one with room for further messages: those of one turn go
    /// together. Bounded by the broker's limit of outstanding requests, of which each causes at
    /// most five messages and one for its job.
    queue: RefCell<VecDeque<Vec<u8>>>,
    queued: Notify,
}

/// Why the channel ended; always fatal.
#[derive(Debug)]
pub(crate) enum Error {
    /// Reading failed, or the broker is gone.
    Receive(ReceiveError),
    /// Writing failed.
    Send(io::Error),
    /// A message that is none.
    Wire(wire::Error),
    /// A message that the protocol does not allow here.
    Violation(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receive(ReceiveError::Closed) => f.write_str("broker is gone"),
            Self::Receive(error) => write!(f, "receiving from the broker: {error}"),
            Self::Send(error) => write!(f, "sending to the broker: {error}"),
            Self::Wire(error) => write!(f, "from the broker: {error}"),
            Self::Violation(what) => write!(f, "the broker broke the protocol: {what}"),
        }
    }
}

impl std::error::Error for Error {}

impl Link {
    /// Takes over a non-blocking channel, within the runtime.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub(crate) fn new(channel: Channel) -> io::Result<Self> {
        Ok(Self {
            channel: watch(channel)?,
            queue: RefCell::default(),
            queued: Notify::new(),
        })
    }

    /// Sends a message in this turn, or after those that wait already. Failures end
    /// [`Link::flush`].
    pub(crate) fn send(&self, message: &ToBroker) {
        let mut buffer = [0; MAX_MESSAGE];
        let Ok(bytes) = wire::encode(message, &mut buffer) else {
            // No path is longer than the request that named it and validators are short, so every
            // message fits.
            return;
        };
        let mut queue = self.queue.borrow_mut();
        match queue.back_mut() {
            Some(last) if last.len() + bytes.len() <= MAX_MESSAGE => last.extend_from_slice(bytes),
            _ => queue.push_back(bytes.to_vec()),
        }
        self.queued.notify_one();
    }

    /// Sends what waits, whenever there is something, and returns when the channel fails.
    pub(crate) async fn flush(&self) -> Error {
        loop {
            self.queued.notified().await;
            loop {
                match self.send_queued() {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
                    Err(error) => return Error::Send(error),
                }
            }
        }
    }

    /// Sends what waits, as far as there is room now: the last words.
    pub(crate) fn send_last(&self) {
        // A broker that does not read them takes our end for an answer.
        let _ = self.send_queued();
    }

    fn send_queued(&self) -> io::Result<()> {
        let mut queue = self.queue.borrow_mut();
        while let Some(bytes) = queue.front() {
            self.channel.get_ref().send(bytes)?;
            queue.pop_front();
        }
        Ok(())
    }

    /// Whether all that the broker has sent was taken.
    pub(crate) fn is_empty(&self) -> bool {
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let channel = self.channel.get_ref().as_raw_fd();
        // Without room for descriptors none is installed.
        recvmsg::<()>(channel, &mut parts, None, flags).is_err_and(|error| error == Errno::EAGAIN)
    }

    /// Gives each message of the broker, with its descriptor, to `handle`, and returns when the
    /// channel fails or `handle` refuses one. The first message must be the broker's hello.
    pub(crate) async fn receive(
        &self,
        mut handle: impl FnMut(ToWorker, Option<OwnedFd>) -> Result<(), Error>,
    ) -> Error {
        let mut greeted = false;
        let mut buffer = vec![0; MAX_MESSAGE + 1];
        let mut inbox = Inbox::default();
        let mut take = |message, descriptor| match message {
            ToWorker::Hello(hello) if !greeted => {
                greeted = true;
                if hello == Hello::OURS {
                    Ok(())
                } else {
                    Err(Error::Violation("it is of another build"))
                }
            }
            ToWorker::Hello(_) => Err(Error::Violation("a second hello")),
            _ if !greeted => Err(Error::Violation("no hello")),
            message => handle(message, descriptor),
        };
        loop {
            let mut guard = match self.channel.readable().await {
                Ok(guard) => guard,
                Err(error) => return Error::Receive(ReceiveError::Io(error)),
            };
            let mut taken = 0;
            while taken < BATCH {
                let filled = match guard.get_inner().receive_with(&mut buffer) {
                    Ok(datagram) => inbox.fill(datagram.bytes, datagram.descriptors),
                    Err(ReceiveError::WouldBlock) => {
                        guard.clear_ready();
                        break;
                    }
                    Err(error) => return Error::Receive(error),
                };
                if let Err(error) = filled {
                    return Error::Wire(error);
                }
                while let Some((message, descriptor)) = inbox.pop() {
                    if let Err(error) = take(message, descriptor) {
                        return error;
                    }
                    taken += 1;
                }
            }
            drop(guard);
            yield_now().await;
        }
    }
}
