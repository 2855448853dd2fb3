//! Windows from the file into the send buffer: the headers, and one vectored read between them.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::write;

use crate::measure::{Bench, Per};
use crate::sys::{Wait, read_pieces};
use crate::window::{Layout, MAX_SEND};

/// Bytes of the file that is read; what the caches of a processor hold is not measured.
const LEN: u64 = 64 << 20;

/// Measures them.
pub fn run(bench: &mut Bench) {
    if !bench.group("window filling", Bench::COLUMNS) {
        return;
    }
    let content = content();
    let on_disk = Places::disk("windows", &content);
    let cached = Reader::new(on_disk.open(), Wait::No);
    let memory = memfd_create(c"content", MFdFlags::MFD_CLOEXEC).expect("memfd_create");
    let mut left = &content[..];
    while !left.is_empty() {
        let written = write(&memory, left).expect("write");
        left = &left[written..];
    }
    let memory = Reader::new(memory, Wait::Yes);
    let mut buffer = vec![0; MAX_SEND];
    for (blksize, windowsize) in [(512, 1), (1468, 1), (1468, 16), (1468, 64)] {
        let bytes = u32::from(blksize) * u32::from(windowsize);
        let mut blocks = Blocks::new(blksize, windowsize);
        let name = format!("lay out {blksize} x {windowsize}");
        bench.run(&name, Per::Bytes(bytes), || {
            layouts(blksize, blocks.next(), &mut buffer, |_, gaps| {
                gaps.for_each(|gap| {
                    black_box(gap);
                });
            });
        });
        for (reader, place) in [(&cached, "the page cache"), (&memory, "a memory file")] {
            let mut blocks = Blocks::new(blksize, windowsize);
            let name = format!("fill {blksize} x {windowsize} from {place}");
            bench.run(&name, Per::Bytes(bytes), || {
                reader.fill(blksize, blocks.next(), &mut buffer);
            });
        }
    }
}

/// No two pages are alike.
fn content() -> Vec<u8> {
    let len = usize::try_from(LEN).expect("a length");
    (0..len / 8).flat_map(|word| word.to_ne_bytes()).collect()
}

/// Calls `each` for each send that a window takes.
fn layouts(
    blksize: u16,
    mut blocks: Range<u64>,
    buffer: &mut [u8],
    mut each: impl FnMut(&Layout, &mut dyn Iterator<Item = &mut [u8]>),
) {
    let size = u64::from(blksize);
    while !blocks.is_empty() {
        let layout = Layout::new(blocks.clone(), blksize, |index| {
            ((index - 1) * size).min(LEN)..(index * size).min(LEN)
        });
        each(&layout, &mut layout.gaps(&mut buffer[..layout.len()]));
        blocks.start = layout.blocks().end;
    }
}

/// The windows of a file, over and over.
struct Blocks {
    windowsize: u64,
    /// One past the last full block.
    end: u64,
    next: u64,
}

impl Blocks {
    fn new(blksize: u16, windowsize: u16) -> Self {
        Self {
            windowsize: windowsize.into(),
            end: LEN / u64::from(blksize) + 1,
            next: 1,
        }
    }

    fn next(&mut self) -> Range<u64> {
        if self.next + self.windowsize > self.end {
            self.next = 1;
        }
        let first = self.next;
        self.next += self.windowsize;
        first..self.next
    }
}

/// Reads as the worker reads.
pub struct Reader {
    file: OwnedFd,
    wait: Wait,
}

impl Reader {
    /// Without RWF_NOWAIT where the filesystem does not know it.
    fn new(file: OwnedFd, wait: Wait) -> Self {
        let mut byte = [0];
        let refused = |error: &std::io::Error| error.kind() == ErrorKind::Unsupported;
        let tried = read_pieces(file.as_fd(), 0, [&mut byte[..]].into_iter(), wait);
        let wait = if tried.is_err_and(|error| refused(&error)) {
            Wait::Yes
        } else {
            wait
        };
        Self { file, wait }
    }

    fn fill(&self, blksize: u16, blocks: Range<u64>, buffer: &mut [u8]) {
        layouts(blksize, blocks, buffer, |layout, gaps| {
            let range = layout.file_range();
            let read = read_pieces(self.file.as_fd(), range.start, gaps, self.wait);
            let whole = range.end - range.start;
            assert_eq!(read.expect("preadv2") as u64, whole, "a short read");
        });
    }
}

/// A file that goes with its owner, where the programs are built: on a disk, as a rule.
pub struct Places(PathBuf);

impl Places {
    /// A file with a name and content.
    pub fn disk(name: &str, content: &[u8]) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join(format!("{name}-{}", std::process::id()));
        fs::write(&path, content).expect("a file");
        Self(path)
    }

    /// For reading.
    pub fn open(&self) -> OwnedFd {
        File::open(&self.0).expect("a file").into()
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
