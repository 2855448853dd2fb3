//! As a service of systemd: what the manager is told, and what its journal gets.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use r_tftpd_test_support::DEADLINE;
use r_tftpd_test_support::client::Client;
use r_tftpd_test_support::daemon::{Daemon, command, message};
use r_tftpd_test_support::files::TempDir;
use r_tftpd_test_support::processes::Process;

use crate::{R_TFTPD, assert_serves, root_with_file};

/// A service manager that listens.
struct Manager {
    inbox: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = TempDir::new();
        let path = directory.path().join("notify");
        let inbox = UnixDatagram::bind(&path).unwrap();
        // As systemd's, for services of any user.
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        inbox.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { inbox, directory }
    }

    /// Starts the daemon as a service.
    fn start(&self, root: &TempDir, variables: &[(&str, &str)]) -> Daemon {
        let arguments = ["--port", "0", "--listen", "127.0.0.1"];
        let mut command = command(Path::new(R_TFTPD), &arguments);
        command.arg("--root").arg(root.path());
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        command.envs(variables.iter().copied());
        Daemon::spawn(command)
    }

    /// The next message, by lines.
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.inbox.recv(&mut buffer).expect("a message in time");
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        text.lines().map(Into::into).collect()
    }

    /// The next message that has a line that begins so.
    fn wait_for(&self, begin: &str) -> Vec<String> {
        loop {
            let message = self.next();
            if message.iter().any(|line| line.starts_with(begin)) {
                return message;
            }
        }
    }
}

#[test]
fn the_manager_is_told_of_start_reload_and_end() {
    let (root, contents) = root_with_file(1000);
    let manager = Manager::new();
    let daemon = manager.start(&root, &[]);
    assert_eq!(manager.next(), ["STATUS=starting"]);
    let ready = manager.next();
    assert_eq!(ready[0], "READY=1");
    assert!(
        ready[1].starts_with("STATUS=serving: 0 transfers"),
        "{ready:?}"
    );
    assert_serves(&daemon, &contents);
    daemon.signal(Signal::SIGHUP);
    let reloading = manager.next();
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
    manager.wait_for("READY=1");
    daemon.signal(Signal::SIGTERM);
    let stopping = manager.wait_for("STOPPING=1");
    assert!(
        stopping.contains(&"EXTEND_TIMEOUT_USEC=10000000".into()),
        "{stopping:?}"
    );
    assert!(daemon.wait().success());
}

#[test]
fn ready_means_that_every_process_is_locked_down() {
    let (root, _) = root_with_file(1000);
    let manager = Manager::new();
    let daemon = manager.start(&root, &[]);
    manager.wait_for("READY=1");
    for name in ["r-tftpd-broker", "r-tftpd-worker", "r-tftpd-fetcher"] {
        assert_eq!(daemon.child(name).status("Seccomp"), "2", "{name}");
    }
}

#[test]
fn the_watchdog_is_fed_while_all_answer_and_starves_when_one_hangs() {
    let (root, _) = root_with_file(1000);
    let manager = Manager::new();
    // A ping every 50 ms; a hung process is replaced after six.
    let daemon = manager.start(&root, &[("WATCHDOG_USEC", "600000")]);
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    let worker = daemon.child("r-tftpd-worker");
    worker.signal(Signal::SIGSTOP);
    // What was answered before it stopped may still be on its way.
    let recovering = loop {
        let message = manager.wait_for("STATUS=");
        if message[0].starts_with("STATUS=not serving") {
            break message;
        }
    };
    assert_eq!(recovering.len(), 1, "{recovering:?}");
    daemon.wait_for(|record| message(record).contains("worker is stuck: no answer for 300ms"));
    manager.wait_for("WATCHDOG=1");
    assert_ne!(daemon.child("r-tftpd-worker").pid, worker.pid);
}

#[test]
fn the_status_counts_requests() {
    let (root, contents) = root_with_file(1000);
    let manager = Manager::new();
    let daemon = manager.start(&root, &[("WATCHDOG_USEC", "600000")]);
    assert_serves(&daemon, &contents);
    manager.wait_for(
        "STATUS=serving: 0 transfers, 0 not answered yet, 0 waiting; since the start 1 requests",
    );
}

#[test]
fn a_watchdog_meant_for_another_process_is_not_fed() {
    let (root, _) = root_with_file(1000);
    let manager = Manager::new();
    let variables = [("WATCHDOG_USEC", "600000"), ("WATCHDOG_PID", "1")];
    let daemon = manager.start(&root, &variables);
    daemon.signal(Signal::SIGTERM);
    loop {
        let message = manager.next();
        assert!(!message.contains(&"WATCHDOG=1".into()), "{message:?}");
        if message[0] == "STOPPING=1" {
            break;
        }
    }
    assert!(daemon.wait().success());
}

#[test]
fn no_other_process_is_told_where_the_manager_is() {
    let (root, _) = root_with_file(1000);
    let manager = Manager::new();
    let daemon = manager.start(&root, &[("WATCHDOG_USEC", "600000")]);
    manager.wait_for("WATCHDOG=1");
    // Whoever may send as this service could keep the watchdog quiet; the descriptors that each
    // process holds are counted by the tests of its sandbox.
    for name in ["r-tftpd-broker", "r-tftpd-worker", "r-tftpd-fetcher"] {
        assert_eq!(environment(&daemon.child(name)), b"", "{name}");
    }
}

/// The environment a process was started with, as far as we may see it.
fn environment(process: &Process) -> Vec<u8> {
    match fs::read(format!("/proc/{}/environ", process.pid)) {
        Ok(environment) => environment,
        // It is not dumpable, and we are not root.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

/// A pipe that is the journal, as `JOURNAL_STREAM` tells.
fn journal() -> (PipeReader, PipeWriter, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    let file = File::from(writer.as_fd().try_clone_to_owned().unwrap());
    let file = file.metadata().unwrap();
    (reader, writer, format!("{}:{}", file.dev(), file.ino()))
}

/// The supervisor; the others end with it.
struct Service(Child);

impl Service {
    fn process(&self) -> Process {
        Process {
            pid: i32::try_from(self.0.id()).unwrap(),
            name: "r-tftpd".into(),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_for_journal(arguments: &[&str]) -> (Service, impl Iterator<Item = String>) {
    let (reader, writer, stream) = journal();
    let mut command = Command::new(R_TFTPD);
    command
        .env_clear()
        .env("JOURNAL_STREAM", stream)
        .args(arguments);
    let process = command.stdin(Stdio::null()).stderr(writer).spawn().unwrap();
    (
        Service(process),
        BufReader::new(reader).lines().map(Result::unwrap),
    )
}

#[test]
fn the_journal_gets_the_priority_of_each_record_and_no_second_timestamp() {
    let (root, _) = root_with_file(1000);
    let root = root.path().to_str().unwrap();
    let arguments = ["--root", root, "--port", "0", "--listen", "127.0.0.1"];
    let (mut service, mut lines) = start_for_journal(&arguments);
    let serving = lines.find(|line| line.contains("serving")).unwrap();
    assert!(serving.starts_with("<6> INFO serving "), "{serving}");
    let listen = serving
        .split("listen=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let transfer = Client::new(listen.parse().unwrap())
        .get("file", &[])
        .unwrap();
    assert_eq!(transfer.bytes.len(), 1000);
    // By another process, which learns of it from the supervisor.
    let complete = lines.find(|line| line.contains("complete")).unwrap();
    assert!(complete.starts_with("<6> INFO complete "), "{complete}");
    let children = Process::children_of(service.process().pid);
    let worker = children.iter().find(|child| child.name == "r-tftpd-worker");
    worker.unwrap().signal(Signal::SIGKILL);
    // Broker and worker die one because of the other, so their records come in any order.
    let until_served: Vec<_> = lines
        .by_ref()
        .take_while(|line| !line.contains("serving"))
        .collect();
    for expected in [
        "<3>ERROR worker died: killed by SIGKILL",
        "<4> WARN restarting",
    ] {
        assert!(
            until_served.iter().any(|line| line.starts_with(expected)),
            "{until_served:?}"
        );
    }
    service.process().signal(Signal::SIGTERM);
    let others: Vec<_> = lines.filter(|line| !line.starts_with('<')).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(service.0.wait().unwrap().success());
}

#[test]
fn a_bad_command_line_is_an_error_in_the_journal() {
    let (mut service, lines) = start_for_journal(&["--port", "seventy"]);
    let lines: Vec<_> = lines.collect();
    assert!(
        lines.iter().all(|line| line.starts_with("<3>")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("--port")),
        "{lines:?}"
    );
    assert_eq!(service.0.wait().unwrap().code(), Some(2));
}
