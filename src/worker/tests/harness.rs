//! A whole worker but for its sandbox, with the test as its broker, its supervisor and its clients.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::{self, Counts, Facts, Order, Report};
use r_tftpd_broker::inbox::Inbox;
use r_tftpd_broker::settings::{CacheStart, LogFormat, LogSettings, Sandbox, WorkerStart};
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE, SocketUse, ToBroker, ToWorker};
use tokio::task::LocalSet;

use super::super::{serve, start_runtime};

/// Longer than anything a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct Worker {
    pub(super) broker: Option<Channel>,
    control: Channel,
    thread: JoinHandle<i32>,
    /// What came with the last message.
    inbox: RefCell<Inbox<ToBroker>>,
    last_id: u64,
}

pub(super) fn settings() -> WorkerStart {
    WorkerStart {
        hello: Hello::OURS,
        log: LogSettings {
            format: LogFormat::Full,
            filter: String::new(),
            priorities: false,
        },
        sandbox: Sandbox::Strict,
        max_connections: 64,
        max_unproven: 4096,
        timeout_ms: 1000,
        max_retries: 6,
        max_blksize: 65464,
        max_windowsize: 64,
        options: true,
        wrq_devnull: false,
        cache: CacheStart {
            bytes: 1 << 30,
            object: 1 << 29,
            entries: 64,
            fetches: 64,
            stale_if_error_ms: 3_600_000,
            about: true,
        },
    }
}

impl Worker {
    pub(super) fn start() -> Self {
        Self::start_with(settings())
    }

    pub(super) fn start_with(settings: WorkerStart) -> Self {
        let (broker, our_broker) = Channel::pair().unwrap();
        let (control, our_control) = Channel::pair().unwrap();
        for channel in [&our_broker, &our_control] {
            channel.set_nonblocking().unwrap();
        }
        for channel in [&broker, &control] {
            let timeout = TimeVal::seconds(20);
            setsockopt(&channel.as_fd(), ReceiveTimeout, &timeout).unwrap();
        }
        let thread = thread::spawn(move || {
            let runtime = start_runtime().unwrap();
            let serving = serve(settings, our_control, our_broker, Facts::default());
            LocalSet::new().block_on(&runtime, serving)
        });
        let worker = Self {
            broker: Some(broker),
            control,
            thread,
            inbox: RefCell::default(),
            last_id: 0,
        };
        assert_eq!(worker.report(), Report::Ready(Facts::default()));
        worker.tell(&ToWorker::Hello(Hello::OURS), &[]);
        worker
    }

    pub(super) fn tell(&self, message: &ToWorker, descriptors: &[&OwnedFd]) {
        let mut buffer = [0; MAX_MESSAGE];
        let bytes = wire::encode(message, &mut buffer).unwrap();
        let descriptors: Vec<_> = descriptors
            .iter()
            .map(|descriptor| descriptor.as_fd())
            .collect();
        self.broker
            .as_ref()
            .unwrap()
            .send_with(bytes, &descriptors)
            .unwrap();
    }

    /// The next message to the broker.
    pub(super) fn told(&self) -> ToBroker {
        let mut buffer = [0; MAX_MESSAGE];
        let mut inbox = self.inbox.borrow_mut();
        if inbox.is_empty() {
            let bytes = self.broker.as_ref().unwrap().receive(&mut buffer).unwrap();
            inbox.fill(bytes, Vec::new()).unwrap();
        }
        inbox.pop().unwrap().0
    }

    /// Hands on a request of `client`, with its reply socket.
    pub(super) fn request(&mut self, client: &Client, datagram: &[u8]) -> u64 {
        self.request_for(client, datagram, None)
    }

    /// As [`Self::request`], with another request that has to end for it.
    pub(super) fn request_for(
        &mut self,
        client: &Client,
        datagram: &[u8],
        replaces: Option<u64>,
    ) -> u64 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(client.address()).unwrap();
        socket.set_nonblocking(true).unwrap();
        self.hand_on(client, datagram, replaces, SocketUse::Once, &socket)
    }

    /// As [`Self::request`], on this socket.
    pub(super) fn request_by(
        &mut self,
        client: &Client,
        datagram: &[u8],
        how: SocketUse,
        socket: &UdpSocket,
    ) -> u64 {
        self.hand_on(client, datagram, None, how, socket)
    }

    fn hand_on(
        &mut self,
        client: &Client,
        datagram: &[u8],
        replaces: Option<u64>,
        how: SocketUse,
        socket: &UdpSocket,
    ) -> u64 {
        self.last_id += 1;
        let request = wire::Request {
            id: self.last_id,
            peer: client.address().into(),
            local: socket.local_addr().unwrap().into(),
            mtu: 0,
            socket: how,
            replaces,
            datagram: datagram.to_vec(),
        };
        let descriptor = OwnedFd::from(socket.try_clone().unwrap());
        let descriptors = how.has_descriptor().then_some(&descriptor);
        self.tell(&ToWorker::Request(request), descriptors.as_slice());
        self.last_id
    }

    /// Hands on a request to read and grants `content`.
    pub(super) fn read(&mut self, client: &Client, request: &[u8], content: &[u8]) -> u64 {
        let id = self.request(client, request);
        assert!(matches!(self.told(), ToBroker::Open { id: asked, .. } if asked == id));
        self.grant(id, content);
        id
    }

    pub(super) fn grant(&self, id: u64, content: &[u8]) {
        let size = content.len() as u64;
        self.tell(
            &ToWorker::File {
                id,
                size,
                in_memory: false,
            },
            &[&file(content).into()],
        );
    }

    pub(super) fn order(&self, order: Order) {
        self.control.send(&order.to_bytes()).unwrap();
    }

    pub(super) fn counts(&self) -> Counts {
        self.order(Order::Ping);
        match self.report() {
            Report::Counts(counts) => counts,
            other => panic!("{other:?}"),
        }
    }

    fn report(&self) -> Report {
        let mut buffer = [0; control::SIZE];
        Report::from_bytes(self.control.receive(&mut buffer).unwrap()).unwrap()
    }

    /// The exit status.
    pub(super) fn ends(self) -> i32 {
        self.thread.join().unwrap()
    }
}

/// An unnamed file on disk.
pub(crate) fn file(content: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!(
        "r-tftpd-{}-{:?}",
        std::process::id(),
        thread::current().id()
    ));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(content).unwrap();
    file
}

pub(super) struct Client {
    socket: UdpSocket,
}

impl Client {
    pub(super) fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    pub(super) fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65536];
        let (length, from) = self.socket.recv_from(&mut buffer).unwrap();
        buffer.truncate(length);
        (buffer, from)
    }

    pub(super) fn send(&self, packet: &[u8], to: SocketAddr) {
        self.socket.send_to(packet, to).unwrap();
    }

    /// Acknowledges an OACK (block 0) or a block.
    pub(super) fn ack(&self, block: u16, to: SocketAddr) {
        let [high, low] = block.to_be_bytes();
        self.send(&[0, 4, high, low], to);
    }

    /// Takes the rest of a file whose `first` block is to come, `window` blocks for each ACK.
    pub(super) fn take(&self, mut first: u16, blksize: usize, window: u16) -> Vec<u8> {
        let mut content = Vec::new();
        loop {
            for in_window in 1..=window {
                let (packet, from) = self.receive();
                let [high, low] = first.to_be_bytes();
                assert_eq!(packet[..4], [0, 3, high, low]);
                content.extend(&packet[4..]);
                let last = packet.len() < blksize + 4;
                if last || in_window == window {
                    self.ack(first, from);
                }
                if last {
                    return content;
                }
                first = first.wrapping_add(1);
            }
        }
    }
}

/// A request datagram: opcode, then words with a NUL behind each.
pub(super) fn datagram(opcode: u8, words: &[&str]) -> Vec<u8> {
    let mut datagram = vec![0, opcode];
    for word in words {
        datagram.extend(word.as_bytes());
        datagram.push(0);
    }
    datagram
}

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect()
}
