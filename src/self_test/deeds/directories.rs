//! Deeds of a captured broker with the root and the directory for cache files: it may read below
//! the one, and read and write what is in the other. It can name, cut, list and remove nothing.

use nix::errno::Errno;

use super::super::probe::{
    Argument, BAD_DESCRIPTOR, BrokerPlace, DENIED, EMPTY, Expected, HARMLESS, HERE, Held, KILLED,
    LANDLOCK, PASSWD, Place, Probe, X, call, calls, deeds,
};

const ROOT: Argument = Argument::Held(Held::Root);
const SERVED: Argument = Argument::Held(Held::Served);
const CACHE: Argument = Argument::Held(Held::Cache);
const NAME: Argument = Argument::Text(c"r-tftpd-self-test/file");
const OTHER: Argument = Argument::Text(c"r-tftpd-self-test/other");
const NEW: Argument = Argument::Text(c"r-tftpd-self-test/new");
const NAMED: Argument = Argument::Text(c"named");
const MADE: Argument = Argument::Text(c"made");
const DOT: Argument = Argument::Text(c".");
const UP: Argument = Argument::Text(c"../../../../../../../../etc/passwd");

/// openat2 as the broker calls it, but without any restriction by itself: the sandbox alone has to
/// hold. As struct open_how: flags, mode, resolve.
const fn how(flags: i32, mode: u8) -> [u8; 24] {
    let mut how = [0; 24];
    // Flags and mode of all that is tried here fit into 32 and 8 bits.
    let [a, b, c, d] = flags.to_le_bytes();
    how[0] = a;
    how[1] = b;
    how[2] = c;
    how[3] = d;
    how[8] = mode;
    how
}

const READ: Argument = Argument::Bytes(&how(0, 0));
const WRITE: Argument = Argument::Bytes(&how(libc::O_RDWR, 0));
const CUT: Argument = Argument::Bytes(&how(libc::O_RDWR | libc::O_TRUNC, 0));
const CREATE: Argument = Argument::Bytes(&how(libc::O_WRONLY | libc::O_CREAT, 0o200));
const UNNAMED: Argument = Argument::Bytes(&how(libc::O_TMPFILE | libc::O_RDWR, 0o200));
const LIST: Argument = Argument::Bytes(&how(libc::O_DIRECTORY, 0));
const PROC: Argument = Argument::Text(c"/proc");
const MEMORY: Argument = Argument::Text(c"/proc/self/mem");

/// From Landlock's third version on there is a right to cut files.
const CUTTING: Expected = Expected::Landlock(3);

/// What is served.
pub(in super::super) const FILES: &[Probe] = calls! {
    LANDLOCK "open a file outside the root" SYS_openat2(HERE, PASSWD, READ, 24);
    LANDLOCK "open outside by .." SYS_openat2(ROOT, UP, READ, 24);
    LANDLOCK "open outside by .. from a second directory" SYS_openat2(SERVED, UP, READ, 24);
    DENIED "open own memory" SYS_openat2(HERE, MEMORY, WRITE, 24);
    LANDLOCK "open the list of processes" SYS_openat2(HERE, PROC, LIST, 24);
    LANDLOCK "list the root" SYS_openat2(ROOT, DOT, LIST, 24);
    LANDLOCK "write a file below the root" SYS_openat2(SERVED, NAME, WRITE, 24);
    LANDLOCK "cut a file below the root" SYS_openat2(SERVED, OTHER, CUT, 24);
    LANDLOCK "create a file below the root" SYS_openat2(SERVED, NEW, CREATE, 24);
    LANDLOCK "create an unnamed file" SYS_openat2(SERVED, DOT, UNNAMED, 24);
    LANDLOCK "create an unnamed file in the root" SYS_openat2(ROOT, DOT, UNNAMED, 24);
    LANDLOCK "open outside by openat" SYS_openat(HERE, PASSWD, 0, 0);
    KILLED "write by openat" SYS_openat(SERVED, NAME, 2, 0);
    KILLED "create by openat" SYS_openat(SERVED, NEW, 0o100, 0o644);
    KILLED "list the root's entries" SYS_getdents64(ROOT, 0, 0);
    KILLED "change to the root" SYS_fchdir(ROOT);
    KILLED "execute a file by its name" SYS_execveat(SERVED, NAME, 0, 0, 0);
};

fn opened(place: &BrokerPlace) -> Result<usize, Errno> {
    let served = place.held(Held::Served).ok_or(Errno::UnknownErrno)?;
    let (path, how) = (c"r-tftpd-self-test/file", [0_u64; 3]);
    let arguments = [served, path.as_ptr().addr(), how.as_ptr().addr(), 24];
    let file = match call(libc::SYS_openat2, &arguments) {
        // A kernel without it: the broker's other way.
        Err(Errno::ENOSYS) => call(libc::SYS_openat, &[served, path.as_ptr().addr(), 0, 0]),
        other => other,
    };
    usize::try_from(file.map_err(|_| Errno::UnknownErrno)?).map_err(|_| Errno::UnknownErrno)
}

/// What was opened.
pub(in super::super) const OPENED: &[Probe] = deeds! { Broker:
    BAD_DESCRIPTOR "write to a file that was opened" |place| {
        call(libc::SYS_write, &[opened(place)?, b"x".as_ptr().addr(), 1])
    };
    KILLED "read a file that was opened" |place| {
        call(libc::SYS_pread64, &[opened(place)?, 0, 0, 0])
    };
    KILLED "change the mode of a file" |place| call(libc::SYS_fchmod, &[opened(place)?, 0o777]);
    KILLED "execute a file" |place| {
        let empty = c"".as_ptr().addr();
        call(libc::SYS_execveat, &[opened(place)?, empty, 0, 0, 0x1000])
    };
};

/// openat(2) makes a cache file with these flags alone.
const FLAGS: i32 = libc::O_TMPFILE | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;

/// Flags of [`FLAGS`] as an argument.
macro_rules! flags {
    ($flags:expr) => {
        Argument::Number(($flags) as usize)
    };
}

const EXACT: Argument = flags!(FLAGS);
const NAMEABLE: Argument = flags!(FLAGS & !libc::O_EXCL);
const WRITE_ONLY: Argument = flags!(FLAGS & !libc::O_RDWR | libc::O_WRONLY);
const KEPT: Argument = flags!(FLAGS & !libc::O_CLOEXEC);
const APPENDING: Argument = flags!(FLAGS | libc::O_APPEND);
const DIRECT: Argument = flags!(FLAGS | libc::O_DIRECT);
const CREATED: Argument = flags!(FLAGS | libc::O_CREAT);

/// The directory for cache files.
pub(in super::super) const CACHED: &[Probe] = calls! {
    LANDLOCK "cache: create a file with a name" SYS_openat2(CACHE, MADE, CREATE, 24);
    LANDLOCK "cache: list it" SYS_openat2(CACHE, DOT, LIST, 24);
    LANDLOCK "cache: open outside by .." SYS_openat2(CACHE, UP, READ, 24);
    KILLED "cache: write a file by openat" SYS_openat(CACHE, NAMED, 2, 0);
    KILLED "cache: remove a file" SYS_unlinkat(CACHE, NAMED, 0);
    KILLED "cache: rename a file" SYS_renameat2(CACHE, NAMED, CACHE, MADE, 0);
    KILLED "cache: make a directory" SYS_mkdirat(CACHE, MADE, 0o700);
    KILLED "cache: make a device" SYS_mknodat(CACHE, MADE, 0o020_600, 0x103);
    LANDLOCK "an unnamed file below the root, by openat" SYS_openat(SERVED, DOT, EXACT, 0o600);
    // What it is for, and what is no more than that.
    HARMLESS "cache: a file without a name" SYS_openat(CACHE, DOT, EXACT, 0o600);
    HARMLESS "cache: open a file of another" SYS_openat2(CACHE, NAMED, WRITE, 24);
    CUTTING "cache: cut a file" SYS_openat2(CACHE, NAMED, CUT, 24);
    KILLED "cache: a file without a name that could be named" SYS_openat(CACHE, DOT, NAMEABLE, 0o600);
    KILLED "cache: a file without a name for writing alone" SYS_openat(CACHE, DOT, WRITE_ONLY, 0o600);
    KILLED "cache: a file without a name kept across exec" SYS_openat(CACHE, DOT, KEPT, 0o600);
    KILLED "cache: a file without a name for appending" SYS_openat(CACHE, DOT, APPENDING, 0o600);
    KILLED "cache: a file without a name past the page cache" SYS_openat(CACHE, DOT, DIRECT, 0o600);
    KILLED "cache: a file without a name that is created, too" SYS_openat(CACHE, DOT, CREATED, 0o600);
};

fn unnamed(place: &BrokerPlace) -> Result<usize, Errno> {
    let cache = place.held(Held::Cache).ok_or(Errno::UnknownErrno)?;
    let arguments = [cache, c".".as_ptr().addr(), FLAGS as usize, 0o600];
    let file = call(libc::SYS_openat, &arguments).map_err(|_| Errno::UnknownErrno)?;
    usize::try_from(file).map_err(|_| Errno::UnknownErrno)
}

/// Cache files that were made.
pub(in super::super) const UNNAMED_FILES: &[Probe] = deeds! { Broker:
    KILLED "cache: name a file without a name" |place| {
        let file = unnamed(place)?;
        let cache = place.held(Held::Cache).ok_or(Errno::UnknownErrno)?;
        let (empty, name) = (c"".as_ptr().addr(), c"made".as_ptr().addr());
        call(libc::SYS_linkat, &[file, empty, cache, name, 0x1000])
    };
    KILLED "cache: read a file of it" |place| {
        call(libc::SYS_pread64, &[unnamed(place)?, 0, 0, 0])
    };
};

const LISTENER: Argument = Argument::Held(Held::Listener);
const FETCHER: Argument = Argument::Held(Held::Fetcher);

/// The listener, and sockets that are no reply sockets.
pub(in super::super) const SOCKETS: &[Probe] = calls! {
    KILLED "UDP socket that blocks" SYS_socket(2, 2, 0);
    KILLED "UDP-Lite socket" SYS_socket(2, 0x8_0802, 136);
    KILLED "listener: read its filter" SYS_getsockopt(LISTENER, 1, 26, 0, 0);
    KILLED "listener: status flags" SYS_fcntl(LISTENER, 4, 0);
    KILLED "listener: owner" SYS_fcntl(LISTENER, 8, 1);
    KILLED "listener: shutdown" SYS_shutdown(LISTENER, 2);
    KILLED "listener: ioctl" SYS_ioctl(LISTENER, 0x8912, 0);
    KILLED "listener: option bind to device" SYS_setsockopt(LISTENER, 1, 25, X, 1);
    KILLED "listener: option attach a filter" SYS_setsockopt(LISTENER, 1, 26, X, 1);
    KILLED "listener: option mark" SYS_setsockopt(LISTENER, 1, 36, X, 1);
    KILLED "listener: option broadcast" SYS_setsockopt(LISTENER, 1, 6, X, 1);
    KILLED "listener: option address reuse" SYS_setsockopt(LISTENER, 1, 2, X, 1);
    KILLED "listener: option transparent" SYS_setsockopt(LISTENER, 0, 19, X, 1);
    KILLED "listener: option multicast membership" SYS_setsockopt(LISTENER, 0, 35, X, 1);
    KILLED "listener: option IP options" SYS_setsockopt(LISTENER, 0, 4, X, 1);
    KILLED "execute nothing" SYS_execveat(LISTENER, EMPTY, 0, 0, 0x1000);
};

/// The channel to the fetcher.
pub(in super::super) const FETCHERS: &[Probe] = calls! {
    KILLED "fetcher: shut its channel down" SYS_shutdown(FETCHER, 2);
    KILLED "fetcher: who it is" SYS_getsockopt(FETCHER, 1, 17, 0, 0);
};
