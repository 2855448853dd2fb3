//! What is left to a fetcher: what it can not do is tried by the self-test. Each probe is this test
//! program again: it locks itself down as the fetcher does, does one thing, and says what the kernel
//! answered.

use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use nix::errno::Errno;
use nix::unistd::geteuid;
use r_tftpd_broker::settings::{LogFormat, LogSettings, Sandbox};
use r_tftpd_broker::wire::Hello;

use super::*;
use crate::sys::probe;

/// Set for a probe: its name, and the port it may connect to.
const PROBE: &str = "R_TFTPD_PROBE";
const PORT: &str = "R_TFTPD_PROBE_PORT";

/// What a probe met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Done,
    Errno(i32),
    Killed,
    Aborted,
}

const DENIED: Met = Met::Errno(libc::EACCES);

fn start(port: u16) -> FetcherStart {
    FetcherStart {
        hello: Hello::OURS,
        log: LogSettings {
            format: LogFormat::Compact,
            filter: String::new(),
            priorities: false,
        },
        sandbox: Sandbox::Strict,
        ports: vec![(port, port)],
        dns_port: 53,
        user_agent: String::new(),
        about: false,
        connect_timeout_ms: 1,
        read_timeout_ms: 1,
        max_object: 1,
        max_redirects: 0,
    }
}

/// An IPv4 loopback address as the kernel reads it.
fn loopback(port: u16) -> [u8; 16] {
    let [high, low] = port.to_be_bytes();
    let [family, zero] = libc::sa_family_t::try_from(libc::AF_INET)
        .unwrap()
        .to_ne_bytes();
    [
        family, zero, high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
    ]
}

/// Connects to the loopback address.
fn connect(port: u16) -> Result<i64, Errno> {
    let stream = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    let socket = probe(
        libc::SYS_socket,
        [libc::AF_INET as usize, stream as usize, 0, 0, 0, 0],
    )?;
    let address = loopback(port);
    let arguments = [
        usize::try_from(socket).unwrap(),
        address.as_ptr().addr(),
        address.len(),
        0,
        0,
        0,
    ];
    probe(libc::SYS_connect, arguments)
}

/// Does one thing in the locked-down process.
fn act(name: &str, port: u16, listener: &TcpListener) -> Result<i64, Errno> {
    match name {
        "connect-allowed" => connect(port),
        "connect-other" => connect(listener.local_addr().unwrap().port()),
        "abort" => std::process::abort(),
        other => panic!("no probe {other}"),
    }
}

/// The inside of a probe. Without a name it is one test among others, with nothing to do.
#[test]
fn probe_inside() {
    let Ok(name) = std::env::var(PROBE) else {
        return;
    };
    let port = std::env::var(PORT).unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let facts = lock_down(&start(port)).unwrap();
    let code = match act(&name, port, &listener) {
        Ok(_) => 0,
        // No exit code of the test program itself.
        Err(Errno::ENETUNREACH) => 254,
        Err(errno) => errno as i32,
    };
    assert!(facts.system_calls > 0 && facts.landlock_abi > 0 && facts.no_new_privs);
    std::process::exit(code);
}

/// Runs a probe.
fn met(name: &str, port: u16) -> Met {
    let mut command = Command::new("/proc/self/exe");
    command.args([
        "--exact",
        "fetcher::sandbox::tests::probe_inside",
        "--nocapture",
        "-q",
    ]);
    command.env(PROBE, name).env(PORT, port.to_string());
    if geteuid().is_root() {
        // The fetcher refuses to run as root.
        command.uid(65534).gid(65534).current_dir("/");
    }
    let output = command.output().unwrap();
    match (output.status.code(), output.status.signal()) {
        (Some(0), _) => Met::Done,
        (Some(255 | 101), _) => panic!("{name}: {}", String::from_utf8_lossy(&output.stderr)),
        (Some(errno), _) => Met::Errno(errno),
        (None, Some(libc::SIGSYS)) => Met::Killed,
        (None, Some(libc::SIGABRT)) => Met::Aborted,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn it_connects_to_allowed_ports_and_to_no_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(met("connect-allowed", port), Met::Done);
    // Landlock has ports from ABI 4 on; without them the check of each URL stands alone.
    let version = probe(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0, 0, 0]).unwrap();
    assert_eq!(
        met("connect-other", port),
        if version >= 4 { DENIED } else { Met::Done }
    );
}

#[test]
fn a_panic_that_aborts_is_seen_as_such() {
    assert_eq!(met("abort", 9), Met::Aborted);
}
