//! In the broker's place: its start, its descriptors, its lock-down, and then an attacker.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{ExitCode, exit};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recvmsg};
use r_tftpd_broker::broker::sandbox;
use r_tftpd_broker::channel::{Channel, Datagram};
use r_tftpd_broker::control::{self, Counts, Order, Report};
use r_tftpd_broker::settings::{BrokerStart, MAX_START};
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE, ToWorker};

use crate::captured_worker::PROBE;
use crate::probe::{Expected, Probe, number, report, say};
use crate::raw::{call, inherited};
use crate::{memory, world};

/// All that a captured broker has.
pub(crate) struct BrokerPlace {
    root: OwnedFd,
    listener: OwnedFd,
}

/// Every deed of a captured broker.
pub(crate) fn probes() -> Vec<Probe<BrokerPlace>> {
    [
        world::everywhere(),
        memory::everywhere(),
        files(),
        sockets(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The answer to a request that is no probe: proves that a generation lives.
pub(crate) const ALIVE: &str = "alive";

/// Takes the broker's place.
pub(crate) fn main() -> ExitCode {
    let control = Channel::from_descriptor(inherited(3));
    let mut buffer = vec![0; MAX_START + 1];
    let Datagram { bytes, descriptors } = control.receive_with(&mut buffer).unwrap();
    let start: BrokerStart = wire::decode::<_, MAX_START>(bytes).unwrap();
    let [worker, root, listener] = <[OwnedFd; 3]>::try_from(descriptors).unwrap();
    let worker = Channel::from_descriptor(worker);
    let probes = probes();
    let facts = sandbox::restrict(root.as_fd(), start.sandbox).unwrap();
    let facts = sandbox::filter(facts, start.sandbox).unwrap();
    let mut buffer = [0; MAX_MESSAGE];
    let hello = wire::encode(&ToWorker::Hello(Hello::OURS), &mut buffer).unwrap();
    worker.send_with(hello, &[]).unwrap();
    control
        .send_with(&Report::Ready(facts).to_bytes(), &[])
        .unwrap();
    let place = BrokerPlace { root, listener };
    loop {
        let mut polled = [&control.as_fd(), &place.listener.as_fd()]
            .map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN));
        match ppoll(&mut polled, None, None) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(error) => panic!("ppoll: {error}"),
        }
        let [order, request] = polled.map(|polled| polled.any() == Some(true));
        if order {
            handle_order(&control);
        } else if request {
            handle_request(&place, &probes);
        }
    }
}

fn handle_order(control: &Channel) {
    let mut buffer = [0; control::SIZE + 1];
    match control.receive(&mut buffer).map(Order::from_bytes) {
        Ok(Ok(Order::Go | Order::User(_))) => (),
        Ok(Ok(Order::Ping)) => {
            control
                .send_with(&Report::Counts(Counts::default()).to_bytes(), &[])
                .unwrap();
        }
        Ok(Ok(_)) => exit(0),
        _ => exit(1),
    }
}

fn handle_request(place: &BrokerPlace, probes: &[Probe<BrokerPlace>]) {
    let mut datagram = [0; 512];
    let mut pieces = [std::io::IoSliceMut::new(&mut datagram)];
    let listener = place.listener.as_raw_fd();
    let received = recvmsg::<()>(listener, &mut pieces, None, MsgFlags::MSG_DONTWAIT);
    let Ok(length) = received.map(|message| message.bytes) else {
        return;
    };
    let name = datagram[2..length]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    match name
        .strip_prefix(PROBE)
        .and_then(|index| index.parse::<usize>().ok())
    {
        Some(index) => report(&probes[index].name, (probes[index].run)(place)),
        None => say(&name, ALIVE),
    }
}

fn killed(
    name: &str,
    run: impl Fn(&BrokerPlace) -> Result<i64, Errno> + 'static,
) -> Probe<BrokerPlace> {
    Probe::new(name, Expected::Killed, run)
}

fn fails(
    name: &str,
    errno: Errno,
    run: impl Fn(&BrokerPlace) -> Result<i64, Errno> + 'static,
) -> Probe<BrokerPlace> {
    Probe::new(name, Expected::Fails(errno), run)
}

/// openat2 without any restriction by itself: the sandbox alone has to hold.
fn open(directory: usize, path: &std::ffi::CStr, flags: u64, mode: u64) -> Result<i64, Errno> {
    let how = [flags, mode, 0];
    let arguments = [directory, path.as_ptr().addr(), how.as_ptr().addr(), 24];
    call(libc::SYS_openat2, &arguments)
}

fn files() -> Vec<Probe<BrokerPlace>> {
    const HERE: usize = libc::AT_FDCWD as usize;
    const WRITE: u64 = libc::O_WRONLY as u64;
    const CREATE: u64 = (libc::O_CREAT | libc::O_WRONLY) as u64;
    const UNNAMED: u64 = (libc::O_TMPFILE | libc::O_RDWR) as u64;
    const LIST: u64 = libc::O_DIRECTORY as u64;
    let denied = Errno::EACCES;
    let root = |place: &BrokerPlace| number(&place.root);
    vec![
        fails("open a file outside the root", denied, |_| {
            open(HERE, c"/etc/passwd", 0, 0)
        }),
        fails("open outside by ..", denied, move |place| {
            open(root(place), c"../../../../../../etc/passwd", 0, 0)
        }),
        fails("open own memory", denied, |_| {
            open(HERE, c"/proc/self/mem", 2, 0)
        }),
        fails("open the list of processes", denied, |_| {
            open(HERE, c"/proc", LIST, 0)
        }),
        fails("list the root", denied, move |place| {
            open(root(place), c".", LIST, 0)
        }),
        fails("write a file below the root", denied, move |place| {
            open(root(place), c"hello", WRITE, 0)
        }),
        fails("truncate a file below the root", denied, move |place| {
            open(root(place), c"hello", WRITE | 0o1000, 0)
        }),
        fails("create a file below the root", denied, move |place| {
            open(root(place), c"new", CREATE, 0o644)
        }),
        fails("create an unnamed file", denied, move |place| {
            open(root(place), c".", UNNAMED, 0o600)
        }),
        fails("open outside by openat", denied, |_| {
            call(
                libc::SYS_openat,
                &[HERE, c"/etc/passwd".as_ptr().addr(), 0, 0],
            )
        }),
        killed("write by openat", move |place| {
            call(
                libc::SYS_openat,
                &[root(place), c"hello".as_ptr().addr(), 2, 0],
            )
        }),
        killed("create by openat", move |place| {
            call(
                libc::SYS_openat,
                &[root(place), c"new".as_ptr().addr(), 0o100, 0o644],
            )
        }),
        fails(
            "write to a file that was opened",
            Errno::EBADF,
            move |place| {
                let file = usize::try_from(open(root(place), c"hello", 0, 0)?).unwrap();
                call(libc::SYS_write, &[file, b"x".as_ptr().addr(), 1])
            },
        ),
        killed("read a file that was opened", move |place| {
            let file = usize::try_from(open(root(place), c"hello", 0, 0)?).unwrap();
            call(libc::SYS_pread64, &[file, 0, 0, 0])
        }),
        killed("change the mode of a file", move |place| {
            let file = usize::try_from(open(root(place), c"hello", 0, 0)?).unwrap();
            call(libc::SYS_fchmod, &[file, 0o777])
        }),
        killed("execute a file", move |place| {
            let file = usize::try_from(open(root(place), c"hello", 0, 0)?).unwrap();
            call(
                libc::SYS_execveat,
                &[file, c"".as_ptr().addr(), 0, 0, 0x1000],
            )
        }),
        killed("list the root's entries", move |place| {
            call(libc::SYS_getdents64, &[root(place), 0, 0])
        }),
        killed("change to the root", move |place| {
            call(libc::SYS_fchdir, &[root(place)])
        }),
    ]
}

fn sockets() -> Vec<Probe<BrokerPlace>> {
    let mut probes = vec![
        Probe::kills("UDP socket that blocks", libc::SYS_socket, &[2, 2, 0]),
        Probe::kills("UDP-Lite socket", libc::SYS_socket, &[2, 0x8_0802, 136]),
        killed("listener: read its filter", |place| {
            call(
                libc::SYS_getsockopt,
                &[number(&place.listener), 1, 26, 0, 0],
            )
        }),
        killed("listener: status flags", |place| {
            call(libc::SYS_fcntl, &[number(&place.listener), 4, 0])
        }),
        killed("listener: owner", |place| {
            call(libc::SYS_fcntl, &[number(&place.listener), 8, 1])
        }),
        killed("listener: shutdown", |place| {
            call(libc::SYS_shutdown, &[number(&place.listener), 2])
        }),
        killed("listener: ioctl", |place| {
            call(libc::SYS_ioctl, &[number(&place.listener), 0x8912, 0])
        }),
    ];
    for (name, level, option) in [
        ("bind to device", 1, 25),
        ("attach a filter", 1, 26),
        ("mark", 1, 36),
        ("broadcast", 1, 6),
        ("address reuse", 1, 2),
        ("transparent", 0, 19),
        ("multicast membership", 0, 35),
        ("IP options", 0, 4),
    ] {
        let name = format!("listener: option {name}");
        probes.push(killed(&name, move |place| {
            let value = [1_u8; 16];
            let value = value.as_ptr().addr();
            call(
                libc::SYS_setsockopt,
                &[number(&place.listener), level, option, value, 16],
            )
        }));
    }
    probes
}
