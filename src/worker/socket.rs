//! The reply socket of one transfer: connected by the broker to its peer, so the kernel keeps
//! foreign TIDs away, and the only way out that the worker has.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt::UdpGsoSegment};
use tokio::io::unix::AsyncFd;

use crate::sys::{MANY, receive_many, watch};

/// Transmissions in a row that may meet a closed port of the peer before the transfer ends. One can
/// be a stray ICMP message, or a client that closes and opens its port between two files.
const MAX_REFUSED: u8 = 2;

/// A reply socket and what is known of the path behind it.
#[derive(Debug)]
pub(crate) struct ReplySocket {
    io: AsyncFd<OwnedFd>,
    /// What UDP_SEGMENT is set to, in bytes; 0 = not set.
    segment: usize,
    /// The kernel and the path take UDP_SEGMENT, as far as known.
    segmenting: bool,
    /// Transmissions in a row that met a closed port.
    refused: u8,
    /// This transmission has met it already.
    counted: bool,
}

impl ReplySocket {
    /// Takes over a connected, non-blocking socket, within the runtime.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            io: watch(socket)?,
            segment: 0,
            segmenting: true,
            refused: 0,
            counted: false,
        })
    }

    /// The next transfer has another peer: nothing is known of the path.
    pub(crate) fn forget_path(&mut self) {
        self.segmenting = true;
        self.refused = 0;
    }

    /// A new transmission begins.
    pub(crate) fn begin(&mut self) {
        self.counted = false;
    }

    /// The peer's port is closed, again and again.
    pub(crate) fn is_gone(&self) -> bool {
        self.refused >= MAX_REFUSED
    }

    /// Sends one datagram (OACK, ACK, ERROR). Best effort: if it gets lost, the timer repeats it.
    pub(crate) fn send_packet(&mut self, packet: &[u8]) {
        // A full queue is a loss like any other.
        let _ = self.send_single(packet);
    }

    /// Sends `bytes`, datagrams of `segment` bytes but for the last, and returns how many bytes
    /// have left (or are lost, which looks the same from here); fewer than all only if the send
    /// queue is full.
    pub(crate) fn send_window(&mut self, bytes: &[u8], segment: usize) -> usize {
        if bytes.len() > segment && self.set_segment(segment) {
            match self.send(bytes) {
                Ok(()) => return bytes.len(),
                Err(Errno::EAGAIN) => return 0,
                // The route's MTU may have shrunk, the network card may have changed: what this
                // path does not take as a whole goes singly from now on, in fragments if need be.
                Err(Errno::EMSGSIZE | Errno::EIO | Errno::EINVAL) => {
                    self.segmenting = false;
                    self.clear_segment();
                }
                // No buffers, no route, a firewall: a loss.
                Err(_) => return bytes.len(),
            }
        }
        let mut sent = 0;
        for datagram in bytes.chunks(segment) {
            if self.send_single(datagram) == Err(Errno::EAGAIN) {
                break;
            }
            sent += datagram.len();
        }
        sent
    }

    /// Sends one datagram as it is: the segment size can be that of another window, or of another
    /// transfer.
    fn send_single(&mut self, datagram: &[u8]) -> nix::Result<()> {
        if self.segment != 0 && datagram.len() > self.segment {
            self.clear_segment();
        }
        self.send(datagram)
    }

    /// send(2). A closed port met by an earlier datagram is reported instead of sending this one:
    /// noted, and sent again.
    fn send(&mut self, bytes: &[u8]) -> nix::Result<()> {
        loop {
            match send_now(self.io.get_ref(), bytes) {
                Err(Errno::EINTR) => (),
                Err(Errno::ECONNREFUSED) if !self.note_refused() => (),
                result => return result,
            }
        }
    }

    /// Returns whether this transmission had met a closed port before.
    fn note_refused(&mut self) -> bool {
        let counted = std::mem::replace(&mut self.counted, true);
        self.refused += u8::from(!counted && !self.is_gone());
        counted
    }

    fn set_segment(&mut self, segment: usize) -> bool {
        if self.segmenting && self.segment != segment {
            let value = libc::c_int::try_from(segment).unwrap_or(0);
            self.segmenting = setsockopt(self.io.get_ref(), UdpGsoSegment, &value).is_ok();
            self.segment = if self.segmenting { segment } else { 0 };
        }
        self.segmenting
    }

    fn clear_segment(&mut self) {
        self.segment = 0;
        // Should it fail, the next window fails as this one did.
        let _ = setsockopt(self.io.get_ref(), UdpGsoSegment, &0);
    }

    /// As [`Self::poll_receive`], whether or not the runtime knows of datagrams already, but looks
    /// again and again for so long, at least once, and then gives up: `false`.
    pub(crate) fn receive_within(
        &mut self,
        time: Duration,
        buffer: &mut [u8],
        slot: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> bool {
        let start = Instant::now();
        loop {
            match receive_many(self.io.get_ref().as_fd(), buffer, slot) {
                Ok(lengths) => {
                    self.refused = 0;
                    hand_out(buffer, slot, &lengths, take);
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.note_refused();
                }
                // What else there is to say is said again when it is waited for, or ends nothing.
                Err(_) => (),
            }
            if start.elapsed() >= time {
                return false;
            }
        }
    }

    /// Takes the datagrams that are there, at most [`MANY`] at once, each cut off at `slot` bytes,
    /// and gives each to `take`. Pending = there was none.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        slot: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.io.poll_read_ready(cx))?;
            match receive_many(guard.get_inner().as_fd(), buffer, slot) {
                Ok(lengths) => {
                    self.refused = 0;
                    // Fewer than asked: there are no more, no need to ask again for EAGAIN.
                    if lengths.contains(&None) && buffer.len() >= MANY * slot {
                        guard.clear_ready();
                    }
                    hand_out(buffer, slot, &lengths, take);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                    Errno::EAGAIN => guard.clear_ready(),
                    Errno::EINTR => (),
                    Errno::ECONNREFUSED => {
                        drop(guard);
                        self.note_refused();
                        if self.is_gone() {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    // What else ICMP can report (RFC 1122 section 4.1.3.3) ends nothing.
                    Errno::EHOSTUNREACH
                    | Errno::ENETUNREACH
                    | Errno::EHOSTDOWN
                    | Errno::ENONET
                    | Errno::ENOPROTOOPT
                    | Errno::EOPNOTSUPP
                    | Errno::EPROTO
                    | Errno::EACCES
                    | Errno::EMSGSIZE => (),
                    _ => return Poll::Ready(Err(error)),
                },
            }
        }
    }
}

/// Gives the datagrams that were received into slots of `buffer` to `take`.
fn hand_out(
    buffer: &[u8],
    slot: usize,
    lengths: &[Option<usize>; MANY],
    take: &mut dyn FnMut(&[u8]),
) {
    for (datagram, length) in buffer.chunks(slot).zip(lengths.iter().flatten()) {
        take(datagram.get(..*length).unwrap_or(datagram));
    }
}

/// Sends one datagram on a reply socket that no transfer uses yet, best effort.
pub(crate) fn send_once(socket: &OwnedFd, packet: &[u8]) {
    let _ = send_now(socket, packet);
}

fn send_now(socket: &OwnedFd, bytes: &[u8]) -> nix::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    send(socket.as_raw_fd(), bytes, flags).map(drop)
}

#[cfg(test)]
mod tests;
