//! Messages that came together: a datagram brings as many as its sender had to say.
//!
//! One by one, each would cost both sides a system call and the receiver perhaps a wake-up, which
//! is most of what a short transfer costs.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use crate::wire::{self, Decode, Error, MAX_MESSAGE, ToBroker, ToWorker};

/// A message of which several can share a datagram.
pub trait Shared: Decode<()> {
    /// Whether it comes with a descriptor.
    fn has_descriptor(&self) -> bool;
}

impl Shared for ToBroker {
    fn has_descriptor(&self) -> bool {
        false
    }
}

impl Shared for ToWorker {
    fn has_descriptor(&self) -> bool {
        match self {
            Self::Request(request) => request.socket.has_descriptor(),
            Self::File { .. } | Self::Scratch { .. } | Self::Fetching { .. } => true,
            Self::Hello(_)
            | Self::Close { .. }
            | Self::Missing { .. }
            | Self::Denied { .. }
            | Self::Link { .. }
            | Self::NotFetched { .. }
            | Self::Head(_)
            | Self::Extent { .. }
            | Self::End { .. }
            | Self::Failed { .. } => false,
        }
    }
}

/// Messages that were received and not yet taken.
#[derive(Debug)]
pub struct Inbox<M>(VecDeque<(M, Option<OwnedFd>)>);

impl<M: Shared> Inbox<M> {
    /// Takes a datagram apart: all of it, before anything it says is done. Descriptors belong to
    /// the messages that have one, in order.
    ///
    /// # Errors
    /// Anything but one or more messages with as many descriptors as they have.
    pub fn fill(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<(), Error> {
        let mut descriptors = descriptors.into_iter();
        for message in wire::messages::<M, MAX_MESSAGE>(bytes) {
            let message = message?;
            let descriptor = if message.has_descriptor() {
                Some(descriptors.next().ok_or(Error::Descriptors)?)
            } else {
                None
            };
            self.0.push_back((message, descriptor));
        }
        match descriptors.next() {
            None => Ok(()),
            Some(_) => Err(Error::Descriptors),
        }
    }

    /// The next message and its descriptor.
    pub fn pop(&mut self) -> Option<(M, Option<OwnedFd>)> {
        self.0.pop_front()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::wire::encode;

    fn datagram<M: wire::Encode>(messages: &[M]) -> Vec<u8> {
        let mut buffer = [0; MAX_MESSAGE];
        let encoded = |message| encode(message, &mut buffer).map(<[u8]>::to_vec);
        let all: Result<Vec<_>, _> = messages.iter().map(encoded).collect();
        all.unwrap().concat()
    }

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/proc/self/stat").unwrap().into()
    }

    const FILE: ToWorker = ToWorker::File {
        id: 1,
        size: 2,
        in_memory: false,
    };

    #[test]
    fn messages_come_out_in_order_each_with_its_descriptor() {
        let (one, two) = (descriptor(), descriptor());
        let numbers = [one.as_raw_fd(), two.as_raw_fd()];
        let messages = [
            FILE,
            ToWorker::Missing { id: 7 },
            ToWorker::Scratch { id: 8 },
        ];
        let mut inbox = Inbox::default();
        inbox.fill(&datagram(&messages), vec![one, two]).unwrap();
        let number = |fd: Option<OwnedFd>| fd.map(|fd| fd.as_raw_fd());
        let mut taken = Vec::new();
        while let Some((message, fd)) = inbox.pop() {
            taken.push((message, number(fd)));
        }
        let expected: Vec<_> = messages
            .into_iter()
            .zip([Some(numbers[0]), None, Some(numbers[1])])
            .collect();
        assert_eq!(taken, expected);
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_missing_and_a_surplus_descriptor_are_refused() {
        let mut inbox = Inbox::<ToWorker>::default();
        let refused = |result| assert_eq!(result, Err(Error::Descriptors));
        refused(inbox.fill(&datagram(&[FILE]), vec![]));
        refused(inbox.fill(&datagram(&[FILE, FILE]), vec![descriptor()]));
        refused(inbox.fill(&datagram(&[FILE]), vec![descriptor(), descriptor()]));
        refused(inbox.fill(
            &datagram(&[ToWorker::Missing { id: 1 }]),
            vec![descriptor()],
        ));
        let mut inbox = Inbox::<ToBroker>::default();
        let done = ToBroker::Done {
            id: 1,
            proven: true,
            kept: false,
        };
        refused(inbox.fill(&datagram(&[done]), vec![descriptor()]));
    }

    #[test]
    fn a_datagram_with_a_bad_end_is_refused() {
        let mut bytes = datagram(&[ToBroker::Proven { id: 1 }]);
        bytes.push(0xff);
        let mut inbox = Inbox::<ToBroker>::default();
        assert_eq!(inbox.fill(&bytes, vec![]), Err(Error::Malformed));
    }
}
