//! A service manager that listens, and one that does not.

use super::*;
use crate::control::Counts;

const SECOND: Duration = Duration::from_secs(1);

/// A manager's socket, and ours to it.
struct Trial {
    inbox: UnixDatagram,
    manager: Manager,
}

impl Trial {
    fn new(watchdog: Option<Duration>) -> Self {
        let name = format!(
            "r-tftpd-test-{}-{:?}",
            process::id(),
            std::thread::current().id()
        );
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let inbox = UnixDatagram::bind_addr(&address).unwrap();
        inbox.set_nonblocking(true).unwrap();
        let socket = connect(format!("@{name}").into()).unwrap();
        let manager = Manager {
            socket: Some(socket),
            watchdog,
            drain_timeout: 5 * SECOND,
            told: None,
            ready: false,
            failed: false,
        };
        Self { inbox, manager }
    }

    /// What is told about this.
    fn told(&mut self, state: State, rounds: u64) -> Vec<String> {
        self.manager.update(&overview(state, rounds));
        self.received()
    }

    fn received(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        match self.inbox.recv(&mut buffer) {
            Ok(length) => {
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                let lines = text
                    .lines()
                    .filter(|line| !line.starts_with("MONOTONIC_USEC="));
                lines.map(Into::into).collect()
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                Vec::new()
            }
        }
    }
}

fn overview(state: State, rounds: u64) -> Overview {
    Overview {
        state,
        rounds,
        counts: Counts {
            transfers: 3,
            unproven: 1,
            waiting: 2,
            requests: 4711,
            dropped: 12,
        },
    }
}

const SERVING: &str = "STATUS=serving: 3 transfers, 1 not answered yet, 2 waiting; since the start \
                       4711 requests, 12 datagrams dropped";

#[test]
fn it_is_told_when_the_service_serves_and_not_before() {
    let mut trial = Trial::new(None);
    assert_eq!(trial.told(State::Starting, 0), ["STATUS=starting"]);
    assert_eq!(trial.told(State::Starting, 0), [""; 0]);
    assert_eq!(trial.told(State::Serving, 0), ["READY=1", SERVING]);
    assert_eq!(trial.told(State::Serving, 0), [""; 0]);
}

#[test]
fn it_hears_counts_whenever_all_have_answered() {
    let mut trial = Trial::new(None);
    trial.told(State::Serving, 0);
    assert_eq!(trial.told(State::Serving, 1), [SERVING]);
    assert_eq!(trial.told(State::Serving, 1), [""; 0]);
}

#[test]
fn the_watchdog_is_fed_only_when_all_have_answered() {
    let mut trial = Trial::new(Some(60 * SECOND));
    let ready = trial.told(State::Serving, 0);
    assert!(!ready.contains(&"WATCHDOG=1".into()), "{ready:?}");
    assert_eq!(trial.told(State::Serving, 1), ["WATCHDOG=1", SERVING]);
    let recovering = trial.told(State::Recovering, 1);
    assert!(matches!(&recovering[..], [status] if status.starts_with("STATUS=not serving")));
}

#[test]
fn a_reload_begins_and_ends() {
    let mut trial = Trial::new(None);
    trial.told(State::Serving, 0);
    let reloading = trial.told(State::Reloading, 0);
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(reloading[1].starts_with("STATUS=serving, reloading: 3 transfers"));
    // A ping is answered meanwhile.
    assert_eq!(trial.told(State::Reloading, 1).len(), 1);
    assert_eq!(trial.told(State::Serving, 1), ["READY=1", SERVING]);
}

#[test]
fn a_reload_that_ends_in_trouble_ends_when_somebody_serves() {
    let mut trial = Trial::new(None);
    trial.told(State::Serving, 0);
    trial.told(State::Reloading, 0);
    trial.told(State::Recovering, 0);
    assert_eq!(trial.told(State::Serving, 0), ["READY=1", SERVING]);
}

#[test]
fn who_recovers_was_ready_all_the_time() {
    let mut trial = Trial::new(None);
    trial.told(State::Serving, 0);
    trial.told(State::Recovering, 0);
    assert_eq!(trial.told(State::Serving, 0), [SERVING]);
}

#[test]
fn the_end_asks_for_the_time_that_transfers_get() {
    let mut trial = Trial::new(None);
    trial.told(State::Serving, 0);
    let stopping = trial.told(State::Stopping, 0);
    assert_eq!(
        stopping[..2],
        ["STOPPING=1", "EXTEND_TIMEOUT_USEC=10000000"]
    );
    assert_eq!(trial.told(State::Stopping, 0), [""; 0]);
}

#[test]
fn what_did_not_fit_into_its_queue_is_told_later() {
    let mut trial = Trial::new(None);
    let (socket, address) = connect_again(&trial.manager);
    while socket.send_to_addr(b"X=1", &address).is_ok() {}
    trial.manager.update(&overview(State::Serving, 0));
    while trial.received() == ["X=1"] {}
    assert_eq!(trial.told(State::Serving, 0), ["READY=1", SERVING]);
}

fn connect_again(manager: &Manager) -> (UnixDatagram, SocketAddr) {
    let (_, address) = manager.socket.as_ref().unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    socket.set_nonblocking(true).unwrap();
    (socket, address.clone())
}

#[test]
fn a_manager_that_is_gone_stops_nothing() {
    let mut trial = Trial::new(None);
    let name = "@r-tftpd-test-nobody-listens-here";
    trial.manager.socket = Some(connect(name.into()).unwrap());
    trial.manager.update(&overview(State::Serving, 0));
    assert!(trial.manager.failed && !trial.manager.ready);
}

#[test]
fn a_name_that_is_no_socket_is_refused_with_the_way_out() {
    let long = "/".repeat(200);
    for name in ["relative", "", "vsock:2:1", &long] {
        let error = connect(name.into()).unwrap_err().to_string();
        assert!(error.contains("NOTIFY_SOCKET"), "{error}");
    }
}

#[test]
fn a_watchdog_counts_for_the_process_it_is_meant_for() {
    let watchdog =
        |time: &str, pid: Option<&str>| watchdog(Some(time.into()), pid.map(Into::into), 42);
    assert_eq!(watchdog("60000000", None), Some(60 * SECOND));
    assert_eq!(watchdog("60000000", Some("42")), Some(60 * SECOND));
    assert_eq!(watchdog("60000000", Some("41")), None);
    assert_eq!(watchdog("0", None), None);
    assert_eq!(watchdog("soon", None), None);
    assert_eq!(super::watchdog(None, Some("42".into()), 42), None);
}

#[test]
fn a_hung_process_is_replaced_before_the_watchdog_bites() {
    for (watchdog, expected) in [
        (None, PING_EVERY),
        (Some(600 * SECOND), PING_EVERY),
        (Some(60 * SECOND), PING_EVERY),
        (Some(12 * SECOND), SECOND),
        (Some(SECOND / 1000), PING_AT_MOST),
    ] {
        assert_eq!(
            Trial::new(watchdog).manager.ping_every(),
            expected,
            "{watchdog:?}"
        );
    }
}
