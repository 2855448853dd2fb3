//! One end of a SEQPACKET socket pair: datagrams that keep their borders and can carry
//! descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};

use crate::sys;

/// The most descriptors a datagram can bring: the listeners of a broker are the longest list.
pub const MAX_DESCRIPTORS: usize = 34;

/// One end of a channel. Closes with it.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A received datagram.
#[derive(Debug)]
pub struct Datagram<'b> {
    /// What was sent, whole.
    pub bytes: &'b [u8],
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
}

/// What reading a channel brings other than a datagram.
#[derive(Debug)]
pub enum ReceiveError {
    /// Nothing there now; only on a non-blocking channel.
    WouldBlock,
    /// The other side is gone.
    Closed,
    /// The datagram or its descriptors did not fit: the other side breaks the protocol.
    Truncated,
    /// The system failed.
    Io(io::Error),
}

impl std::fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("nothing to receive"),
            Self::Closed => f.write_str("channel closed by the other side"),
            Self::Truncated => f.write_str("datagram or descriptors too long"),
            Self::Io(error) => write!(f, "recvmsg: {error}"),
        }
    }
}

impl std::error::Error for ReceiveError {}

impl Channel {
    /// A new channel; both ends blocking and closed on exec.
    ///
    /// # Errors
    /// As socketpair(2).
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(a), Self(b)))
    }

    /// Takes over a descriptor that was received.
    #[must_use]
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Makes this end non-blocking; the other end keeps its mode.
    ///
    /// # Errors
    /// As fcntl(2).
    pub fn set_nonblocking(&self) -> io::Result<()> {
        sys::set_nonblocking(self.0.as_fd())
    }

    /// Sends bytes with descriptors.
    ///
    /// # Errors
    /// As sendmsg(2); `WouldBlock` also for ETOOMANYREFS, as it ends when the other side receives.
    pub fn send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        sys::send_with_descriptors(self.0.as_fd(), bytes, descriptors)
    }

    /// Sends bytes alone, with send(2): what the worker's seccomp filter allows.
    ///
    /// # Errors
    /// As send(2).
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Receives one datagram from a less trusted process: one with a descriptor is refused, and
    /// the kernel installs none of them.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], ReceiveError> {
        let length = sys::receive_without_descriptors(self.0.as_fd(), buffer)?;
        whole(buffer, length)
    }

    /// Receives one datagram, with its descriptors, from a more trusted process.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn receive_with<'b>(&self, buffer: &'b mut [u8]) -> Result<Datagram<'b>, ReceiveError> {
        let (length, descriptors) = sys::receive_with_descriptors(self.0.as_fd(), buffer)?;
        Ok(Datagram {
            bytes: whole(buffer, length)?,
            descriptors,
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// No message of any protocol here is empty: zero bytes are the end of the channel.
fn whole(buffer: &[u8], length: usize) -> Result<&[u8], ReceiveError> {
    match buffer.get(..length) {
        Some([]) => Err(ReceiveError::Closed),
        Some(bytes) => Ok(bytes),
        None => Err(ReceiveError::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_arrives_whole_with_its_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let (file, _other) = Channel::pair().unwrap();
        a.send_with(b"one", &[file.as_fd(), file.as_fd()]).unwrap();
        a.send(b"two").unwrap();
        let mut buffer = [0; 16];
        let datagram = b.receive_with(&mut buffer).unwrap();
        assert_eq!(
            (datagram.bytes, datagram.descriptors.len()),
            (&b"one"[..], 2)
        );
        let datagram = b.receive_with(&mut buffer).unwrap();
        assert_eq!(
            (datagram.bytes, datagram.descriptors.len()),
            (&b"two"[..], 0)
        );
    }

    /// Sends `bytes` with as many descriptors as `count`, all of one end of a channel. The other end.
    fn send_descriptors(channel: &Channel, bytes: &[u8], count: usize) -> Channel {
        let (kept, sent) = Channel::pair().unwrap();
        kept.set_nonblocking().unwrap();
        channel
            .send_with(bytes, &vec![sent.as_fd(); count])
            .unwrap();
        kept
    }

    /// Nobody has the other end of a channel any more.
    fn assert_closed(kept: &Channel) {
        assert!(matches!(
            kept.receive_with(&mut [0; 3]),
            Err(ReceiveError::Closed)
        ));
    }

    #[test]
    fn too_long_a_datagram_is_truncated_and_its_descriptors_are_closed() {
        let (a, b) = Channel::pair().unwrap();
        let kept = send_descriptors(&a, b"four", 1);
        assert!(matches!(
            b.receive_with(&mut [0; 3]),
            Err(ReceiveError::Truncated)
        ));
        assert_closed(&kept);
    }

    #[test]
    fn too_many_descriptors_are_truncated_and_closed() {
        for count in [MAX_DESCRIPTORS + 1, 253] {
            let (a, b) = Channel::pair().unwrap();
            let kept = send_descriptors(&a, b"x", count);
            assert!(matches!(
                b.receive_with(&mut [0; 3]),
                Err(ReceiveError::Truncated)
            ));
            assert_closed(&kept);
        }
    }

    #[test]
    fn a_closed_other_side_is_seen() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert!(matches!(
            b.receive_with(&mut [0; 3]),
            Err(ReceiveError::Closed)
        ));
        assert_eq!(b.send(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_descriptor_from_a_less_trusted_process_is_refused_and_never_installed() {
        let (a, b) = Channel::pair().unwrap();
        let kept = send_descriptors(&a, b"x", 1);
        assert!(matches!(
            b.receive(&mut [0; 3]),
            Err(ReceiveError::Truncated)
        ));
        assert_closed(&kept);
        a.send(b"y").unwrap();
        assert_eq!(b.receive(&mut [0; 3]).unwrap(), b"y");
    }

    #[test]
    fn an_empty_nonblocking_channel_would_block() {
        let (_a, b) = Channel::pair().unwrap();
        b.set_nonblocking().unwrap();
        assert!(matches!(
            b.receive_with(&mut [0; 3]),
            Err(ReceiveError::WouldBlock)
        ));
    }
}
