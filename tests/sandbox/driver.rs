//! Runs every probe against a fresh daemon and judges it.

use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use r_tftpd::self_test::deeds::fetches;
use r_tftpd::self_test::probe::{Expected, Probe};
use r_tftpd_broker::supervisor::self_test::{LINK, NAMED, furnish};
use r_tftpd_test_support::DEADLINE;
use r_tftpd_test_support::client::Client;
use r_tftpd_test_support::daemon::{Daemon, message};
use r_tftpd_test_support::files::TempDir;
use serde_json::Value;

use crate::captured_broker::{self, ALIVE};
use crate::captured_worker::{self, HELLO, PATH, PROBE};
use crate::paths::{self, Tree};
use crate::raw::call;
use crate::{attacks, captured_fetcher, degraded, self_test};

/// Begins the names of sets in which the captured process is not locked down.
pub(crate) const CARELESS: &str = "careless-";

/// A name and what to do.
pub(crate) type Test = (String, Box<dyn FnOnce() + Send>);

/// Runs all tests whose names contain the first argument, if there is one; reports as libtest does.
pub(crate) fn main() -> ExitCode {
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let programs = Arc::new(Programs::new());
    let tests = [
        each("worker", captured_worker::probes(), &programs, worker),
        each("broker", captured_broker::probes(), &programs, broker),
        each("fetcher", captured_fetcher::probes(), &programs, fetcher),
        paths(&programs),
        attacks::tests(&programs),
        degraded::tests(),
        self_test::tests(programs.supervisor("worker")),
        lists(),
    ];
    let wanted = |(name, _): &Test| {
        filter
            .as_ref()
            .is_none_or(|part| name.contains(part.as_str()))
    };
    let (tests, others): (Vec<Test>, Vec<Test>) = tests.into_iter().flatten().partition(wanted);
    println!("\nrunning {} tests", tests.len());
    let total = tests.len();
    let queue = Arc::new(Mutex::new(VecDeque::from(tests)));
    // Most of a probe's time is the supervisor's pause before a restart.
    let runners: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn({
                let queue = Arc::clone(&queue);
                move || run(&queue)
            })
        })
        .collect();
    let failed: usize = runners
        .into_iter()
        .map(|runner| runner.join().unwrap())
        .sum();
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered \
         out",
        total - failed,
        others.len()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs tests until none is left; the number of those that failed.
fn run(queue: &Mutex<VecDeque<Test>>) -> usize {
    let mut failed = 0;
    loop {
        // The lock is not held while the test runs.
        let next = queue.lock().unwrap().pop_front();
        let Some((name, test)) = next else {
            return failed;
        };
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
}

/// The real programs, and beside them sets in which this program takes one's place.
pub(crate) struct Programs {
    directory: TempDir,
}

impl Programs {
    fn new() -> Self {
        let directory = TempDir::new();
        let own = std::env::current_exe().unwrap();
        for captured in [
            "worker",
            "broker",
            "fetcher",
            "careless-worker",
            "careless-fetcher",
        ] {
            let set = directory.path().join(captured);
            fs::create_dir(&set).unwrap();
            for (name, source) in [
                ("r-tftpd", env!("CARGO_BIN_EXE_r-tftpd")),
                ("r-tftpd-broker", env!("CARGO_BIN_EXE_r-tftpd-broker")),
                ("r-tftpd-worker", env!("CARGO_BIN_EXE_r-tftpd-worker")),
                ("r-tftpd-fetcher", env!("CARGO_BIN_EXE_r-tftpd-fetcher")),
            ] {
                let source = if name.ends_with(captured.trim_start_matches(CARELESS)) {
                    own.as_path()
                } else {
                    Path::new(source)
                };
                // Another filesystem takes no hard link.
                fs::hard_link(source, set.join(name))
                    .or_else(|_| fs::copy(source, set.join(name)).map(drop))
                    .unwrap();
            }
        }
        Self { directory }
    }

    /// `r-tftpd` of the set in which `captured` is ours.
    pub(crate) fn supervisor(&self, captured: &str) -> PathBuf {
        self.directory.path().join(captured).join("r-tftpd")
    }
}

/// One test for each probe of a group: runs it against a fresh daemon.
fn each(
    group: &'static str,
    probes: Vec<Probe>,
    programs: &Arc<Programs>,
    run: fn(&Path, usize, &str, Expected),
) -> Vec<Test> {
    let probes = probes.into_iter().enumerate();
    probes
        .map(|(index, Probe { name, expected, .. })| {
            let supervisor = programs.supervisor(group);
            named(group, name, move || {
                run(&supervisor, index, name, expected);
            })
        })
        .collect()
}

/// A root with the files that deeds need; its link leads to this port of loopback.
pub(crate) fn root(port: u16) -> TempDir {
    let root = TempDir::new();
    furnish(root.path(), port).unwrap();
    root
}

pub(crate) fn serves(daemon: &Daemon) {
    let transfer = Client::new(daemon.address()).get(HELLO.0, &[]).unwrap();
    assert_eq!(transfer.bytes, HELLO.1);
}

/// Whatever a captured worker does, the origin hears of nothing but what the link names.
fn worker(supervisor: &Path, index: usize, name: &str, expected: Expected) {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = origin.local_addr().unwrap().port();
    let root = root(port);
    let ports = port.to_string();
    let daemon = Daemon::start(supervisor, root.path(), &["--proxy-ports", &ports]);
    Client::new(daemon.address()).ask(&format!("{PROBE}{index}"), &[]);
    judge(&daemon, name, expected);
    serves(&daemon);
    let mut asked = [PollFd::new(origin.as_fd(), PollFlags::POLLIN)];
    let patience = if name == fetches::HONEST {
        DEADLINE
    } else {
        Duration::ZERO
    };
    let asked = poll(&mut asked, PollTimeout::try_from(patience).unwrap()).unwrap();
    assert!(name == fetches::TWICE || (asked == 1) == (name == fetches::HONEST));
}

fn broker(supervisor: &Path, index: usize, name: &str, expected: Expected) {
    let root = root(80);
    let cache = TempDir::new();
    let file = cache.write(NAMED, b"named");
    for (path, mode) in [(cache.path(), 0o777), (&file, 0o666)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let arguments = ["--cache-dir", cache.path().to_str().unwrap()];
    let daemon = Daemon::start(supervisor, root.path(), &arguments);
    let client = Client::new(daemon.address());
    client.ask(&format!("{PROBE}{index}"), &[]);
    judge(&daemon, name, expected);
    client.ask("are you there", &[]);
    daemon.wait_for(|record| record["fields"]["result"] == ALIVE);
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "{name}");
}

/// Whatever a captured fetcher does, files are served and the next fetcher works.
fn fetcher(supervisor: &Path, index: usize, name: &str, expected: Expected) {
    let root = root(80);
    let daemon = Daemon::start(supervisor, root.path(), &[]);
    let ask = |what: &str| Client::new(daemon.address()).ask(&format!("{LINK}/{what}"), &[]);
    ask(&format!("{PROBE}{index}"));
    judge(&daemon, name, expected);
    if matches!(expected, Expected::Killed | Expected::Replaced) {
        daemon.wait_for(|record| message(record) == "fetcher is back");
    }
    serves(&daemon);
    ask("still-there");
    daemon.wait_for(|record| record["fields"]["result"] == ALIVE);
}

/// Every path of the corpus, asked of the real broker, by openat2 and by the walk.
fn paths(programs: &Arc<Programs>) -> Vec<Test> {
    let ask_all = |daemon: Daemon| {
        let corpus = paths::corpus();
        for (index, path) in corpus.iter().enumerate() {
            let asked = format!("{PATH}{index}");
            Client::new(daemon.address()).ask(&asked, &[]);
            let record = daemon.wait_for(|record| message(record) == asked);
            let result = record["fields"]["result"].as_str().unwrap();
            let shown = path.escape_ascii().to_string();
            assert!(paths::is_right(path, result), "{shown:.100}: {result}");
        }
    };
    let (by_openat2, by_walk) = (Arc::clone(programs), Arc::clone(programs));
    vec![
        named(
            "paths",
            "by openat2 none leads outside the root",
            move || {
                let tree = Tree::new();
                let daemon = Daemon::start(&by_openat2.supervisor("worker"), tree.root.path(), &[]);
                ask_all(daemon);
            },
        ),
        named(
            "paths",
            "by the walk none leads outside the root",
            move || {
                let tree = Tree::new();
                let supervisor = by_walk.supervisor("worker");
                let daemon =
                    degraded::start(&[libc::SYS_openat2], &supervisor, tree.root.path(), &[]);
                let serving = daemon.wait_for(|record| message(record) == "serving");
                assert_eq!(serving["fields"]["paths"], "walk");
                ask_all(daemon);
            },
        ),
    ]
}

/// The lists of system calls, for the reader of the test's output.
fn lists() -> Vec<Test> {
    let list = |who: &str, calls: Vec<(&str, &str)>, most: usize| {
        let lines: Vec<String> = calls
            .iter()
            .map(|(name, reason)| format!("  {name:<18} {reason}"))
            .collect();
        println!(
            "system calls of the {who}: {}\n{}",
            calls.len(),
            lines.join("\n")
        );
        assert!((10..=most).contains(&calls.len()));
    };
    vec![
        named("worker", "its list of system calls is short", move || {
            list(
                "worker",
                r_tftpd::worker::sandbox::system_calls().collect(),
                34,
            );
        }),
        named("broker", "its list of system calls is short", move || {
            list(
                "broker",
                r_tftpd_broker::broker::sandbox::system_calls().collect(),
                38,
            );
        }),
    ]
}

/// Waits for the result of a probe and compares it with what must come of it.
fn judge(daemon: &Daemon, name: &str, expected: Expected) {
    let is_end = |record: &Value| {
        let text = message(record);
        text.contains(" died: ")
            || text.contains("not trusted any more")
            || text.contains("it is replaced, its fetches fail")
    };
    let is_result = |record: &Value| record["target"] == "captured" && message(record) == name;
    let wanted = |record: &Value| match expected {
        // The end of the other process, which follows, can be seen first.
        Expected::Killed => message(record).contains("killed by seccomp") || is_result(record),
        Expected::Replaced => is_end(record),
        _ => is_end(record) || is_result(record),
    };
    let record = daemon.wait_for(wanted);
    let result = record["fields"]["result"].as_str();
    match expected {
        Expected::Killed => assert_eq!(result, None, "{name}: {record}"),
        Expected::Replaced => {}
        Expected::Fails(errno) => {
            assert_eq!(
                result,
                Some(format!("{errno:?}").as_str()),
                "{name}: {record}"
            );
        }
        Expected::Landlock(abi) if landlock() >= abi => {
            assert_eq!(result, Some("EACCES"), "{name}: {record}");
        }
        Expected::Possible => assert_eq!(result, Some("passed"), "{name}: {record}"),
        Expected::Landlock(_) | Expected::Harmless => {
            assert!(
                result.is_some_and(|result| result != "could not be tried"),
                "{name}: {record}"
            );
        }
    }
}

/// Version of the kernel's Landlock.
pub(crate) fn landlock() -> u32 {
    let version = call(libc::SYS_landlock_create_ruleset, &[0, 0, 1]).unwrap_or(0);
    u32::try_from(version).unwrap()
}

/// A test that belongs to `group`.
pub(crate) fn named(group: &str, name: &str, test: impl FnOnce() + Send + 'static) -> Test {
    (format!("{group}: {name}"), Box::new(test))
}
