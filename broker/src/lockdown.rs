//! Steps by which a process gives up its rights for good. Each is one system call (or one family)
//! with one reason; which of them a process takes, and in what order, stands in its own
//! `sandbox` module.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::geteuid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
pub use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use crate::control::Facts;
use crate::settings::Sandbox;
use crate::sys;

/// Why a process could not give up a right; always fatal.
#[derive(Debug)]
pub enum Error {
    /// A system call failed.
    System(&'static str, io::Error),
    /// Landlock is needed and not there.
    Landlock(String),
    /// seccomp is needed and not there, or a filter is wrong.
    Seccomp(String),
    /// Rights are left that must be gone.
    Privileged(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(call, error) => write!(f, "{call}: {error}"),
            Self::Landlock(reason) => write!(
                f,
                "no Landlock ({reason}): use a kernel with CONFIG_SECURITY_LANDLOCK and \"landlock\" \
                 in its lsm= parameter, list the landlock_* calls in the unit's SystemCallFilter, \
                 or accept less with --sandbox best-effort"
            ),
            Self::Seccomp(reason) => write!(
                f,
                "no seccomp ({reason}): use a kernel with CONFIG_SECCOMP_FILTER on x86-64, aarch64 \
                 or riscv64, or accept less with --sandbox best-effort"
            ),
            Self::Privileged(what) => write!(f, "{what}: refusing to go on"),
        }
    }
}

impl std::error::Error for Error {}

/// Names the call that failed.
fn system<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::System(call, error.into())
}

/// Refuses to go on with rights that the supervisor should have dropped: uid 0 or a capability.
///
/// # Errors
/// [`Error::Privileged`].
pub fn assert_unprivileged() -> Result<(), Error> {
    if geteuid().is_root() {
        return Err(Error::Privileged("still running as uid 0"));
    }
    for set in [
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
        CapSet::Ambient,
    ] {
        match caps::read(None, set) {
            Ok(held) if held.is_empty() => (),
            Ok(_) => return Err(Error::Privileged("capabilities left")),
            Err(_) => return Err(Error::Privileged("capabilities can not be read")),
        }
    }
    Ok(())
}

/// An exec can never give rights back; needed for Landlock and seccomp. prctl(2)
///
/// # Errors
/// As prctl(2).
pub fn no_new_privileges() -> Result<(), Error> {
    sys::set_no_new_privs().map_err(system("prctl(PR_SET_NO_NEW_PRIVS)"))
}

/// No process of the same uid may trace this one or read its memory. prctl(2)
///
/// # Errors
/// As prctl(2).
pub fn not_dumpable() -> Result<(), Error> {
    sys::set_not_dumpable().map_err(system("prctl(PR_SET_DUMPABLE)"))
}

/// Memory that was written can never be executed, where the kernel (6.3 or later) has it.
#[must_use]
pub fn deny_write_execute() -> bool {
    sys::set_mdwe().is_ok()
}

/// A crash leaves no memory image. setrlimit(2)
///
/// # Errors
/// As setrlimit(2).
pub fn no_core_files() -> Result<(), Error> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(system("setrlimit(RLIMIT_CORE)"))
}

/// Denies every right that Landlock knows, but for `granted` below the directories given.
///
/// Returns the effective ABI, 0 where there is no Landlock and `sandbox` allows that.
///
/// UDP rights (ABI 10) are not handled: they would judge the connected sockets the processes live
/// on, and seccomp already denies what they deny.
///
/// # Errors
/// [`Error::Landlock`].
pub fn landlock(
    granted: &[(BorrowedFd<'_>, BitFlags<AccessFs>)],
    sandbox: Sandbox,
) -> Result<u32, Error> {
    landlock_with_connect(granted, Connect::Ports(&[]), sandbox)
}

/// Where TCP connections may go. The kernel confines ports from ABI 4 (Linux 6.7) on.
#[derive(Clone, Copy, Debug)]
pub enum Connect<'a> {
    /// Anywhere.
    Any,
    /// To the ports in these ranges, first and last included.
    Ports(&'a [(u16, u16)]),
}

/// As [`landlock()`], with TCP connections allowed.
///
/// # Errors
/// [`Error::Landlock`].
pub fn landlock_with_connect(
    granted: &[(BorrowedFd<'_>, BitFlags<AccessFs>)],
    connect: Connect<'_>,
    sandbox: Sandbox,
) -> Result<u32, Error> {
    let (abi, enforced) = match restrict(granted, connect) {
        Ok(outcome) => outcome,
        Err(_) if sandbox == Sandbox::BestEffort => return Ok(0),
        Err(error) => return Err(Error::Landlock(error.to_string())),
    };
    match (abi, sandbox) {
        (LandlockStatus::Available { effective_abi, .. }, _) if enforced => {
            Ok(effective_abi as u32)
        }
        (_, Sandbox::BestEffort) => Ok(0),
        (LandlockStatus::NotEnabled, Sandbox::Strict) => Err(Error::Landlock(
            "built into the kernel but not enabled".into(),
        )),
        (_, Sandbox::Strict) => Err(Error::Landlock("landlock_create_ruleset is refused".into())),
    }
}

fn restrict(
    granted: &[(BorrowedFd<'_>, BitFlags<AccessFs>)],
    connect: Connect<'_>,
) -> Result<(LandlockStatus, bool), landlock::RulesetError> {
    let (net, ports) = match connect {
        Connect::Any => (AccessNet::BindTcp.into(), &[][..]),
        Connect::Ports(ports) => (AccessNet::from_all(ABI::V9), ports),
    };
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V9))?
        .handle_access(net)?
        .scope(Scope::from_all(ABI::V9))?
        .create()?;
    for port in ports.iter().flat_map(|(first, last)| *first..=*last) {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    for (directory, rights) in granted {
        ruleset = ruleset.add_rule(PathBeneath::new(directory, *rights))?;
    }
    let status = ruleset.restrict_self()?;
    Ok((
        status.landlock,
        status.ruleset != RulesetStatus::NotEnforced,
    ))
}

/// A seccomp policy. What is in none of the lists kills the process.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// Allowed; with rules, only when one of them matches the arguments.
    pub allowed: BTreeMap<i64, Vec<SeccompRule>>,
    /// Answered with EACCES: libraries merely try these and cope.
    pub refused: Vec<i64>,
    /// Answered with ENOSYS, as by an old kernel, so that libc falls back to an older call.
    pub unknown: Vec<i64>,
}

/// Which threads a filter binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread and those it starts later.
    Calling,
    /// All threads of the process (TSYNC).
    All,
}

/// Loads a policy. Filters add up: a later one can only take more away.
///
/// Returns the number of system calls that are allowed, 0 where there is no seccomp and `sandbox`
/// allows that.
///
/// # Errors
/// [`Error::Seccomp`].
pub fn seccomp(calls: &Calls, threads: Threads, sandbox: Sandbox) -> Result<u32, Error> {
    let programs = match compile(calls) {
        Ok(programs) => programs,
        Err(_) if sandbox == Sandbox::BestEffort && target().is_err() => return Ok(0),
        Err(error) => return Err(Error::Seccomp(error.to_string())),
    };
    for (index, program) in programs.iter().enumerate() {
        let loaded = match threads {
            Threads::Calling => seccompiler::apply_filter(program),
            Threads::All => seccompiler::apply_filter_all_threads(program),
        };
        match loaded {
            Ok(()) => (),
            // Once one is loaded the kernel has seccomp: a later failure is no missing feature.
            Err(_) if sandbox == Sandbox::BestEffort && index == 0 => return Ok(0),
            Err(error) => return Err(Error::Seccomp(error.to_string())),
        }
    }
    Ok(u32::try_from(calls.allowed.len()).unwrap_or(u32::MAX))
}

/// One filter for each action, as a filter has but one: the kernel takes the strictest answer.
fn compile(calls: &Calls) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut allowed = calls.allowed.clone();
    let mut programs = Vec::new();
    for (list, errno) in [
        (&calls.unknown, libc::ENOSYS),
        (&calls.refused, libc::EACCES),
    ] {
        if list.is_empty() {
            continue;
        }
        allowed.extend(list.iter().map(|call| (*call, Vec::new())));
        let rules = list.iter().map(|call| (*call, Vec::new())).collect();
        let action = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, target()?)?;
        programs.push(filter.try_into()?);
    }
    let kill = SeccompAction::KillProcess;
    let filter = SeccompFilter::new(allowed, kill, SeccompAction::Allow, target()?)?;
    programs.push(filter.try_into()?);
    Ok(programs)
}

fn target() -> Result<TargetArch, seccompiler::BackendError> {
    std::env::consts::ARCH.try_into()
}

/// A rule that matches when every one of `conditions` holds.
///
/// # Errors
/// [`Error::Seccomp`] for an argument number above 5 or no condition.
pub fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, Error> {
    SeccompRule::new(conditions).map_err(|error| Error::Seccomp(error.to_string()))
}

/// Compares the low 32 bits of argument `index` (0 to 5), as the kernel does for int arguments.
///
/// # Errors
/// [`Error::Seccomp`] for an argument number above 5.
pub fn int(index: u8, op: SeccompCmpOp, value: u32) -> Result<SeccompCondition, Error> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, u64::from(value))
        .map_err(|error| Error::Seccomp(error.to_string()))
}

/// Compares all 64 bits of argument `index` (0 to 5), for pointers and lengths.
///
/// # Errors
/// [`Error::Seccomp`] for an argument number above 5.
pub fn long(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, op, value)
        .map_err(|error| Error::Seccomp(error.to_string()))
}

/// Says why a process ends: in the log, or on standard error as long as there is no log.
pub fn last_words(process: &str, reason: &(impl fmt::Display + ?Sized)) {
    if tracing::dispatcher::has_been_set() {
        tracing::error!("{process}: {reason}");
    } else {
        // Nobody is left to tell if this fails.
        let _ = writeln!(io::stderr(), "{process}: {reason}");
    }
}

/// What is in force now, for [`crate::control::Report::Ready`]; `openat2` is the broker's to add.
#[must_use]
pub fn facts(landlock_abi: u32, system_calls: u32, mdwe: bool) -> Facts {
    Facts {
        uid: geteuid().as_raw(),
        landlock_abi,
        system_calls,
        mdwe,
        no_new_privs: sys::no_new_privs(),
        no_capabilities: assert_unprivileged().is_ok(),
        openat2: false,
    }
}
