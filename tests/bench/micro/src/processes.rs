//! This program again, in another role and without privileges.

use std::fs::{self, File, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::unistd::{Pid, geteuid};
use r_tftpd_broker::channel::Channel;

/// Who runs the children of a root.
const NOBODY: u32 = 65_534;

/// What a copy of this program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// All that the broker does.
    Broker,
    /// System calls of the worker.
    WorkerCalls,
    /// System calls of the broker.
    BrokerCalls,
}

impl Role {
    const ALL: [Self; 3] = [Self::Broker, Self::WorkerCalls, Self::BrokerCalls];

    fn word(self) -> &'static str {
        match self {
            Self::Broker => "role=broker",
            Self::WorkerCalls => "role=worker-calls",
            Self::BrokerCalls => "role=broker-calls",
        }
    }

    /// The role of this process; `None` = it is the benchmark.
    pub fn of_this_process() -> Option<Self> {
        let word = std::env::args().nth(1)?;
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// A directory that goes with its owner. It has a copy of this program that anybody can execute,
/// and `root` with a `file` in it.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes it; one at a time.
    pub fn new() -> Self {
        let name = format!("r-tftpd-micro-{}", std::process::id());
        let directory = Self(std::env::temp_dir().join(name));
        let root = directory.root();
        fs::create_dir_all(&root).expect("a directory");
        fs::write(directory.file(), [7; 1024]).expect("a file");
        let own = std::env::current_exe().expect("the name of this program");
        fs::copy(own, directory.program()).expect("a copy of this program");
        for (path, mode) in [
            (directory.0.clone(), 0o755),
            (root, 0o755),
            (directory.file(), 0o644),
            (directory.program(), 0o755),
        ] {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
        }
        directory
    }

    /// The served directory.
    pub fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn file(&self) -> PathBuf {
        self.root().join("file")
    }

    fn program(&self) -> PathBuf {
        self.0.join("program")
    }

    /// For a child.
    pub fn open_root(&self) -> OwnedFd {
        File::open(self.root()).expect("a directory").into()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child, killed when it goes.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The other end of its descriptor 3.
    pub control: Channel,
}

impl Process {
    /// Starts one, as an unprivileged user if there is the choice.
    pub fn start(directory: &Directory, role: Role) -> Self {
        let (control, theirs) = Channel::pair().expect("socketpair");
        let theirs = theirs.as_fd().try_clone_to_owned().expect("dup");
        let mut command = Command::new("/bin/sh");
        // The shell makes descriptor 3 of standard input, the only place where it can be passed on
        // by safe code.
        command.args(["-c", r#"exec "$0" "$1" 3<&0 </dev/null"#]);
        command.arg(directory.program()).arg(role.word());
        command.env_clear().stdin(theirs);
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let child = command.spawn().expect("a child");
        Self { child, control }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Time that it had a processor, in nanoseconds, where the kernel tells.
    pub fn processor_time(&self) -> Option<u64> {
        processor_time(&self.place("schedstat"))
    }

    /// seccomp filters that each of its system calls has to pass, where the kernel tells.
    pub fn filters(&self) -> Option<u32> {
        let status = fs::read_to_string(self.place("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp_filters:"))?;
        line.trim().parse().ok()
    }

    fn place(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.child.id()).into()
    }
}

/// Of this process's first thread.
pub fn own_processor_time() -> Option<u64> {
    processor_time(Path::new("/proc/self/schedstat"))
}

fn processor_time(file: &Path) -> Option<u64> {
    let figures = fs::read_to_string(file).ok()?;
    figures.split(' ').next()?.parse().ok()
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
