//! Deeds with every descriptor that a worker holds: the reply socket, the granted file, the two
//! channels, standard error, standard input.

use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::probe::{Expected, Probe, WorkerPlace, errno, number};
use crate::raw::call;

type Worker = Probe<WorkerPlace>;

/// What a worker can not do although the broker can.
pub(crate) fn of_worker() -> Vec<Worker> {
    [
        files(),
        reply_socket(),
        granted_file(),
        channels(),
        the_rest(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A deed that kills.
fn killed(name: &str, run: impl Fn(&WorkerPlace) -> Result<i64, Errno> + 'static) -> Worker {
    Probe::new(name, Expected::Killed, run)
}

/// 127.0.0.9 port 9, as struct sockaddr_in.
const ELSEWHERE: [u8; 16] = [2, 0, 0, 9, 127, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0];

fn files() -> Vec<Worker> {
    let here = libc::AT_FDCWD as usize;
    let passwd = c"/etc/passwd".as_ptr().addr();
    let fails = Expected::Fails(Errno::EACCES);
    vec![
        Probe::new("openat", fails, move |_| {
            call(libc::SYS_openat, &[here, passwd, 0, 0])
        }),
        Probe::new("openat to create", fails, move |_| {
            let path = c"/tmp/r-tftpd-probe".as_ptr().addr();
            call(libc::SYS_openat, &[here, path, 0o101, 0o644])
        }),
        Probe::new(
            "openat by a magic link",
            fails,
            move |place: &WorkerPlace| {
                let path = format!("/proc/self/fd/{}\0", place.granted());
                call(libc::SYS_openat, &[here, path.as_ptr().addr(), 2, 0])
            },
        ),
        Probe::kills("openat2", libc::SYS_openat2, &[here, passwd, 0, 24]),
        Probe::kills("newfstatat", libc::SYS_newfstatat, &[here, passwd, 0, 0]),
        Probe::kills("readlinkat", libc::SYS_readlinkat, &[here, passwd, 0, 0]),
        Probe::kills("memfd_create", libc::SYS_memfd_create, &[passwd, 0]),
        Probe::kills("clone3", libc::SYS_clone3, &[passwd, 88]),
        Probe::kills("UDP socket", libc::SYS_socket, &[2, 2, 0]),
        Probe::kills("UDP socket over IPv6", libc::SYS_socket, &[10, 2, 0]),
        Probe::kills("clone a thread", libc::SYS_clone, &[0x3d_0f00, 0, 0, 0, 0]),
        Probe::kills("prlimit64", libc::SYS_prlimit64, &[0, 7, 0, 0]),
        Probe::kills("a signal handler", libc::SYS_rt_sigaction, &[31, 0, 0, 8]),
    ]
}

fn reply_socket() -> Vec<Worker> {
    let address = ELSEWHERE.as_ptr().addr();
    let mut probes = vec![
        killed("reply socket: connect elsewhere", move |place| {
            call(libc::SYS_connect, &[place.socket(), address, 16])
        }),
        killed("reply socket: dissolve the connection", move |place| {
            let unspecified = [0_u8; 16];
            call(
                libc::SYS_connect,
                &[place.socket(), unspecified.as_ptr().addr(), 16],
            )
        }),
        killed("reply socket: send elsewhere", move |place| {
            call(
                libc::SYS_sendto,
                &[place.socket(), address, 4, 0, address, 16],
            )
        }),
        killed("reply socket: sendmsg", |place| {
            let empty = [0_u64; 7];
            call(
                libc::SYS_sendmsg,
                &[place.socket(), empty.as_ptr().addr(), 0],
            )
        }),
        killed("reply socket: sendmsg elsewhere", move |place| {
            let header = [address as u64, 16, 0, 0, 0, 0, 0];
            call(
                libc::SYS_sendmsg,
                &[place.socket(), header.as_ptr().addr(), 0],
            )
        }),
        killed("reply socket: sendmmsg elsewhere", move |place| {
            let header = [address as u64, 16, 0, 0, 0, 0, 0, 0];
            call(
                libc::SYS_sendmmsg,
                &[place.socket(), header.as_ptr().addr(), 1, 0],
            )
        }),
        killed("reply socket: bind", move |place| {
            call(libc::SYS_bind, &[place.socket(), address, 16])
        }),
        killed("reply socket: shutdown", |place| {
            call(libc::SYS_shutdown, &[place.socket(), 2])
        }),
        killed("reply socket: getsockname", |place| {
            call(libc::SYS_getsockname, &[place.socket(), 0, 0])
        }),
        killed("reply socket: getpeername", |place| {
            call(libc::SYS_getpeername, &[place.socket(), 0, 0])
        }),
        killed("reply socket: getsockopt", |place| {
            call(libc::SYS_getsockopt, &[place.socket(), 1, 3, 0, 0])
        }),
        killed("reply socket: ioctl", |place| {
            call(libc::SYS_ioctl, &[place.socket(), 0x8912, 0])
        }),
        killed("reply socket: sendfile", |place| {
            call(
                libc::SYS_sendfile,
                &[place.socket(), place.granted(), 0, 100],
            )
        }),
        killed("reply socket: splice", |place| {
            call(
                libc::SYS_splice,
                &[place.granted(), 0, place.socket(), 0, 100, 0],
            )
        }),
        Probe::new(
            "reply socket: a segment size",
            Expected::Harmless,
            |place: &WorkerPlace| {
                let size = 512_i32.to_ne_bytes();
                let size = size.as_ptr().addr();
                call(libc::SYS_setsockopt, &[place.socket(), 17, 103, size, 4])
            },
        ),
    ];
    // Level and name of options that would help an attacker.
    for (name, level, option) in [
        ("bind to device", 1, 25),
        ("broadcast", 1, 6),
        ("mark", 1, 36),
        ("receive buffer", 1, 8),
        ("attach a filter", 1, 26),
        ("address reuse", 1, 2),
        ("IP options", 0, 4),
        ("header included", 0, 3),
        ("transparent", 0, 19),
        ("multicast membership", 0, 35),
        ("IPv6 packet info", 41, 50),
        ("UDP encapsulation", 17, 100),
        ("UDP cork", 17, 1),
        ("upper layer protocol", 6, 31),
    ] {
        let name = format!("reply socket: option {name}");
        probes.push(killed(&name, move |place| {
            let value = [1_u8; 16];
            let value = value.as_ptr().addr();
            call(
                libc::SYS_setsockopt,
                &[place.socket(), level, option, value, 16],
            )
        }));
    }
    for (name, command, argument) in [
        ("status flags", 4, 0),
        ("owner", 8, 1),
        ("signal", 10, 9),
        ("duplicate", 0, 100),
        ("read status flags", 3, 0),
    ] {
        let name = format!("reply socket: fcntl {name}");
        probes.push(killed(&name, move |place| {
            call(libc::SYS_fcntl, &[place.socket(), command, argument])
        }));
    }
    probes
}

fn granted_file() -> Vec<Worker> {
    const SHARED: usize = 1;
    vec![
        Probe::new(
            "file: write",
            Expected::Fails(Errno::EBADF),
            |place: &WorkerPlace| {
                call(libc::SYS_write, &[place.granted(), b"x".as_ptr().addr(), 1])
            },
        ),
        Probe::new(
            "file: map writable",
            Expected::Fails(Errno::EACCES),
            |place: &WorkerPlace| call(libc::SYS_mmap, &[0, 4096, 3, SHARED, place.granted(), 0]),
        ),
        killed("file: map executable", |place| {
            call(libc::SYS_mmap, &[0, 4096, 5, SHARED, place.granted(), 0])
        }),
        killed("file: pwritev2", |place| {
            call(libc::SYS_pwritev2, &[place.granted(), 0, 0, 0, 0, 0])
        }),
        killed("file: pwrite64", |place| {
            call(
                libc::SYS_pwrite64,
                &[place.granted(), b"x".as_ptr().addr(), 1, 0],
            )
        }),
        killed("file: ftruncate", |place| {
            call(libc::SYS_ftruncate, &[place.granted(), 0])
        }),
        killed("file: fallocate", |place| {
            call(libc::SYS_fallocate, &[place.granted(), 0, 0, 1])
        }),
        killed("file: fchmod", |place| {
            call(libc::SYS_fchmod, &[place.granted(), 0o777])
        }),
        killed("file: fchown", |place| {
            call(libc::SYS_fchown, &[place.granted(), 0, 0])
        }),
        killed("file: fsetxattr", |place| {
            let name = c"user.x".as_ptr().addr();
            call(libc::SYS_fsetxattr, &[place.granted(), name, name, 1, 0])
        }),
        killed("file: lock", |place| {
            call(libc::SYS_flock, &[place.granted(), 2])
        }),
        killed("file: lease", |place| {
            call(libc::SYS_fcntl, &[place.granted(), 1024, 0])
        }),
        killed("file: lock by fcntl", |place| {
            call(libc::SYS_fcntl, &[place.granted(), 6, 0])
        }),
        killed("file: status flags", |place| {
            call(libc::SYS_fcntl, &[place.granted(), 4, 0])
        }),
        killed("file: lseek", |place| {
            call(libc::SYS_lseek, &[place.granted(), 0, 0])
        }),
        killed("file: ioctl", |place| {
            call(libc::SYS_ioctl, &[place.granted(), 0x4020_940d, 0])
        }),
        killed("file: directory entries", |place| {
            call(libc::SYS_getdents64, &[place.granted(), 0, 0])
        }),
        killed("file: fchdir", |place| {
            call(libc::SYS_fchdir, &[place.granted()])
        }),
        killed("file: execute", |place| {
            let empty = c"".as_ptr().addr();
            call(libc::SYS_execveat, &[place.granted(), empty, 0, 0, 0x1000])
        }),
        killed("file: link it", |place| {
            let (empty, path) = (c"".as_ptr().addr(), c"/tmp/r-tftpd-probe".as_ptr().addr());
            let here = libc::AT_FDCWD as usize;
            call(
                libc::SYS_linkat,
                &[place.granted(), empty, here, path, 0x1000],
            )
        }),
        killed("file: copy_file_range", |place| {
            call(
                libc::SYS_copy_file_range,
                &[place.granted(), 0, 2, 0, 100, 0],
            )
        }),
        killed("file: dup3 over standard error", |place| {
            call(libc::SYS_dup3, &[place.granted(), 2, 0])
        }),
    ]
}

fn channels() -> Vec<Worker> {
    vec![
        killed("channel: hand over a descriptor", |place| {
            let sent = place.broker.send_with(b"x", &[place.reply.as_fd()]);
            sent.map(|()| 0).map_err(|error| errno(&error))
        }),
        killed("control channel: hand over a descriptor", |place| {
            let sent = place.control.send_with(&[0; 64], &[place.reply.as_fd()]);
            sent.map(|()| 0).map_err(|error| errno(&error))
        }),
        killed("channel: who is at the other end", |place| {
            call(libc::SYS_getsockopt, &[number(&place.broker), 1, 17, 0, 0])
        }),
        killed("channel: credentials", |place| {
            let on = 1_i32.to_ne_bytes();
            call(
                libc::SYS_setsockopt,
                &[number(&place.broker), 1, 16, on.as_ptr().addr(), 4],
            )
        }),
        killed("channel: a larger buffer", |place| {
            let on = (1_i32 << 30).to_ne_bytes();
            call(
                libc::SYS_setsockopt,
                &[number(&place.broker), 1, 7, on.as_ptr().addr(), 4],
            )
        }),
        killed("channel: connect elsewhere", |place| {
            let address = *b"\x01\0\0r-tftpd-probe\0";
            call(
                libc::SYS_connect,
                &[number(&place.broker), address.as_ptr().addr(), 16],
            )
        }),
    ]
}

fn the_rest() -> Vec<Worker> {
    vec![
        killed("standard input: read", |_| call(libc::SYS_read, &[0, 0, 0])),
        killed("standard error: type into the terminal", |_| {
            call(libc::SYS_ioctl, &[2, 0x5412, b"x".as_ptr().addr()])
        }),
        killed("standard error: truncate the log", |_| {
            call(libc::SYS_ftruncate, &[2, 0])
        }),
    ]
}
