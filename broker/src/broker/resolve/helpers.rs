//! Threads for opens that may have to wait: a server that does not answer stops two of them and
//! nobody else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Opened, Path, Refused, Resolver};

/// Threads. One cold disk needs one, one dead server needs another.
const HELPERS: usize = 2;

/// Opens that can wait for a thread: all machines of a boot storm ask for the same cold file.
const MAX_WAITING: usize = 4096;

/// The threads and the ways to and from them.
#[derive(Debug)]
pub(in crate::broker) struct Helpers {
    jobs: SyncSender<Job>,
    answers: Receiver<Answer>,
    wake: Arc<EventFd>,
}

struct Job {
    id: u64,
    path: Path,
}

/// What came of an open.
#[derive(Debug)]
pub(in crate::broker) struct Answer {
    /// As given to [`Helpers::ask`].
    pub(in crate::broker) id: u64,
    /// As given to [`Helpers::ask`].
    pub(in crate::broker) path: Path,
    pub(in crate::broker) result: Result<Opened, Refused>,
}

impl Helpers {
    /// Starts the threads. Afterwards they make no system call that a lock-down could forbid, but
    /// those that an open needs.
    ///
    /// # Errors
    /// As eventfd(2) and clone(2).
    pub(in crate::broker) fn start(resolver: &Arc<Resolver>) -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let wake = Arc::new(wake);
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        let (done, answers) = channel();
        let (started, starts) = channel();
        for _ in 0..HELPERS {
            let helper = Helper {
                resolver: Arc::clone(resolver),
                waiting: Arc::clone(&waiting),
                done: done.clone(),
                wake: Arc::clone(&wake),
            };
            let started = started.clone();
            thread::Builder::new().name("open".into()).spawn(move || {
                let _ = started.send(());
                drop(started);
                helper.run();
                // A thread that ends makes system calls that the filter would kill the broker for.
                // It ends with the process.
                loop {
                    thread::park();
                }
            })?;
        }
        drop(started);
        // Until all have said so, they may still be in the start-up code of libc.
        if starts.iter().count() != HELPERS {
            return Err(io::Error::other("a thread ended while it started"));
        }
        Ok(Self {
            jobs,
            answers,
            wake,
        })
    }

    /// Has a file opened; false if too many are waiting already.
    pub(in crate::broker) fn ask(&self, id: u64, path: Path) -> bool {
        self.jobs.try_send(Job { id, path }).is_ok()
    }

    /// The next answer, if there is one.
    pub(in crate::broker) fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Readable when there are answers; to be cleared before they are taken.
    pub(in crate::broker) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Makes [`Self::wake`] unreadable until the next answer.
    pub(in crate::broker) fn clear(&self) {
        let _ = self.wake.read();
    }
}

/// One thread.
struct Helper {
    resolver: Arc<Resolver>,
    waiting: Arc<Mutex<Receiver<Job>>>,
    done: Sender<Answer>,
    wake: Arc<EventFd>,
}

impl Helper {
    /// Works until the broker is gone.
    fn run(self) {
        while let Some(Job { id, path }) = self.next() {
            let result = self.resolver.open(&path);
            if self.done.send(Answer { id, path, result }).is_err() {
                return;
            }
            let _ = self.wake.write(1);
        }
    }

    fn next(&self) -> Option<Job> {
        self.waiting.lock().ok()?.recv().ok()
    }
}
