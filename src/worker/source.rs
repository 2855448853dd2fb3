//! What a transfer reads: always one descriptor and a length.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use nix::errno::Errno;
use tokio::task::spawn_blocking;

use super::cache::File;
use super::window::Layout;
use crate::sys::{Wait, read_pieces};

/// A file to be sent. Transfers may share the file, but each reads at its own offsets.
#[derive(Debug)]
pub(crate) struct Source {
    /// Shared with a blocking thread while that reads, and with the cache.
    file: Arc<OwnedFd>,
    /// Bytes in all, once that is known.
    len: Option<u64>,
    reading: Cell<Reading>,
    /// What the cache counts as in use.
    cached: Option<Rc<File>>,
}

/// How a file is read without stopping all other transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// On tmpfs and the like, which know no RWF_NOWAIT and never wait.
    Inline,
    /// What the page cache has is read inline, all else in a blocking thread.
    Cached,
    /// A disk or network filesystem without RWF_NOWAIT: always in a blocking thread.
    Blocking,
}

impl Reading {
    fn first(in_memory: bool) -> Self {
        if in_memory {
            Self::Inline
        } else {
            Self::Cached
        }
    }
}

/// Why a buffer could not be filled.
#[derive(Debug)]
pub(crate) enum NotFilled {
    /// A disk has to be waited for: [`Source::fill_slowly`].
    WouldBlock,
    /// The file was truncated since it was opened, or the disk failed.
    Failed(io::Error),
}

impl Source {
    /// A file of `len` bytes; `in_memory` = reads never wait for a disk.
    pub(crate) fn new(file: OwnedFd, len: u64, in_memory: bool) -> Self {
        Self {
            file: Arc::new(file),
            len: Some(len),
            reading: Cell::new(Reading::first(in_memory)),
            cached: None,
        }
    }

    /// A file of the cache, of `len` bytes in all, if that is known.
    pub(crate) fn cached(file: Rc<File>, len: Option<u64>) -> Self {
        Self {
            file: Arc::clone(file.fd()),
            len,
            reading: Cell::new(Reading::first(file.is_in_memory())),
            cached: Some(file),
        }
    }

    /// Length in bytes, once it is known.
    pub(crate) fn len(&self) -> Option<u64> {
        self.len
    }

    /// The length is known now.
    pub(crate) fn set_len(&mut self, len: u64) {
        self.len = Some(len);
    }

    /// The descriptor.
    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    /// Whether it was there in whole from the start; nobody adds to it.
    pub(crate) fn is_local(&self) -> bool {
        self.cached.is_none()
    }

    /// Reads from `offset` on what can be had without waiting.
    ///
    /// # Errors
    /// As preadv2(2); EAGAIN: nothing without waiting.
    pub(crate) fn read_cached(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let wait = self.wait().ok_or(Errno::EAGAIN)?;
        read_pieces(self.file.as_fd(), offset, std::iter::once(bytes), wait)
    }

    /// Fills `buffer`, [`Layout::len`] bytes, with the datagrams of `layout`, without waiting.
    ///
    /// # Errors
    /// [`NotFilled`].
    pub(crate) fn fill(&self, layout: &Layout, buffer: &mut [u8]) -> Result<(), NotFilled> {
        let wait = self.wait().ok_or(NotFilled::WouldBlock)?;
        match fill(&self.file, layout, buffer, wait) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
                self.reading.set(Reading::Blocking);
                Err(NotFilled::WouldBlock)
            }
            // Cut short: perhaps only part of it is cached, perhaps the file ends early. The
            // blocking thread finds out.
            Err(error) if wait == Wait::No && is_not_cached(&error) => Err(NotFilled::WouldBlock),
            Err(error) => Err(NotFilled::Failed(error)),
        }
    }

    /// How it is read without stopping all other transfers; none = not by this thread.
    fn wait(&self) -> Option<Wait> {
        match self.reading.get() {
            Reading::Inline => Some(Wait::Yes),
            Reading::Cached => Some(Wait::No),
            Reading::Blocking => None,
        }
    }

    /// The datagrams of `layout`, read by a blocking thread.
    ///
    /// # Errors
    /// The file was truncated since it was opened, or the disk failed.
    pub(crate) async fn fill_slowly(&self, layout: Layout) -> io::Result<Vec<u8>> {
        let file = Arc::clone(&self.file);
        let read = move || {
            let mut buffer = vec![0; layout.len()];
            fill(&file, &layout, &mut buffer, Wait::Yes).map(|()| buffer)
        };
        in_thread(read).await
    }
}

/// Runs what may have to wait for a disk in a blocking thread.
///
/// # Errors
/// Those of `work`, and if it panics.
pub(crate) async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await?
}

fn is_not_cached(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::UnexpectedEof
    )
}

/// One vectored read into the gaps between the headers.
fn fill(file: &OwnedFd, layout: &Layout, buffer: &mut [u8], wait: Wait) -> io::Result<()> {
    let range = layout.file_range();
    let gaps = layout.gaps(buffer);
    let read = read_pieces(file.as_fd(), range.start, gaps, wait)?;
    if read as u64 == range.end - range.start {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::harness::{file, pattern};
    use super::*;

    fn layout(len: u64) -> Layout {
        Layout::new(1..3, 1000, |index| {
            ((index - 1) * 1000).min(len)..(index * 1000).min(len)
        })
    }

    fn datagrams(content: &[u8]) -> Vec<u8> {
        let (first, second) = content.split_at(1000);
        [&[0, 3, 0, 1], first, &[0, 3, 0, 2], second].concat()
    }

    #[test]
    fn a_cached_file_is_read_at_once_and_any_file_by_a_thread() {
        let content = pattern(1500);
        let source = Source::new(file(&content).into(), 1500, false);
        let layout = layout(1500);
        let mut buffer = vec![0; layout.len()];
        match source.fill(&layout, &mut buffer) {
            Ok(()) => assert_eq!(buffer, datagrams(&content)),
            // Where the tests keep their files in memory.
            Err(NotFilled::WouldBlock) => assert_eq!(source.reading.get(), Reading::Blocking),
            Err(NotFilled::Failed(error)) => panic!("{error}"),
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let read = runtime.block_on(source.fill_slowly(layout)).unwrap();
        assert_eq!(read, datagrams(&content));
    }

    #[test]
    fn a_truncated_file_is_an_error_not_an_end() {
        let layout = layout(1500);
        let mut buffer = vec![0; layout.len()];
        let in_memory = Source::new(file(&pattern(1200)).into(), 1500, true);
        let filled = in_memory.fill(&layout, &mut buffer);
        assert!(matches!(filled, Err(NotFilled::Failed(_))), "{filled:?}");
        let on_disk = Source::new(file(&pattern(1200)).into(), 1500, false);
        let filled = on_disk.fill(&layout, &mut buffer);
        assert!(matches!(filled, Err(NotFilled::WouldBlock)), "{filled:?}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        assert!(runtime.block_on(on_disk.fill_slowly(layout)).is_err());
    }
}
