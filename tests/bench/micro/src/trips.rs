//! Requests through the real broker, sandboxed as in production: from the client's datagram until
//! the worker, played here, has the reply socket and the file.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::{Order, Report, SIZE};
use r_tftpd_broker::inbox::Inbox;
use r_tftpd_broker::settings::{BrokerStart, LogFormat, LogSettings, MAX_START, Sandbox};
use r_tftpd_broker::wire::{Hello, MAX_KEPT, MAX_MESSAGE, ToBroker, ToWorker, encode};

use crate::measure::Bench;
use crate::processes::{Directory, Process, Role, own_processor_time};

/// Nobody is silent for longer.
const PATIENCE: TimeVal = TimeVal::new(20, 0);

/// Measures them.
pub fn run(bench: &mut Bench) {
    let columns = "us median       p99   req/s  broker us  worker us";
    if !bench.group("broker round trips", columns) {
        return;
    }
    let directory = Directory::new();
    let mut rig = Rig::start(&directory);
    bench.set_apart(rig.broker.pid());
    for (name, answer) in [("file", "a file"), ("missing", "none there")] {
        for outstanding in [1, 8, 64] {
            bench.count();
            let label = format!("{outstanding} at once, {answer}");
            if bench.is_quick() {
                rig.ask(name, outstanding, outstanding);
                println!("  {label:<42}works");
                continue;
            }
            rig.ask(name, outstanding, 1000);
            let trips = rig.ask(name, outstanding, 20_000);
            println!("  {label:<42}{trips}");
        }
    }
}

/// What many trips came to.
struct Trips {
    times: Vec<Duration>,
    elapsed: Duration,
    /// Nanoseconds that the broker and this process had a processor.
    busy: Option<[u64; 2]>,
}

impl std::fmt::Display for Trips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |percent: usize| self.times[(self.times.len() - 1) * percent / 100];
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let count = self.times.len() as f64;
        let rate = count / self.elapsed.as_secs_f64();
        let (median, late) = (micros(at(50)), micros(at(99)));
        write!(f, "{median:>9.1} {late:>9.1} {rate:>7.0}")?;
        let Some(busy) = self.busy else {
            return Ok(());
        };
        let [broker, worker] = busy.map(|time| time as f64 / 1e3 / count);
        write!(f, " {broker:>10.1} {worker:>10.1}")
    }
}

/// A broker, and what it is between.
struct Rig {
    broker: Process,
    worker: Channel,
    /// What came with the last message.
    inbox: RefCell<Inbox<ToWorker>>,
    listener: UdpSocket,
    clients: Vec<UdpSocket>,
}

impl Rig {
    fn start(directory: &Directory) -> Self {
        let broker = Process::start(directory, Role::Broker);
        let (worker, theirs) = Channel::pair().expect("socketpair");
        for channel in [&broker.control, &worker] {
            setsockopt(channel, sockopt::ReceiveTimeout, &PATIENCE).expect("SO_RCVTIMEO");
        }
        let listener = UdpSocket::bind("127.0.0.1:0").expect("bind");
        setsockopt(&listener, sockopt::Ipv4PacketInfo, &true).expect("IP_PKTINFO");
        let mut buffer = vec![0; MAX_START];
        let start = encode(&settings(), &mut buffer).expect("a start message");
        let root = directory.open_root();
        let descriptors = [theirs.as_fd(), root.as_fd(), listener.as_fd()];
        broker.control.send_with(start, &descriptors).expect("send");
        let mut buffer = [0; SIZE];
        let report = broker.control.receive(&mut buffer).expect("a report");
        let report = Report::from_bytes(report).expect("a report");
        assert!(matches!(report, Report::Ready(_)), "{report:?}");
        let rig = Self {
            broker,
            worker,
            inbox: RefCell::default(),
            listener,
            clients: Vec::new(),
        };
        rig.say(&ToBroker::Hello(Hello::OURS));
        assert_eq!(rig.hear().0, ToWorker::Hello(Hello::OURS));
        let go = Order::Go.to_bytes();
        rig.broker.control.send(&go).expect("send");
        rig
    }

    /// Has clients ask for a file, as many at once as said, until there were so many requests.
    fn ask(&mut self, name: &str, outstanding: usize, count: usize) -> Trips {
        while self.clients.len() < outstanding {
            self.clients.push(self.client());
        }
        let request = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
        let busy_before = [self.broker.processor_time(), own_processor_time()];
        let start = Instant::now();
        // By port and by id: the client, and since when it waits.
        let mut asking = HashMap::new();
        let mut opening: HashMap<u64, (usize, Instant, bool)> = HashMap::new();
        let mut times = Vec::with_capacity(count);
        for client in 0..outstanding {
            asking.insert(self.send(client, &request), (client, Instant::now()));
        }
        let mut left = count - outstanding;
        while times.len() < count {
            let (message, descriptors) = self.hear();
            let (id, granted) = match message {
                ToWorker::Request(request) => {
                    let path = name.into();
                    let id = request.id;
                    self.say(&ToBroker::Open { id, path });
                    let (client, since) = asking.remove(&request.peer.port).expect("a client");
                    opening.insert(id, (client, since, request.socket.number().is_some()));
                    continue;
                }
                ToWorker::File { id, .. } => (id, true),
                ToWorker::Missing { id } => (id, false),
                ToWorker::Close { .. } => continue,
                message => panic!("{message:?}"),
            };
            assert_eq!(descriptors.len(), usize::from(granted));
            let (client, since, kept) = opening.remove(&id).expect("a request");
            times.push(since.elapsed());
            let proven = true;
            // A worker that never uses its sockets need not have them.
            self.say(&ToBroker::Done { id, proven, kept });
            if left > 0 {
                left -= 1;
                asking.insert(self.send(client, &request), (client, Instant::now()));
            }
        }
        let elapsed = start.elapsed();
        let busy_after = [self.broker.processor_time(), own_processor_time()];
        let busy = match (busy_before, busy_after) {
            ([Some(a), Some(b)], [Some(after_a), Some(after_b)]) => {
                Some([after_a - a, after_b - b])
            }
            _ => None,
        };
        times.sort();
        Trips {
            times,
            elapsed,
            busy,
        }
    }

    fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let listener = self.listener.local_addr().expect("an address");
        client.connect(listener).expect("connect");
        client
    }

    /// Sends a request; returns the port that it came from.
    fn send(&self, client: usize, request: &[u8]) -> u16 {
        let client = &self.clients[client];
        client.send(request).expect("send");
        client.local_addr().expect("an address").port()
    }

    fn say(&self, message: &ToBroker) {
        let mut buffer = [0; MAX_MESSAGE];
        let bytes = encode(message, &mut buffer).expect("a short message");
        self.worker.send(bytes).expect("the broker");
    }

    fn hear(&self) -> (ToWorker, Vec<OwnedFd>) {
        let mut inbox = self.inbox.borrow_mut();
        if inbox.is_empty() {
            let mut buffer = [0; MAX_MESSAGE];
            let datagram = self.worker.receive_with(&mut buffer).expect("the broker");
            inbox
                .fill(datagram.bytes, datagram.descriptors)
                .expect("messages");
        }
        let (message, descriptor) = inbox.pop().expect("a message");
        (message, descriptor.into_iter().collect())
    }
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
        max_kept: MAX_KEPT,
        root: String::new(),
        fallback_directory: false,
        proxy: None,
    }
}
