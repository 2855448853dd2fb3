//! What can keep the service from starting or from going on, each with the way out.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::programs::LIBEXECDIR;
use crate::lockdown;

/// Why the supervisor ends; shown as one line that says what to do.
#[derive(Debug)]
pub enum Error {
    /// The root directory can not be opened.
    Root(PathBuf, io::Error),
    /// The user we run as may not search the root directory.
    RootDenied(PathBuf, String),
    /// The directory of `--fallback` can not be opened.
    Fallback(PathBuf, io::Error),
    /// The directory of `--cache-dir` can not be opened.
    Cache(PathBuf, io::Error),
    /// The directory of `--cache-dir` contains a served one, or the other way round.
    CacheNested(PathBuf),
    /// A file with certificates can not be opened.
    CaFile(PathBuf, io::Error),
    /// A program of ours is not where it belongs.
    Program(&'static str, PathBuf, io::Error),
    /// A socket can not be bound.
    Bind(SocketAddr, Errno),
    /// The interface behind the `%` does not exist.
    Interface(String),
    /// More listeners than can be handed over.
    TooManyListeners(usize),
    /// `--systemd` without sockets from systemd.
    NotActivated(&'static str),
    /// A descriptor from systemd is no UDP socket.
    NotUdp(i32, &'static str),
    /// `NOTIFY_SOCKET` names no socket.
    NotifySocket(OsString, io::Error),
    /// No such user.
    UnknownUser(String),
    /// The user is root.
    RootUser(String),
    /// `--user`, but not started by root.
    UserWithoutRoot(String),
    /// The program file is set-user-ID.
    SetUserId,
    /// Becoming the user failed.
    Become(String, &'static str, Errno),
    /// Capabilities can not be cleared.
    Capabilities(String),
    /// The lists of networks and ports do not fit into the start message.
    TooManyNetworks,
    /// A step of our own lock-down failed.
    Lockdown(lockdown::Error),
    /// A system call failed that never should.
    System(&'static str, io::Error),
    /// The first broker and worker did not become ready.
    NotReady,
    /// Broker and worker died too often.
    Unstable,
    /// The self-test has no place for its files.
    Stage(io::Error),
    /// The self-test's own request was not answered.
    NotServed,
    /// A signal ended the self-test.
    Interrupted,
}

impl Error {
    /// Names the call that failed.
    pub(super) fn system<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::System(call, error.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(path, error) => root(f, path, error),
            Self::RootDenied(path, user) => write!(
                f,
                "user {user} may not search the root directory {}: allow it, for example with \
                 `chmod o+x {0}`, or choose another directory with --root",
                path.display()
            ),
            Self::Fallback(path, error) => write!(
                f,
                "--fallback {}: {error}: name a directory, or a URL such as \
                 http://fallback.example.org/",
                path.display()
            ),
            Self::Cache(path, error) => write!(
                f,
                "--cache-dir {}: {error}: create it, or choose another directory",
                path.display()
            ),
            Self::CacheNested(path) => write!(
                f,
                "--cache-dir {} and a served directory contain one another: cache files may be \
                 written, served ones never; choose another directory",
                path.display()
            ),
            Self::CaFile(path, error) => write!(
                f,
                "{}: {error}: --ca-file and SSL_CERT_FILE must name files with certificates (PEM) \
                 that the user r-tftpd runs as can read",
                path.display()
            ),
            Self::Program(name, path, error) => write!(
                f,
                "{}: {error}: {name} belongs beside r-tftpd or in {LIBEXECDIR}; install the package \
                 again, or use `cargo build`, which builds all of them",
                path.display()
            ),
            Self::Bind(address, errno) => bind(f, *address, *errno),
            Self::Interface(name) => write!(
                f,
                "no network interface {name}: `ip link` lists them; write for example \
                 --listen fe80::1%eth0"
            ),
            Self::TooManyListeners(count) => {
                write!(f, "{count} sockets are too many: at most {} are possible", super::MAX_LISTENERS)
            }
            Self::NotActivated(reason) => write!(
                f,
                "--systemd, but {reason}: start r-tftpd.socket instead of this program, or leave \
                 --systemd out"
            ),
            Self::NotUdp(number, what) => write!(
                f,
                "descriptor {number} from systemd is {what}, not a UDP socket: use only \
                 ListenDatagram= with an address and port in the socket unit"
            ),
            Self::NotifySocket(name, error) => write!(
                f,
                "NOTIFY_SOCKET={}: {error}: the service manager sets it to a path or to @ and a \
                 name; to start without one, unset it",
                name.display()
            ),
            Self::UnknownUser(name) => write!(
                f,
                "no user {name}: create it with `useradd --system --no-create-home --shell \
                 /usr/sbin/nologin {name}`, or name another one with --user"
            ),
            Self::RootUser(name) => {
                write!(f, "--user {name} is uid 0: name an ordinary user, such as nobody")
            }
            Self::UserWithoutRoot(name) => write!(
                f,
                "--user {name} works only when started by root: start as root, or leave --user out \
                 to stay who you are"
            ),
            Self::SetUserId => f.write_str(
                "the program file is set-user-ID, which is not safe: remove it with `chmod u-s`",
            ),
            Self::Become(name, call, errno) => write!(
                f,
                "can not become user {name}: {call}: {errno}: root lacks CAP_SETUID or CAP_SETGID \
                 here; grant them, or start as an ordinary user with a --port above 1023"
            ),
            Self::Capabilities(reason) => write!(f, "can not give up capabilities: {reason}"),
            Self::TooManyNetworks => f.write_str(
                "--allow-net, --deny-net and --proxy-ports are too long: use shorter prefixes and ranges",
            ),
            Self::Lockdown(error) => error.fmt(f),
            Self::System(call, error) => write!(f, "{call}: {error}"),
            Self::NotReady => f.write_str(
                "broker and worker did not become ready: the lines above say why; nothing is served",
            ),
            Self::Unstable => f.write_str(
                "broker and worker failed too often: the lines above say why; nothing is served",
            ),
            Self::Stage(error) => write!(
                f,
                "self-test: no place for its files: {error}: set TMPDIR to a directory that the user \
                 r-tftpd runs as can write to"
            ),
            Self::NotServed => f.write_str(
                "self-test: a request over loopback was not answered: allow UDP over the interface lo",
            ),
            Self::Interrupted => f.write_str("self-test: interrupted"),
        }
    }
}

impl std::error::Error for Error {}

/// Where a service of ours sees nothing: our units say `ProtectHome=` and `PrivateTmp=`.
const HIDDEN: [&str; 4] = ["/home", "/root", "/tmp", "/var/tmp"];

fn root(f: &mut fmt::Formatter<'_>, path: &Path, error: &io::Error) -> fmt::Result {
    let is_hidden = HIDDEN.iter().any(|hidden| path.starts_with(hidden));
    let hidden = if is_hidden {
        " (the systemd service sees nothing below /home, /root, /tmp and /var/tmp: mount it to a \
         place below /srv)"
    } else {
        ""
    };
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => write!(
            f,
            "root directory {path} does not exist: create it, or choose another one with \
             --root{hidden}"
        ),
        io::ErrorKind::NotADirectory => {
            write!(f, "{path} is not a directory: choose one with --root")
        }
        io::ErrorKind::PermissionDenied => write!(
            f,
            "no permission to open the root directory {path}: allow the user who starts r-tftpd to \
             search it and those above it, or choose another one with --root{hidden}"
        ),
        _ => write!(f, "root directory {path}: {error}"),
    }
}

fn bind(f: &mut fmt::Formatter<'_>, address: SocketAddr, errno: Errno) -> fmt::Result {
    let port = address.port();
    match errno {
        Errno::EADDRINUSE => write!(
            f,
            "{address} is in use: `ss -lunp sport = :{port}` shows by whom; end that, or choose \
             another --port or --listen (:: includes all IPv4 addresses)"
        ),
        Errno::EACCES if port != 0 && port < 1024 => write!(
            f,
            "no permission to use port {port}: start as root, or by systemd with r-tftpd.socket or \
             AmbientCapabilities=CAP_NET_BIND_SERVICE, or choose for example --port 6969"
        ),
        Errno::EADDRNOTAVAIL => write!(
            f,
            "{address} is not an address of this machine: `ip address` lists them; choose one with \
             --listen"
        ),
        Errno::EAFNOSUPPORT => write!(
            f,
            "{address}: this kernel has no {}: choose another address with --listen",
            if address.is_ipv4() { "IPv4" } else { "IPv6" }
        ),
        _ => write!(f, "{address} can not be bound: {}", io::Error::from(errno)),
    }
}
