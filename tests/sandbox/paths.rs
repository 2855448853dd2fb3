//! Paths that try to leave the root, asked of a real broker by a captured worker.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;
use r_tftpd_test_support::files::TempDir;

/// What begins the contents of every file below the root.
const INSIDE: &[u8] = b"inside: a file";

/// Every path that is tried: none may bring the contents of a file outside the root.
pub(crate) fn corpus() -> Vec<Vec<u8>> {
    let mut paths: Vec<Vec<u8>> = [
        "",
        "/",
        ".",
        "..",
        "/..",
        "../",
        "./..",
        "../..",
        "...",
        "/.../",
        "/etc/passwd",
        "//etc/passwd",
        "../etc/passwd",
        "../../../../../../../../etc/passwd",
        "/../../../../../../etc/passwd",
        "directory/../../../../../../etc/passwd",
        "directory/..//../secret",
        "directory/../..",
        "./../directory/file",
        "hello/..",
        "hello/",
        "hello/.",
        "hello/../hello",
        "directory/../hello",
        "directory/./../directory/file",
        "..\\secret",
        "directory\\..\\..\\secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "..;/secret",
        "~",
        "~root/.profile",
        "$HOME",
        "-",
        "|id",
        "file:///etc/passwd",
        "http://host/path",
        "absolute",
        "absolute/",
        "climbing",
        "climbing-far",
        "to-outside/secret",
        "to-outside/",
        "to-outside/../secret",
        "to-root",
        "to-root/etc/passwd",
        "to-proc/self/root/etc/passwd",
        "magic-root/etc/passwd",
        "magic-cwd/../../etc/passwd",
        "magic-fd/2",
        "magic-exe",
        "loop",
        "loop/x",
        "loop-a",
        "deep/0",
        "deep/39",
        "deep/63",
        "dangling",
        "url",
        "url/x",
        "fifo",
        "socket",
        "directory",
        "directory/",
        "closed",
        "closed-directory/file",
        "hard-link",
        "null",
        "zero",
        "random",
        "tty",
        "hello\n",
        "hello\0",
        "hello\0/../../etc/passwd",
        "\0",
        "/proc/self/fd/3",
        "/dev/stdin",
        "/proc/self/environ",
        "dev/null",
        "proc/self/mem",
        "sys/kernel",
        "hello",
        "directory/file",
        "link",
        "link-to-directory/file",
        "link-up",
        "caf\u{e9}",
        "//hello",
        "directory//file",
    ]
    .iter()
    .map(|path| path.as_bytes().to_vec())
    .collect();
    paths.push([b'a'; 300].to_vec());
    paths.push(b"a/".repeat(1000));
    paths.push(b"../".repeat(600));
    paths.push(b"directory/../".repeat(150));
    paths.push([b'/'; 2048].to_vec());
    paths.push(vec![0xff, 0xfe, b'/', 0x80]);
    paths
}

/// A root with everything the corpus names, beside files that must not be reached.
pub(crate) struct Tree {
    /// The root.
    pub root: TempDir,
    _outside: TempDir,
}

impl Tree {
    /// Makes it.
    pub(crate) fn new() -> Self {
        let outside = TempDir::new();
        let secret = outside.write("secret", b"secret: outside");
        let root = TempDir::new();
        let at = |name: &str| root.path().join(name);
        root.write("hello", crate::captured_worker::HELLO.1);
        for name in [
            "directory/file",
            "closed",
            "closed-directory/file",
            "caf\u{e9}",
        ] {
            root.write(name, INSIDE);
        }
        fs::write(root.path().join(OsStr::from_bytes(&[0xff, 0xfe])), INSIDE).unwrap();
        for (name, target) in [
            ("absolute", secret.as_path()),
            ("climbing", Path::new("../secret")),
            (
                "climbing-far",
                Path::new("../../../../../../../../etc/passwd"),
            ),
            ("to-outside", outside.path()),
            ("to-root", Path::new("/")),
            ("to-proc", Path::new("/proc")),
            ("magic-root", Path::new("/proc/self/root")),
            ("magic-cwd", Path::new("/proc/self/cwd")),
            ("magic-fd", Path::new("/proc/self/fd")),
            ("magic-exe", Path::new("/proc/self/exe")),
            ("loop", Path::new("loop")),
            ("loop-a", Path::new("loop-b")),
            ("loop-b", Path::new("loop-a")),
            ("dangling", Path::new("nowhere")),
            ("url", Path::new("http+nocache://origin.example/x")),
            ("null", Path::new("/dev/null")),
            ("zero", Path::new("/dev/zero")),
            ("random", Path::new("/dev/urandom")),
            ("tty", Path::new("/dev/tty")),
            ("link", Path::new("directory/file")),
            ("link-to-directory", Path::new("directory")),
            ("link-up", Path::new("directory/../hello")),
        ] {
            symlink(target, at(name)).unwrap();
        }
        fs::create_dir(at("deep")).unwrap();
        symlink("../hello", at("deep/0")).unwrap();
        for number in 1..64 {
            symlink(
                (number - 1).to_string(),
                at("deep").join(number.to_string()),
            )
            .unwrap();
        }
        nix::unistd::mkfifo(&at("fifo"), Mode::from_bits_truncate(0o666)).unwrap();
        drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
        for closed in ["closed", "closed-directory"] {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(at(closed), fs::Permissions::from_mode(0o000)).unwrap();
        }
        Self {
            root,
            _outside: outside,
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        use std::os::unix::fs::PermissionsExt;
        let closed = self.root.path().join("closed-directory");
        // A plain user can not remove it otherwise.
        let _ = fs::set_permissions(closed, fs::Permissions::from_mode(0o700));
    }
}

/// What must come of a path.
pub(crate) fn is_right(path: &[u8], result: &str) -> bool {
    const GRANTED: [&str; 13] = [
        "hello",
        "directory/file",
        "link",
        "link-to-directory/file",
        "link-up",
        "caf\u{e9}",
        "//hello",
        "directory//file",
        "deep/0",
        "directory/../hello",
        "hello/../hello",
        "directory/./../directory/file",
        "deep/39",
    ];
    let listed = GRANTED.iter().any(|granted| granted.as_bytes() == path);
    let granted = result.starts_with("granted inside: ");
    let refused = result == "missing" || result.starts_with("denied ");
    if path.starts_with(b"url") {
        return result.starts_with("linked http://origin.example/x");
    }
    // `..` is refused outright or resolved; both stay inside.
    let either = path.windows(2).any(|pair| pair == b"..") || path.starts_with(b"deep/39");
    (listed && granted) || (refused && (!listed || either))
}
