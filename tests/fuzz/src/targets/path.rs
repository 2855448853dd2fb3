//! Names below a real tree of directories, files, FIFOs and symlinks, against a model that has the tree in memory: every
//! way of the broker opens exactly the file that the model says, or refuses for the same reason.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::broker::{NoFile, WAYS, open};
use crate::input::Input;
use crate::link::Link;
use crate::wire::Denial;

/// Names of directory entries: what a URL has in it, and bytes that are no text.
const NAMES: [&[u8]; 12] = [
    b"a",
    b"b",
    b"c",
    b"http:",
    b"https:",
    b"h",
    b"\xff\xfe",
    b"a\\..\\b",
    b"...",
    b" ",
    b"\n",
    b"%2e%2e",
];

/// A tree, and names asked below it.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut tree = Tree::new();
    for _ in 0..input.below(12) {
        tree.grow(&mut input);
    }
    let has_fallback = input.flag();
    for _ in 0..3 {
        let name = if input.byte() % 4 == 3 {
            input.bytes(300).to_vec()
        } else {
            path(&mut input)
        };
        for way in WAYS {
            let fallback = has_fallback.then(|| tree.directory("fallback"));
            let answer = open(tree.directory("root"), fallback, way, &name);
            tree.check(
                &answer,
                &tree.expected(&name, has_fallback),
                &format!("{way:?} {}", name.escape_ascii()),
            );
        }
    }
}

/// A path of some components, perhaps with slashes at its ends.
fn path(input: &mut Input<'_>) -> Vec<u8> {
    let mut path = Vec::new();
    for _ in 0..=input.below(6) {
        match input.below(NAMES.len() + 5) {
            number if number < NAMES.len() => path.extend(NAMES[number]),
            number if number == NAMES.len() => path.extend(b".."),
            number if number == NAMES.len() + 1 => path.extend(b"."),
            number if number == NAMES.len() + 2 => path.extend([b'n'; 256]),
            number if number == NAMES.len() + 3 => path.extend(input.bytes(8)),
            // Two slashes, or one at the end.
            _ => {}
        }
        path.push(b'/');
    }
    if input.flag() {
        path.pop();
    }
    path
}

/// Directories on disk and the same in memory. Everything is gone with the value.
struct Tree {
    place: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    kind: Kind,
    /// For a directory: the one it is in; the root of all is its own.
    parent: usize,
    path: PathBuf,
    inode: (u64, u64),
}

enum Kind {
    Directory(BTreeMap<Vec<u8>, usize>),
    File,
    Fifo,
    Symlink(Vec<u8>),
}

/// What the model says: the number of a node, or why it is no file.
type Expected = Result<usize, NoFile>;

/// The nodes of the two directories; what is asked must not leave the one it is asked in.
const ROOT: usize = 0;
const FALLBACK: usize = 1;

impl Tree {
    fn new() -> Self {
        let place = std::env::temp_dir().join(format!("r-tftpd-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir(&place).expect("a directory for temporary files");
        // What lies beside the roots has the names that are asked, and is not in the model.
        fs::write(place.join("a"), "secret").expect("a file");
        let mut tree = Self {
            place,
            nodes: Vec::new(),
        };
        for name in ["root", "fallback"] {
            let path = tree.place.join(name);
            fs::create_dir(&path).expect("mkdir");
            tree.add(Kind::Directory(BTreeMap::new()), tree.nodes.len(), path);
        }
        tree
    }

    fn add(&mut self, kind: Kind, parent: usize, path: PathBuf) -> usize {
        let status = fs::symlink_metadata(&path).expect("what was made");
        self.nodes.push(Node {
            kind,
            parent,
            path,
            inode: (status.dev(), status.ino()),
        });
        self.nodes.len() - 1
    }

    /// One more entry in one of the directories, unless it has that name.
    fn grow(&mut self, input: &mut Input<'_>) {
        let is_directory = |(_, node): &(usize, &Node)| matches!(node.kind, Kind::Directory(_));
        let directories: Vec<usize> = self
            .nodes
            .iter()
            .enumerate()
            .filter(is_directory)
            .map(|(at, _)| at)
            .collect();
        let parent = input.pick(&directories);
        let name = input.pick(&NAMES);
        if self.child(parent, name).is_some() {
            return;
        }
        let path = self.nodes[parent]
            .path
            .join(std::ffi::OsStr::from_bytes(name));
        let kind = match input.byte() % 8 {
            0 | 1 => {
                fs::create_dir(&path).expect("mkdir");
                Kind::Directory(BTreeMap::new())
            }
            2 | 3 => {
                fs::write(&path, vec![b'x'; self.nodes.len()]).expect("a file");
                Kind::File
            }
            4 => {
                mkfifo(&path, Mode::S_IRUSR).expect("mkfifo");
                Kind::Fifo
            }
            _ => {
                let target = self.target(input);
                if symlink(std::ffi::OsStr::from_bytes(&target), &path).is_err() {
                    return; // Empty, or with a NUL.
                }
                Kind::Symlink(target)
            }
        };
        let node = self.add(kind, parent, path);
        if let Kind::Directory(children) = &mut self.nodes[parent].kind {
            children.insert(name.to_vec(), node);
        }
    }

    fn target(&self, input: &mut Input<'_>) -> Vec<u8> {
        match input.byte() % 8 {
            0 => self.place.join("a").into_os_string().into_encoded_bytes(),
            1 => [b"/", &*path(input)].concat(),
            2 => [
                input.pick(&[&b"http://"[..], b"https+nocache://", b"ftp://", b"http:/"]),
                &path(input),
            ]
            .concat(),
            _ => path(input),
        }
    }

    fn child(&self, directory: usize, name: &[u8]) -> Option<usize> {
        match &self.nodes[directory].kind {
            Kind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn directory(&self, name: &str) -> OwnedFd {
        let path: &Path = &self.place.join(name);
        File::options()
            .read(true)
            .custom_flags(nix::libc::O_PATH)
            .open(path)
            .expect("a directory")
            .into()
    }

    fn expected(&self, name: &[u8], has_fallback: bool) -> Expected {
        if name
            .split(|byte| *byte == b'/')
            .any(|component| component == b"..")
        {
            return Err(NoFile::Denied(Denial::OutsideRoot));
        }
        if name.contains(&0) {
            return Err(NoFile::Denied(Denial::BadPath));
        }
        match self.resolve(ROOT, name) {
            Err(NoFile::Missing) if has_fallback => self.resolve(FALLBACK, name),
            expected => expected,
        }
    }

    /// As path_resolution(7) has it, within one root.
    fn resolve(&self, root: usize, name: &[u8]) -> Expected {
        let mut ahead = components(name);
        let mut place = root;
        // The last symlink, and what has to be walked behind its target.
        let mut last: Option<(Vec<u8>, Vec<u8>, usize)> = None;
        let mut links = 0;
        let missing = |last: &Option<(Vec<u8>, Vec<u8>, usize)>, ahead: &[Vec<u8>]| match last {
            Some((name, target, behind))
                if ahead.len() >= *behind && !matches!(Link::parse(target), Ok(None)) =>
            {
                let rest: Vec<_> = ahead[..*behind].iter().rev().map(Vec::as_slice).collect();
                Err(NoFile::Url {
                    name: name.clone(),
                    target: target.clone(),
                    rest: rest.join(&b'/'),
                })
            }
            _ => Err(NoFile::Missing),
        };
        while let Some(component) = ahead.pop() {
            let node = match &*component {
                b"" | b"." => continue,
                b".." if place == root => {
                    let (name, target, _) = last.expect("only a symlink brings ..");
                    return Err(NoFile::Escape { name, target });
                }
                b".." => self.nodes[place].parent,
                long if long.len() > 255 => return Err(NoFile::Denied(Denial::BadPath)),
                _ => match self.child(place, &component) {
                    Some(node) => node,
                    None => return missing(&last, &ahead),
                },
            };
            match &self.nodes[node].kind {
                Kind::Directory(_) => place = node,
                Kind::Symlink(target) => {
                    links += 1;
                    if links > 40 {
                        return Err(NoFile::Denied(Denial::Loop));
                    }
                    if target.starts_with(b"/") {
                        return Err(NoFile::Escape {
                            name: component,
                            target: target.clone(),
                        });
                    }
                    last = Some((component, target.clone(), ahead.len()));
                    ahead.extend(components(target));
                }
                // Even a slash behind it makes a file no directory.
                _ if !ahead.is_empty() => return missing(&last, &ahead),
                Kind::File => return Ok(node),
                Kind::Fifo => return Err(NoFile::Denied(Denial::NotRegular)),
            }
        }
        Err(NoFile::Denied(Denial::NotRegular))
    }

    fn check(&self, answer: &Result<(File, u64), NoFile>, expected: &Expected, context: &str) {
        let is_same = match (answer, expected) {
            (Ok((file, size)), Ok(node)) => {
                let status = file.metadata().expect("fstat");
                let flags = fcntl(file, FcntlArg::F_GETFL).expect("fcntl");
                assert_eq!(
                    flags & OFlag::O_ACCMODE.bits(),
                    OFlag::O_RDONLY.bits(),
                    "not only for reading"
                );
                let node = &self.nodes[*node];
                (status.dev(), status.ino()) == node.inode && status.len() == *size
            }
            (Err(reason), Err(expected)) => reason == expected,
            _ => false,
        };
        assert!(is_same, "{context}: {answer:?} instead of {expected:?}");
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// The next one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}
