//! What each process may still do, as the kernel tells it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use r_tftpd_test_support::client::Client;
use r_tftpd_test_support::daemon::{Daemon, message};
use r_tftpd_test_support::processes::Process;

use crate::{assert_serves, root_with_file, serve};

/// What the supervisor starts, by the names of ps.
const CHILDREN: [&str; 3] = ["r-tftpd-broker", "r-tftpd-fetcher", "r-tftpd-worker"];

fn processes(daemon: &Daemon) -> [Process; 4] {
    let [broker, fetcher, worker] = CHILDREN.map(|name| daemon.child(name));
    [daemon.supervisor(), broker, fetcher, worker]
}

fn names_of_children(daemon: &Daemon) -> Vec<String> {
    let children = Process::children_of(daemon.supervisor().pid);
    for child in &children {
        assert_eq!(Process::children_of(child.pid), []);
    }
    let mut names: Vec<_> = children.into_iter().map(|child| child.name).collect();
    names.sort_unstable();
    names
}

#[test]
fn there_are_four_processes_with_their_names_and_no_more() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    assert_eq!(daemon.supervisor().status("Name"), "r-tftpd");
    assert_eq!(names_of_children(&daemon), CHILDREN);
}

#[test]
fn without_the_proxy_there_is_no_fetcher() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &["--disable-proxy"]);
    assert_eq!(
        names_of_children(&daemon),
        ["r-tftpd-broker", "r-tftpd-worker"]
    );
}

#[test]
fn none_holds_what_belongs_to_another() {
    let (root, contents) = root_with_file(600);
    let daemon = serve(&root, &[]);
    let transfer = Client::new(daemon.address()).get("file", &[]).unwrap();
    assert_eq!(transfer.bytes, contents);
    let table = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap();
    let udp = table("udp") + &table("udp6");
    let listener = format!(":{:04X}", daemon.address().port());
    for process in processes(&daemon) {
        let (mut listeners, mut replies) = (0, 0);
        // Of processes that are not dumpable only root can see it.
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else {
            continue;
        };
        for entry in entries {
            let Ok(target) = fs::read_link(entry.unwrap().path()) else {
                continue;
            };
            let target = target.to_string_lossy().into_owned();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            for socket in udp.lines() {
                let fields: Vec<_> = socket.split_whitespace().collect();
                if fields.get(9).copied() == inode && inode.is_some() {
                    let is_listener = fields
                        .get(1)
                        .is_some_and(|local| local.ends_with(&listener));
                    *(if is_listener {
                        &mut listeners
                    } else {
                        &mut replies
                    }) += 1;
                }
            }
        }
        let expected = match process.name.as_str() {
            "r-tftpd" => [1, 0],
            "r-tftpd-broker" => [1, 1],
            "r-tftpd-worker" => [0, 1],
            _ => [0, 0],
        };
        // The reply socket of a transfer that has ended is kept for the next one.
        assert_eq!([listeners, replies], expected, "{}", process.name);
    }
}

#[test]
fn nobody_of_the_same_user_can_look_into_any() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    for process in processes(&daemon) {
        // proc(5): what is in there belongs to root as long as a process is not dumpable, else to
        // its own user, who then may trace it, too.
        let memory = fs::metadata(format!("/proc/{}/mem", process.pid)).unwrap();
        assert_eq!(memory.uid(), 0, "{}", process.name);
        assert_ne!(process.status("Uid").split_whitespace().next(), Some("0"));
    }
}

#[test]
fn none_is_uid_0_none_has_a_capability_all_have_no_new_privs() {
    let (root, contents) = root_with_file(600);
    let daemon = serve(&root, &[]);
    assert_serves(&daemon, &contents);
    for process in processes(&daemon) {
        let name = &process.name;
        for key in ["Uid", "Gid"] {
            let ids = process.status(key);
            assert!(
                ids.split_whitespace().all(|id| id != "0"),
                "{name} {key} {ids}"
            );
        }
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(process.status(set), "0000000000000000", "{name} {set}");
        }
        assert_eq!(process.status("NoNewPrivs"), "1", "{name}");
        assert!(
            !process
                .status("Groups")
                .split_whitespace()
                .any(|id| id == "0"),
            "{name}"
        );
    }
}

#[test]
fn started_by_root_the_bounding_set_is_empty_too() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    let held = fs::read_to_string("/proc/self/status").unwrap();
    let by_root = held.lines().any(|line| line.starts_with("Uid:\t0\t"));
    for process in processes(&daemon) {
        let expected = if by_root {
            "0000000000000000".to_owned()
        } else {
            // A plain user can not empty it, and it is worth nothing under no_new_privs.
            held.lines()
                .find_map(|line| line.strip_prefix("CapBnd:\t"))
                .unwrap()
                .to_owned()
        };
        assert_eq!(process.status("CapBnd"), expected, "{}", process.name);
    }
}

#[test]
fn all_that_the_supervisor_starts_have_seccomp_in_every_thread() {
    let (root, contents) = root_with_file(600);
    let daemon = serve(&root, &[]);
    assert_serves(&daemon, &contents);
    for name in CHILDREN {
        let process = daemon.child(name);
        for thread in fs::read_dir(format!("/proc/{}/task", process.pid)).unwrap() {
            let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
                assert!(
                    status.lines().any(|found| found == line),
                    "{name}: {status}"
                );
            }
        }
    }
}

#[test]
fn the_children_have_their_own_session_and_an_empty_environment() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    for name in CHILDREN {
        let process = daemon.child(name);
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
        let rest = stat[stat.rfind(')').unwrap() + 1..].to_owned();
        let session = rest.split_whitespace().nth(3).unwrap();
        assert_eq!(session, process.pid.to_string(), "{name}");
        // Not readable for a plain user: the process is not dumpable.
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        assert_eq!(environment, b"", "{name}");
    }
}

#[test]
fn the_start_line_says_what_is_in_force() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    let record = daemon.wait_for(|record| message(record) == "serving");
    let fields = &record["fields"];
    assert_eq!(record["level"], "INFO");
    assert_eq!(fields["root"], root.path().to_str().unwrap());
    assert_eq!(
        fields["uid"].to_string(),
        daemon
            .supervisor()
            .status("Uid")
            .split('\t')
            .next()
            .unwrap()
    );
    assert!(matches!(
        fields["capabilities"].as_str(),
        Some("none" | "none, bounding set kept")
    ));
    assert_eq!(fields["no_new_privs"], true);
    let number = |field: &str| fields[field].as_str().unwrap().parse::<u32>().unwrap();
    assert!(number("landlock") >= 1, "{record}");
    assert!((10..40).contains(&number("seccomp_worker")), "{record}");
    assert!((10..40).contains(&number("seccomp_broker")), "{record}");
    assert!((10..60).contains(&number("seccomp_fetcher")), "{record}");
    assert!(fields["mdwe"].is_boolean(), "{record}");
    assert!(
        matches!(fields["paths"].as_str(), Some("openat2" | "walk")),
        "{record}"
    );
    assert!(fields["receive_buffer"].as_u64().unwrap() > 0, "{record}");
}
