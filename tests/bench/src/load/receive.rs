//! Takes what has arrived at a socket, many datagrams in one system call.

use std::io::IoSliceMut;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg};

/// Datagrams of one system call.
pub const BATCH: usize = 32;

/// What GRO puts together: no IP packet is longer.
const LONGEST: usize = 65536;

/// From one datagram to the next. Were it a power of two, the beginnings of all datagrams would
/// compete for the same few cache lines.
const STRIDE: usize = LONGEST + 1600;

/// Where datagrams are received; one for all sessions.
pub struct Buffer {
    bytes: Vec<u8>,
    headers: MultiHeaders<SockaddrIn>,
}

impl Buffer {
    /// Room for one system call.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; BATCH * STRIDE],
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Waits for nothing. Hands each datagram and its sender to `take` until that says "no more",
    /// and tells whether there may be more to receive.
    ///
    /// Where GRO has put datagrams together, all but the last are as long as the first: a
    /// receiver that knows its blksize can tell them apart without a control message.
    pub fn receive(
        &mut self,
        socket: &UdpSocket,
        mut take: impl FnMut(&[u8], SocketAddrV4) -> bool,
    ) -> bool {
        let mut chunks = self.bytes.chunks_exact_mut(STRIDE);
        let mut slices: [_; BATCH] = std::array::from_fn(|_| {
            [IoSliceMut::new(
                &mut chunks.next().expect("as many as headers")[..LONGEST],
            )]
        });
        // An error is that the server's port is closed by now, or that nothing is there.
        let Ok(datagrams) = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        ) else {
            return false;
        };
        let mut count = 0;
        for datagram in datagrams {
            count += 1;
            let (Some(bytes), Some(from)) = (datagram.iovs().next(), datagram.address) else {
                continue;
            };
            if !take(bytes, SocketAddrV4::new(from.ip(), from.port())) {
                return false;
            }
        }
        count == BATCH
    }
}
