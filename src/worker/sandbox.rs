//! How the worker gives up every right but to answer clients on sockets it is granted.
//!
//! What is left afterwards is one table: [`system_calls`]. The tests lock themselves down with the
//! same [`enter`] and print the same table.

use std::io;

use r_tftpd_broker::control::Facts;
use r_tftpd_broker::lockdown::{self, Calls, Error, SeccompCmpOp, SeccompRule, Threads};
use r_tftpd_broker::settings::Sandbox;

/// Locks the process down for good, in this order:
///
/// 1. not uid 0, no capability: the supervisor has seen to it, here it is checked;
/// 2. `no_new_privs`, which Landlock and seccomp need;
/// 3. no core files, not dumpable: nobody of the same uid reads our memory. There is no limit on
///    the size of files: it would count for a log file behind standard error as well, and the
///    scratch files are sized and sealed by the broker;
/// 4. no memory that is written and then executed;
/// 5. Landlock without a single right, before there are threads it would not bind;
/// 6. seccomp, first stage: what serving and starting threads needs;
/// 7. `start_threads`: the runtime and its threads;
/// 8. seccomp, second stage, for all threads: what serving needs ([`system_calls`]).
///
/// Returns what `start_threads` returned and what is in force.
///
/// # Errors
/// Each step's, and that of `start_threads`.
pub fn enter<R>(
    sandbox: Sandbox,
    start_threads: impl FnOnce() -> io::Result<R>,
) -> Result<(R, Facts), Error> {
    lockdown::assert_unprivileged()?;
    lockdown::no_new_privileges()?;
    lockdown::no_core_files()?;
    lockdown::not_dumpable()?;
    let mdwe = lockdown::deny_write_execute();
    let landlock_abi = lockdown::landlock(&[], sandbox)?;
    // Read now: afterwards nobody can ask.
    let facts = lockdown::facts(landlock_abi, 0, mdwe);
    lockdown::seccomp(&policy(&[SERVING, STARTING])?, Threads::Calling, sandbox)?;
    let started =
        start_threads().map_err(|error| Error::System("starting the runtime threads", error))?;
    let mut serving = policy(&[SERVING])?;
    serving.unknown.clear();
    let system_calls = lockdown::seccomp(&serving, Threads::All, sandbox)?;
    Ok((
        started,
        Facts {
            system_calls,
            ..facts
        },
    ))
}

/// The system calls that are left once the worker serves: name and reason.
pub fn system_calls() -> impl Iterator<Item = (&'static str, &'static str)> {
    SERVING
        .iter()
        .map(|call| (call.name.trim_start_matches("SYS_"), call.reason))
}

/// One system call that is allowed.
struct Call {
    name: &'static str,
    number: i64,
    /// When it is allowed; no rule = always.
    rules: fn() -> Result<Vec<SeccompRule>, Error>,
    /// Who calls it and what for.
    reason: &'static str,
}

/// Allows what is in `tables`, even if it is also in [`REFUSED`].
fn policy(tables: &[&[Call]]) -> Result<Calls, Error> {
    let mut calls = Calls::default();
    for call in tables.iter().copied().flatten() {
        let rules = calls.allowed.entry(call.number).or_default();
        rules.extend((call.rules)()?);
    }
    let refused = REFUSED
        .iter()
        .filter(|number| !calls.allowed.contains_key(number));
    calls.refused = refused.copied().collect();
    calls.unknown = UNKNOWN.to_vec();
    Ok(calls)
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod table {
    use super::{Call, Error, SeccompCmpOp, SeccompRule};
    use r_tftpd_broker::lockdown::{int, long, rule};

    macro_rules! calls {
        ($(#[$doc:meta])* $table:ident: $($(#[$cfg:meta])* $name:ident if $rules:ident: $reason:literal)*) => {
            $(#[$doc])*
            pub(super) const $table: &[Call] = &[$(
                $(#[$cfg])*
                Call { name: stringify!($name), number: libc::$name, rules: $rules, reason: $reason },
            )*];
        };
    }

    calls! {
        /// What serving needs, in all threads.
        SERVING:
        // The network: only granted sockets, only their connected peers.
        SYS_recvmmsg if always: "socket: datagrams of a client"
        SYS_sendto if to_connected_peer: "socket: send(2) to the client; channels: messages"
        SYS_setsockopt if udp_segment: "socket: the kernel cuts a window into datagrams"
        SYS_recvmsg if always: "channels: messages, and descriptors from the broker"
        // Granted files.
        SYS_preadv2 if always: "source: blocks of a file"
        SYS_write if always: "log; wake-ups of the runtime; netascii into a scratch file"
        SYS_close if always: "sockets and files that are no longer needed"
        // The runtime.
        #[cfg(target_arch = "x86_64")]
        SYS_epoll_wait if always: "runtime: waiting"
        #[cfg(not(target_arch = "x86_64"))]
        SYS_epoll_pwait if always: "runtime: waiting"
        SYS_epoll_ctl if always: "runtime: sockets that come and go"
        SYS_futex if always: "runtime: locks, and work for the blocking threads"
        SYS_clock_gettime if always: "the time where the vDSO has no clock: some virtual machines"
        SYS_restart_syscall if always: "the kernel: a timed wait that was stopped and continued"
        SYS_rt_sigreturn if always: "the kernel: return from a handler"
        // Memory.
        SYS_brk if always: "malloc"
        SYS_mmap if no_executable_memory: "malloc"
        SYS_mprotect if no_executable_memory: "malloc: the heaps of blocking threads"
        SYS_mremap if always: "realloc"
        SYS_munmap if always: "free"
        SYS_madvise if always: "free"
        // The end.
        SYS_exit_group if always: "end of the process"
        SYS_rt_sigprocmask if always: "abort(3), after a panic"
        SYS_gettid if always: "abort(3)"
        SYS_getpid if always: "abort(3)"
        SYS_tgkill if abort_of_this_process: "abort(3)"
        #[cfg(debug_assertions)]
        SYS_fcntl if read_descriptor_flags: "std: checks descriptors, in debug builds only"
    }

    calls! {
        /// What building the runtime and starting its threads needs besides.
        STARTING:
        SYS_clone if a_thread: "pthread_create"
        SYS_rt_sigaction if always: "pthread_create: the signal that glibc keeps for itself"
        SYS_set_robust_list if always: "a new thread"
        SYS_rseq if always: "a new thread"
        SYS_sigaltstack if always: "a new thread: std's handler of stack overflows"
        SYS_sched_getaffinity if always: "malloc: the number of heaps"
        SYS_prctl if thread_name_or_no_new_privileges: "names of threads; seccompiler"
        SYS_getrandom if always: "the keys of hash tables"
        SYS_epoll_create1 if always: "runtime"
        SYS_eventfd2 if always: "runtime"
        SYS_fcntl if duplicate_descriptor: "runtime"
        SYS_seccomp if load_a_filter: "the second stage"
    }

    /// Merely tried by libraries, which cope with EACCES.
    pub(super) const REFUSED: &[i64] = &[
        // malloc reads /proc/sys/vm/overcommit_memory before it shrinks a thread's heap.
        libc::SYS_openat,
        // std takes its handler of stack overflows down at the end.
        libc::SYS_sigaltstack,
    ];

    /// Answered as by an old kernel: libc then uses clone, whose flags can be checked.
    pub(super) const UNKNOWN: &[i64] = &[libc::SYS_clone3];

    type Rules = Result<Vec<SeccompRule>, Error>;

    fn always() -> Rules {
        Ok(Vec::new())
    }

    /// The peer the broker connected the socket to, and no other.
    fn to_connected_peer() -> Rules {
        Ok(vec![rule(vec![long(4, SeccompCmpOp::Eq, 0)?])?])
    }

    fn udp_segment() -> Rules {
        let level = int(1, SeccompCmpOp::Eq, libc::SOL_UDP.unsigned_abs())?;
        Ok(vec![rule(vec![
            level,
            int(2, SeccompCmpOp::Eq, libc::UDP_SEGMENT.unsigned_abs())?,
        ])?])
    }

    fn no_executable_memory() -> Rules {
        let executable = libc::PROT_EXEC.unsigned_abs();
        let op = SeccompCmpOp::MaskedEq(u64::from(executable));
        Ok(vec![rule(vec![int(2, op, 0)?])?])
    }

    fn abort_of_this_process() -> Rules {
        let own = int(0, SeccompCmpOp::Eq, std::process::id())?;
        Ok(vec![rule(vec![
            own,
            int(2, SeccompCmpOp::Eq, libc::SIGABRT.unsigned_abs())?,
        ])?])
    }

    #[cfg(debug_assertions)]
    fn read_descriptor_flags() -> Rules {
        Ok(vec![rule(vec![int(
            1,
            SeccompCmpOp::Eq,
            libc::F_GETFD.unsigned_abs(),
        )?])?])
    }

    fn duplicate_descriptor() -> Rules {
        Ok(vec![rule(vec![int(
            1,
            SeccompCmpOp::Eq,
            libc::F_DUPFD_CLOEXEC.unsigned_abs(),
        )?])?])
    }

    /// Exactly what pthread_create asks for: no new process, no new namespace.
    fn a_thread() -> Rules {
        let flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM
            | libc::CLONE_SETTLS
            | libc::CLONE_PARENT_SETTID
            | libc::CLONE_CHILD_CLEARTID;
        Ok(vec![rule(vec![long(
            0,
            SeccompCmpOp::Eq,
            u64::from(flags.unsigned_abs()),
        )?])?])
    }

    fn thread_name_or_no_new_privileges() -> Rules {
        [libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS]
            .into_iter()
            .map(|option| rule(vec![int(0, SeccompCmpOp::Eq, option.unsigned_abs())?]))
            .collect()
    }

    fn load_a_filter() -> Rules {
        Ok(vec![rule(vec![int(
            0,
            SeccompCmpOp::Eq,
            libc::SECCOMP_SET_MODE_FILTER,
        )?])?])
    }
}

/// No filter can be compiled here: `--sandbox strict` refuses to start.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
mod table {
    pub(super) const SERVING: &[super::Call] = &[];
    pub(super) const STARTING: &[super::Call] = &[];
    pub(super) const REFUSED: &[i64] = &[];
    pub(super) const UNKNOWN: &[i64] = &[];
}

use table::{REFUSED, SERVING, STARTING, UNKNOWN};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_short_and_has_nothing_that_reaches_out() {
        let names: Vec<_> = system_calls().map(|(name, _)| name).collect();
        assert!(names.len() <= 26, "{names:?}");
        for name in [
            "socket",
            "bind",
            "connect",
            "accept",
            "accept4",
            "sendmsg",
            "sendmmsg",
            "open",
            "openat",
            "openat2",
            "clone",
            "clone3",
            "fork",
            "execve",
            "ioctl",
            "prctl",
            "kill",
            "ptrace",
            "dup",
            "dup2",
            "dup3",
            "ftruncate",
            "lseek",
            "getsockopt",
            "memfd_create",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
    }

    #[test]
    fn every_call_has_a_reason_and_both_stages_compile() {
        assert!(system_calls().all(|(_, reason)| !reason.is_empty()));
        let starting = policy(&[SERVING, STARTING]).unwrap();
        let serving = policy(&[SERVING]).unwrap();
        assert!(
            serving
                .allowed
                .keys()
                .all(|call| starting.allowed.contains_key(call))
        );
        assert!(
            serving
                .refused
                .iter()
                .all(|call| !serving.allowed.contains_key(call))
        );
    }
}
