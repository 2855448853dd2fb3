//! System calls without a safe signature: the only unsafe code of this package.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, recvmsg, sendmsg};

use crate::channel::{MAX_DESCRIPTORS, ReceiveError};

// ---- descriptors ----

/// Sets O_NONBLOCK.
pub(crate) fn set_nonblocking(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    fcntl(descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// sendmsg(2) with SCM_RIGHTS.
pub(crate) fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None) {
        Ok(_) => Ok(()),
        Err(Errno::ETOOMANYREFS) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}

/// recvmsg(2) without room for control messages: the kernel drops descriptors and says so.
pub(crate) fn receive_without_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<usize, ReceiveError> {
    let (length, flags) = receive(socket, buffer, None, |message| (message.bytes, message.flags))?;
    if flags.intersects(TRUNCATED) { Err(ReceiveError::Truncated) } else { Ok(length) }
}

/// recvmsg(2) with SCM_RIGHTS: length and descriptors. Those of a datagram that is too long are
/// closed.
pub(crate) fn receive_with_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), ReceiveError> {
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut descriptors = Vec::new();
    let (length, flags) = receive(socket, buffer, Some(&mut control), |message| {
        for control_message in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(raw) = control_message {
                for descriptor in raw {
                    // SAFETY: the kernel has just installed this descriptor for us and nobody
                    // else knows it.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
        }
        (message.bytes, message.flags)
    })?;
    if flags.intersects(TRUNCATED) {
        return Err(ReceiveError::Truncated);
    }
    Ok((length, descriptors))
}

const TRUNCATED: MsgFlags = MsgFlags::MSG_TRUNC.union(MsgFlags::MSG_CTRUNC);

fn receive<T>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    control: Option<&mut Vec<u8>>,
    read: impl FnOnce(RecvMsg<'_, '_, ()>) -> T,
) -> Result<T, ReceiveError> {
    let mut parts = [IoSliceMut::new(buffer)];
    let control = control.map(Vec::as_mut_slice);
    match recvmsg::<()>(socket.as_raw_fd(), &mut parts, control, MsgFlags::MSG_CMSG_CLOEXEC) {
        Ok(message) => Ok(read(message)),
        Err(Errno::EAGAIN) => Err(ReceiveError::WouldBlock),
        // The peer died with datagrams of ours unread: it is gone all the same.
        Err(Errno::ECONNRESET) => Err(ReceiveError::Closed),
        Err(error) => Err(ReceiveError::Io(error.into())),
    }
}

// ---- lock-down ----

/// prctl(2) with an integer argument and no result.
fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take integers; no memory is touched.
    Ok(Errno::result(unsafe { libc::prctl(option, argument, zero, zero, zero) })?)
}

/// PR_SET_NO_NEW_PRIVS.
pub(crate) fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}

/// PR_GET_NO_NEW_PRIVS.
pub(crate) fn no_new_privs() -> bool {
    prctl(libc::PR_GET_NO_NEW_PRIVS, 0).is_ok_and(|set| set == 1)
}

/// PR_SET_DUMPABLE 0.
pub(crate) fn set_not_dumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0).map(drop)
}

/// PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN (linux/prctl.h).
pub(crate) fn set_mdwe() -> io::Result<()> {
    const PR_SET_MDWE: libc::c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN).map(drop)
}

/// close_range(2) to the end.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller owns no descriptor from `first` on as a Rust value.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    Errno::result(result)?;
    Ok(())
}
