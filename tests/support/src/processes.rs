//! What /proc tells about a process.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process seen in /proc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its name, at most 15 bytes.
    pub name: String,
}

impl Process {
    /// The children of `parent`, zombies left out.
    #[must_use]
    pub fn children_of(parent: i32) -> Vec<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // A process can end while it is looked at.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else {
                continue;
            };
            let mut rest = stat[close + 1..].split_whitespace();
            let state = rest.next();
            let ppid = rest.next().and_then(|ppid| ppid.parse().ok());
            if ppid == Some(parent) && state != Some("Z") {
                found.push(Self {
                    pid,
                    name: stat[open + 1..close].to_owned(),
                });
            }
        }
        found
    }

    /// The value of a line of /proc/PID/status, such as `CapEff`.
    #[must_use]
    pub fn status(&self, key: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key} in the status of {}", self.name))
            .trim()
            .to_owned()
    }

    /// Whether the process is still there; a zombie is not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat
            .rfind(')')
            .and_then(|close| stat[close + 1..].split_whitespace().next());
        stat.contains(&format!("({})", self.name)) && state != Some("Z")
    }

    /// Sends a signal to this one process.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }
}
