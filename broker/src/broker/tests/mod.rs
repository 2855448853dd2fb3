//! The broker without its sandbox, between a supervisor, a worker and clients played by the test.

use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::proxy::Proxy;
use super::resolve::{Helpers, Resolver};
use super::{Broker, Error, Places};
use crate::channel::{Channel, ReceiveError};
use crate::control::{Counts, Order, Report, SIZE};
use crate::inbox::Inbox;
use crate::settings::{BrokerStart, LogFormat, LogSettings, Sandbox};
use crate::wire::{Hello, MAX_MESSAGE, Request, ToBroker, ToWorker, encode};

mod hoarding;
mod keeping;
mod listening;
mod proxying;
mod serving;
mod violations;

/// Longer than anything here takes.
const DEADLINE_S: i64 = 20;

/// A broker in a thread, and the ends of everything it holds.
struct Rig {
    supervisor: Channel,
    worker: Channel,
    /// What came with the last message.
    inbox: RefCell<Inbox<ToWorker>>,
    listener: UdpSocket,
    root: PathBuf,
    broker: Option<JoinHandle<Result<(), Error>>>,
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
        allow: Vec::new(),
        deny: Vec::new(),
        max_per_client: 1024,
        port_range: None,
        max_outstanding: 10_000,
        max_kept: 0,
        root: String::new(),
        fallback_directory: false,
        proxy: None,
    }
}

/// As the supervisor makes it.
fn listener(address: &str) -> UdpSocket {
    let listener = UdpSocket::bind(address).unwrap();
    setsockopt(&listener, sockopt::Ipv4PacketInfo, &true).unwrap();
    if listener.local_addr().unwrap().is_ipv6() {
        setsockopt(&listener, sockopt::Ipv6RecvPacketInfo, &true).unwrap();
    }
    setsockopt(&listener, sockopt::RcvBuf, &(1 << 20)).unwrap();
    listener
}

/// A client's socket.
pub(super) fn client(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    socket
}

impl Rig {
    /// A broker that serves and has exchanged greetings with its worker.
    fn new() -> Self {
        let rig = Self::with(listener("127.0.0.1:0"), settings());
        rig.order(Order::Go);
        rig.greet();
        rig
    }

    /// A broker that waits for its orders.
    fn with(listener: UdpSocket, settings: BrokerStart) -> Self {
        Self::with_proxy(listener, settings, None)
    }

    /// The same, with or without a proxy.
    fn with_proxy(listener: UdpSocket, settings: BrokerStart, proxy: Option<Proxy>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("r-tftpd-broker-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("file"), "good").unwrap();
        let (supervisor, control) = Channel::pair().unwrap();
        let (worker, to_worker) = Channel::pair().unwrap();
        for channel in [&supervisor, &worker] {
            setsockopt(
                channel,
                sockopt::ReceiveTimeout,
                &TimeVal::seconds(DEADLINE_S),
            )
            .unwrap();
        }
        control.set_nonblocking().unwrap();
        to_worker.set_nonblocking().unwrap();
        let resolver = Arc::new(Resolver::new(fs::File::open(&root).unwrap().into(), None));
        let helpers = Helpers::start(&resolver).unwrap();
        let listeners = vec![OwnedFd::from(listener.try_clone().unwrap())];
        let places = Places {
            control,
            worker: to_worker,
            listeners,
            resolver,
            helpers,
            proxy,
        };
        let mut broker = Broker::new(settings, places);
        let broker = Some(std::thread::spawn(move || broker.serve()));
        Self {
            supervisor,
            worker,
            inbox: RefCell::default(),
            listener,
            root,
            broker,
        }
    }

    fn order(&self, order: Order) {
        self.supervisor.send(&order.to_bytes()).unwrap();
    }

    fn report(&self) -> Report {
        let mut buffer = [0; SIZE];
        Report::from_bytes(self.supervisor.receive(&mut buffer).unwrap()).unwrap()
    }

    fn counts(&self) -> Counts {
        self.order(Order::Ping);
        match self.report() {
            Report::Counts(counts) => counts,
            report => panic!("{report:?}"),
        }
    }

    fn greet(&self) {
        self.say(&ToBroker::Hello(Hello::OURS));
    }

    fn say(&self, message: &ToBroker) {
        let mut buffer = [0; MAX_MESSAGE];
        self.worker
            .send(encode(message, &mut buffer).unwrap())
            .unwrap();
    }

    fn hear(&self) -> (ToWorker, Vec<OwnedFd>) {
        let mut buffer = [0; MAX_MESSAGE];
        let mut inbox = self.inbox.borrow_mut();
        if inbox.is_empty() {
            let datagram = self.worker.receive_with(&mut buffer).unwrap();
            inbox.fill(datagram.bytes, datagram.descriptors).unwrap();
        }
        let (message, descriptor) = inbox.pop().unwrap();
        (message, descriptor.into_iter().collect())
    }

    /// The next request that the worker gets.
    fn request(&self) -> (Request, UdpSocket) {
        match self.hear() {
            (ToWorker::Request(request), mut descriptors) => {
                assert_eq!(descriptors.len(), 1);
                (request, descriptors.remove(0).into())
            }
            (message, _) => panic!("{message:?}"),
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// A request from a client, and its id.
    fn asked(&self) -> (UdpSocket, u64) {
        let client = client("127.0.0.1:0");
        client.send_to(RRQ, self.address()).unwrap();
        (client, self.request().0.id)
    }

    fn open(&self, id: u64, path: &[u8]) -> ToWorker {
        self.say(&ToBroker::Open {
            id,
            path: path.to_vec(),
        });
        self.hear().0
    }

    /// Waits until the broker ends.
    fn end(&mut self) -> Result<(), Error> {
        self.broker.take().unwrap().join().unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.supervisor.send(&Order::Stop.to_bytes());
        if let Some(broker) = self.broker.take() {
            let _ = broker.join();
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// What the worker says when a request has ended.
fn done(id: u64, proven: bool) -> ToBroker {
    let kept = false;
    ToBroker::Done { id, proven, kept }
}

const RRQ: &[u8] = b"\0\x01file\0octet\0";

fn content(file: OwnedFd) -> String {
    let mut content = String::new();
    fs::File::from(file).read_to_string(&mut content).unwrap();
    content
}

fn is_closed(channel: &Channel) -> bool {
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        match channel.receive_with(&mut buffer) {
            Ok(_) => (),
            Err(ReceiveError::Closed) => return true,
            Err(error) => panic!("{error:?}"),
        }
    }
}
