//! System calls without a safe signature: the only unsafe code of this package.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, recvmsg, sendmsg};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2, setsid, write};

use crate::channel::{MAX_DESCRIPTORS, ReceiveError};
use crate::wire::MAX_REQUEST;

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
    let control = if raw.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    let flags = MsgFlags::MSG_NOSIGNAL;
    match sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        flags,
        None,
    ) {
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
    let (length, flags) = receive(socket, buffer, None, |message| {
        (message.bytes, message.flags)
    })?;
    if flags.intersects(TRUNCATED) {
        Err(ReceiveError::Truncated)
    } else {
        Ok(length)
    }
}

/// recvmsg(2) with SCM_RIGHTS: length and descriptors. Those of a datagram that is too long, or
/// that has more than [`MAX_DESCRIPTORS`], are closed.
pub(crate) fn receive_with_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), ReceiveError> {
    // Room for all that can come: of those that do not fit, the kernel installs what does, and nix
    // then names none of them.
    let mut control = nix::cmsg_space!([RawFd; SCM_MAX_FD]);
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
    if flags.intersects(TRUNCATED) || descriptors.len() > MAX_DESCRIPTORS {
        return Err(ReceiveError::Truncated);
    }
    Ok((length, descriptors))
}

/// The most descriptors of one datagram. unix(7)
const SCM_MAX_FD: usize = 253;

const TRUNCATED: MsgFlags = MsgFlags::MSG_TRUNC.union(MsgFlags::MSG_CTRUNC);

fn receive<T>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    control: Option<&mut Vec<u8>>,
    read: impl FnOnce(RecvMsg<'_, '_, ()>) -> T,
) -> Result<T, ReceiveError> {
    let mut parts = [IoSliceMut::new(buffer)];
    let control = control.map(Vec::as_mut_slice);
    match recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        control,
        MsgFlags::MSG_CMSG_CLOEXEC,
    ) {
        Ok(message) => Ok(read(message)),
        Err(Errno::EAGAIN) => Err(ReceiveError::WouldBlock),
        // The peer died with datagrams of ours unread: it is gone all the same.
        Err(Errno::ECONNRESET) => Err(ReceiveError::Closed),
        Err(error) => Err(ReceiveError::Io(error.into())),
    }
}

// ---- memory ----

/// Gives free memory back to the system, where the allocator can. malloc_trim(3)
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer and touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

// ---- lock-down ----

/// prctl(2) with an integer argument and no result.
fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take integers; no memory is touched.
    Ok(Errno::result(unsafe {
        libc::prctl(option, argument, zero, zero, zero)
    })?)
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

// ---- sockets of the broker ----

/// The most datagrams that one call receives.
pub(crate) const BATCH: usize = 16;

/// Room for a datagram, its sender and what the kernel says of its destination.
pub(crate) struct Slot {
    bytes: [u8; MAX_REQUEST],
    name: [u8; NAME],
    control: Control,
    length: usize,
    name_length: usize,
    control_length: usize,
    truncated: bool,
}

/// Bytes of a `sockaddr_in6`, the longest name a listener of ours can bring.
const NAME: usize = NAME_LENGTH as usize;
const NAME_LENGTH: libc::socklen_t = 28;
const _: () = assert!(NAME == size_of::<libc::sockaddr_in6>());

/// Control messages. The kernel wants them aligned as `size_t`; two kinds of packet info and a count
/// of lost datagrams need 96 bytes.
#[repr(align(8))]
struct Control([u8; 128]);

impl Slot {
    pub(crate) const EMPTY: Self = Self {
        bytes: [0; MAX_REQUEST],
        name: [0; NAME],
        control: Control([0; 128]),
        length: 0,
        name_length: 0,
        control_length: 0,
        truncated: false,
    };

    /// The datagram; none if it did not fit.
    pub(crate) fn datagram(&self) -> Option<&[u8]> {
        if self.truncated {
            None
        } else {
            self.bytes.get(..self.length)
        }
    }

    /// The sender as a `sockaddr_in` or `sockaddr_in6`.
    pub(crate) fn name(&self) -> &[u8] {
        self.name.get(..self.name_length).unwrap_or_default()
    }

    /// The control messages, each a `cmsghdr` with its data behind it.
    pub(crate) fn control(&self) -> &[u8] {
        self.control
            .0
            .get(..self.control_length)
            .unwrap_or_default()
    }
}

/// recvmmsg(2) without waiting: how many of `slots`, from the first on, were filled.
pub(crate) fn receive_batch(socket: BorrowedFd<'_>, slots: &mut [Slot]) -> io::Result<usize> {
    // SAFETY: integers and pointers: all zero is a value of it.
    let empty: libc::mmsghdr = unsafe { std::mem::zeroed() };
    let mut headers = [empty; BATCH];
    let mut parts = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; BATCH];
    let mut count = 0;
    for ((slot, header), part) in slots.iter_mut().zip(&mut headers).zip(&mut parts) {
        part.iov_base = slot.bytes.as_mut_ptr().cast();
        part.iov_len = MAX_REQUEST;
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_name = slot.name.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = NAME_LENGTH;
        header.msg_hdr.msg_control = slot.control.0.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = slot.control.0.len();
        count += 1;
    }
    let (flags, no_timeout) = (libc::MSG_DONTWAIT, std::ptr::null_mut());
    let socket = socket.as_raw_fd();
    // SAFETY: the first `count` headers point into `parts` and `slots`, which are borrowed until
    // the end of this function and nowhere else used, with the lengths those places have.
    let result =
        unsafe { libc::recvmmsg(socket, headers.as_mut_ptr(), count, flags as _, no_timeout) };
    let filled = usize::try_from(Errno::result(result)?).unwrap_or(0);
    for (slot, header) in slots.iter_mut().zip(&headers).take(filled) {
        slot.length = usize::try_from(header.msg_len).unwrap_or(0);
        slot.name_length = usize::try_from(header.msg_hdr.msg_namelen).unwrap_or(0);
        slot.control_length = header.msg_hdr.msg_controllen;
        slot.truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
    }
    Ok(filled)
}

/// connect(2) to nobody: a socket that was bound to no port in particular has neither peer nor port
/// from here on, and gets another one when it is connected again.
pub(crate) fn disconnect(socket: BorrowedFd<'_>) -> io::Result<()> {
    const LENGTH: libc::socklen_t = 16;
    const _: () = assert!(LENGTH as usize == size_of::<libc::sockaddr>() && libc::AF_UNSPEC == 0);
    let nobody = libc::sockaddr {
        sa_family: 0,
        sa_data: [0; 14],
    };
    // SAFETY: `nobody` lives until the end of this function and has the length that is said.
    Errno::result(unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, LENGTH) })?;
    Ok(())
}

/// recvmsg(2) without room and without waiting: the next datagram of a UDP socket is lost.
pub(crate) fn discard(socket: BorrowedFd<'_>) -> io::Result<()> {
    recvmsg::<()>(socket.as_raw_fd(), &mut [], None, MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// Bytes of an int.
const INT: libc::socklen_t = 4;
const _: () = assert!(INT as usize == size_of::<libc::c_int>());

/// setsockopt(2) with an int.
pub(crate) fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let value = (&raw const value).cast();
    // SAFETY: `value` points to an int that lives until the end of this function.
    Errno::result(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, INT) })?;
    Ok(())
}

/// getsockopt(2) with an int.
pub(crate) fn option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = INT;
    let (place, length) = ((&raw mut value).cast(), &raw mut length);
    // SAFETY: `place` points to an int and `length` to its size; both live until the end of this
    // function.
    Errno::result(unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, place, length) })?;
    Ok(value)
}

// ---- processes ----

/// What a new process is made of.
pub(crate) struct Birth<'a> {
    /// The program, opened before; the path it came from is not looked at again.
    pub(crate) program: BorrowedFd<'a>,
    /// `argv[0]`.
    pub(crate) name: &'a CStr,
    /// `argv[1]`, in a self-test alone.
    pub(crate) argument: Option<&'a CStr>,
    /// Becomes descriptor 0: /dev/null.
    pub(crate) null: BorrowedFd<'a>,
    /// Becomes descriptor 3: the control channel.
    pub(crate) control: BorrowedFd<'a>,
}

/// A process that was started, until it is waited for.
#[derive(Debug)]
pub(crate) struct Born {
    /// Its id.
    pub(crate) pid: Pid,
    /// Becomes readable when it has ended. pidfd_open(2)
    pub(crate) pidfd: OwnedFd,
}

/// fork(2) and execveat(2): returns when the program runs, or with the error that kept it from it.
///
/// The new process is in its own session, has only the descriptors 0 to 3, an empty environment,
/// no signal blocked, and ignores those a user or a terminal sends.
pub(crate) fn spawn(birth: &Birth<'_>) -> io::Result<Born> {
    let (outcome, report) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: until it executes the program, the new process makes only system calls; it takes
    // no lock that another thread could have held.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let error = become_program(birth, report.as_fd());
            let _ = write(&report, &error.to_ne_bytes());
            // SAFETY: ends this process without touching what it copied from the other one.
            unsafe { libc::_exit(127) }
        }
        ForkResult::Parent { child: pid } => {
            // The only writers left are the new process and nobody: exec closes its end.
            drop(report);
            let mut error = [0; size_of::<RawFd>()];
            let failed = File::from(outcome).read_exact(&mut error).is_ok();
            let pidfd = pidfd_open(pid);
            match pidfd {
                Ok(pidfd) if !failed => Ok(Born { pid, pidfd }),
                _ => {
                    let _ = kill(pid, Signal::SIGKILL);
                    let _ = waitpid(pid, None);
                    let error = io::Error::from_raw_os_error(RawFd::from_ne_bytes(error));
                    Err(if failed {
                        error
                    } else {
                        pidfd.err().unwrap_or(error)
                    })
                }
            }
        }
    }
}

/// The way of a new process to its program; returns only an errno.
fn become_program(birth: &Birth<'_>, report: BorrowedFd<'_>) -> RawFd {
    let way = || -> nix::Result<()> {
        // Its own session: no signal of our terminal, no process group shared with us.
        setsid()?;
        // Out of the way of the numbers 0 to 3, and closed by the exec.
        let program = fcntl(birth.program, FcntlArg::F_DUPFD_CLOEXEC(4))?;
        let control = fcntl(birth.control, FcntlArg::F_DUPFD_CLOEXEC(4))?;
        let null = fcntl(birth.null, FcntlArg::F_DUPFD_CLOEXEC(4))?;
        fcntl(report, FcntlArg::F_DUPFD_CLOEXEC(4))?;
        duplicate(null, 0)?;
        duplicate(control, 3)?;
        close_at_exec_from(4)?;
        // Ignored before they are let through: what the user sends is the supervisor's to handle.
        for signal in IGNORED {
            // SAFETY: installs no handler.
            unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }?;
        }
        SigSet::empty().thread_set_mask()?;
        let argument = birth.argument.map_or(std::ptr::null(), CStr::as_ptr);
        let arguments = [birth.name.as_ptr(), argument, std::ptr::null()];
        let environment = [std::ptr::null::<libc::c_char>()];
        // SAFETY: both lists end with a null pointer; the strings outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_execveat,
                program,
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        Errno::result(result).map(drop)
    };
    way().err().map_or(0, |errno| errno as RawFd)
}

/// What a terminal or a user sends; the supervisor alone handles it. And a closed standard error
/// must not kill.
const IGNORED: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGPIPE,
];

/// dup2(2), for numbers that no Rust value owns.
fn duplicate(from: RawFd, to: RawFd) -> nix::Result<()> {
    // SAFETY: between fork and exec, where nothing is owned any more.
    Errno::result(unsafe { libc::dup2(from, to) }).map(drop)
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC: all from `first` on are closed by the next exec.
fn close_at_exec_from(first: u32) -> nix::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: closes nothing yet.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let result = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let raw = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Lets ended processes be waited for, also where we were started with SIGCHLD ignored.
pub(crate) fn default_child_signal() -> io::Result<()> {
    // SAFETY: installs no handler.
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

/// Takes over a descriptor that another program left open for us, and lets no exec pass it on.
///
/// To be called before this process opens anything: a number it owns already would be owned twice.
pub(crate) fn take_inherited(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: borrowed for this one question, whether it is open at all.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and by the caller's word nothing here owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
