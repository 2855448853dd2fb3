//! Attackers in the places of worker and fetcher, watched from outside: how many attempts they make,
//! how many of them get out (none), and how long it takes until clients are served again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use r_tftpd_broker::supervisor::self_test::LINK;
use r_tftpd_test_support::client::Client;
use r_tftpd_test_support::daemon::{Daemon, message};
use serde_json::Value;

use crate::attacker::{ATTACK, DEAF, ESCAPE, FLOOD, FLOOD_SUPERVISOR, HANG_UP, HOSTILE_PATH, KEPT};
use crate::driver::{Programs, Test, named, root, serves};

/// Different ways in which an attacker goes on.
const SEEDS: usize = 32;

/// Paths asked for.
const PATHS: usize = 1000;

/// All attacks.
pub(crate) fn tests(programs: &Arc<Programs>) -> Vec<Test> {
    let mut tests = Vec::new();
    let mut add =
        |name: &str, set: &'static str, arguments: &'static [&str], attack: fn(&Daemon)| {
            let programs = Arc::clone(programs);
            tests.push(named("attack", name, move || {
                let root = root(80);
                attack(&Daemon::start(
                    &programs.supervisor(set),
                    root.path(),
                    arguments,
                ));
            }));
        };
    add("a worker asks for hostile paths", "worker", &[], paths);
    add(
        "a worker that is killed is replaced",
        "worker",
        &[],
        |daemon| killed(daemon, "worker"),
    );
    add(
        "a broker that is killed is replaced",
        "worker",
        &[],
        |daemon| killed(daemon, "broker"),
    );
    add(
        "a fetcher that is killed is replaced",
        "fetcher",
        &[],
        killed_fetcher,
    );
    add(
        "a worker that hears nothing fills no memory",
        "worker",
        &[],
        deaf_worker,
    );
    add(
        "a fetcher that hears nothing fills no memory",
        "fetcher",
        &[],
        deaf_fetcher,
    );
    add(
        "descriptors of a worker without seccomp are refused",
        "careless-worker",
        &[],
        |daemon| {
            flood(daemon, FLOOD);
        },
    );
    add(
        "descriptors for the supervisor are refused",
        "careless-worker",
        &[],
        |daemon| {
            flood(daemon, FLOOD_SUPERVISOR);
        },
    );
    add(
        "descriptors of a fetcher without seccomp are refused",
        "careless-fetcher",
        &[],
        flood_of_fetcher,
    );
    add(
        "a fetcher that hangs up and lives on is replaced",
        "fetcher",
        &[],
        |daemon| {
            Client::new(daemon.address()).ask(&format!("{LINK}/{HANG_UP}"), &[]);
            daemon.wait_for(|record| message(record) == "fetcher is back");
            serves(daemon);
        },
    );
    let figures = Arc::new(Mutex::new(BTreeMap::new()));
    for (who, attack) in [
        ("worker", worker as fn(&Daemon, usize) -> Figures),
        ("fetcher", fetcher),
    ] {
        for seed in 0..SEEDS {
            let (programs, figures) = (Arc::clone(programs), Arc::clone(&figures));
            let name = format!("a {who} says anything to the broker, seed {seed}");
            tests.push(named("attack", &name, move || {
                let root = root(80);
                let daemon = Daemon::start(&programs.supervisor(who), root.path(), &[]);
                let found = attack(&daemon, seed);
                assert_eq!(found.escapes, 0, "seed {seed}");
                let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
                let sum: &mut Figures = figures.entry(who).or_default();
                sum.add(found);
                if sum.runs == SEEDS {
                    sum.print(who);
                }
            }));
        }
    }
    tests
}

/// What attacks came to.
#[derive(Default)]
struct Figures {
    runs: usize,
    attempts: usize,
    escapes: usize,
    /// From the end of the captured process until a client was served.
    recoveries: Vec<Duration>,
}

impl Figures {
    fn add(&mut self, other: Self) {
        self.runs += 1;
        self.attempts += other.attempts;
        self.escapes += other.escapes;
        self.recoveries.extend(other.recoveries);
    }

    fn print(&mut self, who: &str) {
        self.recoveries.sort();
        let middle = self.recoveries[self.recoveries.len() / 2].as_millis();
        let longest = self.recoveries.last().unwrap().as_millis();
        println!(
            "captured {who}: {} attempts, {} escapes; {} recoveries, half of them within {middle} ms, all \
             within {longest} ms",
            self.attempts,
            self.escapes,
            self.recoveries.len(),
        );
    }
}

fn count(daemon: &Daemon, result: &str) -> usize {
    let records = daemon.records();
    let is = |record: &&Value| message(record) == "attempt" && record["fields"]["result"] == result;
    records.iter().filter(is).count()
}

fn is_end(record: &Value) -> bool {
    message(record).contains(" died: ") || message(record).contains("not trusted any more")
}

/// Two generations, each until the broker has had enough.
fn worker(daemon: &Daemon, seed: usize) -> Figures {
    let mut recoveries = Vec::new();
    for life in 0..2 {
        let client = Client::new(daemon.address());
        client.ask(&format!("{ATTACK}{}", 2 * seed + life), &[]);
        daemon.wait_for_many(life + 1, |record| {
            message(record).contains("worker broke the protocol")
                || message(record).contains("worker: ")
        });
        let begin = Instant::now();
        serves(daemon);
        recoveries.push(begin.elapsed());
    }
    Figures {
        runs: 1,
        attempts: count(daemon, KEPT) + count(daemon, ESCAPE),
        escapes: count(daemon, ESCAPE),
        recoveries,
    }
}

/// Two fetchers, each until it is not trusted any more. Neither worker nor broker may suffer.
fn fetcher(daemon: &Daemon, seed: usize) -> Figures {
    let mut recoveries = Vec::new();
    for life in 0..2 {
        let ask = |what: &str| Client::new(daemon.address()).ask(&format!("{LINK}/{what}"), &[]);
        ask(&format!("{ATTACK}{}", 2 * seed + life));
        daemon.wait_for_many(life + 1, |record| {
            message(record).contains("it is replaced, its fetches fail")
        });
        let begin = Instant::now();
        serves(daemon);
        daemon.wait_for_many(life + 1, |record| message(record) == "fetcher is back");
        ask(&format!("alive-{life}"));
        daemon.wait_for(|record| message(record) == format!("alive-{life}"));
        recoveries.push(begin.elapsed());
    }
    let others = |record: &&Value| {
        let text = message(record);
        is_end(record) && (text.contains("worker") || text.contains("broker"))
    };
    let records = daemon.records();
    let escapes = records.iter().filter(others).count();
    Figures {
        runs: 1,
        attempts: count(daemon, KEPT),
        escapes,
        recoveries,
    }
}

/// Every answer is a file below the root, or none.
fn paths(daemon: &Daemon) {
    let mut granted = 0;
    for seed in 0..PATHS {
        let name = format!("{HOSTILE_PATH}{seed}");
        Client::new(daemon.address()).ask(&name, &[]);
        let record = daemon.wait_for(|record| message(record) == name);
        let result = record["fields"]["result"].as_str().unwrap();
        let inside = result.starts_with("granted inside: ");
        let refused = ["missing", "denied ", "linked http://127.0.0.1"]
            .iter()
            .any(|start| result.starts_with(start));
        assert!(inside || refused, "seed {seed}: {result}");
        granted += usize::from(inside);
    }
    println!(
        "captured worker: {PATHS} hostile paths, 0 escapes, {granted} led to files below the root"
    );
}

/// Time from SIGKILL until a client is served, with the supervisor's pause before a restart.
fn killed(daemon: &Daemon, who: &str) {
    for life in 0..3 {
        let process = daemon.child(&format!("r-tftpd-{who}"));
        let begin = Instant::now();
        process.signal(Signal::SIGKILL);
        daemon.wait_for_many(life + 1, |record| {
            message(record).contains(&format!("{who} died: "))
        });
        serves(daemon);
        println!(
            "killed {who}, time {}: served after {} ms",
            life + 1,
            begin.elapsed().as_millis()
        );
    }
}

fn killed_fetcher(daemon: &Daemon) {
    for life in 0..3 {
        daemon.wait_for_many(life, |record| message(record) == "fetcher is back");
        let begin = Instant::now();
        daemon.child("r-tftpd-fetcher").signal(Signal::SIGKILL);
        serves(daemon);
        let served = begin.elapsed().as_millis();
        daemon.wait_for_many(life + 1, |record| message(record) == "fetcher is back");
        let back = begin.elapsed().as_millis();
        println!(
            "killed fetcher, time {}: files after {served} ms, links after {back} ms",
            life + 1
        );
    }
}

/// Of the broker, in KiB, and how many descriptors there is room for.
fn size(daemon: &Daemon) -> (u64, u64) {
    let broker = daemon.child("r-tftpd-broker");
    let number = |key: &str| {
        broker
            .status(key)
            .split(' ')
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    (number("VmRSS"), number("FDSize"))
}

fn deaf_worker(daemon: &Daemon) {
    // Its answers to pings still count.
    assert_growth_is_bounded(daemon, "worker", "", 500, || ());
    daemon.child("r-tftpd-worker").signal(Signal::SIGKILL);
    daemon.wait_for(|record| message(record).contains("worker died: "));
    serves(daemon);
}

fn deaf_fetcher(daemon: &Daemon) {
    let below = format!("{LINK}/");
    assert_growth_is_bounded(daemon, "fetcher", &below, 50, || serves(daemon));
    daemon.child("r-tftpd-fetcher").signal(Signal::SIGKILL);
    daemon.wait_for(|record| message(record) == "fetcher is back");
    serves(daemon);
}

/// Makes the process that answers what is asked below `place` deaf, and has 20 clients ask for
/// `names` there. Then, and when `meanwhile` has returned, the broker must not be much larger.
fn assert_growth_is_bounded(
    daemon: &Daemon,
    who: &str,
    place: &str,
    names: usize,
    meanwhile: impl FnOnce(),
) {
    let (before, _) = size(daemon);
    Client::new(daemon.address()).ask(&format!("{place}{DEAF}"), &[]);
    daemon.wait_for(|record| message(record) == DEAF);
    let clients: Vec<_> = (0..20).map(|_| Client::new(daemon.address())).collect();
    for number in 0..names {
        for client in &clients {
            client.ask(&format!("{place}file-{number}"), &[]);
        }
    }
    meanwhile();
    let (after, descriptors) = size(daemon);
    println!(
        "{} requests, {who} deaf: broker grew by {} KiB",
        names * clients.len(),
        after.saturating_sub(before)
    );
    assert!(
        after < before + 32 * 1024 && descriptors <= 16384,
        "{after} {descriptors}"
    );
}

fn flood(daemon: &Daemon, how: &str) {
    Client::new(daemon.address()).ask(how, &[]);
    daemon.wait_for(is_end);
    serves(daemon);
    assert!(count(daemon, KEPT) < 1000);
}

fn flood_of_fetcher(daemon: &Daemon) {
    Client::new(daemon.address()).ask(&format!("{LINK}/{FLOOD}"), &[]);
    daemon.wait_for(|record| message(record) == "fetcher is back");
    serves(daemon);
    assert!(count(daemon, KEPT) < 1000);
}
