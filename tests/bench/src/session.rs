//! One transfer from the client's side, without copies: payloads are compared where they arrive.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, UdpGroSegment};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};

/// What is asked of the server.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Name of the file.
    pub name: String,
    /// Bytes in a block; 512 is asked by no option.
    pub blksize: usize,
    /// Blocks in a window; 1 is asked by no option.
    pub windowsize: u64,
}

/// Where datagrams are received.
pub struct Buffer {
    bytes: Vec<u8>,
    control: Vec<u8>,
}

impl Buffer {
    /// Large enough for what GRO puts together.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; 65536],
            control: nix::cmsg_space!(i32),
        }
    }
}

/// What came of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not over.
    GoesOn,
    /// Every byte arrived as expected.
    Finished,
    /// An ERROR, or a wrong byte.
    Failed,
}

/// A transfer.
pub struct Session {
    socket: UdpSocket,
    server: SocketAddr,
    request: Vec<u8>,
    blksize: usize,
    windowsize: u64,
    /// The server has answered, and the socket is connected to its TID.
    connected: bool,
    /// Blocks received in order.
    last: u64,
    acknowledged: u64,
    reported: bool,
    over: bool,
    heard: Instant,
    repeats: u64,
}

/// Silence after which the client repeats itself.
const SILENCE: Duration = Duration::from_secs(1);

impl Session {
    /// Sends the request.
    pub fn start(server: SocketAddr, asked: &Asked) -> Self {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).expect("bind");
        setsockopt(&socket, RcvBuf, &(2 << 20)).expect("SO_RCVBUF");
        // Where the kernel has no GRO for UDP datagrams come one by one.
        let _ = setsockopt(&socket, UdpGroSegment, &true);
        let mut request = [b"\0\x01", asked.name.as_bytes(), b"\0octet\0"].concat();
        if asked.blksize != 512 {
            request.extend(format!("blksize\0{}\0", asked.blksize).bytes());
        }
        if asked.windowsize != 1 {
            request.extend(format!("windowsize\0{}\0", asked.windowsize).bytes());
        }
        let session = Self {
            socket,
            server,
            request,
            blksize: 512,
            windowsize: 1,
            connected: false,
            last: 0,
            acknowledged: 0,
            reported: false,
            over: false,
            heard: Instant::now(),
            repeats: 0,
        };
        session.say();
        session
    }

    /// For epoll.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// How often it had to repeat itself.
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Takes everything that has arrived.
    pub fn handle_readable(&mut self, buffer: &mut Buffer, file: &[u8]) -> Step {
        loop {
            let (length, segment) = match self.receive(buffer) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Step::GoesOn,
                // ICMP: the server has no such port any more.
                Err(Errno::ECONNREFUSED) => return self.end(Step::Failed),
                Err(error) => panic!("recvmsg: {error}"),
            };
            self.heard = Instant::now();
            for datagram in buffer.bytes[..length].chunks(segment) {
                let step = self.handle_datagram(datagram, file);
                if step != Step::GoesOn {
                    return self.end(step);
                }
            }
        }
    }

    /// Repeats what was said last after a silence.
    pub fn handle_silence(&mut self, now: Instant) {
        if !self.over && now.saturating_duration_since(self.heard) > SILENCE {
            self.heard = now;
            self.repeats += 1;
            self.say();
        }
    }

    /// Length of what was received and of each datagram in it.
    fn receive(&mut self, buffer: &mut Buffer) -> Result<(usize, usize), Errno> {
        let mut parts = [IoSliceMut::new(&mut buffer.bytes)];
        let control = Some(&mut buffer.control);
        let socket = self.socket.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(
            socket,
            &mut parts,
            control.map(|control| {
                control.clear();
                control.resize(control.capacity(), 0);
                control.as_mut_slice()
            }),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let mut segment = message.bytes.max(1);
        for control in message.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(size) = control {
                segment = usize::try_from(size).unwrap_or(segment).max(1);
            }
        }
        let (length, from) = (message.bytes, message.address);
        if !self.connected {
            let from = from.expect("a sender");
            let from: Option<SocketAddr> = from
                .as_sockaddr_in()
                .map(|v4| SocketAddr::from((v4.ip(), v4.port())))
                .or_else(|| from.as_sockaddr_in6().map(|v6| (v6.ip(), v6.port()).into()));
            self.socket
                .connect(from.expect("an IP address"))
                .expect("connect");
            self.connected = true;
        }
        Ok((length, segment))
    }

    fn handle_datagram(&mut self, datagram: &[u8], file: &[u8]) -> Step {
        match datagram {
            [0, 3, high, low, payload @ ..] => {
                self.handle_data(u16::from_be_bytes([*high, *low]), payload, file)
            }
            [0, 6, options @ ..] => {
                if self.last == 0 {
                    self.take_options(options);
                    self.say();
                }
                Step::GoesOn
            }
            [0, 5, ..] => Step::Failed,
            _ => Step::GoesOn,
        }
    }

    fn handle_data(&mut self, block: u16, payload: &[u8], file: &[u8]) -> Step {
        if u64::from(block) != (self.last + 1) & 0xffff {
            // One report of each gap; in lock-step a duplicate is ignored.
            if self.windowsize > 1 && !self.reported {
                self.reported = true;
                self.say();
            }
            return Step::GoesOn;
        }
        let start = usize::try_from(self.last).expect("a file in memory") * self.blksize;
        let end = file.len().min(start + self.blksize);
        if file.get(start..end) != Some(payload) {
            return Step::Failed;
        }
        self.last += 1;
        self.reported = false;
        let complete = payload.len() < self.blksize;
        if complete || self.last - self.acknowledged >= self.windowsize {
            self.acknowledged = self.last;
            self.say();
        }
        if complete {
            Step::Finished
        } else {
            Step::GoesOn
        }
    }

    fn take_options(&mut self, options: &[u8]) {
        let text = String::from_utf8_lossy(options).to_lowercase();
        let words: Vec<&str> = text.split('\0').collect();
        for pair in words.chunks_exact(2) {
            match pair {
                ["blksize", value] => self.blksize = value.parse().expect("a blksize"),
                ["windowsize", value] => self.windowsize = value.parse().expect("a windowsize"),
                _ => {}
            }
        }
    }

    /// The request, or the ACK of the last block in order.
    fn say(&self) {
        // What is lost here is repeated after a silence.
        if self.connected {
            let [.., high, low] = self.last.to_be_bytes();
            let _ = self.socket.send(&[0, 4, high, low]);
        } else {
            let _ = self.socket.send_to(&self.request, self.server);
        }
    }

    fn end(&mut self, step: Step) -> Step {
        self.over = true;
        step
    }
}
