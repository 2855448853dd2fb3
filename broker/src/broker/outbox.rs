//! The way to the worker. What is said in one turn goes together; when the worker does not take
//! it, one more message can wait and nothing new is taken in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use crate::channel::Channel;
use crate::wire::{MAX_MESSAGE, ToWorker, encode};

/// Descriptors that go together: enough that sending costs little for each, and few enough that
/// the worker begins with the first files while the next are opened.
const TOGETHER: usize = 16;

/// Sends to the worker.
#[derive(Debug)]
pub(super) struct Outbox {
    buffer: Box<[u8; MAX_MESSAGE]>,
    batch: Batch,
    /// Has no room in the batch, which the worker does not take.
    overflow: Option<Batch>,
    is_blocked: bool,
}

/// Messages of one datagram.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Batch {
    fn has_room(&self, bytes: &[u8]) -> bool {
        self.bytes.len() + bytes.len() <= MAX_MESSAGE && self.descriptors.len() < TOGETHER
    }

    fn add(&mut self, bytes: &[u8], descriptor: Option<OwnedFd>) {
        self.bytes.extend_from_slice(bytes);
        self.descriptors.extend(descriptor);
    }
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            buffer: Box::new([0; MAX_MESSAGE]),
            batch: Batch::default(),
            overflow: None,
            is_blocked: false,
        }
    }

    /// Whether the worker did not take what was said; until it does, [`Self::put`] must not be
    /// called.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Whether all that was put in is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.bytes.is_empty()
    }

    /// Puts a message in; [`Self::flush`] sends it at the latest.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub(super) fn put(
        &mut self,
        message: &ToWorker,
        descriptor: Option<OwnedFd>,
        worker: &Channel,
    ) -> io::Result<()> {
        let bytes = encode(message, self.buffer.as_mut_slice()).map_err(io::Error::other)?;
        if self.batch.has_room(bytes) {
            self.batch.add(bytes, descriptor);
            return Ok(());
        }
        let mut next = Batch::default();
        next.add(bytes, descriptor);
        self.flush(worker)?;
        if self.is_blocked {
            self.overflow = Some(next);
        } else {
            self.batch = next;
        }
        Ok(())
    }

    /// Tries to send what was put in; if the worker has too many unread messages, it stays.
    ///
    /// # Errors
    /// As sendmsg(2): the worker is gone.
    pub(super) fn flush(&mut self, worker: &Channel) -> io::Result<()> {
        self.is_blocked = false;
        while !self.batch.bytes.is_empty() {
            let descriptors: Vec<_> = self.batch.descriptors.iter().map(AsFd::as_fd).collect();
            match worker.send_with(&self.batch.bytes, &descriptors) {
                Ok(()) => (),
                Err(error) if passes(&error) => {
                    self.is_blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            self.batch.bytes.clear();
            self.batch.descriptors.clear();
            if let Some(overflow) = self.overflow.take() {
                self.batch = overflow;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Inbox;

    fn channel() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.set_nonblocking().unwrap();
        theirs.set_nonblocking().unwrap();
        (ours, theirs)
    }

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/proc/self/stat").unwrap().into()
    }

    /// The messages of the next datagram, by id.
    fn next(worker: &Channel) -> Vec<u64> {
        let mut buffer = [0; MAX_MESSAGE + 1];
        let Ok(datagram) = worker.receive_with(&mut buffer) else {
            return Vec::new();
        };
        let mut inbox = Inbox::default();
        inbox.fill(datagram.bytes, datagram.descriptors).unwrap();
        let id = |(message, _)| match message {
            ToWorker::Missing { id } | ToWorker::Scratch { id } => id,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| inbox.pop().map(id)).collect()
    }

    #[test]
    fn what_is_said_in_one_turn_goes_together() {
        let (ours, worker) = channel();
        let mut outbox = Outbox::new();
        for id in 1..4 {
            outbox.put(&ToWorker::Missing { id }, None, &ours).unwrap();
        }
        assert_eq!(next(&worker), []);
        outbox.flush(&ours).unwrap();
        assert_eq!(next(&worker), [1, 2, 3]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_first_descriptors_do_not_wait_for_the_last() {
        let (ours, worker) = channel();
        let mut outbox = Outbox::new();
        let together = u64::try_from(TOGETHER).unwrap();
        for id in 0..=together {
            let message = ToWorker::Scratch { id };
            outbox.put(&message, Some(descriptor()), &ours).unwrap();
        }
        assert_eq!(next(&worker), Vec::from_iter(0..together));
        outbox.flush(&ours).unwrap();
        assert_eq!(next(&worker), [together]);
    }

    #[test]
    fn nothing_is_lost_or_overtaken_when_the_worker_does_not_read() {
        let (ours, worker) = channel();
        let mut outbox = Outbox::new();
        let mut said = 0;
        while !outbox.is_blocked() {
            outbox
                .put(&ToWorker::Missing { id: said }, None, &ours)
                .unwrap();
            said += 1;
        }
        let mut heard = Vec::new();
        while heard.len() < usize::try_from(said).unwrap() {
            let before = heard.len();
            heard.extend(next(&worker));
            assert!(heard.len() > before, "nothing more comes");
            outbox.flush(&ours).unwrap();
        }
        assert_eq!(heard, Vec::from_iter(0..said));
        assert!(outbox.is_empty() && !outbox.is_blocked());
    }

    #[test]
    fn a_worker_that_is_gone_is_an_error() {
        let (ours, worker) = channel();
        drop(worker);
        let mut outbox = Outbox::new();
        outbox
            .put(&ToWorker::Missing { id: 1 }, None, &ours)
            .unwrap();
        assert!(is_gone(&outbox.flush(&ours).unwrap_err()));
    }
}
