//! The system calls of worker and broker, made by a process that has taken some of the layers of
//! their sandbox, and does what the benchmark says.
//!
//! Once a filter is in force nothing may be called here that the real process does not call.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::sockopt::{IpMtu, SndBuf, UdpGsoSegment};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect, getsockname,
    getsockopt, sendmsg, setsockopt, socket,
};
use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;
use r_tftpd::worker;
use r_tftpd_broker::broker;
use r_tftpd_broker::channel::{Channel, ReceiveError};
use r_tftpd_broker::lockdown;
use r_tftpd_broker::settings::Sandbox;
use r_tftpd_broker::start::take_control;

use crate::sends::{Own, send_now};
use crate::sys::{Wait, read_pieces, receive_many};
use crate::window::MAX_SEND;

/// The name of a system call, and how long so many of it take.
pub type Call<T> = (&'static str, fn(&mut T, u32) -> Duration);

/// What the parent says: nothing but these bytes, and how often it wants a call.
pub const ORDER: usize = 5;

/// Layers of the worker's sandbox, each with all before it.
pub const WORKER_LEVELS: &[&str] = &["none", "privs", "Landlock", "stage 1", "stage 2"];

/// Layers of the broker's sandbox, each with all before it.
pub const BROKER_LEVELS: &[&str] = &["none", "privs", "Landlock", "seccomp"];

/// The worker's calls for a window, in the order of their table.
pub const WORKER: &[Call<Worker>] = &[
    ("epoll_wait, nothing ready", |worker, count| {
        repeat(count, || worker.wait(Ready::No))
    }),
    ("epoll_wait, a socket ready", |worker, count| {
        repeat(count, || worker.wait(Ready::Yes))
    }),
    ("recvmmsg, nothing there", |worker, count| {
        repeat(count, || worker.receive_none())
    }),
    ("recvmmsg, an ACK", Worker::receive),
    ("preadv2, 512 bytes", |worker, count| {
        repeat(count, || worker.read(512, 1))
    }),
    ("preadv2, 44 x 1468 bytes", |worker, count| {
        repeat(count, || worker.read(1468, 44))
    }),
    ("sendto, 516 bytes", |worker, count| {
        let (own, bytes) = (&mut worker.plain, &worker.buffer[..516]);
        own.time(count, |socket| send_now(socket, bytes))
    }),
    ("sendto, 44 x 1472 bytes", |worker, count| {
        let (own, bytes) = (&mut worker.windows, &worker.buffer[..44 * 1472]);
        own.time(count, |socket| send_now(socket, bytes))
    }),
    ("setsockopt, UDP_SEGMENT", |worker, count| {
        repeat(count, || worker.segment())
    }),
    ("all four of a lock-step block", Worker::lock_step),
];

/// The broker's calls for a request, in the order of their table.
pub const BROKER: &[Call<Broker>] = &[
    ("ppoll, a request there", |broker, count| {
        repeat(count, || broker.wait())
    }),
    ("recvmmsg, a request", Broker::receive),
    ("socket", |broker, count| broker.reply(count, 0)),
    ("bind", |broker, count| broker.reply(count, 1)),
    ("setsockopt", |broker, count| broker.reply(count, 2)),
    ("connect", |broker, count| broker.reply(count, 3)),
    ("getsockopt, IP_MTU", |broker, count| broker.reply(count, 4)),
    ("getsockname", |broker, count| broker.reply(count, 5)),
    ("close, a socket", |broker, count| broker.reply(count, 6)),
    ("openat2", |broker, count| broker.open(count, 0)),
    ("fstat", |broker, count| broker.open(count, 1)),
    ("fstatfs", |broker, count| broker.open(count, 2)),
    ("close, a file", |broker, count| broker.open(count, 3)),
    ("sendmsg, with a descriptor", Broker::grant),
    ("recvmsg, a message", Broker::hear),
];

/// The process that makes the worker's calls.
pub fn worker() -> ! {
    let (control, level, file) = begin();
    let mut worker = Worker::new(file);
    let answer = |time: u64| control.send(&time.to_ne_bytes());
    let mut serve = || serve(&control, WORKER, &mut worker, answer);
    let strict = Sandbox::Strict;
    match level {
        0 => (),
        1 => lockdown::no_new_privileges().expect("no_new_privs"),
        2 => {
            lockdown::no_new_privileges().expect("no_new_privs");
            lockdown::landlock(&[], strict).expect("Landlock");
        }
        _ => {
            let between = || {
                if level == 3 {
                    serve();
                }
                Ok(())
            };
            worker::sandbox::enter(strict, between).expect("the worker's sandbox");
        }
    }
    serve();
    std::process::exit(0)
}

/// The process that makes the broker's calls.
pub fn broker() -> ! {
    let (control, level, root) = begin();
    let mut broker = Broker::new(root);
    let strict = Sandbox::Strict;
    match level {
        0 => (),
        1 => lockdown::no_new_privileges().expect("no_new_privs"),
        _ => {
            let root = [broker.root.as_fd()];
            let facts = broker::sandbox::restrict(root, None, strict).expect("Landlock");
            if level == 3 {
                broker::sandbox::filter(facts, strict).expect("the broker's filter");
            }
        }
    }
    let answer = |time: u64| control.send_with(&time.to_ne_bytes(), &[]);
    serve(&control, BROKER, &mut broker, answer);
    std::process::exit(0)
}

/// The start message: a level and a descriptor.
fn begin() -> (Channel, u8, OwnedFd) {
    let control = take_control(c"r-tftpd-micro").expect("descriptor 3");
    let mut level = [0];
    let message = control.receive_with(&mut level).expect("a start message");
    let descriptor = message.descriptors.into_iter().next();
    (control, level[0], descriptor.expect("a descriptor"))
}

/// Makes the calls that are ordered until nobody orders any more. Says first that it is ready.
fn serve<T>(
    control: &Channel,
    calls: &[Call<T>],
    tools: &mut T,
    answer: impl Fn(u64) -> std::io::Result<()>,
) {
    answer(0).expect("send");
    let mut order = [0; ORDER];
    loop {
        match control.receive(&mut order) {
            Ok(_) => (),
            Err(ReceiveError::Closed) => std::process::exit(0),
            Err(error) => panic!("{error}"),
        }
        let [call, count @ ..] = order;
        let (_, make) = calls[usize::from(call)];
        let time = make(tools, u32::from_ne_bytes(count));
        answer(u64::try_from(time.as_nanos()).expect("a short time")).expect("send");
    }
}

fn repeat(count: u32, mut call: impl FnMut()) -> Duration {
    let start = Instant::now();
    (0..count).for_each(|_| call());
    start.elapsed()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    No,
    Yes,
}

/// What the worker's calls are made with.
pub struct Worker {
    file: OwnedFd,
    wait: Wait,
    plain: Own,
    windows: Own,
    /// Has always one datagram.
    full: Own,
    epoll: Epoll,
    epoll_of_full: Epoll,
    buffer: Vec<u8>,
}

impl Worker {
    fn new(file: OwnedFd) -> Self {
        let (plain, windows, full) = (Own::new(0), Own::new(1472), Own::new(0));
        let watch = |own: &Own| {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll_create");
            let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
            epoll.add(own.socket(), event).expect("epoll_ctl");
            epoll
        };
        let (epoll, epoll_of_full) = (watch(&plain), watch(&full));
        send_now(full.socket(), &[0; 4]);
        let mut worker = Self {
            file,
            wait: Wait::No,
            plain,
            windows,
            full,
            epoll,
            epoll_of_full,
            buffer: vec![0; MAX_SEND],
        };
        let piece = [&mut worker.buffer[..1]].into_iter();
        if read_pieces(worker.file.as_fd(), 0, piece, Wait::No).is_err() {
            worker.wait = Wait::Yes;
        }
        worker
    }

    fn wait(&self, ready: Ready) {
        let epoll = match ready {
            Ready::No => &self.epoll,
            Ready::Yes => &self.epoll_of_full,
        };
        let mut events = [EpollEvent::empty()];
        let count = epoll.wait(&mut events, EpollTimeout::ZERO);
        assert_eq!(count, Ok(usize::from(ready == Ready::Yes)));
    }

    fn receive_none(&mut self) {
        let socket = self.plain.socket().as_fd();
        assert!(receive_many(socket, &mut self.buffer[..516], 516).is_err());
    }

    fn receive(&mut self, count: u32) -> Duration {
        /// Far from what fills the socket.
        const AT_ONCE: u32 = 64;
        let mut time = Duration::ZERO;
        let mut left = count;
        while left > 0 {
            let now = left.min(AT_ONCE);
            (0..now).for_each(|_| send_now(self.plain.socket(), &[0, 4, 0, 1]));
            let socket = self.plain.socket().as_fd();
            time += repeat(now, || {
                receive_many(socket, &mut self.buffer[..516], 516).expect("an ACK");
            });
            left -= now;
        }
        time
    }

    fn read(&mut self, size: usize, count: usize) {
        let pieces = self.buffer.chunks_mut(size).take(count);
        let read = read_pieces(self.file.as_fd(), 0, pieces, self.wait);
        assert_eq!(read.expect("preadv2"), size * count);
    }

    fn segment(&self) {
        setsockopt(self.windows.socket(), UdpGsoSegment, &1472).expect("UDP_SEGMENT");
    }

    /// What it sends comes back as the next answer.
    fn lock_step(&mut self, count: u32) -> Duration {
        repeat(count, || {
            self.wait(Ready::Yes);
            let socket = self.full.socket();
            receive_many(socket.as_fd(), &mut self.buffer[..516], 516).expect("an answer");
            let piece = [&mut self.buffer[4..516]].into_iter();
            read_pieces(self.file.as_fd(), 0, piece, self.wait).expect("preadv2");
            send_now(socket, &self.buffer[..516]);
        })
    }
}

/// What the broker's calls are made with.
pub struct Broker {
    root: OwnedFd,
    /// Has always one datagram.
    listener: UdpSocket,
    ours: Channel,
    theirs: Channel,
    buffer: Vec<u8>,
}

/// Times what is done by the wanted one of several steps.
struct Watch {
    wanted: usize,
    step: usize,
    time: Duration,
}

impl Watch {
    fn step<R>(&mut self, call: impl FnOnce() -> R) -> R {
        let is_wanted = self.step == self.wanted;
        self.step += 1;
        if !is_wanted {
            return call();
        }
        let start = Instant::now();
        let result = call();
        self.time += start.elapsed();
        result
    }
}

impl Broker {
    fn new(root: OwnedFd) -> Self {
        let listener = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("an address");
        listener.connect(address).expect("connect");
        listener.set_nonblocking(true).expect("fcntl");
        let (ours, theirs) = Channel::pair().expect("socketpair");
        let broker = Self {
            root,
            listener,
            ours,
            theirs,
            buffer: vec![0; 2048],
        };
        broker.arrive();
        broker
    }

    /// A request arrives.
    fn arrive(&self) {
        let request = [IoSlice::new(b"\0\x01file\0octet\0")];
        let (socket, none) = (self.listener.as_raw_fd(), MsgFlags::empty());
        sendmsg::<()>(socket, &request, &[], none, None).expect("sendmsg");
    }

    fn wait(&self) {
        let mut places = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        assert_eq!(ppoll(&mut places, None, None), Ok(1));
    }

    fn receive(&mut self, count: u32) -> Duration {
        let mut watch = Watch::of(0);
        for _ in 0..count {
            watch.step = 0;
            let socket = self.listener.as_fd();
            let received = watch.step(|| receive_many(socket, &mut self.buffer, 2048));
            received.expect("a request");
            self.arrive();
        }
        watch.time
    }

    /// Makes and closes reply sockets, and times one step of it.
    fn reply(&mut self, count: u32, wanted: usize) -> Duration {
        let peer = SockaddrIn::new(127, 0, 0, 1, 9);
        let local = SockaddrIn::new(127, 0, 0, 1, 0);
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let mut watch = Watch::of(wanted);
        for _ in 0..count {
            watch.step = 0;
            let made = watch.step(|| socket(AddressFamily::Inet, SockType::Datagram, flags, None));
            let made = made.expect("socket");
            let number = made.as_raw_fd();
            watch.step(|| bind(number, &local)).expect("bind");
            let buffer = watch.step(|| setsockopt(&made, SndBuf, &(256 * 1024)));
            buffer.expect("SO_SNDBUF");
            watch.step(|| connect(number, &peer)).expect("connect");
            watch.step(|| getsockopt(&made, IpMtu)).expect("IP_MTU");
            let name = watch.step(|| getsockname::<SockaddrIn>(number));
            name.expect("getsockname");
            watch.step(|| drop(made));
        }
        watch.time
    }

    /// Opens and closes a file, and times one step of it.
    fn open(&mut self, count: u32, wanted: usize) -> Duration {
        /// RESOLVE_CACHED (linux/openat2.h).
        const CACHED: ResolveFlag = ResolveFlag::from_bits_retain(0x20);
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags).resolve(beneath | CACHED);
        let mut watch = Watch::of(wanted);
        for _ in 0..count {
            watch.step = 0;
            let file = watch.step(|| openat2(&self.root, Path::new("file"), how));
            let file = file.expect("openat2");
            watch.step(|| fstat(&file)).expect("fstat");
            watch.step(|| fstatfs(&file)).expect("fstatfs");
            watch.step(|| drop(file));
        }
        watch.time
    }

    fn grant(&mut self, count: u32) -> Duration {
        let mut watch = Watch::of(0);
        for _ in 0..count {
            watch.step = 0;
            let (ours, file) = (&self.ours, self.root.as_fd());
            let sent = watch.step(|| ours.send_with(&[1; 40], &[file]));
            sent.expect("sendmsg");
            self.theirs.receive_with(&mut self.buffer).expect("recvmsg");
        }
        watch.time
    }

    fn hear(&mut self, count: u32) -> Duration {
        let mut watch = Watch::of(0);
        for _ in 0..count {
            watch.step = 0;
            self.theirs.send_with(&[1; 40], &[]).expect("sendmsg");
            let heard = watch.step(|| self.ours.receive(&mut self.buffer).map(<[u8]>::len));
            assert_eq!(heard.expect("recvmsg"), 40);
        }
        watch.time
    }
}

impl Watch {
    fn of(wanted: usize) -> Self {
        Self {
            wanted,
            step: 0,
            time: Duration::ZERO,
        }
    }
}
