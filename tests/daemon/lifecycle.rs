//! Start, reload, stop, and the death of each process.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use r_tftpd_test_support::client::{Client, Packet};
use r_tftpd_test_support::daemon::{Daemon, is_request, message};
use r_tftpd_test_support::files::TempDir;

use crate::{R_TFTPD, assert_serves, root_with_file, serve};

/// A transfer that has begun: block 2 has arrived, block 1 is acknowledged.
fn begun(daemon: &Daemon, contents: &[u8]) -> Client {
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), Packet::Data(1, contents[..512].to_vec()));
    client.ack(1);
    assert_eq!(
        client.receive(),
        Packet::Data(2, contents[512..1024].to_vec())
    );
    client
}

/// The rest of a transfer that has begun.
fn finish(mut client: Client, contents: &[u8]) {
    for block in 3_u16.. {
        client.ack(block - 1);
        let start = usize::from(block - 1) * 512;
        let end = contents.len().min(start + 512);
        assert_eq!(
            client.receive(),
            Packet::Data(block, contents[start..end].to_vec())
        );
        if end - start < 512 {
            client.ack(block);
            return;
        }
    }
}

#[test]
fn a_reload_in_mid_transfer_keeps_the_transfer_and_serves_new_requests() {
    let (root, contents) = root_with_file(10_000);
    let daemon = serve(&root, &[]);
    let old = daemon.child("r-tftpd-worker");
    let transfer = begun(&daemon, &contents);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(|record| message(record) == "reloaded");
    let new = daemon.child("r-tftpd-worker");
    assert_ne!(old.pid, new.pid);
    assert_serves(&daemon, &contents);
    finish(transfer, &contents);
    let complete = daemon.wait_for_many(2, |record| message(record) == "complete");
    assert_eq!(complete.len(), 2);
}

#[test]
fn programs_that_were_replaced_on_disk_are_not_started_by_a_server_that_runs() {
    let names = [
        "r-tftpd",
        "r-tftpd-broker",
        "r-tftpd-worker",
        "r-tftpd-fetcher",
    ];
    let set = TempDir::new();
    for name in names {
        fs::copy(
            Path::new(R_TFTPD).with_file_name(name),
            set.path().join(name),
        )
        .unwrap();
    }
    let (root, contents) = root_with_file(600);
    let daemon = Daemon::start(&set.path().join(names[0]), root.path(), &[]);
    for name in &names[1..] {
        fs::remove_file(set.path().join(name)).unwrap();
        set.write(name, b"what another left in its place");
    }
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(|record| message(record) == "reloaded");
    assert_serves(&daemon, &contents);
    daemon.child("r-tftpd-worker").signal(Signal::SIGKILL);
    daemon.wait_for_many(2, |record| message(record) == "serving");
    assert_serves(&daemon, &contents);
}

#[test]
fn ten_reloads_in_a_storm_lose_no_request() {
    let (root, contents) = root_with_file(3000);
    let daemon = serve(&root, &[]);
    for reload in 1..=10 {
        let clients: Vec<Client> = (0..30).map(|_| Client::new(daemon.address())).collect();
        for (index, client) in clients.iter().enumerate() {
            client.ask("file", &[]);
            if index == 10 {
                daemon.signal(Signal::SIGHUP);
            }
        }
        for mut client in clients {
            // Sent once and answered: none was lost.
            assert_eq!(client.receive(), Packet::Data(1, contents[..512].to_vec()));
            client.abort(0, "enough");
        }
        daemon.wait_for_many(reload, |record| message(record) == "reloaded");
    }
}

#[test]
fn the_old_generation_ends_after_its_last_transfer() {
    let (root, contents) = root_with_file(10_000);
    let daemon = serve(&root, &[]);
    let old = [
        daemon.child("r-tftpd-worker"),
        daemon.child("r-tftpd-broker"),
    ];
    let transfer = begun(&daemon, &contents);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(|record| message(record) == "reloaded");
    assert!(old[0].is_alive());
    finish(transfer, &contents);
    daemon.wait_for(is_request);
    // The storm gives it time; there is no event a test could wait for.
    let end = std::time::Instant::now() + r_tftpd_test_support::DEADLINE;
    while old
        .iter()
        .any(r_tftpd_test_support::processes::Process::is_alive)
    {
        assert!(std::time::Instant::now() < end, "still there: {old:?}");
        assert_serves(&daemon, &contents);
    }
}

#[test]
fn sigterm_lets_a_transfer_finish_and_takes_no_new_request() {
    let (root, contents) = root_with_file(10_000);
    let daemon = serve(&root, &[]);
    let transfer = begun(&daemon, &contents);
    daemon.signal(Signal::SIGTERM);
    finish(transfer, &contents);
    let record = daemon.wait_for_request("file");
    assert_eq!(message(&record), "complete");
    let late = Client::new(daemon.address());
    late.ask("file", &[]);
    assert!(daemon.wait().success());
}

#[test]
fn sigint_stops_as_sigterm_does() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    daemon.signal(Signal::SIGINT);
    assert!(daemon.wait().success());
}

#[test]
fn sigterm_ends_the_unproven_at_once() {
    let (root, _) = root_with_file(10_000);
    let daemon = serve(&root, &["--timeout", "60", "--drain-timeout", "3600"]);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    client.receive();
    daemon.signal(Signal::SIGTERM);
    let record = daemon.wait_for_request("file");
    assert_eq!(message(&record), "stopped");
    assert!(daemon.wait().success());
}

#[test]
fn after_the_drain_timeout_a_transfer_is_cut_off() {
    let (root, contents) = root_with_file(10_000);
    let daemon = serve(&root, &["--timeout", "60", "--drain-timeout", "0.2"]);
    let _transfer = begun(&daemon, &contents);
    daemon.signal(Signal::SIGTERM);
    daemon.wait();
}

#[test]
fn a_second_sigterm_stops_at_once() {
    let (root, contents) = root_with_file(10_000);
    let daemon = serve(&root, &["--timeout", "60", "--drain-timeout", "3600"]);
    let _transfer = begun(&daemon, &contents);
    daemon.signal(Signal::SIGTERM);
    // Both signals would become one if the second came before the first was taken.
    daemon.wait_for(|record| message(record).starts_with("stopping"));
    daemon.signal(Signal::SIGTERM);
    daemon.wait();
}

/// Whether a record tells of a death.
fn died(record: &serde_json::Value) -> bool {
    message(record).contains(" died: ")
}

/// Kills a process in the middle of a storm. Each client asks once, and again only if it had been
/// read by the process that died.
fn kill_in_a_storm(name: &str) {
    let (root, contents) = root_with_file(3000);
    let daemon = serve(&root, &[]);
    let victim = daemon.child(name);
    let clients: Vec<Client> = (0..100).map(|_| Client::new(daemon.address())).collect();
    for (index, client) in clients.iter().enumerate() {
        client.ask("file", &[]);
        if index == 50 {
            victim.signal(Signal::SIGKILL);
        }
    }
    daemon.wait_for(died);
    thread::scope(|scope| {
        for mut client in clients {
            let contents = &contents;
            scope.spawn(move || {
                let transfer = client.get_what_was_asked("file", &[]).unwrap();
                assert_eq!(transfer.bytes, *contents);
            });
        }
    });
    assert!(!victim.is_alive());
}

#[test]
fn the_worker_killed_in_a_storm_is_replaced_and_every_client_is_served() {
    kill_in_a_storm("r-tftpd-worker");
}

#[test]
fn the_broker_killed_in_a_storm_is_replaced_and_every_client_is_served() {
    kill_in_a_storm("r-tftpd-broker");
}

#[test]
fn requests_that_come_while_no_process_serves_wait_in_the_socket() {
    let (root, contents) = root_with_file(300);
    let daemon = serve(&root, &[]);
    let broker = daemon.child("r-tftpd-broker");
    // A stopped broker reads nothing: all of these are still queued when it dies.
    broker.signal(Signal::SIGSTOP);
    let clients: Vec<Client> = (0..100).map(|_| Client::new(daemon.address())).collect();
    for client in &clients {
        client.ask("file", &[]);
    }
    broker.signal(Signal::SIGKILL);
    for mut client in clients {
        assert_eq!(
            client.receive(),
            Packet::Data(1, contents.clone()),
            "asked only once"
        );
        client.ack(1);
    }
}

#[test]
fn the_log_says_which_process_died_of_which_signal() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    daemon.child("r-tftpd-worker").signal(Signal::SIGABRT);
    let is_it = |record: &_| message(record) == "worker died: killed by SIGABRT";
    assert_eq!(daemon.wait_for(is_it)["level"], "ERROR");
}

#[test]
fn after_too_many_deaths_the_supervisor_gives_up_with_status_1() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    for deaths in 1..=6 {
        daemon.child("r-tftpd-worker").signal(Signal::SIGKILL);
        if deaths < 6 {
            daemon.wait_for_many(deaths + 1, |record| message(record) == "serving");
        }
    }
    assert_eq!(daemon.wait().code(), Some(1));
}

#[test]
fn without_the_supervisor_all_processes_end() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    let children = [
        daemon.child("r-tftpd-worker"),
        daemon.child("r-tftpd-broker"),
    ];
    daemon.signal(Signal::SIGKILL);
    // Returns only when nobody holds the log any more.
    daemon.wait();
    assert!(children.iter().all(|child| !child.is_alive()));
}

#[test]
fn user_signals_are_reported_by_the_worker_and_end_nothing() {
    let (root, contents) = root_with_file(600);
    let daemon = serve(&root, &[]);
    let of_worker = |record: &serde_json::Value| {
        record["target"]
            .as_str()
            .is_some_and(|target| target.starts_with("r_tftpd::worker"))
    };
    let before = daemon
        .records()
        .iter()
        .filter(|record| of_worker(record))
        .count();
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_many(before + 1, of_worker);
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_many(before + 2, of_worker);
    assert_serves(&daemon, &contents);
}

#[test]
fn an_idle_daemon_stops_within_a_second() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    let start = std::time::Instant::now();
    daemon.stop();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}
