//! What a captured fetcher can do. Each probe is this test program again: it locks itself down as
//! the fetcher does, does one thing, and says what the kernel answered.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

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

fn address_of(bytes: &[u8]) -> usize {
    bytes.as_ptr() as usize
}

/// `socket(2)`.
fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<usize> {
    let arguments = [family as usize, kind as usize, protocol as usize, 0, 0, 0];
    probe(libc::SYS_socket, arguments)
}

/// `connect(2)` to the loopback address.
fn connect(socket: usize, port: u16) -> io::Result<usize> {
    let address = loopback(port);
    let arguments = [socket, address_of(&address), address.len(), 0, 0, 0];
    probe(libc::SYS_connect, arguments)
}

fn tcp() -> io::Result<usize> {
    socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)
}

/// Does one thing in the locked-down process.
fn act(name: &str, port: u16, listener: &TcpListener) -> io::Result<usize> {
    let own = listener.as_raw_fd() as usize;
    let file = address_of(b"/etc/passwd\0");
    let here = libc::AT_FDCWD as usize;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let call = |number, arguments| probe(number, arguments);
    match name {
        "connect-allowed" => connect(tcp()?, port),
        "connect-other" => connect(tcp()?, listener.local_addr()?.port()),
        "udp" => socket(libc::AF_INET, libc::SOCK_DGRAM, 0),
        "udp6" => socket(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        "raw" => socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        "ping" => socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        "mptcp" => socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        "sctp" => socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        "unix" => socket(libc::AF_UNIX, libc::SOCK_STREAM, 0),
        "netlink" => socket(libc::AF_NETLINK, libc::SOCK_RAW, 0),
        "packet" => socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
        "vsock" => socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        "fast-open" => {
            let (socket, address) = (tcp()?, loopback(listener.local_addr()?.port()));
            let flag = libc::MSG_FASTOPEN as usize;
            let to = address_of(&address);
            call(libc::SYS_sendto, [socket, file, 4, flag, to, address.len()])
        }
        "fast-open-unaddressed" => call(
            libc::SYS_sendto,
            [tcp()?, file, 4, libc::MSG_FASTOPEN as usize, 0, 0],
        ),
        "fast-open-option" => {
            let (level, name) = (
                libc::IPPROTO_TCP as usize,
                libc::TCP_FASTOPEN_CONNECT as usize,
            );
            let one = address_of(&[1, 0, 0, 0]);
            call(libc::SYS_setsockopt, [tcp()?, level, name, one, 4, 0])
        }
        "sendto-address" => {
            let address = loopback(port);
            call(
                libc::SYS_sendto,
                [own, file, 4, 0, address_of(&address), address.len()],
            )
        }
        "sendmsg" => call(libc::SYS_sendmsg, [own, 0, 0, 0, 0, 0]),
        "sendmmsg" => call(libc::SYS_sendmmsg, [own, 0, 0, 0, 0, 0]),
        "bind" => call(libc::SYS_bind, [own, 0, 0, 0, 0, 0]),
        "listen" => call(libc::SYS_listen, [own, 1, 0, 0, 0, 0]),
        "accept" => call(libc::SYS_accept4, [own, 0, 0, 0, 0, 0]),
        "socketpair" => call(libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]),
        "openat" => call(libc::SYS_openat, [here, file, 0, 0, 0, 0]),
        "create" => call(
            libc::SYS_openat,
            [here, file, libc::O_CREAT as usize, 0o600, 0, 0],
        ),
        "statx" => call(libc::SYS_statx, [here, file, 0, 0, 0, 0]),
        "openat2" => call(libc::SYS_openat2, [here, file, 0, 0, 0, 0]),
        "unlink" => call(libc::SYS_unlinkat, [here, file, 0, 0, 0, 0]),
        "chdir" => call(libc::SYS_chdir, [file, 0, 0, 0, 0, 0]),
        "ftruncate" => call(libc::SYS_ftruncate, [own, 0, 0, 0, 0, 0]),
        "memfd" => call(libc::SYS_memfd_create, [file, 0, 0, 0, 0, 0]),
        "execve" => call(libc::SYS_execve, [address_of(b"/bin/sh\0"), 0, 0, 0, 0, 0]),
        "execveat" => call(libc::SYS_execveat, [own, 0, 0, 0, 0x1000, 0]),
        "clone" => call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0]),
        "clone3" => call(libc::SYS_clone3, [0; 6]),
        "kill" => call(libc::SYS_kill, [1, 0, 0, 0, 0, 0]),
        "tgkill" => call(libc::SYS_tgkill, [1, 1, 0, 0, 0, 0]),
        "ptrace" => call(libc::SYS_ptrace, [0; 6]),
        "read-other-memory" => call(libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
        "pidfd" => call(libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0]),
        "map-executable" => call(libc::SYS_mmap, [0, 4096, 5, flags, usize::MAX, 0]),
        "protect-executable" => call(libc::SYS_mprotect, [0, 4096, 5, 0, 0, 0]),
        "set-owner" => call(libc::SYS_fcntl, [own, libc::F_SETOWN as usize, 1, 0, 0, 0]),
        "duplicate" => call(libc::SYS_dup, [own, 0, 0, 0, 0, 0]),
        "ioctl" => call(libc::SYS_ioctl, [own, 0, 0, 0, 0, 0]),
        "prctl" => call(
            libc::SYS_prctl,
            [libc::PR_SET_DUMPABLE as usize, 1, 0, 0, 0, 0],
        ),
        "unshare" => call(
            libc::SYS_unshare,
            [libc::CLONE_NEWUSER as usize, 0, 0, 0, 0, 0],
        ),
        "mount" => call(libc::SYS_mount, [0; 6]),
        "setuid" => call(libc::SYS_setuid, [0; 6]),
        "io_uring" => call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        "bpf" => call(libc::SYS_bpf, [0; 6]),
        "keyctl" => call(libc::SYS_keyctl, [0; 6]),
        "userfaultfd" => call(libc::SYS_userfaultfd, [0; 6]),
        "abort" => std::process::abort(),
        "limits" => call(libc::SYS_prlimit64, [0; 6]),
        other => Err(io::Error::other(format!("no probe {other}"))),
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
        Err(error) => error
            .raw_os_error()
            .map_or(255, |errno| if errno == 101 { 254 } else { errno }),
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
fn it_has_no_other_socket_and_no_way_past_landlock() {
    for name in [
        "udp",
        "udp6",
        "raw",
        "ping",
        "mptcp",
        "sctp",
        "unix",
        "netlink",
        "packet",
        "vsock",
        "fast-open",
        "fast-open-unaddressed",
        "fast-open-option",
        "sendto-address",
        "sendmsg",
        "sendmmsg",
        "bind",
        "listen",
        "accept",
        "socketpair",
    ] {
        assert_eq!(met(name, 9), Met::Killed, "{name}");
    }
}

#[test]
fn it_opens_no_file() {
    for name in ["openat", "create", "statx", "limits"] {
        assert_eq!(met(name, 9), DENIED, "{name}");
    }
    for name in ["openat2", "unlink", "chdir", "ftruncate", "memfd"] {
        assert_eq!(met(name, 9), Met::Killed, "{name}");
    }
}

#[test]
fn it_starts_and_reaches_no_process_and_gains_no_right() {
    for name in [
        "execve",
        "execveat",
        "clone",
        "clone3",
        "kill",
        "tgkill",
        "ptrace",
        "read-other-memory",
        "pidfd",
        "map-executable",
        "protect-executable",
        "set-owner",
        "duplicate",
        "ioctl",
        "prctl",
        "unshare",
        "mount",
        "setuid",
        "io_uring",
        "bpf",
        "keyctl",
        "userfaultfd",
    ] {
        assert_eq!(met(name, 9), Met::Killed, "{name}");
    }
}

#[test]
fn a_panic_that_aborts_is_seen_as_such() {
    assert_eq!(met("abort", 9), Met::Aborted);
}
