//! A TFTP client that does as it is told, in nice ways and in others.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use crate::DEADLINE;

/// A client with one socket; the server's TID is that of its last datagram.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    tid: Option<SocketAddr>,
}

/// A packet from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A block of the file.
    Data(u16, Vec<u8>),
    /// Acknowledges a block of a file that is written.
    Ack(u16),
    /// Code and text.
    Error(u16, String),
    /// Names in lower case and values, as sent.
    Oack(Vec<(String, String)>),
}

/// A file that arrived, and how.
#[derive(Debug)]
pub struct Transfer {
    /// The file.
    pub bytes: Vec<u8>,
    /// The options granted; empty without OACK.
    pub granted: Vec<(String, String)>,
    /// DATA packets received, repeats included.
    pub packets: u64,
}

/// An ERROR in answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// RFC 1350 error code.
    pub code: u16,
    /// For people.
    pub text: String,
}

/// Options of a request: names and values.
pub type Options<'a> = &'a [(&'a str, &'a str)];

impl Client {
    /// A client on the loopback address of the server's family.
    #[must_use]
    pub fn new(server: SocketAddr) -> Self {
        let local: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        Self::from_address((local, 0).into(), server)
    }

    /// A client with the given address and port.
    #[must_use]
    pub fn from_address(local: SocketAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).unwrap();
        // As much as the system allows: a window has to fit.
        setsockopt(&socket, RcvBuf, &(4 << 20)).unwrap();
        Self {
            socket,
            server,
            tid: None,
        }
    }

    /// The client's own address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Where the last datagram came from.
    #[must_use]
    pub fn tid(&self) -> SocketAddr {
        self.tid.expect("the server has answered")
    }

    /// Asks to read a file in octet mode.
    pub fn ask(&self, name: &str, options: Options<'_>) {
        self.send_to_listener(&request(1, name.as_bytes(), "octet", options));
    }

    /// Sends bytes to the port the server listens on.
    pub fn send_to_listener(&self, datagram: &[u8]) {
        self.send_to(self.server, datagram);
    }

    /// Sends bytes to an address of the server.
    pub fn send_to(&self, address: SocketAddr, datagram: &[u8]) {
        self.socket.send_to(datagram, address).unwrap();
    }

    /// Sends bytes to the server's TID.
    pub fn send(&self, datagram: &[u8]) {
        self.send_to(self.tid(), datagram);
    }

    /// Acknowledges a block.
    pub fn ack(&self, block: u16) {
        self.send(&[&[0, 4], &block.to_be_bytes()[..]].concat());
    }

    /// Ends the transfer.
    pub fn abort(&self, code: u16, text: &str) {
        self.send(&[&[0, 5], &code.to_be_bytes()[..], text.as_bytes(), &[0]].concat());
    }

    /// Sends a block of a file that is written.
    pub fn data(&self, block: u16, payload: &[u8]) {
        self.send(&[&[0, 3], &block.to_be_bytes()[..], payload].concat());
    }

    /// The next packet.
    pub fn receive(&mut self) -> Packet {
        self.receive_within(DEADLINE)
            .expect("no packet from the server")
    }

    /// The next packet if it comes in time.
    pub fn receive_within(&mut self, time: Duration) -> Option<Packet> {
        let mut buffer = [0; 65536];
        self.socket
            .set_read_timeout(Some(time.max(Duration::from_millis(1))))
            .unwrap();
        match self.socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                self.tid = Some(from);
                Some(Packet::parse(&buffer[..length]))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                None
            }
            Err(error) => panic!("recvfrom: {error}"),
        }
    }

    /// Takes everything that has already arrived, and what comes until there is silence for `time`.
    pub fn receive_until_silence(&mut self, time: Duration) -> Vec<Packet> {
        std::iter::from_fn(|| self.receive_within(time)).collect()
    }

    /// Reads a whole file in octet mode.
    ///
    /// # Errors
    /// The server's ERROR.
    pub fn get(&mut self, name: &str, options: Options<'_>) -> Result<Transfer, Refused> {
        self.get_raw(&request(1, name.as_bytes(), "octet", options))
    }

    /// Sends a request as it is and reads the whole file; asks again for what is lost.
    ///
    /// # Errors
    /// The server's ERROR.
    pub fn get_raw(&mut self, request: &[u8]) -> Result<Transfer, Refused> {
        self.send_to_listener(request);
        self.download(request)
    }

    /// Reads a whole file in octet mode for which [`Self::ask`] has asked with the same options.
    ///
    /// # Errors
    /// The server's ERROR.
    pub fn get_what_was_asked(
        &mut self,
        name: &str,
        options: Options<'_>,
    ) -> Result<Transfer, Refused> {
        self.download(&request(1, name.as_bytes(), "octet", options))
    }

    /// As firmware does: keeps to the first TID that answers, repeats itself after a silence, and
    /// begins again when that does not help.
    fn download(&mut self, request: &[u8]) -> Result<Transfer, Refused> {
        let end = Instant::now() + DEADLINE;
        let mut download = Download::default();
        let (mut tid, mut silences) = (None, 0);
        while Instant::now() < end {
            let packet = self.receive_within(RESEND);
            if packet.is_some() && *tid.get_or_insert(self.tid()) != self.tid() {
                continue;
            }
            self.tid = tid;
            silences = if packet.is_some() { 0 } else { silences + 1 };
            match packet {
                Some(Packet::Error(code, text)) => return Err(Refused { code, text }),
                Some(packet) => {
                    if let Some(block) = download.handle(packet) {
                        self.ack(block);
                    }
                }
                None if download.started && silences < 3 => self.ack(download.last_block()),
                None => {
                    (tid, silences, download) = (None, 0, Download::default());
                    self.send_to_listener(request);
                }
            }
            if download.complete {
                let Download {
                    bytes,
                    granted,
                    packets,
                    ..
                } = download;
                return Ok(Transfer {
                    bytes,
                    granted,
                    packets,
                });
            }
        }
        panic!(
            "too slow: {} bytes in {} packets",
            download.bytes.len(),
            download.packets
        );
    }
}

/// The silence after which the client repeats what it said last.
const RESEND: Duration = Duration::from_secs(1);

/// A request datagram. `opcode` is 1 to read and 2 to write.
#[must_use]
pub fn request(opcode: u8, name: &[u8], mode: &str, options: Options<'_>) -> Vec<u8> {
    let mut datagram = [&[0, opcode], name, &[0], mode.as_bytes(), &[0]].concat();
    for (option, value) in options {
        datagram.extend([option.as_bytes(), &[0], value.as_bytes(), &[0]].concat());
    }
    datagram
}

/// The value of an option among those granted.
#[must_use]
pub fn option<'a>(granted: &'a [(String, String)], name: &str) -> Option<&'a str> {
    granted
        .iter()
        .find(|(option, _)| option == name)
        .map(|(_, value)| value.as_str())
}

impl Packet {
    fn parse(datagram: &[u8]) -> Self {
        let number = || u16::from_be_bytes(datagram[2..4].try_into().unwrap());
        match datagram[..2] {
            [0, 3] => Self::Data(number(), datagram[4..].to_vec()),
            [0, 4] => Self::Ack(number()),
            [0, 5] => {
                let text = datagram[4..]
                    .strip_suffix(&[0])
                    .expect("ERROR ends with NUL");
                Self::Error(number(), String::from_utf8(text.to_vec()).unwrap())
            }
            [0, 6] => {
                let rest = datagram[2..].strip_suffix(&[0]);
                let words: Vec<String> = rest
                    .map(|rest| rest.split(|byte| *byte == 0).collect::<Vec<_>>())
                    .unwrap_or_default()
                    .into_iter()
                    .map(|word| String::from_utf8(word.to_vec()).unwrap())
                    .collect();
                assert!(
                    words.len().is_multiple_of(2),
                    "OACK has a name without value: {words:?}"
                );
                let pairs = words.chunks_exact(2);
                Self::Oack(
                    pairs
                        .map(|pair| (pair[0].to_lowercase(), pair[1].clone()))
                        .collect(),
                )
            }
            _ => panic!("no packet a server may send: {datagram:?}"),
        }
    }
}

/// The client's side of a read: what has arrived so far, in order.
#[derive(Debug, Default)]
struct Download {
    bytes: Vec<u8>,
    granted: Vec<(String, String)>,
    packets: u64,
    /// Index of the last block that arrived in order.
    last: u64,
    /// Index of the last block acknowledged.
    acknowledged: u64,
    started: bool,
    /// The gap before the next block has been reported.
    reported: bool,
    complete: bool,
}

impl Download {
    /// Takes a packet; returns the block to acknowledge, if any.
    fn handle(&mut self, packet: Packet) -> Option<u16> {
        match packet {
            Packet::Oack(granted) if self.last == 0 => {
                self.granted = granted;
                self.started = true;
                Some(0)
            }
            Packet::Oack(_) => None,
            Packet::Data(block, payload) => self.handle_data(block, &payload),
            other => panic!("not expected in a read: {other:?}"),
        }
    }

    fn handle_data(&mut self, block: u16, payload: &[u8]) -> Option<u16> {
        self.started = true;
        self.packets += 1;
        if u64::from(block) != (self.last + 1) % 0x1_0000 {
            // Of a lock-step server's repeats only the timer may cause an ACK.
            let report = self.window() > 1 && !self.reported;
            self.reported = true;
            return report.then(|| self.last_block());
        }
        let blksize = self.number("blksize").unwrap_or(512);
        assert!(
            payload.len() <= blksize,
            "a block of {} bytes",
            payload.len()
        );
        self.last += 1;
        self.reported = false;
        self.bytes.extend_from_slice(payload);
        self.complete = payload.len() < blksize;
        let due = self.last - self.acknowledged >= self.window() || self.complete;
        if due {
            self.acknowledged = self.last;
        }
        due.then(|| self.last_block())
    }

    fn last_block(&self) -> u16 {
        (self.last % 0x1_0000).try_into().unwrap()
    }

    fn window(&self) -> u64 {
        self.number("windowsize").unwrap_or(1).try_into().unwrap()
    }

    fn number(&self, name: &str) -> Option<usize> {
        option(&self.granted, name).map(|value| value.parse().unwrap())
    }
}
