//! The addresses to listen on, and sockets bound to them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::str::FromStr;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind as bind_socket, setsockopt, socket,
    sockopt,
};
use tracing::warn;

use super::{Error, MAX_LISTENERS};

/// An IP address of this machine, or `::` or `0.0.0.0` for all of them. A link-local one names its
/// interface: `fe80::1%eth0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    ip: IpAddr,
    interface: Option<String>,
}

impl ListenAddress {
    /// All addresses, IPv6 and IPv4.
    pub const ALL: Self = Self {
        ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        interface: None,
    };
}

impl FromStr for ListenAddress {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let text = bare.unwrap_or(text);
        if text.parse::<SocketAddr>().is_ok() {
            return Err(ParseError::Port);
        }
        let (ip, interface) = match text.split_once('%') {
            Some((ip, interface)) => (ip, Some(interface.to_owned())),
            None => (text, None),
        };
        let ip = ip
            .parse::<IpAddr>()
            .map_err(|_| ParseError::Address)?
            .to_canonical();
        let link_local = matches!(ip, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80);
        match &interface {
            _ if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => {
                Err(ParseError::Group)
            }
            None if link_local => Err(ParseError::InterfaceMissing(ip)),
            Some(name) if name.is_empty() => Err(ParseError::InterfaceMissing(ip)),
            Some(_) if !link_local => Err(ParseError::InterfaceUseless),
            _ => Ok(Self { ip, interface }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.ip),
            None => self.ip.fmt(f),
        }
    }
}

/// Why a text is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not an IP address.
    Address,
    /// An address with a port.
    Port,
    /// A multicast or broadcast address.
    Group,
    /// A link-local address alone does not say which link.
    InterfaceMissing(IpAddr),
    /// Only link-local addresses have an interface.
    InterfaceUseless,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => {
                f.write_str("not an IP address; write for example 192.0.2.1, :: or fe80::1%eth0")
            }
            Self::Port => f.write_str(
                "an address without a port is needed; write for example --listen 192.0.2.1 \
                 --port 6969",
            ),
            Self::Group => f.write_str(
                "requests to multicast and broadcast addresses are not answered; write for \
                 example 192.0.2.1",
            ),
            Self::InterfaceMissing(ip) => write!(
                f,
                "a link-local address needs its interface; write for example {ip}%eth0"
            ),
            Self::InterfaceUseless => {
                f.write_str("only link-local addresses have an interface; leave out the %")
            }
        }
    }
}

impl std::error::Error for ParseError {}

/// Binds one socket for each address.
///
/// # Errors
/// [`Error::Bind`], [`Error::Interface`], [`Error::TooManyListeners`].
pub(super) fn bind(addresses: &[ListenAddress], port: u16) -> Result<Vec<UdpSocket>, Error> {
    if addresses.len() > MAX_LISTENERS {
        return Err(Error::TooManyListeners(addresses.len()));
    }
    addresses
        .iter()
        .map(|address| bind_one(address, port))
        .collect()
}

fn bind_one(address: &ListenAddress, port: u16) -> Result<UdpSocket, Error> {
    let wanted = resolve(address, port)?;
    match try_bind(wanted) {
        Ok(socket) => Ok(socket),
        // A kernel without IPv6, or with it switched off.
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if *address == ListenAddress::ALL => {
            warn!("no IPv6 on this machine: listening on 0.0.0.0 instead of ::");
            let fallback = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            try_bind(fallback).map_err(|errno| Error::Bind(fallback, errno))
        }
        Err(errno) => Err(Error::Bind(wanted, errno)),
    }
}

/// The socket address, with the interface as its scope id.
fn resolve(address: &ListenAddress, port: u16) -> Result<SocketAddr, Error> {
    let scope = match &address.interface {
        None => 0,
        Some(name) => match name.parse() {
            Ok(index) => index,
            Err(_) => if_nametoindex(name.as_str()).map_err(|_| Error::Interface(name.clone()))?,
        },
    };
    Ok(match address.ip {
        IpAddr::V4(ip) => (ip, port).into(),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
    })
}

fn try_bind(address: SocketAddr) -> Result<UdpSocket, Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    if address.is_ipv6() {
        // Dual stack, whatever the sysctl bindv6only says. No SO_REUSEADDR: on a UDP socket it
        // would let another program take our requests.
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    bind_socket(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ListenAddress, ParseError> {
        text.parse()
    }

    #[test]
    fn an_address_is_read_with_and_without_brackets_and_interface() {
        assert_eq!(parse("::"), Ok(ListenAddress::ALL));
        assert_eq!(parse("[::]"), Ok(ListenAddress::ALL));
        for text in [
            "192.0.2.1",
            "0.0.0.0",
            "2001:db8::1",
            "fe80::1%eth0",
            "fe80::1%2",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("::ffff:192.0.2.1"), parse("192.0.2.1"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        assert_eq!(parse("localhost"), Err(ParseError::Address));
        assert_eq!(parse(""), Err(ParseError::Address));
        assert_eq!(parse("192.0.2.1:69"), Err(ParseError::Port));
        assert_eq!(parse("[::1]:69"), Err(ParseError::Port));
        assert_eq!(parse("224.0.0.1"), Err(ParseError::Group));
        assert_eq!(parse("ff02::1%eth0"), Err(ParseError::Group));
        assert_eq!(parse("255.255.255.255"), Err(ParseError::Group));
        assert!(matches!(
            parse("fe80::1"),
            Err(ParseError::InterfaceMissing(_))
        ));
        assert!(matches!(
            parse("fe80::1%"),
            Err(ParseError::InterfaceMissing(_))
        ));
        assert_eq!(parse("2001:db8::1%eth0"), Err(ParseError::InterfaceUseless));
    }

    #[test]
    fn a_bound_port_is_reported_as_in_use_with_the_way_out() {
        let loopback = [parse("127.0.0.1").unwrap()];
        let first = bind(&loopback, 0).unwrap();
        let port = first[0].local_addr().unwrap().port();
        let error = bind(&loopback, port).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("127.0.0.1:{port} is in use")),
            "{error}"
        );
        assert!(error.contains("--port"), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_reported() {
        let error = bind(&[parse("192.0.2.1").unwrap()], 0)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("is not an address of this machine"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_interface_is_reported() {
        let error = bind(&[parse("fe80::1%nosuch0").unwrap()], 0)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("no network interface nosuch0"), "{error}");
    }

    #[test]
    fn a_low_port_without_the_right_is_explained() {
        let address = "[::]:69".parse().unwrap();
        let error = Error::Bind(address, Errno::EACCES).to_string();
        assert!(
            error.contains("port 69") && error.contains("--port 6969"),
            "{error}"
        );
    }

    #[test]
    fn too_many_addresses_are_refused() {
        let many = vec![parse("127.0.0.1").unwrap(); MAX_LISTENERS + 1];
        assert!(matches!(bind(&many, 0), Err(Error::TooManyListeners(_))));
    }
}
