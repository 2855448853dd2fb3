//! How the broker locks itself down, in two steps: what binds only new threads comes before the
//! helper threads, the seccomp filter comes after them and binds all.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use landlock::AccessFs;

use super::cache_file::UNNAMED;
use crate::control::Facts;
use crate::lockdown::{self, Calls, Error, SeccompCmpOp, SeccompRule, Threads, int, rule};
use crate::settings::Sandbox;

/// Gives up every right but reading files below `served` and, with a proxy, reading and writing
/// files in `cache`. To be called while the process has one thread.
///
/// # Errors
/// [`Error`]: what `sandbox` requires is not there, or rights are left that the supervisor should
/// have dropped.
pub fn restrict<'d>(
    served: impl IntoIterator<Item = BorrowedFd<'d>>,
    cache: Option<BorrowedFd<'d>>,
    sandbox: Sandbox,
) -> Result<Facts, Error> {
    // 1. The supervisor has dropped uid 0 and all capabilities; nothing below is worth much else.
    lockdown::assert_unprivileged()?;
    // 2. Nothing this process could execute gives rights back; Landlock and seccomp require it.
    lockdown::no_new_privileges()?;
    // 3. The worker may have the same uid: it must not trace the broker.
    lockdown::not_dumpable()?;
    // 4. A crash must not write the memory of the broker into a file.
    lockdown::no_core_files()?;
    // 5. An overwritten return address finds no code but ours.
    let mdwe = lockdown::deny_write_execute();
    // 6. Read-only beneath the root, also if openat2's flags (which seccomp cannot see) say else.
    //    Directories are never listed, so there is no right to. Cache files are opened for both;
    //    none is ever named (no right to make regular files) or cut (no right to truncate).
    let read = |directory| (directory, AccessFs::ReadFile.into());
    let mut granted: Vec<_> = served.into_iter().map(read).collect();
    granted.extend(cache.map(|directory| (directory, AccessFs::ReadFile | AccessFs::WriteFile)));
    let abi = lockdown::landlock(&granted, sandbox)?;
    Ok(lockdown::facts(abi, 0, mdwe))
}

/// Gives up every system call but those of [`system_calls`], for all threads.
///
/// # Errors
/// [`Error::Seccomp`].
pub fn filter(facts: Facts, sandbox: Sandbox) -> Result<Facts, Error> {
    let system_calls = lockdown::seccomp(&policy()?, Threads::All, sandbox)?;
    Ok(Facts {
        system_calls,
        ..facts
    })
}

/// The system calls that the broker may make, with the reason for each.
pub fn system_calls() -> impl Iterator<Item = (&'static str, &'static str)> {
    CALLS.iter().map(|call| (call.name, call.reason))
}

struct Call {
    name: &'static str,
    number: i64,
    reason: &'static str,
}

/// Rows of [`CALLS`].
macro_rules! calls {
    ($($name:ident: $number:ident, $reason:literal;)*) => {
        &[$(Call { name: stringify!($name), number: libc::$number, reason: $reason }),*]
    };
}

/// All of them on the three architectures that seccomp filters can be made for.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
const CALLS: &[Call] = calls! {
    // Waiting.
    ppoll: SYS_ppoll, "listeners, channels and helper threads";
    // Requests and reply sockets.
    recvmmsg: SYS_recvmmsg, "requests from the listeners";
    socket: SYS_socket, "reply sockets; UDP over IPv4 or IPv6 only";
    setsockopt: SYS_setsockopt, "no DF bit, send buffer; no other option";
    bind: SYS_bind, "reply sockets answer from the address that was asked";
    connect: SYS_connect, "reply sockets reach their peer only, and nobody when it has gone";
    getsockname: SYS_getsockname, "the port of a reply socket, for the worker";
    getsockopt: SYS_getsockopt, "the MTU towards the peer, for the worker; no other option";
    // Channels.
    recvmsg: SYS_recvmsg, "messages of the worker, orders of the supervisor; throws away what the last client of a \
        reply socket has sent";
    sendmsg: SYS_sendmsg, "answers with their descriptors";
    // Files.
    openat2: SYS_openat2, "files beneath the root";
    openat: SYS_openat, "single components where openat2 is missing, for reading only; cache files";
    readlinkat: SYS_readlinkat, "symlinks, to see where they lead";
    fstat: SYS_fstat, "is it a regular file; glibc 2.39 and later";
    newfstatat: SYS_newfstatat, "the same; before glibc 2.39";
    fstatfs: SYS_fstatfs, "is it in memory";
    close: SYS_close, "what was handed on";
    // Memory files.
    memfd_create: SYS_memfd_create, "for netascii; cache files where no directory has them";
    ftruncate: SYS_ftruncate, "their size, and none when they are no longer needed";
    fcntl: SYS_fcntl, "F_ADD_SEALS: never larger; F_DUPFD_CLOEXEC: memory files, cache files without /proc, reply sockets; \
        F_GETFD: debug builds look before they close";
    // Helper threads and the log.
    read: SYS_read, "a helper thread has answered (eventfd)";
    write: SYS_write, "a helper thread wakes the broker; log records";
    futex: SYS_futex, "queues to and from the helper threads";
    sched_yield: SYS_sched_yield, "the same, when both ends meet";
    // Memory and the end.
    brk: SYS_brk, "malloc";
    mmap: SYS_mmap, "malloc; never executable";
    mprotect: SYS_mprotect, "malloc of the helper threads; never executable";
    mremap: SYS_mremap, "malloc";
    munmap: SYS_munmap, "malloc; the signal stack at the end";
    madvise: SYS_madvise, "malloc of the helper threads gives memory back";
    sigaltstack: SYS_sigaltstack, "Rust takes the signal stack down at the end";
    clock_gettime: SYS_clock_gettime, "limits and log, where the vDSO has no clock";
    exit_group: SYS_exit_group, "the end";
};

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
const CALLS: &[Call] = &[];

fn policy() -> Result<Calls, Error> {
    let mut allowed = BTreeMap::new();
    for call in CALLS {
        allowed.insert(call.number, rules(call.name)?);
    }
    Ok(Calls {
        allowed,
        ..Calls::default()
    })
}

/// The arguments that a call is bound to; none = any.
fn rules(call: &str) -> Result<Vec<SeccompRule>, Error> {
    use SeccompCmpOp::{Eq, MaskedEq};
    let eq = |index, value: i32| int(index, Eq, value.unsigned_abs());
    let clear = |index, mask: i32| int(index, MaskedEq(u64::from(mask.unsigned_abs())), 0);
    let option = |level, name| rule(vec![eq(1, level)?, eq(2, name)?]);
    let datagram = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    match call {
        "socket" => [libc::AF_INET, libc::AF_INET6]
            .into_iter()
            .map(|family| rule(vec![eq(0, family)?, eq(1, datagram)?, eq(2, 0)?]))
            .collect(),
        "setsockopt" => Ok(vec![
            option(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)?,
            option(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)?,
            option(libc::SOL_SOCKET, libc::SO_SNDBUF)?,
        ]),
        "getsockopt" => Ok(vec![
            option(libc::IPPROTO_IP, libc::IP_MTU)?,
            option(libc::IPPROTO_IPV6, libc::IPV6_MTU)?,
        ]),
        // malloc, too, tries to read a file in /proc; Landlock refuses that.
        "openat" => {
            let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
            // Where O_LARGEFILE is not 0, libc adds it.
            let large = libc::O_LARGEFILE.unsigned_abs();
            let unnamed = UNNAMED.bits().unsigned_abs() & !large;
            let is_unnamed = int(2, MaskedEq(u64::from(!large)), unnamed)?;
            Ok(vec![
                rule(vec![clear(2, writing)?])?,
                rule(vec![is_unnamed])?,
            ])
        }
        "fcntl" => [libc::F_ADD_SEALS, libc::F_DUPFD_CLOEXEC, libc::F_GETFD]
            .into_iter()
            .map(|command| rule(vec![eq(1, command)?]))
            .collect(),
        "mmap" | "mprotect" => Ok(vec![rule(vec![clear(2, libc::PROT_EXEC)?])?]),
        _ => Ok(Vec::new()),
    }
}
