//! Windows from the send buffer to the network: cut into datagrams by the kernel (UDP_SEGMENT), or
//! sent one by one as it would be without.
//!
//! Over loopback the sender's system call also carries the datagrams to the receiver's queue.
//! Emptying that queue is not measured.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::{RcvBuf, UdpGroSegment, UdpGsoSegment};
use nix::sys::socket::{MsgFlags, send, setsockopt};

use crate::measure::{Bench, Per};
use crate::sys::receive_many;
use crate::window::MAX_SEND;

/// Measures them.
pub fn run(bench: &mut Bench) {
    if !bench.group("sending", Bench::COLUMNS) {
        return;
    }
    for (blksize, count) in [(512, 1), (1468, 1), (1468, 16), (1468, 44)] {
        let segment = 4 + blksize;
        let bytes = u32::try_from(blksize * count).expect("few");
        for segmenting in [false, true] {
            if segmenting && count == 1 {
                continue;
            }
            let by = if segmenting { "UDP_SEGMENT" } else { "send" };
            let name = format!("{blksize} x {count} by {by}");
            let mut own = Own::new(if segmenting { segment } else { 0 });
            let window = vec![1; segment * count];
            bench.run_timed(&name, Per::Bytes(bytes), |repeats| {
                own.time(repeats, |socket| {
                    let size = if segmenting { window.len() } else { segment };
                    window.chunks(size).for_each(|sent| send_now(socket, sent));
                })
            });
        }
    }
}

/// A socket that is connected to itself.
#[derive(Debug)]
pub struct Own {
    socket: UdpSocket,
    buffer: Vec<u8>,
}

impl Own {
    /// What is sent is cut into datagrams of `segment` bytes; 0 = not at all. They arrive as they
    /// were sent, by GRO.
    pub fn new(segment: usize) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let address = socket.local_addr().expect("an address");
        socket.connect(address).expect("connect");
        socket.set_nonblocking(true).expect("fcntl");
        setsockopt(&socket, RcvBuf, &(4 << 20)).expect("SO_RCVBUF");
        setsockopt(&socket, UdpGroSegment, &true).expect("UDP_GRO");
        let segment = i32::try_from(segment).expect("a length");
        setsockopt(&socket, UdpGsoSegment, &segment).expect("UDP_SEGMENT");
        let buffer = vec![0; MAX_SEND];
        Self { socket, buffer }
    }

    /// The socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// How long so many repetitions of something take that sends at most [`MAX_SEND`] bytes, in
    /// at most 44 datagrams.
    pub fn time(&mut self, repeats: u32, mut send: impl FnMut(&UdpSocket)) -> Duration {
        /// What the queue holds, if it is not raised by the system: 200 KiB.
        const AT_ONCE: u32 = 2;
        let mut time = Duration::ZERO;
        let mut left = repeats;
        while left > 0 {
            let now = left.min(AT_ONCE);
            let start = Instant::now();
            (0..now).for_each(|_| send(&self.socket));
            time += start.elapsed();
            left -= now;
            self.empty();
        }
        time
    }

    /// Takes everything that has arrived.
    pub fn empty(&mut self) {
        loop {
            // The one system call for it that worker and broker may make.
            match receive_many(self.socket.as_fd(), &mut self.buffer, MAX_SEND) {
                Ok(_) => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("recvmmsg: {error}"),
            }
        }
    }
}

/// As the worker sends.
pub fn send_now(socket: &UdpSocket, bytes: &[u8]) {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let sent = send(socket.as_raw_fd(), bytes, flags);
    assert_eq!(sent, Ok(bytes.len()));
}
