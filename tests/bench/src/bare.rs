//! The yardstick: what a TFTP server can do at most on this machine, `r-tftpd-bare ADDRESS:PORT`
//! serving the current directory.
//!
//! One thread, no sandbox, no limits, no log; it trusts what it receives. The listener is drained
//! with recvmmsg, each transfer has a connected socket, and a window is read by one preadv and sent
//! by UDP_SEGMENT, as far as a datagram can carry it. Knows RRQ with blksize, windowsize and tsize.

use std::fs::File;
use std::io::IoSliceMut;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, UdpGsoSegment};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, setsockopt};
use nix::sys::uio::preadv;

/// Of UDP_SEGMENT in one call.
const SEGMENTS: usize = 64;
/// The longest UDP payload over IPv4.
const LONGEST: usize = 65507;
/// Silence after which a window is sent again.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Requests of one system call, and their longest.
const BATCH: usize = 64;
const REQUEST: usize = 1500;
/// Token of the listener; others are places of transfers.
const LISTENER: u64 = u64::MAX;

fn main() {
    let address: SocketAddr = std::env::args()
        .nth(1)
        .and_then(|address| address.parse().ok())
        .expect("usage: r-tftpd-bare ADDRESS:PORT");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("setrlimit");
    let listener = UdpSocket::bind(address).expect("bind");
    // A storm of requests is not lost while windows are sent.
    if setsockopt(&listener, RcvBufForce, &(4 << 20)).is_err() {
        setsockopt(&listener, RcvBuf, &(4 << 20)).expect("SO_RCVBUF");
    }
    Server {
        listener,
        epoll: Epoll::new(EpollCreateFlags::empty()).expect("epoll_create"),
        transfers: Vec::new(),
        free: Vec::new(),
        buffer: vec![0; 65536],
    }
    .serve();
}

struct Server {
    listener: UdpSocket,
    epoll: Epoll,
    /// By place; `free` are those without a transfer.
    transfers: Vec<Option<Transfer>>,
    free: Vec<usize>,
    /// Windows of all transfers are laid out here.
    buffer: Vec<u8>,
}

struct Transfer {
    socket: UdpSocket,
    file: File,
    size: u64,
    blksize: usize,
    windowsize: u64,
    /// Sent again as long as nothing has been acknowledged; empty without options.
    oack: Vec<u8>,
    /// Blocks `base..next` are on their way, counted from 0.
    base: u64,
    next: u64,
    /// The gap after `base` has been answered.
    answered: bool,
    moved: Instant,
}

impl Server {
    fn serve(&mut self) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
        self.epoll.add(&self.listener, event).expect("epoll_ctl");
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let mut events = vec![EpollEvent::empty(); 256];
        let timeout = EpollTimeout::try_from(TIMEOUT / 4).expect("a short time");
        let mut swept = Instant::now();
        loop {
            let ready = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            let now = Instant::now();
            for event in &events[..ready] {
                match event.data() {
                    LISTENER => self.handle_requests(&mut headers, now),
                    place => self.handle_readable(place as usize, now),
                }
            }
            if now - swept > TIMEOUT / 4 {
                swept = now;
                for transfer in self.transfers.iter_mut().flatten() {
                    transfer.handle_time(&mut self.buffer, now);
                }
            }
        }
    }

    fn handle_requests(&mut self, headers: &mut MultiHeaders<SockaddrIn>, now: Instant) {
        let mut bytes = [[0; REQUEST]; BATCH];
        let mut requests = Vec::with_capacity(BATCH);
        let mut slices = bytes.each_mut().map(|bytes| [IoSliceMut::new(bytes)]);
        let listener = self.listener.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let Ok(datagrams) = recvmmsg(listener, headers, slices.iter_mut(), flags, None) else {
            return;
        };
        for datagram in datagrams {
            if let (Some(request), Some(from)) = (datagram.iovs().next(), datagram.address) {
                requests.push((request, SocketAddrV4::new(from.ip(), from.port())));
            }
        }
        for (request, peer) in requests {
            let socket = UdpSocket::bind((self.listener.local_addr().expect("bound").ip(), 0));
            let socket = socket.expect("a port");
            socket.connect(peer).expect("connect");
            socket.set_nonblocking(true).expect("fcntl");
            match Transfer::begin(request, socket, now) {
                Some(transfer) => self.add(transfer),
                None => continue,
            }
        }
    }

    fn add(&mut self, mut transfer: Transfer) {
        let place = self.free.pop().unwrap_or(self.transfers.len());
        let event = EpollEvent::new(EpollFlags::EPOLLIN, place as u64);
        self.epoll.add(&transfer.socket, event).expect("epoll_ctl");
        transfer.send(&mut self.buffer);
        match self.transfers.get_mut(place) {
            Some(free) => *free = Some(transfer),
            None => self.transfers.push(Some(transfer)),
        }
    }

    fn handle_readable(&mut self, place: usize, now: Instant) {
        let Some(transfer) = &mut self.transfers[place] else {
            return;
        };
        let mut packet = [0; 512];
        let over = match transfer.socket.recv(&mut packet) {
            Ok(4) if packet[1] == 4 => {
                let block = u16::from_be_bytes([packet[2], packet[3]]);
                transfer.handle_ack(block, &mut self.buffer, now)
            }
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        if over {
            self.transfers[place] = None;
            self.free.push(place);
        }
    }
}

impl Transfer {
    /// Opens what is asked; if that can not be done, says so.
    fn begin(request: &[u8], socket: UdpSocket, now: Instant) -> Option<Self> {
        let text = str::from_utf8(request.strip_prefix(b"\0\x01")?).ok()?;
        let mut words = text.split('\0');
        let (name, _mode) = (words.next()?, words.next()?);
        let Ok(file) = File::open(name) else {
            let _ = socket.send(b"\0\x05\0\x01File not found\0");
            return None;
        };
        let mut transfer = Self {
            size: file.metadata().ok()?.len(),
            socket,
            file,
            blksize: 512,
            windowsize: 1,
            oack: Vec::new(),
            base: 0,
            next: 0,
            answered: false,
            moved: now,
        };
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let mut value = value.parse().ok()?;
            match name {
                "blksize" => transfer.blksize = value as usize,
                "windowsize" => transfer.windowsize = value,
                "tsize" => value = transfer.size,
                _ => continue,
            }
            if transfer.oack.is_empty() {
                transfer.oack.extend(b"\0\x06");
            }
            transfer.oack.extend(format!("{name}\0{value}\0").bytes());
        }
        if transfer.windowsize > 1 {
            let segment = i32::try_from(4 + transfer.blksize).ok()?;
            setsockopt(&transfer.socket, UdpGsoSegment, &segment).ok()?;
        }
        Some(transfer)
    }

    /// Whether that was the last one.
    fn handle_ack(&mut self, block: u16, buffer: &mut [u8], now: Instant) -> bool {
        let progress = u64::from(block.wrapping_sub(self.base as u16));
        let is_duplicate = progress == 0 && (self.windowsize == 1 || self.answered);
        if progress > self.next - self.base || is_duplicate && self.oack.is_empty() {
            return false;
        }
        self.base += progress;
        self.answered = progress == 0 && self.oack.is_empty();
        self.moved = now;
        self.oack.clear();
        if self.base > self.size / self.blksize as u64 {
            return true;
        }
        self.send(buffer);
        false
    }

    fn handle_time(&mut self, buffer: &mut [u8], now: Instant) {
        if now.saturating_duration_since(self.moved) >= TIMEOUT {
            self.moved = now;
            self.send(buffer);
        }
    }

    /// The OACK, or the window that begins at `base`.
    fn send(&mut self, buffer: &mut [u8]) {
        if !self.oack.is_empty() {
            let _ = self.socket.send(&self.oack);
            return;
        }
        let blocks = self.size / self.blksize as u64 + 1;
        let end = blocks.min(self.base + self.windowsize);
        let at_once = SEGMENTS.min(LONGEST / (4 + self.blksize)) as u64;
        self.next = self.base;
        while self.next < end {
            let count = at_once.min(end - self.next);
            let mut payloads = Vec::with_capacity(SEGMENTS);
            for (block, packet) in
                (self.next..self.next + count).zip(buffer.chunks_exact_mut(4 + self.blksize))
            {
                let (header, payload) = packet.split_at_mut(4);
                let [high, low] = ((block + 1) as u16).to_be_bytes();
                header.copy_from_slice(&[0, 3, high, low]);
                payloads.push(IoSliceMut::new(payload));
            }
            let offset = self.next * self.blksize as u64;
            let read = preadv(&self.file, &mut payloads, offset as i64).expect("preadv");
            let _ = self.socket.send(&buffer[..read + 4 * count as usize]);
            self.next += count;
        }
    }
}
