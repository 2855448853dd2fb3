//! Sockets handed over by systemd: sd_listen_fds(3).

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process;

use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

use super::{Error, MAX_LISTENERS};
use crate::sys;

/// The first descriptor that is handed over: SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;

/// Takes what systemd handed over. To be called before this process opens anything.
///
/// # Errors
/// [`Error::NotActivated`], [`Error::NotUdp`], [`Error::TooManyListeners`].
pub(super) fn take() -> Result<Vec<UdpSocket>, Error> {
    let variable = |name| std::env::var(name).ok();
    let count = count(
        variable("LISTEN_PID"),
        variable("LISTEN_FDS"),
        process::id(),
    )?;
    (FIRST..).take(count).map(take_one).collect()
}

fn take_one(raw: RawFd) -> Result<UdpSocket, Error> {
    let descriptor = sys::take_inherited(raw).map_err(|_| Error::NotUdp(raw, "not open"))?;
    udp(raw, descriptor)
}

/// How many descriptors there are.
///
/// The process id keeps a process that was started by another one from taking descriptors that
/// were meant for that one.
fn count(pid: Option<String>, fds: Option<String>, own: u32) -> Result<usize, Error> {
    let (Some(pid), Some(fds)) = (pid, fds) else {
        return Err(Error::NotActivated(
            "systemd handed over no socket (LISTEN_FDS is not set)",
        ));
    };
    if pid.parse() != Ok(own) {
        return Err(Error::NotActivated(
            "the sockets are for another process (LISTEN_PID)",
        ));
    }
    match fds.parse() {
        Ok(0) => Err(Error::NotActivated(
            "systemd handed over no socket (LISTEN_FDS=0)",
        )),
        Ok(count) if count > MAX_LISTENERS => Err(Error::TooManyListeners(count)),
        Ok(count) => Ok(count),
        Err(_) => Err(Error::NotActivated("LISTEN_FDS is not a number")),
    }
}

/// Looks what kind of descriptor it is.
fn udp(number: RawFd, descriptor: OwnedFd) -> Result<UdpSocket, Error> {
    let kind = getsockopt(&descriptor, sockopt::SockType)
        .map_err(|_| Error::NotUdp(number, "not a socket"))?;
    if kind != SockType::Datagram {
        return Err(Error::NotUdp(number, "a stream socket"));
    }
    let family = getsockname::<SockaddrStorage>(descriptor.as_raw_fd())
        .ok()
        .and_then(|address| address.family());
    match family {
        Some(AddressFamily::Inet | AddressFamily::Inet6) => Ok(descriptor.into()),
        _ => Err(Error::NotUdp(number, "not of IPv4 or IPv6")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn count(pid: Option<&str>, fds: Option<&str>) -> Result<usize, String> {
        super::count(pid.map(Into::into), fds.map(Into::into), 42).map_err(|e| e.to_string())
    }

    #[test]
    fn sockets_for_this_process_are_counted() {
        assert_eq!(count(Some("42"), Some("1")), Ok(1));
        assert_eq!(count(Some("42"), Some("30")), Ok(30));
    }

    #[test]
    fn without_sockets_it_says_how_to_start() {
        for (pid, fds) in [
            (None, None),
            (Some("42"), None),
            (None, Some("1")),
            (Some("41"), Some("1")),
            (Some("42"), Some("0")),
            (Some("42"), Some("-1")),
            (Some("x"), Some("1")),
        ] {
            let error = count(pid, fds).unwrap_err();
            assert!(
                error.contains("start r-tftpd.socket"),
                "{pid:?} {fds:?}: {error}"
            );
        }
        assert!(
            count(Some("42"), Some("31"))
                .unwrap_err()
                .contains("too many")
        );
    }

    #[test]
    fn only_udp_sockets_are_taken() {
        let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(udp(3, v4.into()).is_ok());
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = udp(3, tcp.into()).unwrap_err().to_string();
        assert!(
            error.contains("descriptor 3 from systemd is a stream socket"),
            "{error}"
        );
        assert!(error.contains("ListenDatagram="), "{error}");
        let (unix, _other) = UnixDatagram::pair().unwrap();
        assert!(
            udp(4, unix.into())
                .unwrap_err()
                .to_string()
                .contains("not of IPv4 or IPv6")
        );
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(
            udp(5, file.into())
                .unwrap_err()
                .to_string()
                .contains("not a socket")
        );
    }
}
