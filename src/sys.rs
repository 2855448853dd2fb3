//! System calls without a safe signature: the only unsafe code of this package.
#![allow(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use r_tftpd_broker::channel::Channel;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The most datagrams that [`receive_many`] takes at once.
pub(crate) const MANY: usize = 4;

/// The most pieces that [`read_pieces`] fills at once; below IOV_MAX (1024).
pub(crate) const MAX_PIECES: usize = 64;

/// Owns one descriptor, the same from first to last.
pub(crate) trait OneDescriptor: AsRawFd {}

impl OneDescriptor for OwnedFd {}
impl OneDescriptor for Channel {}

/// Watches a socket for something to read, within the runtime.
///
/// Readiness to write is not watched: the kernel would report it, and wake the thread, after every
/// datagram that has left.
///
/// # Errors
/// As epoll_ctl(2).
pub(crate) fn watch<S: OneDescriptor>(socket: S) -> io::Result<AsyncFd<S>> {
    // SAFETY: the socket is open, and it is a OneDescriptor: both types above keep their
    // descriptor until they are dropped and return the same one every time.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(watched?)
}

/// recvmmsg(2) that never waits: datagrams go to the slots of `slot` bytes in `buffer` and their
/// lengths to the result; `None` = no datagram. What does not fit a slot is cut off.
///
/// # Errors
/// As recvmmsg(2).
pub(crate) fn receive_many(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    slot: usize,
) -> io::Result<[Option<usize>; MANY]> {
    let mut pieces = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; MANY];
    // SAFETY: mmsghdr is plain numbers and pointers, all zero is a header without buffers.
    let mut headers: [libc::mmsghdr; MANY] = unsafe { mem::zeroed() };
    let mut count = 0;
    let slots = buffer.chunks_exact_mut(slot.max(1));
    for ((place, piece), header) in slots.zip(&mut pieces).zip(&mut headers) {
        *piece = libc::iovec {
            iov_base: place.as_mut_ptr().cast(),
            iov_len: place.len(),
        };
        header.msg_hdr.msg_iov = piece;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    let (flags, timeout) = (libc::MSG_DONTWAIT, ptr::null_mut());
    // SAFETY: each of the first `count` headers points to one piece, each piece to its own slot of
    // `buffer`; all of them outlive the call.
    let received = Errno::result(unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            flags as _,
            timeout,
        )
    })?;
    let received = usize::try_from(received).unwrap_or(0);
    let mut lengths = [None; MANY];
    for (length, header) in lengths.iter_mut().zip(&headers).take(received) {
        *length = usize::try_from(header.msg_len).ok();
    }
    Ok(lengths)
}

/// Whether a read may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Take as long as it takes.
    Yes,
    /// Fail with EAGAIN, or read less, rather than wait (RWF_NOWAIT).
    No,
}

/// preadv2(2): bytes of `file` from `offset` on, into `pieces` one after another; at most
/// [`MAX_PIECES`] of them. Returns the bytes read, fewer than asked at the end of the file.
///
/// # Errors
/// As preadv2(2); EAGAIN and EOPNOTSUPP only with [`Wait::No`].
pub(crate) fn read_pieces<'b>(
    file: BorrowedFd<'_>,
    offset: u64,
    pieces: impl Iterator<Item = &'b mut [u8]>,
    wait: Wait,
) -> io::Result<usize> {
    let mut count = 0;
    let mut pieces = pieces.fuse();
    let mut slices: [IoSliceMut<'b>; MAX_PIECES] = std::array::from_fn(|_| {
        let piece = pieces.next();
        count += libc::c_int::from(piece.is_some());
        IoSliceMut::new(piece.unwrap_or_default())
    });
    let offset = offset
        .try_into()
        .map_err(|_| io::Error::from(Errno::EOVERFLOW))?;
    let flags = match wait {
        Wait::Yes => 0,
        Wait::No => libc::RWF_NOWAIT,
    };
    loop {
        let first = slices.as_mut_ptr().cast::<libc::iovec>();
        // SAFETY: IoSliceMut has the layout of iovec; the first `count` of them borrow memory that
        // is ours to write and outlives the call.
        let read = unsafe { libc::preadv2(file.as_raw_fd(), first, count, offset, flags) };
        match Errno::result(read) {
            Err(Errno::EINTR) => (),
            Err(error) => return Err(error.into()),
            Ok(read) => return Ok(usize::try_from(read).unwrap_or(0)),
        }
    }
}

/// Lets a write beyond RLIMIT_FSIZE fail with EFBIG instead of ending the process.
///
/// # Errors
/// As sigaction(2).
pub(crate) fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: no handler is installed, so there is none to be unsound.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    Ok(())
}

/// Watches a channel's end for something to read and for room to write, within the runtime.
///
/// # Errors
/// As epoll_ctl(2).
pub(crate) fn watch_both(channel: Channel) -> io::Result<AsyncFd<Channel>> {
    // SAFETY: a channel owns its descriptor and names the same one until it is dropped.
    Ok(unsafe { AsyncFd::register(channel) }?)
}

/// Any system call, past every library: what a captured process of a self-test tries.
///
/// Arguments that the kernel takes as addresses must be 0 or those of live, large enough memory. Of
/// no use to an attacker: libc has the same function.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn probe(call: libc::c_long, arguments: [usize; 6]) -> Result<i64, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: callers pass no address but 0 and those of static strings or live buffers. A call
    // that would change this process itself beyond repair is one that its filter stops.
    Errno::result(unsafe { libc::syscall(call, a, b, c, d, e, f) })
}
