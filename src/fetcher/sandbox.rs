//! What the fetcher may do after its lock-down: TCP to the allowed ports, writes to granted files.

use std::collections::BTreeMap;

use r_tftpd_broker::control::Facts;
use r_tftpd_broker::lockdown::{
    self, Calls, Connect, Error, SeccompCmpOp, SeccompRule, Threads, int, long, rule,
};
use r_tftpd_broker::settings::FetcherStart;

/// Gives up, for good, every right that fetching does not need.
///
/// # Errors
/// What is required and can not be had.
pub fn lock_down(start: &FetcherStart) -> Result<Facts, Error> {
    // The supervisor has dropped them before it started anyone.
    lockdown::assert_unprivileged()?;
    lockdown::no_new_privileges()?;
    // Credentials of links pass through this memory.
    lockdown::not_dumpable()?;
    lockdown::no_core_files()?;
    let mdwe = lockdown::deny_write_execute();
    let abi = landlock(start)?;
    // Read before seccomp forbids to.
    let facts = lockdown::facts(abi, 0, mdwe);
    let system_calls = lockdown::seccomp(&calls()?, Threads::Calling, start.sandbox)?;
    Ok(Facts {
        system_calls,
        ..facts
    })
}

/// No file, no signal, no abstract socket; TCP to the allowed ports and the name servers'.
fn landlock(start: &FetcherStart) -> Result<u32, Error> {
    let mut ports = start.ports.clone();
    ports.push((start.dns_port, start.dns_port));
    let connect = if start.ports.is_empty() {
        Connect::Any
    } else {
        Connect::Ports(&ports)
    };
    lockdown::landlock_with_connect(&[], connect, start.sandbox)
}

/// The system calls of a single-threaded HTTP client. There is no call here that makes a
/// descriptor but `socket`, for TCP, and `recvmsg`, which takes what the broker grants.
fn calls() -> Result<Calls, Error> {
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    allowed.insert(libc::SYS_socket, tcp()?);
    // No address: it goes where the socket is connected. MSG_FASTOPEN would connect past Landlock.
    let fast_open = libc::MSG_FASTOPEN.unsigned_abs();
    let sendto = vec![long(4, EQ, 0)?, int(3, masked(fast_open), 0)?];
    allowed.insert(libc::SYS_sendto, vec![rule(sendto)?]);
    // abort() after a panic, so that the supervisor sees how it ended.
    let own = vec![int(0, EQ, std::process::id())?];
    allowed.insert(libc::SYS_tgkill, vec![rule(own)?]);
    allowed.insert(libc::SYS_setsockopt, options()?);
    // F_GETFD: std looks at descriptors it closes, where debug assertions are on.
    let blocking = masked(!(libc::O_NONBLOCK | libc::O_RDWR).unsigned_abs());
    let fcntl = vec![
        rule(vec![int(1, EQ, libc::F_GETFD.unsigned_abs())?])?,
        rule(vec![int(1, EQ, libc::F_GETFL.unsigned_abs())?])?,
        rule(vec![
            int(1, EQ, libc::F_SETFL.unsigned_abs())?,
            int(2, blocking, 0)?,
        ])?,
    ];
    allowed.insert(libc::SYS_fcntl, fcntl);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_executable = int(2, masked(libc::PROT_EXEC.unsigned_abs()), 0)?;
        allowed.insert(call, vec![rule(vec![not_executable])?]);
    }
    let advice = [libc::MADV_DONTNEED, libc::MADV_FREE];
    let advice = advice
        .iter()
        .map(|advice| rule(vec![int(2, EQ, advice.unsigned_abs())?]));
    allowed.insert(libc::SYS_madvise, advice.collect::<Result<_, _>>()?);
    Ok(Calls {
        allowed,
        refused: REFUSED.to_vec(),
        unknown: Vec::new(),
    })
}

/// `socket(AF_INET or AF_INET6, SOCK_STREAM, 0 or TCP)`: no UDP, and no MPTCP, which Landlock
/// does not confine.
fn tcp() -> Result<Vec<SeccompRule>, Error> {
    let flags = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).unsigned_abs();
    let mut rules = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [0, libc::IPPROTO_TCP] {
            rules.push(rule(vec![
                int(0, EQ, family.unsigned_abs())?,
                int(1, masked(!flags), libc::SOCK_STREAM.unsigned_abs())?,
                int(2, EQ, protocol.unsigned_abs())?,
            ])?);
        }
    }
    Ok(rules)
}

/// Socket options; TCP_FASTOPEN_CONNECT, which would connect past Landlock, is not among them.
fn options() -> Result<Vec<SeccompRule>, Error> {
    OPTIONS
        .iter()
        .map(|(level, name)| {
            rule(vec![
                int(1, EQ, level.unsigned_abs())?,
                int(2, EQ, name.unsigned_abs())?,
            ])
        })
        .collect()
}

const EQ: SeccompCmpOp = SeccompCmpOp::Eq;

/// Compares the bits of `mask`.
fn masked(mask: u32) -> SeccompCmpOp {
    SeccompCmpOp::MaskedEq(u64::from(mask))
}

/// hyper-util's connector (no delay, keep-alive) and hickory (no delay).
const OPTIONS: [(i32, i32); 6] = [
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
];

/// Calls without a look at their arguments, by who makes them.
const ALLOWED: &[i64] = &[
    // tokio and mio.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_read,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    // TCP.
    libc::SYS_connect,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_recvfrom,
    libc::SYS_writev,
    libc::SYS_shutdown,
    libc::SYS_close,
    // Channels and granted files.
    libc::SYS_recvmsg,
    libc::SYS_pwrite64,
    // The log.
    libc::SYS_write,
    // ring and HashMap.
    libc::SYS_getrandom,
    // malloc.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    // The end, orderly or by panic.
    libc::SYS_exit_group,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
];

/// Libraries try these and cope: malloc reads overcommit_memory, a panic its own maps.
const REFUSED: &[i64] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_uname,
    libc::SYS_prlimit64,
];

#[cfg(test)]
mod tests;
