//! The broker's process, and the ends of everything it holds.

use std::cell::RefCell;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::geteuid;
use r_tftpd_broker::channel::{Channel, ReceiveError};
use r_tftpd_broker::control::{Counts, Facts, Order, Report, SIZE};
use r_tftpd_broker::inbox::Inbox;
use r_tftpd_broker::lockdown::{self, Calls, Threads};
use r_tftpd_broker::settings::{
    BrokerStart, LogFormat, LogSettings, MAX_START, ProxyStart, Sandbox,
};
use r_tftpd_broker::wire::{Hello, MAX_MESSAGE, Request, ToBroker, ToWorker, encode};

use crate::{BROKER, NOBODY, OPEN_FILES};

/// A broker that serves.
pub(crate) struct Rig {
    pub(crate) directory: PathBuf,
    pub(crate) child: Child,
    pub(crate) supervisor: Channel,
    pub(crate) worker: Channel,
    /// What came with the last message.
    inbox: RefCell<Inbox<ToWorker>>,
    pub(crate) listener: UdpSocket,
    pub(crate) facts: Facts,
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::with(BROKER, OPEN_FILES)
    }

    /// A broker of a kind, that may have so many files open.
    pub(crate) fn with(kind: &str, open_files: u32) -> Self {
        Self::with_proxy(kind, open_files, None)
    }

    /// The same with a proxy, if it is said whether that has a cache directory.
    pub(crate) fn with_proxy(kind: &str, open_files: u32, cache_directory: Option<bool>) -> Self {
        let directory = tree();
        let (supervisor, control) = Channel::pair().unwrap();
        let (worker, to_worker) = Channel::pair().unwrap();
        for channel in [&supervisor, &worker] {
            setsockopt(channel, sockopt::ReceiveTimeout, &TimeVal::seconds(20)).unwrap();
        }
        let child = spawn(&directory, control, kind, open_files);
        let listener = UdpSocket::bind("[::]:0").unwrap();
        setsockopt(&listener, sockopt::Ipv4PacketInfo, &true).unwrap();
        setsockopt(&listener, sockopt::Ipv6RecvPacketInfo, &true).unwrap();
        let root = File::open(directory.join("root")).unwrap();
        let mut buffer = vec![0; MAX_START];
        let proxy = cache_directory.map(|cache_directory| ProxyStart {
            fallback: None,
            cache_directory,
            ports: vec![(80, 80)],
            about: true,
            max_fetches: 8,
            max_object: 1 << 20,
        });
        let start = BrokerStart {
            proxy,
            ..settings()
        };
        let message = encode(&start, &mut buffer).unwrap();
        let cache = File::open(directory.join("cache")).unwrap();
        let mut descriptors = vec![to_worker.as_fd(), root.as_fd()];
        descriptors.extend((cache_directory == Some(true)).then(|| cache.as_fd()));
        descriptors.push(listener.as_fd());
        supervisor.send_with(message, &descriptors).unwrap();
        drop(to_worker);
        let facts = Facts::default();
        let mut rig = Self {
            directory,
            child,
            supervisor,
            worker,
            inbox: RefCell::default(),
            listener,
            facts,
        };
        let Report::Ready(facts) = rig.report() else {
            panic!("not ready")
        };
        rig.facts = facts;
        rig.say(&ToBroker::Hello(Hello::OURS));
        assert_eq!(rig.hear().0, ToWorker::Hello(Hello::OURS));
        rig.order(Order::Go);
        rig
    }

    pub(crate) fn order(&self, order: Order) {
        self.supervisor.send(&order.to_bytes()).unwrap();
    }

    pub(crate) fn report(&mut self) -> Report {
        let mut buffer = [0; SIZE];
        match self.supervisor.receive(&mut buffer) {
            Ok(bytes) => Report::from_bytes(bytes).unwrap(),
            Err(ReceiveError::Closed) => panic!("the broker ended: {}", self.child.wait().unwrap()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn counts(&mut self) -> Counts {
        self.order(Order::Ping);
        match self.report() {
            Report::Counts(counts) => counts,
            report => panic!("{report:?}"),
        }
    }

    pub(crate) fn say(&self, message: &ToBroker) {
        let mut buffer = [0; MAX_MESSAGE];
        self.worker
            .send(encode(message, &mut buffer).unwrap())
            .unwrap();
    }

    pub(crate) fn hear(&self) -> (ToWorker, Vec<OwnedFd>) {
        let mut buffer = [0; MAX_MESSAGE];
        let mut inbox = self.inbox.borrow_mut();
        if inbox.is_empty() {
            let datagram = self.worker.receive_with(&mut buffer).unwrap();
            inbox.fill(datagram.bytes, datagram.descriptors).unwrap();
        }
        let (message, descriptor) = inbox.pop().unwrap();
        (message, descriptor.into_iter().collect())
    }

    /// Sends a request; what the worker gets of it, and the client.
    pub(crate) fn ask(&self, from: &str) -> (Request, UdpSocket, UdpSocket) {
        let (request, socket, client) = self.ask_again(from);
        (request, socket.unwrap(), client)
    }

    /// The same when the worker may have the socket already.
    pub(crate) fn ask_again(&self, from: &str) -> (Request, Option<UdpSocket>, UdpSocket) {
        let client = UdpSocket::bind(from).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut address: SocketAddr = self.listener.local_addr().unwrap();
        address.set_ip(client.local_addr().unwrap().ip());
        client.send_to(b"\0\x01file\0octet\0", address).unwrap();
        match self.hear() {
            (ToWorker::Request(request), mut sockets) => {
                assert_eq!(SocketAddr::from(request.peer), client.local_addr().unwrap());
                (request, sockets.pop().map(UdpSocket::from), client)
            }
            (message, _) => panic!("{message:?}"),
        }
    }

    pub(crate) fn open(&self, path: &[u8]) -> (u64, Vec<OwnedFd>) {
        let id = self.ask("127.0.0.1:0").0.id;
        self.say(&ToBroker::Open {
            id,
            path: path.to_vec(),
        });
        match self.hear() {
            (ToWorker::File { id: answered, .. }, files) if answered == id => (id, files),
            (message, _) => panic!("{message:?}"),
        }
    }

    /// Waits until the broker has ended.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None if Instant::now() > deadline => panic!("the broker does not end"),
                None => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A directory with a root, and with a copy of this program that any user can execute.
pub(crate) fn tree() -> PathBuf {
    let name = format!("r-tftpd-sandboxed-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let root = directory.join("root");
    fs::create_dir_all(root.join("dir")).unwrap();
    fs::create_dir_all(directory.join("cache")).unwrap();
    let cache = Permissions::from_mode(0o777);
    fs::set_permissions(directory.join("cache"), cache).unwrap();
    fs::write(root.join("dir/file"), "good").unwrap();
    fs::write(root.join("forbidden"), "secret").unwrap();
    fs::write(directory.join("secret"), "secret").unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink("http://host/", root.join("url")).unwrap();
    let program = directory.join(BROKER);
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for readable in [&directory, &root, &root.join("dir"), &program] {
        fs::set_permissions(readable, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(root.join("dir/file"), Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(root.join("forbidden"), Permissions::from_mode(0o000)).unwrap();
    directory
}

/// Starts the broker with `control` as descriptor 3. The shell moves it there from standard input,
/// the only place where it can be passed on by safe code.
pub(crate) fn spawn(directory: &Path, control: Channel, kind: &str, open_files: u32) -> Child {
    let control: OwnedFd = control.as_fd().try_clone_to_owned().unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"ulimit -n "$2"; exec "$0" "$1" 3<&0 </dev/null"#]);
    command
        .arg(directory.join(BROKER))
        .args([kind, &open_files.to_string()]);
    command.env_clear().stdin(control);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.spawn().unwrap()
}

/// Makes the kernel say that it has no openat2; allows all else.
pub(crate) fn hide_openat2() {
    let allowed = (0..500).map(|call| (call, Vec::new())).collect();
    let calls = Calls {
        allowed,
        unknown: vec![libc::SYS_openat2],
        refused: Vec::new(),
    };
    lockdown::seccomp(&calls, Threads::Calling, Sandbox::Strict).unwrap();
}

fn settings() -> BrokerStart {
    BrokerStart {
        hello: Hello::OURS,
        log: LogSettings {
            format: LogFormat::Full,
            filter: String::new(),
            priorities: false,
        },
        sandbox: Sandbox::Strict,
        allow: vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
        deny: Vec::new(),
        max_per_client: 1024,
        port_range: None,
        max_outstanding: 10_000,
        max_kept: 4,
        root: String::new(),
        fallback_directory: false,
        proxy: None,
    }
}

pub(crate) fn content(file: OwnedFd) -> String {
    let mut content = String::new();
    File::from(file).read_to_string(&mut content).unwrap();
    content
}
