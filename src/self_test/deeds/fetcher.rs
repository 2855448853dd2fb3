//! Deeds of a captured fetcher: with its TCP sockets, with the granted file, with its channels, and
//! by what it tells the broker.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use r_tftpd_broker::fetch::{Failure, FromFetcher, Head};
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE};

use super::super::probe::{
    Argument, CHANNEL, CONTROL, DENIED, EMPTY, Expected, FILE, FetcherPlace, HARMLESS, HERE,
    INVALID, KILLED, MADE, ONES, Outcome, PASSWD, Probe, REPLACED, X, ZEROS, call, calls, deeds,
    sent,
};
use super::descriptors::open_again;

/// What libraries try, and cope without.
pub(in super::super) const TRIED: &[Probe] = calls! {
    DENIED "openat" SYS_openat(HERE, PASSWD, 0, 0);
    DENIED "openat to create" SYS_openat(HERE, MADE, 0o101, 0o644);
    DENIED "newfstatat" SYS_newfstatat(HERE, PASSWD, 0, 0);
    DENIED "statx" SYS_statx(HERE, PASSWD, 0, 0x7ff, 0);
    DENIED "readlinkat" SYS_readlinkat(HERE, PASSWD, 0, 0);
    DENIED "getcwd" SYS_getcwd(0, 0);
    DENIED "uname" SYS_uname(0);
    DENIED "setrlimit of another" SYS_prlimit64(1, 7, 0, 0);
    KILLED "openat2" SYS_openat2(HERE, PASSWD, 0, 24);
    KILLED "memfd_create" SYS_memfd_create(PASSWD, 0);
    KILLED "clone3" SYS_clone3(PASSWD, 88);
    KILLED "clone a thread" SYS_clone(0x3d_0f00, 0, 0, 0, 0);
    KILLED "standard error: type into the terminal" SYS_ioctl(2, 0x5412, X);
    KILLED "standard error: truncate the log" SYS_ftruncate(2, 0);
};

/// Every socket but one for TCP.
pub(in super::super) const SOCKETS: &[Probe] = calls! {
    HARMLESS "TCP socket" SYS_socket(2, 1, 0);
    HARMLESS "TCP socket over IPv6" SYS_socket(10, 1, 0);
    KILLED "UDP socket" SYS_socket(2, 2, 0);
    KILLED "UDP socket over IPv6" SYS_socket(10, 2, 17);
    KILLED "UDP socket that does not block" SYS_socket(2, 0x8_0802, 0);
    KILLED "raw socket for ICMP" SYS_socket(2, 3, 1);
    KILLED "TCP socket over MPTCP and IPv6" SYS_socket(10, 1, 262);
};

fn tcp() -> Result<usize, Errno> {
    let socket = call(libc::SYS_socket, &[2, 0x8_0001, 0]).map_err(|_| Errno::UnknownErrno)?;
    usize::try_from(socket).map_err(|_| Errno::UnknownErrno)
}

/// 127.0.0.1 at `port`, as struct sockaddr_in.
fn loopback(port: u16) -> [u8; 16] {
    let [high, low] = port.to_be_bytes();
    [2, 0, high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// A port that it may not connect to.
fn other_port(place: &FetcherPlace) -> Result<u16, Errno> {
    let has = |port: &u16| {
        let within = |(first, last): &(u16, u16)| (first..=last).contains(&port);
        *port == place.start.dns_port || place.start.ports.iter().any(within)
    };
    (1..=u16::MAX)
        .find(|port| !has(port))
        .ok_or(Errno::UnknownErrno)
}

/// Landlock knows ports from its fourth version on.
const PORTS: Expected = Expected::Landlock(4);

/// TCP, to other ports than those allowed.
pub(in super::super) const OTHER_PORTS: &[Probe] = deeds! { Fetcher:
    PORTS "connect to another port" |place| {
        let address = loopback(other_port(place)?);
        call(libc::SYS_connect, &[tcp()?, address.as_ptr().addr(), 16])
    };
    PORTS "connect to another port over IPv6" |place| {
        let [high, low] = other_port(place)?.to_be_bytes();
        let mut address = [0; 28];
        (address[0], address[2], address[3], address[23]) = (10, high, low, 1);
        let socket = call(libc::SYS_socket, &[10, 1, 0]).map_err(|_| Errno::UnknownErrno)?;
        let socket = usize::try_from(socket).map_err(|_| Errno::UnknownErrno)?;
        call(libc::SYS_connect, &[socket, address.as_ptr().addr(), 28])
    };
};

/// TCP, past what Landlock confines.
pub(in super::super) const FAST_OPEN: &[Probe] = deeds! { Fetcher:
    KILLED "connect by MSG_FASTOPEN" |place| {
        let address = loopback(other_port(place).unwrap_or(1));
        let address = address.as_ptr().addr();
        call(libc::SYS_sendto, &[tcp()?, address, 4, libc::MSG_FASTOPEN as usize, address, 16])
    };
    KILLED "MSG_FASTOPEN without an address" |_| {
        call(libc::SYS_sendto, &[tcp()?, [0; 4].as_ptr().addr(), 4, libc::MSG_FASTOPEN as usize, 0, 0])
    };
    KILLED "connect by the option TCP_FASTOPEN_CONNECT" |_| {
        let on = 1_i32.to_ne_bytes();
        call(libc::SYS_setsockopt, &[tcp()?, 6, 30, on.as_ptr().addr(), 4])
    };
    KILLED "TCP socket: bind" |_| {
        call(libc::SYS_bind, &[tcp()?, loopback(0).as_ptr().addr(), 16])
    };
    KILLED "TCP socket: listen" |_| call(libc::SYS_listen, &[tcp()?, 1]);
    KILLED "TCP socket: sendmsg" |_| call(libc::SYS_sendmsg, &[tcp()?, [0; 56].as_ptr().addr(), 0]);
    KILLED "TCP socket: upper layer protocol" |_| {
        call(libc::SYS_setsockopt, &[tcp()?, 6, 31, c"tls".as_ptr().addr(), 3])
    };
    KILLED "TCP socket: mark" |_| call(libc::SYS_setsockopt, &[tcp()?, 1, 36, [0; 4].as_ptr().addr(), 4]);
    KILLED "TCP socket: bind to device" |_| {
        call(libc::SYS_setsockopt, &[tcp()?, 1, 25, c"lo".as_ptr().addr(), 3])
    };
    KILLED "TCP socket: owner" |_| call(libc::SYS_fcntl, &[tcp()?, 8, 1]);
    KILLED "TCP socket: duplicate" |_| call(libc::SYS_dup, &[tcp()?]);
    KILLED "TCP socket: ioctl" |_| call(libc::SYS_ioctl, &[tcp()?, 0x8912, 0]);
};

/// The granted file leads to no other one.
pub(in super::super) const FILES: &[Probe] = calls! {
    HARMLESS "file: write" SYS_pwrite64(FILE, X, 1, 0);
    DENIED "file: open what is beside it" SYS_openat(FILE, UP, 0, 0);
    KILLED "file: name it" SYS_linkat(FILE, EMPTY, HERE, MADE, 0x1000);
    KILLED "file: execute" SYS_execveat(FILE, EMPTY, 0, 0, 0x1000);
    KILLED "file: map executable" SYS_mmap(0, 4096, 5, 1, FILE, 0);
    KILLED "file: send it into a channel" SYS_sendfile(CHANNEL, FILE, 0, 100);
    KILLED "file: read at a place" SYS_pread64(FILE, 0, 0, 0);
    KILLED "file: cut" SYS_ftruncate(FILE, 0);
    KILLED "file: fallocate" SYS_fallocate(FILE, 0, 0, 1);
    KILLED "file: change its mode" SYS_fchmod(FILE, 0o777);
    KILLED "file: change its owner" SYS_fchown(FILE, 0, 0);
    KILLED "file: lock" SYS_flock(FILE, 2);
    KILLED "file: ioctl" SYS_ioctl(FILE, 0x4020_940d, 0);
    KILLED "file: directory entries" SYS_getdents64(FILE, 0, 0);
    KILLED "file: fchdir" SYS_fchdir(FILE);
    KILLED "file: extended attribute" SYS_fsetxattr(FILE, X, X, 1, 0);
    KILLED "file: splice" SYS_splice(FILE, 0, CHANNEL, 0, 100, 0);
    KILLED "file: duplicate" SYS_dup3(FILE, 2, 0);
    KILLED "file: fcntl lease" SYS_fcntl(FILE, 1024, 0);
    KILLED "file: fcntl seal" SYS_fcntl(FILE, 1033, 1);
    KILLED "file: fcntl owner" SYS_fcntl(FILE, 8, 1);
};

const UP: Argument = Argument::Text(c"..");

/// The granted file, once more by its path, and as a gift to others.
pub(in super::super) const FILE_AGAIN: &[Probe] = deeds! { Fetcher:
    DENIED "file: open it again" open_again;
    KILLED "a file to the broker" |place| sent(place.broker.send_with(b"x", &[file(place)?]));
    KILLED "many files to the broker" |place| sent(place.broker.send_with(b"x", &[file(place)?; 200]));
    KILLED "a file to the supervisor" |place| sent(place.control.send_with(&[0; 64], &[file(place)?]));
};

fn file(place: &FetcherPlace) -> Result<BorrowedFd<'_>, Errno> {
    place
        .file
        .as_ref()
        .map(AsFd::as_fd)
        .ok_or(Errno::UnknownErrno)
}

/// 127.0.0.1 port 69, as struct sockaddr_in.
const CLIENT: Argument = Argument::Bytes(&[2, 0, 0, 69, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);

/// The channels lead to broker and supervisor alone, and carry bytes alone.
pub(in super::super) const CHANNELS: &[Probe] = calls! {
    KILLED "channel: send elsewhere" SYS_sendto(CHANNEL, CLIENT, 4, 0, CLIENT, 16);
    INVALID "channel: connect to a client" SYS_connect(CHANNEL, CLIENT, 16);
    INVALID "channel: dissolve the connection" SYS_connect(CHANNEL, ZEROS, 16);
    KILLED "channel: pass credentials" SYS_setsockopt(CHANNEL, 1, 16, ONES, 4);
    KILLED "channel: a larger buffer" SYS_setsockopt(CHANNEL, 1, 7, ONES, 4);
    KILLED "channel: a filter" SYS_setsockopt(CHANNEL, 1, 26, ONES, 4);
    KILLED "channel: owner" SYS_fcntl(CHANNEL, 8, 1);
    KILLED "channel: signal" SYS_fcntl(CHANNEL, 10, 9);
    KILLED "channel: duplicate" SYS_fcntl(CHANNEL, 0, 9);
    KILLED "channel: accept" SYS_accept4(CHANNEL, 0, 0, 0);
    KILLED "channel: listen" SYS_listen(CHANNEL, 0);
    KILLED "control channel: send elsewhere" SYS_sendto(CONTROL, CLIENT, 4, 0, CLIENT, 16);
    INVALID "control channel: connect to a client" SYS_connect(CONTROL, CLIENT, 16);
    INVALID "control channel: dissolve the connection" SYS_connect(CONTROL, ZEROS, 16);
    KILLED "control channel: pass credentials" SYS_setsockopt(CONTROL, 1, 16, ONES, 4);
    KILLED "control channel: a filter" SYS_setsockopt(CONTROL, 1, 26, ONES, 4);
    KILLED "control channel: owner" SYS_fcntl(CONTROL, 8, 1);
    KILLED "control channel: accept" SYS_accept4(CONTROL, 0, 0, 0);
};

/// What the broker must not accept.
pub(in super::super) const MESSAGES: &[Probe] = deeds! { Fetcher:
    REPLACED "message: Hello again" |place| send(place, &FromFetcher::Hello(Hello::OURS));
    REPLACED "message: a job that was never given" |place| send(place, &head(place.job + 1, 200));
    REPLACED "message: a body without a head" |place| {
        send(place, &FromFetcher::End { job: place.job, len: 1 })
    };
    REPLACED "message: a body over the limit" |place| {
        send(place, &head(place.job, 200))?;
        send(place, &FromFetcher::Extent { job: place.job, len: u64::MAX })
    };
    REPLACED "message: a body that shrinks" |place| {
        send(place, &head(place.job, 200))?;
        send(place, &FromFetcher::Extent { job: place.job, len: 2 })?;
        send(place, &FromFetcher::Extent { job: place.job, len: 1 })
    };
    REPLACED "message: two heads" |place| {
        send(place, &head(place.job, 200))?;
        send(place, &head(place.job, 200))
    };
    REPLACED "message: no status" |place| send(place, &head(place.job, 0));
    REPLACED "message: a text for the log with control bytes" |place| {
        let (job, failure, detail) = (place.job, Failure::Internal, "\x1b[2J\n".to_owned());
        send(place, &FromFetcher::Failed { job, failure, detail })
    };
    REPLACED "message: garbage" |place| sent(place.broker.send(&[0xa5; 99]));
    REPLACED "message: cut short" |place| {
        let bytes = encoded(&head(place.job, 200))?;
        let (most, _) = bytes.split_at(bytes.len() - 1);
        sent(place.broker.send(most))
    };
    REPLACED "message: bytes behind it" |place| {
        let mut bytes = encoded(&head(place.job, 200))?;
        bytes.push(0);
        sent(place.broker.send(&bytes))
    };
    REPLACED "message: too long" |place| sent(place.broker.send(&[1; MAX_MESSAGE + 1]));
};

fn head(job: u64, status: u16) -> FromFetcher {
    FromFetcher::Head(Head {
        job,
        status,
        headers: Vec::new(),
        length: None,
    })
}

fn send(place: &FetcherPlace, message: &FromFetcher) -> Outcome {
    match sent(place.broker.send(&encoded(message)?)) {
        // The broker has had enough of it already.
        Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(0),
        other => other,
    }
}

fn encoded(message: &FromFetcher) -> Result<Vec<u8>, Errno> {
    let mut buffer = [0; MAX_MESSAGE];
    let bytes = wire::encode(message, &mut buffer).map_err(|_| Errno::UnknownErrno)?;
    Ok(bytes.to_vec())
}
