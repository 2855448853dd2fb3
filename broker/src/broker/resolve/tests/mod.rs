//! The path-escape corpus, through openat2 (cached and not) and through the walk.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path as StdPath, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::mkfifo;

use super::*;

mod races;

const EVERY: [Support; 3] = [Support::Openat2Cached, Support::Openat2, Support::Walk];

/// A directory with a root in it and a secret beside that; gone with the value.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("r-tftpd-resolve-{}-{number}", std::process::id());
        let tree = Self(std::env::temp_dir().join(name));
        for directory in ["root/dir/sub", "root/other", "outside/dir"] {
            fs::create_dir_all(tree.0.join(directory)).unwrap();
        }
        for file in [
            "root/top",
            "root/dir/file",
            "root/dir/sub/deep",
            "root/back\\slash",
        ] {
            fs::write(tree.0.join(file), "good").unwrap();
        }
        for file in [
            "secret",
            "top",
            "outside/file",
            "outside/secret",
            "outside/dir/file",
        ] {
            fs::write(tree.0.join(file), "secret").unwrap();
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn link(&self, name: &str, target: impl AsRef<StdPath>) {
        symlink(target, self.path("root").join(name)).unwrap();
    }

    fn resolver(&self, support: Support) -> Resolver {
        resolver(&self.path("root"), support)
    }

    /// Asserts that every way gives the same answer to each name.
    fn check(&self, cases: &[(&str, Result<(), Refused>)]) {
        for support in EVERY {
            let resolver = self.resolver(support);
            for (name, expected) in cases {
                let answer = open(&resolver, name.as_bytes()).map(|content| {
                    assert_eq!(content, "good", "{name} by {support:?}");
                });
                assert_eq!(answer, *expected, "{name} by {support:?}");
            }
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn resolver(root: &StdPath, support: Support) -> Resolver {
    let root = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(root)
        .unwrap();
    Resolver::with(root.into(), None, support)
}

/// What a client gets: the content of the file.
fn open(resolver: &Resolver, name: &[u8]) -> Result<String, Refused> {
    let path = Path::parse(name).map_err(Refused::Denied)?;
    let opened = match resolver.open_cached(&path) {
        Err(Refused::Waits) => resolver.open(&path)?,
        result => result?,
    };
    let mut content = String::new();
    File::from(opened.file)
        .read_to_string(&mut content)
        .unwrap();
    assert_eq!(content.len() as u64, opened.size);
    Ok(content)
}

fn denied(reason: Denial) -> Result<(), Refused> {
    Err(Refused::Denied(reason))
}

fn symlink_to(name: &str, target: impl AsRef<StdPath>) -> Symlink {
    let target = target.as_ref().as_os_str().as_encoded_bytes().to_vec();
    Symlink {
        name: name.into(),
        target,
    }
}

fn escape(name: &str, target: impl AsRef<StdPath>) -> Result<(), Refused> {
    Err(Refused::Escape(symlink_to(name, target)))
}

fn url(name: &str, target: &str, rest: &str) -> Result<(), Refused> {
    Err(Refused::Url(Box::new(Signpost {
        symlink: symlink_to(name, target),
        link: Link::parse(target.as_bytes()).transpose().unwrap(),
        rest: rest.into(),
    })))
}

#[test]
fn this_kernel_has_openat2() {
    let tree = Tree::new();
    let root = File::open(tree.path("root")).unwrap();
    assert_ne!(Resolver::new(root.into(), None).support(), Support::Walk);
}

#[test]
fn files_below_the_root_are_found_by_every_spelling() {
    Tree::new().check(&[
        ("top", Ok(())),
        ("/top", Ok(())),
        ("///top", Ok(())),
        ("dir/file", Ok(())),
        ("/dir//sub/./deep", Ok(())),
        ("./top", Ok(())),
        ("back\\slash", Ok(())),
    ]);
}

#[test]
fn what_is_not_there_is_missing() {
    Tree::new().check(&[
        ("nothing", Err(Refused::Missing)),
        ("nowhere/nothing", Err(Refused::Missing)),
        ("dir/nothing", Err(Refused::Missing)),
        ("TOP", Err(Refused::Missing)),
        ("back/slash", Err(Refused::Missing)),
        ("dir\\file", Err(Refused::Missing)),
        ("top/", Err(Refused::Missing)),
        ("top/.", Err(Refused::Missing)),
        ("top/file", Err(Refused::Missing)),
        ("...", Err(Refused::Missing)),
        ("..top", Err(Refused::Missing)),
        ("%2e%2e/secret", Err(Refused::Missing)),
        ("..\\secret", Err(Refused::Missing)),
        ("~/secret", Err(Refused::Missing)),
    ]);
}

#[test]
fn dot_dot_in_a_request_is_refused() {
    let names = [
        "..",
        "../top",
        "/../top",
        "dir/..",
        "dir/../top",
        "dir/../../secret",
        "dir/sub/../",
    ];
    Tree::new().check(&names.map(|name| (name, denied(Denial::OutsideRoot))));
}

#[test]
fn directories_are_no_files() {
    let names = ["", "/", ".", "./", "dir", "dir/", "dir/.", "dir/sub"];
    Tree::new().check(&names.map(|name| (name, denied(Denial::NotRegular))));
}

#[test]
fn symlinks_inside_the_root_are_followed() {
    let tree = Tree::new();
    tree.link("same", "top");
    tree.link("twice", "same");
    tree.link("into", "dir");
    tree.link("dir/up", "../top");
    tree.link("dir/over", "../other/../dir/sub/deep");
    tree.link("dir/sub/climb", "../../dir/./file");
    tree.link("dangling", "nowhere");
    tree.link("into-dir", "dir/");
    tree.link("file-as-dir", "top/");
    tree.check(&[
        ("same", Ok(())),
        ("twice", Ok(())),
        ("into/file", Ok(())),
        ("into/sub/deep", Ok(())),
        ("into-dir/file", Ok(())),
        ("dir/up", Ok(())),
        ("dir/over", Ok(())),
        ("dir/sub/climb", Ok(())),
        ("dangling", Err(Refused::Missing)),
        ("file-as-dir", Err(Refused::Missing)),
        ("into", denied(Denial::NotRegular)),
    ]);
}

#[test]
fn symlinks_out_of_the_root_are_refused_and_named() {
    let tree = Tree::new();
    let inside = tree.path("root/top");
    let outside = [
        "/etc/passwd",
        "/",
        "/nowhere",
        "/proc/self/exe",
        "/proc/self/root",
        "/dev/null",
    ];
    let relative = [
        "../secret",
        "../../../../../../etc/passwd",
        "..",
        "dir/../../secret",
    ];
    for (number, target) in outside.into_iter().chain(relative).enumerate() {
        tree.link(&format!("link{number}"), target);
        let name = format!("link{number}");
        tree.check(&[(&name, escape(&name, target))]);
    }
    tree.link("absolute", &inside);
    tree.link("directory", tree.path("outside"));
    tree.link("dir/near", "../../root/top");
    tree.link("chain", "dir/near");
    tree.check(&[
        ("absolute", escape("absolute", &inside)),
        ("directory/file", escape("directory", tree.path("outside"))),
        ("dir/near", escape("near", "../../root/top")),
        ("chain", escape("near", "../../root/top")),
    ]);
}

#[test]
fn circles_and_too_many_symlinks_are_refused() {
    let tree = Tree::new();
    tree.link("self", "self");
    tree.link("a", "b");
    tree.link("b", "a");
    tree.link("0", "top");
    for number in 1..=40 {
        tree.link(&number.to_string(), (number - 1).to_string());
    }
    tree.check(&[
        ("self", denied(Denial::Loop)),
        ("a", denied(Denial::Loop)),
        ("a/x", denied(Denial::Loop)),
        ("39", Ok(())),
        ("40", denied(Denial::Loop)),
    ]);
}

#[test]
fn a_dangling_symlink_can_name_a_url() {
    let tree = Tree::new();
    tree.link("plain", "http://host/path");
    tree.link("modified", "https+nocache://host/a/../../../b");
    tree.link("images", "https://host/images/");
    tree.link("dir/images", "https://host/images");
    tree.link("to-link", "dir/images");
    tree.link("no-url", "http:/host");
    // A file where the URL would lead through.
    tree.link("other/through", "http://host/path");
    fs::write(tree.path("root/other/http:"), "good").unwrap();
    tree.link("single", "ftp:/gone");
    tree.link("name", "a:b");
    tree.link("into-link", "images/a");
    fs::create_dir_all(tree.path("root/ftp:/host")).unwrap();
    fs::write(tree.path("root/ftp:/host/file"), "good").unwrap();
    tree.link("real", "ftp://host/file");
    tree.link("real-dir", "ftp://host");
    tree.check(&[
        ("plain", url("plain", "http://host/path", "")),
        ("plain/", url("plain", "http://host/path", "")),
        (
            "modified",
            url("modified", "https+nocache://host/a/../../../b", ""),
        ),
        (
            "images/x86//./vmlinuz",
            url("images", "https://host/images/", "x86//./vmlinuz"),
        ),
        ("dir/images/a", url("images", "https://host/images", "a")),
        ("to-link/a", url("images", "https://host/images", "a")),
        ("into-link/b", url("images", "https://host/images/", "a/b")),
        ("no-url", url("no-url", "http:/host", "")),
        ("other/through", url("through", "http://host/path", "")),
        ("other/through/a", url("through", "http://host/path", "a")),
        ("single/a", url("single", "ftp:/gone", "a")),
        ("name", Err(Refused::Missing)),
        ("real", Ok(())),
        ("real-dir/file", Ok(())),
        ("real-dir/nothing", Err(Refused::Missing)),
    ]);
}

#[test]
fn a_link_that_can_not_be_fetched_is_told_from_a_missing_file() {
    let tree = Tree::new();
    for (name, target) in [
        ("a", "ftp://h/"),
        ("b", "http+x://h/"),
        ("c", "http://h:0/"),
    ] {
        tree.link(name, target);
        let resolver = tree.resolver(Support::Openat2Cached);
        let Err(Refused::Url(signpost)) = open(&resolver, name.as_bytes()) else {
            panic!("{target}");
        };
        assert!(signpost.link.is_err(), "{target}");
    }
}

#[test]
fn what_the_root_has_not_is_looked_for_in_the_second_directory() {
    let tree = Tree::new();
    for (file, content) in [("root/both", "root"), ("second/both", "second")] {
        fs::create_dir_all(tree.path("second")).unwrap();
        fs::write(tree.path(file), content).unwrap();
    }
    fs::write(tree.path("second/only"), "second").unwrap();
    symlink("http://h/", tree.path("second/url")).unwrap();
    symlink("../root/both", tree.path("second/out")).unwrap();
    for support in [Support::Openat2Cached, Support::Openat2, Support::Walk] {
        let mut resolver = tree.resolver(support);
        let second = File::open(tree.path("second")).unwrap();
        resolver.fallback = Some(Root::new(second.into()));
        assert_eq!(open(&resolver, b"both").unwrap(), "root");
        assert_eq!(open(&resolver, b"only").unwrap(), "second");
        assert_eq!(open(&resolver, b"neither"), Err(Refused::Missing));
        assert!(matches!(open(&resolver, b"url/x"), Err(Refused::Url(_))));
        assert!(matches!(open(&resolver, b"out"), Err(Refused::Escape(_))));
    }
}

#[test]
fn only_regular_files_are_granted_and_nothing_is_waited_for() {
    let tree = Tree::new();
    mkfifo(&tree.path("root/fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(tree.path("root/socket")).unwrap();
    tree.link("to-fifo", "fifo");
    tree.check(&[
        ("fifo", denied(Denial::NotRegular)),
        ("to-fifo", denied(Denial::NotRegular)),
        ("socket", denied(Denial::NotRegular)),
        ("fifo/x", Err(Refused::Missing)),
    ]);
    for support in EVERY {
        let devices = resolver("/dev".as_ref(), support);
        for name in ["null", "zero", "tty"] {
            let refused = open(&devices, name.as_bytes()).unwrap_err();
            assert_eq!(
                refused,
                Refused::Denied(Denial::NotRegular),
                "{name} by {support:?}"
            );
        }
    }
}

#[test]
fn magic_links_lead_nowhere() {
    for support in EVERY {
        let process = resolver("/proc/self".as_ref(), support);
        for name in [
            "exe",
            "cwd",
            "root",
            "root/etc/passwd",
            "cwd/Cargo.toml",
            "fd/0",
            "ns/net",
        ] {
            let refused = open(&process, name.as_bytes()).unwrap_err();
            assert!(
                !matches!(refused, Refused::Waits),
                "{name} by {support:?}: {refused:?}"
            );
        }
    }
}

#[test]
fn bad_names_are_refused() {
    let long = "x".repeat(256);
    let longest = "x".repeat(255);
    let tree = Tree::new();
    tree.check(&[
        (&long, denied(Denial::BadPath)),
        (&longest, Err(Refused::Missing)),
        ("top\0", denied(Denial::BadPath)),
        ("\0", denied(Denial::BadPath)),
    ]);
}

#[test]
fn what_permissions_forbid_is_refused() {
    let tree = Tree::new();
    let forbid =
        |name| fs::set_permissions(tree.path(name), PermissionsExt::from_mode(0o000)).unwrap();
    forbid("root/top");
    forbid("root/dir/sub");
    // Permissions bind nobody who is root.
    let expected = if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        denied(Denial::Permission)
    };
    tree.check(&[("top", expected.clone()), ("dir/sub/deep", expected)]);
    fs::set_permissions(tree.path("root/dir/sub"), PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
fn a_file_has_its_size_and_the_kind_of_its_file_system() {
    let tree = Tree::new();
    let opened = tree
        .resolver(Support::Walk)
        .open(&Path::parse(b"top").unwrap())
        .unwrap();
    let fs = nix::sys::statfs::statfs(&tree.path("root/top")).unwrap();
    assert_eq!(opened.size, 4);
    assert_eq!(
        opened.in_memory,
        [TMPFS_MAGIC, RAMFS_MAGIC].contains(&fs.filesystem_type())
    );
}

#[test]
fn helper_threads_answer_and_wake() {
    let tree = Tree::new();
    let resolver = std::sync::Arc::new(tree.resolver(Support::Walk));
    let helpers = Helpers::start(&resolver).unwrap();
    for id in 0..100 {
        let name: &[u8] = if id % 2 == 0 { b"top" } else { b"nothing" };
        assert!(helpers.ask(id, Path::parse(name).unwrap()));
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 100 {
        let mut place = [nix::poll::PollFd::new(
            helpers.wake(),
            nix::poll::PollFlags::POLLIN,
        )];
        assert_eq!(
            nix::poll::poll(&mut place, 10_000_u16),
            Ok(1),
            "after {}",
            answered.len()
        );
        helpers.clear();
        while let Some(answer) = helpers.answer() {
            assert_eq!(answer.result.is_ok(), answer.id % 2 == 0);
            answered.insert(answer.id);
        }
    }
}
