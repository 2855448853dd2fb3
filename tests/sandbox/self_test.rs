//! `r-tftpd self-test`, as an operator runs it: on this kernel, on kernels that lack something, and
//! with a worker that is not locked in.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, exit};

use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::{self, Facts, Report};
use r_tftpd_broker::settings::WorkerStart;
use r_tftpd_broker::start;
use r_tftpd_broker::supervisor::self_test::ARGUMENT;
use r_tftpd_test_support::daemon::{command, run_to_end};
use r_tftpd_test_support::files::TempDir;
use serde_json::Value;

use crate::degraded::{LANDLOCK, LANDLOCK_ABI, MDWE, lacking};
use crate::driver::{Test, landlock, named};

const R_TFTPD: &str = env!("CARGO_BIN_EXE_r-tftpd");

/// What must come of it. `unconfined` is an `r-tftpd` whose worker is ours.
pub(crate) fn tests(unconfined: PathBuf) -> Vec<Test> {
    let test = |name: &str, test: fn()| named("self-test", name, test);
    vec![
        test("nothing surprises, and all is said as JSON", || {
            let report = clean(&[], &[]);
            assert!(number(&report, "tried") > 600, "{report}");
            assert_eq!(number(&report, "passed"), number(&report, "tried"));
            assert_eq!(report["missing"], missing(landlock()), "{report}");
            assert_eq!(report["processes"]["worker"]["landlock_abi"], landlock());
            assert!(report["seconds"].as_f64().unwrap() < 20.0, "{report}");
            for process in ["worker", "broker", "fetcher"] {
                let of = |action: &&Value| action["process"] == process;
                assert!(
                    actions(&report).iter().filter(of).count() > 150,
                    "{process}"
                );
            }
        }),
        test("people get a table and a summary", || {
            let (status, text, _) = run(&[], &["--disable-proxy"], Path::new(R_TFTPD));
            assert_eq!(status, Some(0), "{text}");
            for part in [
                "\nbroker: root\n",
                "\n  PASS     reply socket: connect elsewhere ",
                "\nIn force:\n  broker   system calls ",
                " actions: ",
                " 0 surprises; ",
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(!text.contains("fetcher: "), "{text}");
        }),
        test("a bad option is told from a surprise", || {
            for arguments in [&["--sandbox", "off"][..], &["--port", "x"]] {
                let (status, _, error) = run(&[], arguments, Path::new(R_TFTPD));
                assert_eq!(status, Some(2), "{error}");
            }
        }),
        test(
            "without Landlock strict can not start, and says why",
            || {
                let (status, text, error) = run(&calls(&LANDLOCK), &[], Path::new(R_TFTPD));
                assert_eq!((status, text.as_str()), (Some(1), ""), "{error}");
                assert!(
                    error.contains("no Landlock") && error.contains("best-effort"),
                    "{error}"
                );
            },
        ),
        test("without Landlock best-effort says what that allows", || {
            let report = clean(&calls(&LANDLOCK), &["--sandbox", "best-effort"]);
            assert_eq!(report["processes"]["broker"]["landlock_abi"], 0, "{report}");
            assert!(
                is_missing(&report, "Landlock (CONFIG_SECURITY_LANDLOCK"),
                "{report}"
            );
            for name in [
                "open a file outside the root",
                "create a file below the root",
                "connect to another port",
                "cache: cut a file",
            ] {
                assert_eq!(verdict(&report, name), "MISSING", "{name}");
            }
            assert_eq!(verdict(&report, "execve"), "PASS");
        }),
        test(
            "with Landlock 2, as Debian 12 has, ports and cutting are missing",
            || {
                let report = clean(&[format!("{LANDLOCK_ABI}2")], &[]);
                assert_eq!(report["processes"]["broker"]["landlock_abi"], 2, "{report}");
                assert_eq!(report["missing"], missing(2), "{report}");
                assert_eq!(verdict(&report, "connect to another port"), "MISSING");
                assert_eq!(verdict(&report, "cache: cut a file"), "MISSING");
                assert_eq!(verdict(&report, "open a file outside the root"), "PASS");
                assert!(number(&report, "possible") <= 4, "{report}");
            },
        ),
        test(
            "without openat2 paths are walked, and nothing else changes",
            || {
                let report = clean(&calls(&[libc::SYS_openat2]), &["--disable-proxy"]);
                assert_eq!(report["paths"], "walk", "{report}");
                assert!(is_missing(&report, "openat2"), "{report}");
                assert_eq!(number(&report, "possible"), 0, "{report}");
            },
        ),
        test(
            "without MDWE seccomp alone keeps memory from being executed",
            || {
                let report = clean(&[MDWE.into()], &["--disable-proxy"]);
                let worker = &report["processes"]["worker"];
                assert_eq!(worker["memory_deny_write_execute"], false, "{report}");
                assert!(is_missing(&report, "memory-deny-write-execute"), "{report}");
                assert_eq!(verdict(&report, "mmap executable"), "PASS");
            },
        ),
        test(
            "without seccomp nothing is tried, which is no success",
            || {
                let arguments = ["--sandbox", "best-effort", "--json"];
                let (status, text, error) =
                    run(&calls(&[libc::SYS_seccomp]), &arguments, Path::new(R_TFTPD));
                let report: Value =
                    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{error}"));
                assert_eq!(status, Some(1), "{error}");
                assert_eq!(
                    (number(&report, "tried"), &report["clean"]),
                    (0, &false.into())
                );
                assert!(is_missing(&report, "seccomp"), "{report}");
            },
        ),
        named(
            "self-test",
            "a worker that is not locked in is a surprise",
            move || {
                let (status, text, error) = run(&[], &["--disable-proxy", "--json"], &unconfined);
                let report: Value =
                    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{error}"));
                assert_eq!(status, Some(1), "{error}");
                assert_eq!(report["clean"], false);
                for action in actions(&report) {
                    let is_worker = action["process"] == "worker";
                    let may_pass = ["harmless", "succeeds"]
                        .iter()
                        .any(|end| action["expected"] == *end);
                    let wanted = if is_worker && !may_pass {
                        "FAIL"
                    } else {
                        "PASS"
                    };
                    assert_eq!(action["verdict"], wanted, "{action}");
                }
            },
        ),
    ]
}

/// Runs a self-test on a kernel that lacks something: exit status, output, errors.
fn run(what: &[String], arguments: &[&str], program: &Path) -> (Option<i32>, String, String) {
    let root = TempDir::new();
    let mut line = vec!["self-test", "--root", root.path().to_str().unwrap()];
    line.extend(arguments);
    let command: Command = if what.is_empty() {
        let mut plain = command(program, &line);
        plain.env_clear();
        plain
    } else {
        lacking(what, program, &line)
    };
    let output = run_to_end(command);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// The report of a self-test that nothing surprises.
fn clean(what: &[String], arguments: &[&str]) -> Value {
    let arguments = [&["--json"], arguments].concat();
    let (status, text, error) = run(what, &arguments, Path::new(R_TFTPD));
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{error}"));
    let fails = |action: &&Value| action["verdict"] == "FAIL";
    let surprises: Vec<_> = actions(&report).iter().filter(fails).collect();
    assert!(surprises.is_empty(), "{surprises:?}");
    assert_eq!((status, error.as_str()), (Some(0), ""), "{report}");
    assert_eq!(report["clean"], true);
    report
}

/// What is missing with Landlock of this version and nothing else missing.
fn missing(version: u32) -> Value {
    let rights = [
        (3, "cut files"),
        (4, "TCP ports"),
        (5, "device ioctls"),
        (6, "scopes"),
    ];
    let missing = rights.iter().filter(|(since, _)| version < *since);
    let found = missing.map(|(_, right)| {
        let all = r_tftpd::self_test::rights();
        let (_, what, follows) = all
            .iter()
            .find(|(_, what, _)| what.contains(right))
            .unwrap();
        serde_json::json!({"what": what, "follows": follows})
    });
    found.collect()
}

fn is_missing(report: &Value, what: &str) -> bool {
    let missing = report["missing"].as_array().unwrap();
    let names = |missing: &Value| missing["what"].as_str().unwrap().starts_with(what);
    missing.iter().any(names)
}

fn actions(report: &Value) -> &[Value] {
    report["actions"].as_array().unwrap()
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap()
}

/// Of the first action of this name.
fn verdict<'r>(report: &'r Value, name: &str) -> &'r str {
    let action = actions(report)
        .iter()
        .find(|action| action["action"] == name);
    action.unwrap()["verdict"].as_str().unwrap()
}

fn calls(calls: &[i64]) -> Vec<String> {
    calls.iter().map(i64::to_string).collect()
}

/// In the place of a worker in a self-test: says that it is locked down, and is not. Whatever the
/// deed is, it claims to have done it.
pub(crate) fn unconfined() -> Option<ExitCode> {
    std::env::args().nth(1)?.strip_prefix(ARGUMENT)?;
    let control = start::take_control(c"r-tftpd-worker").unwrap();
    let (_, descriptors) = start::receive::<WorkerStart>(&control).unwrap();
    let [broker] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
    let _broker = Channel::from_descriptor(broker);
    let ready = Report::Ready(Facts::default());
    control.send(&ready.to_bytes()).unwrap();
    control.receive(&mut [0; control::SIZE]).unwrap();
    exit(110)
}
