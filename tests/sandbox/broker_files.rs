//! Deeds of a captured broker with the root and the directory of cache files: it may read below
//! the one, and read and write what is in the other. It can name, cut, list and remove nothing.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::captured_broker::{BrokerPlace, killed};
use crate::probe::{Expected, Probe, number};
use crate::raw::call;

/// A file in the cache directory that everybody may read and write, as no cache file is.
pub(crate) const NAMED: &str = "named";

/// What is tried with each of the two directories.
pub(crate) fn of_broker() -> Vec<Probe<BrokerPlace>> {
    [files(), cache_directory()].into_iter().flatten().collect()
}

fn fails(
    name: &str,
    errno: Errno,
    run: impl Fn(&BrokerPlace) -> Result<i64, Errno> + 'static,
) -> Probe<BrokerPlace> {
    Probe::new(name, Expected::Fails(errno), run)
}

fn harmless(
    name: &str,
    run: impl Fn(&BrokerPlace) -> Result<i64, Errno> + 'static,
) -> Probe<BrokerPlace> {
    Probe::new(name, Expected::Harmless, run)
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

/// Flags of cache files: the one combination with which the filter lets openat(2) make any.
const UNNAMED: i32 = libc::O_TMPFILE | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;

fn cache_directory() -> Vec<Probe<BrokerPlace>> {
    const WRITE: u64 = libc::O_RDWR as u64;
    const LIST: u64 = libc::O_DIRECTORY as u64;
    let denied = Errno::EACCES;
    let cache = |place: &BrokerPlace| number(&place.cache);
    let openat = |directory: &OwnedFd, flags: i32| {
        let path = c".".as_ptr().addr();
        let flags = flags as usize;
        call(libc::SYS_openat, &[number(directory), path, flags, 0o600])
    };
    let mut probes = vec![
        fails("cache: create a file with a name", denied, move |place| {
            open(cache(place), c"new", WRITE | 0o100, 0o600)
        }),
        fails("cache: list it", denied, move |place| {
            open(cache(place), c".", LIST, 0)
        }),
        fails("cache: open outside by ..", denied, move |place| {
            open(cache(place), c"../../../../../../etc/passwd", 0, 0)
        }),
        killed("cache: write a file by openat", move |place| {
            let path = c"named".as_ptr().addr();
            call(libc::SYS_openat, &[cache(place), path, 2, 0])
        }),
        killed("cache: remove a file", move |place| {
            let path = c"named".as_ptr().addr();
            call(libc::SYS_unlinkat, &[cache(place), path, 0])
        }),
        killed("cache: rename a file", move |place| {
            let (old, new) = (c"named".as_ptr().addr(), c"new".as_ptr().addr());
            let directory = cache(place);
            call(libc::SYS_renameat2, &[directory, old, directory, new, 0])
        }),
        killed("cache: make a directory", move |place| {
            let path = c"new".as_ptr().addr();
            call(libc::SYS_mkdirat, &[cache(place), path, 0o700])
        }),
        killed("cache: name a file without a name", move |place| {
            let file = usize::try_from(openat(&place.cache, UNNAMED)?).unwrap();
            let (empty, name) = (c"".as_ptr().addr(), c"new".as_ptr().addr());
            call(libc::SYS_linkat, &[file, empty, cache(place), name, 0x1000])
        }),
        killed("cache: read a file of it", move |place| {
            let file = usize::try_from(openat(&place.cache, UNNAMED)?).unwrap();
            call(libc::SYS_pread64, &[file, 0, 0, 0])
        }),
        fails(
            "an unnamed file below the root, by openat",
            denied,
            move |place| openat(&place.root, UNNAMED),
        ),
        // What it is for, and what is no more than that.
        harmless("cache: a file without a name", move |place| {
            openat(&place.cache, UNNAMED)
        }),
        harmless("cache: open a file of another", move |place| {
            open(cache(place), c"named", WRITE, 0)
        }),
    ];
    for (name, flags) in [
        ("that could be named", UNNAMED & !libc::O_EXCL),
        (
            "for writing alone",
            UNNAMED & !libc::O_RDWR | libc::O_WRONLY,
        ),
        ("kept across exec", UNNAMED & !libc::O_CLOEXEC),
        ("for appending", UNNAMED | libc::O_APPEND),
        ("past the page cache", UNNAMED | libc::O_DIRECT),
        ("that is created, too", UNNAMED | libc::O_CREAT),
    ] {
        let name = format!("cache: a file without a name {name}");
        probes.push(killed(&name, move |place| openat(&place.cache, flags)));
    }
    // Landlock has a right to cut files from ABI 3 on; before, all that is cut is a cache.
    let version = call(libc::SYS_landlock_create_ruleset, &[0, 0, 1]).unwrap_or(0);
    let cut = move |place: &BrokerPlace| open(cache(place), c"named", WRITE | 0o1000, 0);
    probes.push(if version >= 3 {
        fails("cache: cut a file", denied, cut)
    } else {
        harmless("cache: cut a file", cut)
    });
    probes
}
