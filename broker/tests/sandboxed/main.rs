//! The real broker, in a process of its own and with its sandbox on, between a supervisor, a worker
//! and clients played here.
//!
//! This program is also the broker: it starts a copy of itself, as an unprivileged user when it
//! has the choice.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test without the harness that these lints know"
)]

use std::fs;
use std::net::UdpSocket;
use std::process::ExitCode;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, geteuid};
use r_tftpd_broker::broker::{self, sandbox};
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::{Order, Report};
use r_tftpd_broker::wire::{Denial, ToBroker, ToWorker};

mod proxying;
mod rig;

use self::rig::{Rig, content, hide_openat2, spawn, tree};

/// The argument that makes this program the broker.
const BROKER: &str = "broker";

/// The argument that makes this program the broker in a container of an older kind.
const BROKER_WITHOUT_OPENAT2: &str = "broker-without-openat2";

/// Enough for every test but one.
const OPEN_FILES: u32 = 1024;

/// Used when the test runs as root: the broker refuses to.
const NOBODY: u32 = 65_534;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(BROKER) => return broker::main(|_| ()),
        Some(BROKER_WITHOUT_OPENAT2) => {
            hide_openat2();
            return broker::main(|_| ());
        }
        _ => (),
    }
    for (name, reason) in sandbox::system_calls() {
        println!("{name}: {reason}");
    }
    let tests: [(&str, fn()); 12] = [
        ("it is locked down", it_is_locked_down),
        (
            "it serves files and refuses the rest",
            it_serves_files_and_refuses_the_rest,
        ),
        (
            "it serves where openat2 is missing",
            it_serves_where_openat2_is_missing,
        ),
        ("it has links fetched", proxying::it_has_links_fetched),
        (
            "it serves many clients over both families",
            it_serves_many_clients_over_both_families,
        ),
        (
            "it lends a socket again over both families",
            it_lends_a_socket_again,
        ),
        (
            "it waits when too many descriptors are on their way",
            it_waits_for_descriptors,
        ),
        (
            "it refuses a start message that is none",
            it_refuses_a_start_message_that_is_none,
        ),
        (
            "it goes on after it was stopped",
            it_goes_on_after_it_was_stopped,
        ),
        (
            "it ends when its worker is done",
            it_ends_when_its_worker_is_done,
        ),
        (
            "it ends when its worker breaks the protocol",
            it_ends_when_its_worker_breaks_the_protocol,
        ),
        (
            "it ends when its supervisor is gone",
            it_ends_when_its_supervisor_is_gone,
        ),
    ];
    for (name, test) in tests {
        println!("test {name} ...");
        test();
    }
    println!("{} passed", tests.len());
    ExitCode::SUCCESS
}

fn it_is_locked_down() {
    let rig = Rig::start();
    assert!(!geteuid().is_root() || rig.facts.uid == NOBODY);
    assert_eq!(
        rig.facts.system_calls as usize,
        sandbox::system_calls().count()
    );
    assert!(rig.facts.landlock_abi > 0);
    assert!(rig.facts.no_new_privs && rig.facts.no_capabilities);
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", rig.child.id())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
            assert!(status.contains(line), "{line} missing in {status}");
        }
        threads += 1;
    }
    assert_eq!(threads, 3, "the broker and two helpers");
}

fn it_serves_files_and_refuses_the_rest() {
    let rig = Rig::start();
    assert!(rig.facts.openat2);
    serve_and_refuse(&rig);
}

fn it_serves_where_openat2_is_missing() {
    let rig = Rig::with(BROKER_WITHOUT_OPENAT2, OPEN_FILES);
    assert!(!rig.facts.openat2);
    serve_and_refuse(&rig);
}

fn done(id: u64, proven: bool) -> ToBroker {
    let kept = false;
    ToBroker::Done { id, proven, kept }
}

fn serve_and_refuse(rig: &Rig) {
    let denied = |id, reason| ToWorker::Denied { id, reason };
    for round in 0..3 {
        let (id, mut files) = rig.open(b"/dir/file");
        let file = files.remove(0);
        assert_eq!(content(file), "good");
        rig.say(&ToBroker::Scratch { id, size: 100 });
        assert_eq!(rig.hear().0, ToWorker::Scratch { id });
        rig.say(&ToBroker::Proven { id });
        rig.say(&done(id, true));
        let refused = |path: &[u8]| {
            let request = rig.ask("127.0.0.1:0").0;
            rig.say(&ToBroker::Open {
                id: request.id,
                path: path.to_vec(),
            });
            (request.id, rig.hear().0)
        };
        // Not yet looked up by anybody: a helper thread has to.
        let (id, answer) = refused(format!("dir/missing{round}").as_bytes());
        assert_eq!(answer, ToWorker::Missing { id });
        let (id, answer) = refused(b"../secret");
        assert_eq!(answer, denied(id, Denial::OutsideRoot));
        let (id, answer) = refused(b"out");
        assert_eq!(answer, denied(id, Denial::OutsideRoot));
        let (id, answer) = refused(b"url/kernel");
        assert_eq!(answer, denied(id, Denial::Proxy));
        let (id, answer) = refused(b"dir");
        assert_eq!(answer, denied(id, Denial::NotRegular));
        let (id, answer) = refused(b"forbidden");
        assert_eq!(answer, denied(id, Denial::Permission));
    }
}

fn it_serves_many_clients_over_both_families() {
    let mut rig = Rig::start();
    let mut waiting = Vec::new();
    for round in 0..1000 {
        let from = if round % 2 == 0 {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        let (request, socket, client) = rig.ask(from);
        socket.send(b"answer").unwrap();
        let mut buffer = [0; 16];
        let (length, sender) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (buffer.get(..length), sender),
            (Some(&b"answer"[..]), request.local.into())
        );
        rig.say(&ToBroker::Open {
            id: request.id,
            path: b"dir/file".to_vec(),
        });
        let (answer, files) = rig.hear();
        assert!(matches!(answer, ToWorker::File { .. }), "{answer:?}");
        waiting.push((request.id, files));
    }
    for (id, _files) in waiting {
        rig.say(&done(id, true));
    }
    assert_eq!(rig.counts().requests, 1000);
}

fn it_lends_a_socket_again() {
    let rig = Rig::start();
    for from in ["127.0.0.1:0", "[::1]:0"] {
        let (mut request, socket, _first) = rig.ask(from);
        for _ in 0..3 {
            rig.say(&ToBroker::Done {
                id: request.id,
                proven: true,
                kept: true,
            });
            let (again, none, client) = rig.ask_again(from);
            assert_eq!(again.socket.number(), request.socket.number());
            assert!(none.is_none());
            request = again;
            socket.send(b"answer").unwrap();
            assert_eq!(client.recv(&mut [0; 16]).unwrap(), 6);
        }
    }
}

fn it_waits_for_descriptors() {
    // The kernel lets a user have no more on their way than one process may have open.
    let mut rig = Rig::with(BROKER, 64);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = rig.listener.local_addr().unwrap().port();
    for _ in 0..200 {
        client
            .send_to(b"\0\x01file\0octet\0", ("127.0.0.1", port))
            .unwrap();
    }
    // No more are taken in than can be handed on, and the supervisor is heard all the time.
    let (mut taken, mut unchanged) = (0, 0);
    while taken == 0 || unchanged < 10 {
        let requests = rig.counts().requests;
        unchanged = if requests == taken { unchanged + 1 } else { 0 };
        taken = requests;
    }
    assert!(taken < 200, "{taken}");
    for id in 1..=200 {
        let (message, sockets) = rig.hear();
        assert!(matches!(message, ToWorker::Request(request) if request.id == id));
        assert_eq!(sockets.len(), 1);
    }
}

fn it_refuses_a_start_message_that_is_none() {
    let directory = tree();
    let (supervisor, control) = Channel::pair().unwrap();
    let mut child = spawn(&directory, control, BROKER, OPEN_FILES);
    supervisor.send(&[0xff; 200]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    fs::remove_dir_all(directory).unwrap();
}

fn it_goes_on_after_it_was_stopped() {
    let rig = Rig::start();
    let broker = Pid::from_raw(rig.child.id().try_into().unwrap());
    rig.open(b"dir/file");
    kill(broker, Signal::SIGSTOP).unwrap();
    waitpid(broker, Some(WaitPidFlag::WUNTRACED)).unwrap();
    kill(broker, Signal::SIGCONT).unwrap();
    rig.open(b"dir/file");
}

fn it_ends_when_its_worker_is_done() {
    let mut rig = Rig::start();
    rig.order(Order::Retire);
    assert_eq!(rig.report(), Report::Retired);
    rig.worker = Channel::pair().unwrap().0;
    assert_eq!(rig.end().code(), Some(0));
}

fn it_ends_when_its_worker_breaks_the_protocol() {
    let mut rig = Rig::start();
    rig.say(&done(77, true));
    assert_eq!(rig.end().code(), Some(1));
}

fn it_ends_when_its_supervisor_is_gone() {
    let mut rig = Rig::start();
    rig.supervisor = Channel::pair().unwrap().0;
    assert_eq!(rig.end().code(), Some(1));
}
