//! The processes here are shells: their standard input, /dev/null for ours, is a script.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, Write};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::getsid;

use super::*;

/// Waits for a line that never comes.
const WAIT: &str = "read -r line <&3";

fn shell(script: &str) -> Process {
    let descriptor = memfd_create(c"script", MFdFlags::MFD_CLOEXEC).unwrap();
    let mut file = fs::File::from(descriptor);
    file.write_all(script.as_bytes()).unwrap();
    file.rewind().unwrap();
    let shell = fs::File::open("/bin/sh").unwrap();
    Process::start(
        Role::Worker,
        shell.as_fd(),
        file.as_fd(),
        b"start\n",
        &[],
        None,
    )
    .unwrap()
}

fn wait_for(descriptor: BorrowedFd<'_>) {
    let mut polled = [PollFd::new(descriptor, PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut polled, PollTimeout::from(10_000_u16)),
        Ok(1),
        "nothing within 10 s"
    );
}

fn end(process: &mut Process) -> End {
    wait_for(process.ending());
    process.wait().unwrap()
}

fn report(process: &mut Process) -> Result<Option<Report>, Mute> {
    wait_for(process.control().unwrap());
    process.report()
}

/// A line of /proc/PID/status as the number it holds.
fn status(process: &Process, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

#[test]
fn a_new_process_has_nothing_but_its_channel() {
    // The word it says is no report, but shows that the shell runs.
    let mut process = shell(&format!("echo up >&3\n{WAIT}"));
    wait_for(process.control().unwrap());
    let proc = format!("/proc/{}", process.pid());
    let descriptors: BTreeSet<_> = fs::read_dir(format!("{proc}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // Shells keep a copy of what they redirect, from 10 on, closed on exec.
    let inherited: Vec<_> = descriptors.iter().filter(|name| name.len() == 1).collect();
    assert_eq!(inherited, ["0", "1", "2", "3"]);
    assert_eq!(fs::read(format!("{proc}/environ")).unwrap(), b"");
    assert_eq!(
        fs::read(format!("{proc}/cmdline")).unwrap(),
        b"r-tftpd-worker\0"
    );
    assert_eq!(getsid(Some(process.pid)).unwrap(), process.pid);
    assert_eq!(status(&process, "SigBlk"), 0);
    let ignored = status(&process, "SigIgn");
    for signal in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ] {
        assert_ne!(ignored & 1 << (signal - 1), 0, "signal {signal}");
    }
    process.kill();
    assert_eq!(end(&mut process), End::Ordered);
}

#[test]
fn an_end_is_told_with_its_reason() {
    assert_eq!(end(&mut shell("exit 7")), End::Exited(7));
    assert_eq!(
        end(&mut shell("kill -SEGV $$")),
        End::Killed(Signal::SIGSEGV)
    );
    assert_eq!(end(&mut shell("kill -SYS $$")), End::Killed(Signal::SIGSYS));
    assert!(
        End::Killed(Signal::SIGSYS)
            .to_string()
            .contains("type=1326")
    );
    assert_eq!(End::Exited(7).to_string(), "exit status 7");
    assert_eq!(
        End::Killed(Signal::SIGKILL).to_string(),
        "killed by SIGKILL"
    );
}

#[test]
fn to_kill_what_is_dead_already_does_not_hide_why_it_died() {
    let mut process = shell("kill -KILL $$");
    wait_for(process.ending());
    process.kill();
    assert_eq!(process.wait(), Some(End::Killed(Signal::SIGKILL)));
}

#[test]
fn a_report_is_read_and_a_malformed_one_ends_the_talk() {
    let retired: String = Report::Retired
        .to_bytes()
        .iter()
        .map(|byte| format!("\\{byte:03o}"))
        .collect();
    let mut process = shell(&format!(
        "printf '{retired}' >&3\necho nonsense >&3\n{WAIT}"
    ));
    assert_eq!(report(&mut process), Ok(Some(Report::Retired)));
    assert_eq!(report(&mut process), Err(Mute::Malformed));
    assert_eq!(process.report(), Ok(None));
}

#[test]
fn too_long_a_report_is_malformed() {
    let long = "\\001".repeat(control::SIZE + 1);
    let mut process = shell(&format!("printf '{long}' >&3\n{WAIT}"));
    assert_eq!(report(&mut process), Err(Mute::Malformed));
}

#[test]
fn a_report_with_a_descriptor_is_refused() {
    let (ours, theirs) = Channel::pair().unwrap();
    theirs
        .send_with(&Report::Retired.to_bytes(), &[theirs.as_fd()])
        .unwrap();
    let mut process = shell(WAIT);
    process.control = Some(ours);
    assert_eq!(process.report(), Err(Mute::Malformed));
}

#[test]
fn a_closed_channel_is_told() {
    let mut process = shell("exec 3>&-\nexit 0");
    assert_eq!(report(&mut process), Err(Mute::Closed));
    assert_eq!(end(&mut process), End::Exited(0));
}

#[test]
fn the_start_message_and_orders_arrive_in_turn() {
    let mut process = shell(
        "[ \"$(dd bs=99 count=1 <&3 2>&-)\" = start ] || exit 1\n\
         [ \"$(dd bs=99 count=1 <&3 2>&- | wc -c)\" = 64 ] || exit 2\n\
         exit 5",
    );
    process.tell(Order::Stop);
    assert_eq!(end(&mut process), End::Exited(5));
}

#[test]
fn a_program_that_can_not_be_executed_is_an_error() {
    let null = fs::File::open("/dev/null").unwrap();
    let error = Process::start(
        Role::Broker,
        null.as_fd(),
        null.as_fd(),
        b"start",
        &[],
        None,
    )
    .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
}

#[test]
fn a_dropped_process_is_gone() {
    let process = shell(WAIT);
    let pid = process.pid();
    drop(process);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}
