//! What every listener needs, whoever bound it.

use std::net::UdpSocket;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use tracing::warn;

use super::Error;

/// Room for about 10000 requests that arrive faster than they are taken. The kernel's default
/// holds 256: fewer than the machines of one rack row after a power cut.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// Switches packet info on and makes room. Returns the smallest receive buffer, in bytes.
///
/// # Errors
/// As setsockopt(2).
pub(super) fn prepare(listeners: &[UdpSocket]) -> Result<usize, Error> {
    let mut smallest = usize::MAX;
    for listener in listeners {
        listener
            .set_nonblocking(true)
            .map_err(Error::system("fcntl(O_NONBLOCK)"))?;
        packet_info(listener)?;
        // The broker has to know when the queue was too long for the buffer.
        setsockopt(listener, sockopt::RxqOvfl, &1)
            .map_err(Error::system("setsockopt(SO_RXQ_OVFL)"))?;
        smallest = smallest.min(receive_buffer(listener, RECEIVE_BUFFER)?);
    }
    if smallest < RECEIVE_BUFFER {
        warn!(
            wanted = RECEIVE_BUFFER,
            granted = smallest,
            "small receive buffer, requests of a storm may get lost: set sysctl \
             net.core.rmem_max={RECEIVE_BUFFER}, or ReceiveBuffer=4M in the socket unit"
        );
    }
    Ok(smallest)
}

/// Each request tells which address it was sent to, so that the answer comes from there. A dual
/// stack socket needs both kinds.
fn packet_info(listener: &UdpSocket) -> Result<(), Error> {
    let address = listener
        .local_addr()
        .map_err(Error::system("getsockname"))?;
    setsockopt(listener, sockopt::Ipv4PacketInfo, &true)
        .map_err(Error::system("setsockopt(IP_PKTINFO)"))?;
    if address.is_ipv6() {
        setsockopt(listener, sockopt::Ipv6RecvPacketInfo, &true)
            .map_err(Error::system("setsockopt(IPV6_RECVPKTINFO)"))?;
    }
    Ok(())
}

/// Enlarges the receive buffer as far as we may; never shrinks what a socket unit chose.
fn receive_buffer(listener: &UdpSocket, wanted: usize) -> Result<usize, Error> {
    let granted = granted(listener)?;
    if granted >= wanted {
        return Ok(granted);
    }
    // Beyond net.core.rmem_max only with CAP_NET_ADMIN.
    if setsockopt(listener, sockopt::RcvBufForce, &wanted).is_err() {
        setsockopt(listener, sockopt::RcvBuf, &wanted)
            .map_err(Error::system("setsockopt(SO_RCVBUF)"))?;
    }
    self::granted(listener)
}

/// The kernel doubles what was asked, for its own bookkeeping, and answers with that. socket(7)
fn granted(listener: &UdpSocket) -> Result<usize, Error> {
    let doubled =
        getsockopt(listener, sockopt::RcvBuf).map_err(Error::system("getsockopt(SO_RCVBUF)"))?;
    Ok(doubled / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{ListenAddress, listen};

    #[test]
    fn a_listener_for_all_addresses_gets_packet_info_for_each_family() {
        let listeners = listen::bind(&[ListenAddress::ALL], 0).unwrap();
        prepare(&listeners).unwrap();
        assert!(getsockopt(&listeners[0], sockopt::Ipv4PacketInfo).unwrap());
        if listeners[0].local_addr().unwrap().is_ipv6() {
            assert!(getsockopt(&listeners[0], sockopt::Ipv6RecvPacketInfo).unwrap());
        }
    }

    #[test]
    fn an_ipv4_listener_gets_packet_info_and_the_count_of_what_is_lost() {
        let listeners = [UdpSocket::bind("127.0.0.1:0").unwrap()];
        prepare(&listeners).unwrap();
        assert!(getsockopt(&listeners[0], sockopt::Ipv4PacketInfo).unwrap());
        assert_eq!(getsockopt(&listeners[0], sockopt::RxqOvfl).unwrap(), 1);
    }

    #[test]
    fn a_receive_buffer_grows_but_never_shrinks() {
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = granted(&listener).unwrap();
        assert_eq!(receive_buffer(&listener, before / 2).unwrap(), before);
        assert!(receive_buffer(&listener, before * 2).unwrap() >= before);
    }
}
