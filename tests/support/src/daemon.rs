//! Starts the daemon, reads its log, stops it, and sees that nothing is left behind.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::DEADLINE;
use crate::processes::Process;

/// A running daemon. It is stopped with the value, and a process left behind fails the test.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
    log: Arc<Log>,
    addresses: Vec<SocketAddr>,
    finished: bool,
}

/// What the daemon has written so far.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    records: Vec<Value>,
    /// Lines that are no JSON: a panic, for example.
    others: Vec<String>,
    /// Every process that could write has ended.
    closed: bool,
}

impl Daemon {
    /// Starts `program` for `root` on a free port and waits until it serves.
    ///
    /// `arguments` are added; without `--listen` among them it listens on 127.0.0.1.
    #[must_use]
    pub fn start(program: &Path, root: &Path, arguments: &[&str]) -> Self {
        let mut command = command(program, arguments);
        command.arg("--root").arg(root).args(["--port", "0"]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1"]);
        }
        Self::spawn(command)
    }

    /// Starts a command that becomes the daemon, its log in JSON, and waits until it serves.
    #[must_use]
    pub fn spawn(mut command: Command) -> Self {
        let mut process = start(command.stdin(Stdio::null()).stderr(Stdio::piped()));
        let log = Arc::new(Log::default());
        let lines = BufReader::new(process.stderr.take().unwrap());
        let writer = Arc::clone(&log);
        thread::spawn(move || writer.fill(lines));
        let mut daemon = Self {
            process,
            log,
            addresses: Vec::new(),
            finished: false,
        };
        let serving = daemon.wait_for(|record| message(record) == "serving");
        let listen = serving["fields"]["listen"]
            .as_str()
            .expect("listen is a text");
        daemon.addresses = listen
            .split(',')
            .map(|one| one.trim().parse().unwrap())
            .collect();
        daemon
    }

    /// The first address it listens on, the unspecified one replaced by that of loopback.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let mut address = self.addresses[0];
        if address.ip().is_unspecified() {
            let loopback = if address.is_ipv4() {
                "127.0.0.1"
            } else {
                "::1"
            };
            address.set_ip(loopback.parse().unwrap());
        }
        address
    }

    /// All addresses it listens on.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The first record, old or new, that is as asked.
    pub fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_many(1, wanted).remove(0)
    }

    /// The first `number` records, old and new, that are as asked.
    pub fn wait_for_many(&self, number: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let end = Instant::now() + DEADLINE;
        let mut lines = self.log.lock();
        loop {
            let found = lines
                .records
                .iter()
                .filter(|record| wanted(record))
                .take(number);
            let found: Vec<Value> = found.cloned().collect();
            if found.len() == number {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            let over = lines.closed || left.is_zero();
            assert!(
                !over,
                "no such record within {DEADLINE:?}; the log is {}",
                lines.text()
            );
            lines = self.log.wait(lines, left);
        }
    }

    /// The first record of a request for this file.
    pub fn wait_for_request(&self, file: &str) -> Value {
        self.wait_for(|record| is_request(record) && record["fields"]["file"] == file)
    }

    /// All records written so far.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        self.log.lock().records.clone()
    }

    /// The supervisor.
    #[must_use]
    pub fn supervisor(&self) -> Process {
        let pid = i32::try_from(self.process.id()).unwrap();
        Process {
            pid,
            name: "r-tftpd".into(),
        }
    }

    /// The newest process of this name below the supervisor.
    #[must_use]
    pub fn child(&self, name: &str) -> Process {
        let children = Process::children_of(self.supervisor().pid);
        let named = children.iter().filter(|child| child.name == name);
        let newest = named.max_by_key(|child| child.pid);
        newest
            .unwrap_or_else(|| panic!("no {name} among {children:?}"))
            .clone()
    }

    /// Sends a signal to the supervisor alone.
    pub fn signal(&self, signal: Signal) {
        self.supervisor().signal(signal);
    }

    /// Waits until the supervisor and all its children have ended.
    pub fn wait(mut self) -> ExitStatus {
        self.wait_for_end()
    }

    /// Ends it with SIGTERM and waits.
    pub fn stop(self) {
        drop(self);
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        self.finished = true;
        let end = Instant::now() + DEADLINE;
        let children = Process::children_of(self.supervisor().pid);
        let mut lines = self.log.lock();
        while !lines.closed {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = lines.text();
                drop(lines);
                self.kill(&children);
                panic!("processes left behind, perhaps {children:?}; the log is {text}");
            }
            lines = self.log.wait(lines, left);
        }
        assert!(lines.others.is_empty(), "not JSON: {:?}", lines.others);
        drop(lines);
        self.process.wait().unwrap()
    }

    /// For a test that has failed already.
    fn kill(&mut self, children: &[Process]) {
        let _ = self.process.kill();
        for child in children.iter().filter(|child| child.is_alive()) {
            let _ = kill(Pid::from_raw(child.pid), Signal::SIGKILL);
        }
        let _ = self.process.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let children = Process::children_of(self.supervisor().pid);
        if thread::panicking() {
            eprintln!("the log was {}", self.log.lock().text());
            self.kill(&children);
            return;
        }
        self.signal(Signal::SIGTERM);
        let status = self.wait_for_end();
        assert!(status.success(), "exit status after SIGTERM: {status}");
    }
}

/// The outcome or text of a record.
#[must_use]
pub fn message(record: &Value) -> &str {
    record["fields"]["message"].as_str().unwrap_or_default()
}

/// Whether a record is that of a request.
#[must_use]
pub fn is_request(record: &Value) -> bool {
    record["target"] == "r_tftpd::request"
}

/// The program with `arguments`, writing its log in JSON, and with an empty environment.
#[must_use]
pub fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .args(["--log-format", "json"])
        .args(arguments);
    command
}

/// Runs a command that is expected to end by itself.
#[must_use]
pub fn run_to_end(mut command: Command) -> Output {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = start(command);
    let (sender, output) = mpsc::channel();
    let pipes = (
        process.stdout.take().unwrap(),
        process.stderr.take().unwrap(),
    );
    thread::spawn(move || {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (mut one, mut two) = pipes;
        one.read_to_end(&mut stdout).unwrap();
        two.read_to_end(&mut stderr).unwrap();
        sender.send((stdout, stderr))
    });
    let Ok((stdout, stderr)) = output.recv_timeout(DEADLINE) else {
        let _ = process.kill();
        panic!("still running after {DEADLINE:?}");
    };
    Output {
        status: process.wait().unwrap(),
        stdout,
        stderr,
    }
}

/// Starts a command. A program that the test has just copied is busy for as long as a child of
/// another thread, between fork and exec, holds a copy of the descriptor that wrote it.
fn start(command: &mut Command) -> Child {
    let end = Instant::now() + DEADLINE;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                thread::yield_now();
            }
            started => return started.unwrap(),
        }
    }
}

impl Log {
    /// Also after a test has failed with the lock held: then it is to be shown.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change.
    fn wait<'l>(&self, lines: MutexGuard<'l, Lines>, most: Duration) -> MutexGuard<'l, Lines> {
        self.changed
            .wait_timeout(lines, most)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn fill(&self, lines: impl BufRead) {
        for line in lines.lines() {
            let line = line.unwrap_or_else(|error| format!("unreadable: {error}"));
            let mut state = self.lock();
            match serde_json::from_str(&line) {
                Ok(record) => state.records.push(record),
                Err(_) => state.others.push(line),
            }
            self.changed.notify_all();
        }
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

impl Lines {
    fn text(&self) -> String {
        let records = self.records.iter().map(Value::to_string);
        records
            .chain(self.others.iter().cloned())
            .map(|line| format!("\n{line}"))
            .collect()
    }
}
