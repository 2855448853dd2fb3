//! Deeds with every descriptor that a worker holds: the reply socket, the granted file, the two
//! channels, standard error, standard input.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::super::probe::{
    Argument, BAD_DESCRIPTOR, CHANNEL, CONTROL, DENIED, ELSEWHERE, EMPTY, FILE, HARMLESS, HERE,
    Held, KILLED, MADE, ONES, Outcome, PASSWD, Place, Probe, REPLY, WorkerPlace, X, ZEROS, call,
    calls, deeds, sent,
};

/// Without a descriptor, what worker and broker differ in.
pub(in super::super) const NONE: &[Probe] = calls! {
    DENIED "openat" SYS_openat(HERE, PASSWD, 0, 0);
    DENIED "openat to create" SYS_openat(HERE, MADE, 0o101, 0o644);
    KILLED "openat2" SYS_openat2(HERE, PASSWD, 0, 24);
    KILLED "newfstatat" SYS_newfstatat(HERE, PASSWD, 0, 0);
    KILLED "readlinkat" SYS_readlinkat(HERE, PASSWD, 0, 0);
    KILLED "memfd_create" SYS_memfd_create(PASSWD, 0);
    KILLED "clone3" SYS_clone3(PASSWD, 88);
    KILLED "UDP socket" SYS_socket(2, 2, 0);
    KILLED "UDP socket over IPv6" SYS_socket(10, 2, 0);
    KILLED "clone a thread" SYS_clone(0x3d_0f00, 0, 0, 0, 0);
    KILLED "prlimit64" SYS_prlimit64(0, 7, 0, 0);
    KILLED "a signal handler" SYS_rt_sigaction(31, 0, 0, 8);
    KILLED "standard input: read" SYS_read(0, 0, 0);
    KILLED "standard error: type into the terminal" SYS_ioctl(2, 0x5412, X);
    KILLED "standard error: truncate the log" SYS_ftruncate(2, 0);
};

/// As struct msghdr, with an address of 16 bytes.
const MESSAGE: Argument = ZEROS;

/// The socket that is connected to the client.
pub(in super::super) const SOCKET: &[Probe] = calls! {
    KILLED "reply socket: connect elsewhere" SYS_connect(REPLY, ELSEWHERE, 16);
    KILLED "reply socket: dissolve the connection" SYS_connect(REPLY, ZEROS, 16);
    KILLED "reply socket: send elsewhere" SYS_sendto(REPLY, ELSEWHERE, 4, 0, ELSEWHERE, 16);
    KILLED "reply socket: sendmsg" SYS_sendmsg(REPLY, MESSAGE, 0);
    KILLED "reply socket: sendmmsg" SYS_sendmmsg(REPLY, MESSAGE, 1, 0);
    KILLED "reply socket: bind" SYS_bind(REPLY, ELSEWHERE, 16);
    KILLED "reply socket: shutdown" SYS_shutdown(REPLY, 2);
    KILLED "reply socket: getsockname" SYS_getsockname(REPLY, 0, 0);
    KILLED "reply socket: getpeername" SYS_getpeername(REPLY, 0, 0);
    KILLED "reply socket: getsockopt" SYS_getsockopt(REPLY, 1, 3, 0, 0);
    KILLED "reply socket: ioctl" SYS_ioctl(REPLY, 0x8912, 0);
    KILLED "reply socket: sendfile" SYS_sendfile(REPLY, FILE, 0, 100);
    KILLED "reply socket: splice" SYS_splice(FILE, 0, REPLY, 0, 100, 0);
    HARMLESS "reply socket: a segment size" SYS_setsockopt(REPLY, 17, 103, SEGMENT, 4);
    KILLED "reply socket: option bind to device" SYS_setsockopt(REPLY, 1, 25, ONES, 16);
    KILLED "reply socket: option broadcast" SYS_setsockopt(REPLY, 1, 6, ONES, 16);
    KILLED "reply socket: option mark" SYS_setsockopt(REPLY, 1, 36, ONES, 16);
    KILLED "reply socket: option receive buffer" SYS_setsockopt(REPLY, 1, 8, ONES, 16);
    KILLED "reply socket: option attach a filter" SYS_setsockopt(REPLY, 1, 26, ONES, 16);
    KILLED "reply socket: option address reuse" SYS_setsockopt(REPLY, 1, 2, ONES, 16);
    KILLED "reply socket: option IP options" SYS_setsockopt(REPLY, 0, 4, ONES, 16);
    KILLED "reply socket: option header included" SYS_setsockopt(REPLY, 0, 3, ONES, 16);
    KILLED "reply socket: option transparent" SYS_setsockopt(REPLY, 0, 19, ONES, 16);
    KILLED "reply socket: option multicast membership" SYS_setsockopt(REPLY, 0, 35, ONES, 16);
    KILLED "reply socket: option IPv6 packet info" SYS_setsockopt(REPLY, 41, 50, ONES, 16);
    KILLED "reply socket: option UDP encapsulation" SYS_setsockopt(REPLY, 17, 100, ONES, 16);
    KILLED "reply socket: option UDP cork" SYS_setsockopt(REPLY, 17, 1, ONES, 16);
    KILLED "reply socket: option upper layer protocol" SYS_setsockopt(REPLY, 6, 31, ONES, 16);
    KILLED "reply socket: fcntl status flags" SYS_fcntl(REPLY, 4, 0);
    KILLED "reply socket: fcntl owner" SYS_fcntl(REPLY, 8, 1);
    KILLED "reply socket: fcntl signal" SYS_fcntl(REPLY, 10, 9);
    KILLED "reply socket: fcntl duplicate" SYS_fcntl(REPLY, 0, 100);
    KILLED "reply socket: fcntl read status flags" SYS_fcntl(REPLY, 3, 0);
};

/// 512, in the order of bytes of this machine.
const SEGMENT: Argument = Argument::Bytes(&512_i32.to_ne_bytes());

/// The granted file.
pub(in super::super) const FILES: &[Probe] = calls! {
    BAD_DESCRIPTOR "file: write" SYS_write(FILE, X, 1);
    DENIED "file: map writable" SYS_mmap(0, 4096, 3, 1, FILE, 0);
    KILLED "file: map executable" SYS_mmap(0, 4096, 5, 1, FILE, 0);
    KILLED "file: pwritev2" SYS_pwritev2(FILE, 0, 0, 0, 0, 0);
    KILLED "file: pwrite64" SYS_pwrite64(FILE, X, 1, 0);
    KILLED "file: ftruncate" SYS_ftruncate(FILE, 0);
    KILLED "file: fallocate" SYS_fallocate(FILE, 0, 0, 1);
    KILLED "file: fchmod" SYS_fchmod(FILE, 0o777);
    KILLED "file: fchown" SYS_fchown(FILE, 0, 0);
    KILLED "file: fsetxattr" SYS_fsetxattr(FILE, ATTRIBUTE, ATTRIBUTE, 1, 0);
    KILLED "file: lock" SYS_flock(FILE, 2);
    KILLED "file: lease" SYS_fcntl(FILE, 1024, 0);
    KILLED "file: lock by fcntl" SYS_fcntl(FILE, 6, 0);
    KILLED "file: status flags" SYS_fcntl(FILE, 4, 0);
    KILLED "file: lseek" SYS_lseek(FILE, 0, 0);
    KILLED "file: ioctl" SYS_ioctl(FILE, 0x4020_940d, 0);
    KILLED "file: directory entries" SYS_getdents64(FILE, 0, 0);
    KILLED "file: fchdir" SYS_fchdir(FILE);
    KILLED "file: execute" SYS_execveat(FILE, EMPTY, 0, 0, 0x1000);
    KILLED "file: link it" SYS_linkat(FILE, EMPTY, HERE, MADE, 0x1000);
    KILLED "file: copy_file_range" SYS_copy_file_range(FILE, 0, 2, 0, 100, 0);
    KILLED "file: dup3 over standard error" SYS_dup3(FILE, 2, 0);
};

const ATTRIBUTE: Argument = Argument::Text(c"user.x");

/// The granted file, once more by its path.
pub(in super::super) const FILE_AGAIN: &[Probe] = deeds! { Worker:
    DENIED "file: open it again for writing" open_again;
};

/// Opens a granted file by the magic link to it.
pub(super) fn open_again(place: &impl Place) -> Outcome {
    let file = place.held(Held::File).ok_or(Errno::UnknownErrno)?;
    let path = format!("/proc/self/fd/{file}\0");
    let here = libc::AT_FDCWD as usize;
    call(libc::SYS_openat, &[here, path.as_ptr().addr(), 2, 0])
}

/// The channels lead to broker and supervisor alone, and carry bytes alone.
pub(in super::super) const CHANNELS: &[Probe] = calls! {
    KILLED "channel: who is at the other end" SYS_getsockopt(CHANNEL, 1, 17, 0, 0);
    KILLED "channel: credentials" SYS_setsockopt(CHANNEL, 1, 16, ONES, 4);
    KILLED "channel: a larger buffer" SYS_setsockopt(CHANNEL, 1, 7, ONES, 4);
    KILLED "channel: connect elsewhere" SYS_connect(CHANNEL, ABSTRACT, 16);
    KILLED "channel: shut down" SYS_shutdown(CHANNEL, 2);
    KILLED "control channel: who is at the other end" SYS_getsockopt(CONTROL, 1, 17, 0, 0);
    KILLED "control channel: connect elsewhere" SYS_connect(CONTROL, ABSTRACT, 16);
};

/// An abstract name, as struct sockaddr_un.
const ABSTRACT: Argument = Argument::Bytes(b"\x01\0\0r-tftpd-probe\0");

/// Descriptors for other processes.
pub(in super::super) const HANDING_OVER: &[Probe] = deeds! { Worker:
    KILLED "channel: hand over a descriptor" |place| {
        sent(place.broker.send_with(b"x", &[reply(place)?]))
    };
    KILLED "channel: hand over many descriptors" |place| {
        sent(place.broker.send_with(b"x", &[reply(place)?; 200]))
    };
    KILLED "control channel: hand over a descriptor" |place| {
        sent(place.control.send_with(&[0; 64], &[reply(place)?]))
    };
};

fn reply(place: &WorkerPlace) -> Result<std::os::fd::BorrowedFd<'_>, Errno> {
    place
        .reply
        .as_ref()
        .map(AsFd::as_fd)
        .ok_or(Errno::UnknownErrno)
}
