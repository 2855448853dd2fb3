//! Kernels that lack something, played by a filter that answers for them.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use r_tftpd_test_support::client::Client;
use r_tftpd_test_support::daemon::{Daemon, command, message, run_to_end};
use r_tftpd_test_support::files::TempDir;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::driver::{Test, named};
use crate::old_landlock;

/// What this program is called when it only filters system calls and goes on as another.
pub(crate) const NAME: &str = "without";

const R_TFTPD: &str = env!("CARGO_BIN_EXE_r-tftpd");

/// In place of a number: prctl(2) knows no PR_SET_MDWE.
pub(crate) const MDWE: &str = "mdwe";

/// In place of a number, before one: the version that Landlock has.
pub(crate) const LANDLOCK_ABI: &str = "landlock=";

/// Becomes another program that lacks some system calls: arguments are their numbers, "--", and
/// the program with its arguments.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let end = arguments
        .iter()
        .position(|argument| argument == "--")
        .unwrap();
    let lacking: Vec<&str> = arguments[..end]
        .iter()
        .map(|argument| argument.to_str().unwrap())
        .collect();
    let mut program = Command::new(&arguments[end + 1]);
    program.args(&arguments[end + 2..]);
    if let Some(version) = lacking
        .iter()
        .find_map(|argument| argument.strip_prefix(LANDLOCK_ABI))
    {
        return old_landlock::main(version.parse().unwrap(), program);
    }
    if lacking.contains(&MDWE) {
        let is_mdwe = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 65);
        let rule = SeccompRule::new(vec![is_mdwe.unwrap()]).unwrap();
        let rules = BTreeMap::from([(libc::SYS_prctl, vec![rule])]);
        refuse(rules, libc::EINVAL);
    }
    let numbers = lacking.iter().filter_map(|argument| argument.parse().ok());
    let rules: BTreeMap<i64, Vec<_>> = numbers.map(|number| (number, Vec::new())).collect();
    if !rules.is_empty() {
        refuse(rules, libc::ENOSYS);
    }
    let error = program.exec();
    panic!("exec: {error}");
}

/// Answers calls with an error, in this program and those it becomes.
fn refuse(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) {
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// `program` on a kernel without `calls`.
fn without(calls: &[i64], program: &Path, arguments: &[&str]) -> Command {
    let calls: Vec<_> = calls.iter().map(i64::to_string).collect();
    lacking(&calls, program, arguments)
}

/// `program` on a kernel that lacks what [`main`] is told.
pub(crate) fn lacking(what: &[String], program: &Path, arguments: &[&str]) -> Command {
    let mut outer = Command::new(std::env::current_exe().unwrap());
    let inner = command(program, arguments);
    outer.env_clear().arg0(NAME).args(what).arg("--");
    outer.arg(inner.get_program()).args(inner.get_args());
    outer
}

/// The daemon on a kernel without `calls`.
pub(crate) fn start(calls: &[i64], program: &Path, root: &Path, arguments: &[&str]) -> Daemon {
    let mut command = without(calls, program, arguments);
    command
        .args(["--port", "0", "--listen", "127.0.0.1", "--root"])
        .arg(root);
    Daemon::spawn(command)
}

/// All of Landlock.
pub(crate) const LANDLOCK: [i64; 3] = [
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// What must happen on such kernels.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        named(
            "degraded",
            "without Landlock strict refuses to start and says why",
            || {
                refuses(&LANDLOCK, "Landlock");
            },
        ),
        named(
            "degraded",
            "without Landlock best-effort serves and says so",
            || {
                let daemon = serves(&LANDLOCK, &["--sandbox", "best-effort"]);
                let serving = daemon.wait_for(|record| message(record) == "serving");
                assert_eq!(serving["fields"]["landlock"], "none", "{serving}");
                assert_ne!(serving["fields"]["seccomp_worker"], "none", "{serving}");
            },
        ),
        named(
            "degraded",
            "without seccomp strict refuses to start and says why",
            || {
                refuses(&[libc::SYS_seccomp], "seccomp");
            },
        ),
        named(
            "degraded",
            "without openat2 strict serves by the walk and says so",
            || {
                let daemon = serves(&[libc::SYS_openat2], &[]);
                let serving = daemon.wait_for(|record| message(record) == "serving");
                assert_eq!(serving["fields"]["paths"], "walk", "{serving}");
            },
        ),
    ]
}

fn refuses(calls: &[i64], reason: &str) {
    let root = TempDir::new();
    let mut command = without(calls, Path::new(R_TFTPD), &[]);
    command
        .args(["--port", "0", "--listen", "127.0.0.1", "--root"])
        .arg(root.path());
    let output = run_to_end(command);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(reason) && text.contains("best-effort"),
        "{text}"
    );
}

fn serves(calls: &[i64], arguments: &[&str]) -> Daemon {
    let root = TempDir::new();
    root.write("file", b"x");
    let daemon = start(calls, Path::new(R_TFTPD), root.path(), arguments);
    assert_eq!(
        Client::new(daemon.address())
            .get("file", &[])
            .unwrap()
            .bytes,
        b"x"
    );
    assert_eq!(
        Client::new(daemon.address())
            .get("none", &[])
            .unwrap_err()
            .code,
        1
    );
    assert_eq!(
        Client::new(daemon.address())
            .get("../x", &[])
            .unwrap_err()
            .code,
        2
    );
    daemon
}
