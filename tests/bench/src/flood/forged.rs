//! Datagrams with any sender.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

/// Bytes of the headers of IPv4, without options, and of UDP.
const HEADERS: usize = 20 + 8;

/// Sends datagrams to one server.
pub struct Forger {
    socket: OwnedFd,
    server: SocketAddrV4,
    packet: Vec<u8>,
}

impl Forger {
    /// Needs CAP_NET_RAW. raw(7)
    pub fn new(server: SocketAddrV4) -> Self {
        let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
        let socket = socket(family, SockType::Raw, flags, SockProtocol::Raw);
        Self {
            socket: socket.expect("a raw socket, which needs root"),
            server,
            packet: Vec::new(),
        }
    }

    /// Sends a payload from `address` and `port` to the server. The bytes of the IP packet.
    pub fn send(&mut self, address: Ipv4Addr, port: u16, payload: &[u8]) -> u64 {
        let server = self.server;
        self.send_to(server, address, port, payload)
    }

    /// The same to another port.
    pub fn send_to(
        &mut self,
        server: SocketAddrV4,
        address: Ipv4Addr,
        port: u16,
        payload: &[u8],
    ) -> u64 {
        let packet = &mut self.packet;
        packet.clear();
        // Version and length of the header, no service; the kernel fills in the length, the
        // identification and the checksum.
        packet.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend(address.octets());
        packet.extend(server.ip().octets());
        packet.extend(port.to_be_bytes());
        packet.extend(server.port().to_be_bytes());
        let length = u16::try_from(payload.len() + 8).expect("less than an MTU");
        packet.extend(length.to_be_bytes());
        // Without a checksum: RFC 768.
        packet.extend([0, 0]);
        packet.extend(payload);
        let to = SockaddrIn::from(SocketAddrV4::new(*server.ip(), 0));
        loop {
            match sendto(self.socket.as_raw_fd(), packet, &to, MsgFlags::empty()) {
                Ok(_) => break,
                // The queue of the device is full.
                Err(Errno::ENOBUFS) => std::thread::yield_now(),
                Err(error) => panic!("sendto: {error}"),
            }
        }
        u64::try_from(HEADERS + payload.len()).expect("64 bits")
    }
}
