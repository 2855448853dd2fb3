//! What broker and fetcher say of a fetch. A job that is not known has been cancelled: what was
//! still under way from it is ignored.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::Cache;
use super::download::{Download, Progress, is_trouble};
use super::entry::Entry;
use super::policy::Policy;
use super::terms::{Extent, Failure, Head, Now, is_of_origin, is_slow};

impl Cache {
    /// The fetch asked by request `id` runs as `job` and writes to `fd`; `in_memory` = reading that
    /// never waits for a disk.
    pub fn handle_granted(&mut self, id: u64, job: u64, fd: OwnedFd, in_memory: bool) {
        let Some(download) = self.asked.remove(&id) else {
            self.cancels.push_back(job);
            return;
        };
        download.grant(job, fd, in_memory);
        self.jobs.insert(job, Rc::clone(&download));
        if !download.is_wanted() {
            self.abandon(&download);
        }
    }

    /// The fetch asked by request `id` does not take place.
    pub fn handle_denied(&mut self, id: u64, failure: Failure, now: Now) {
        if let Some(download) = self.asked.remove(&id) {
            self.fail_before_body(&download, failure, now);
        }
    }

    /// The origin's answer to a job begins.
    pub fn handle_head(&mut self, head: &Head, now: Now) {
        let Some(download) = self.jobs.get(&head.job).map(Rc::clone) else {
            return;
        };
        if !matches!(download.progress(), Progress::Waiting) {
            return self.fail(&download, Failure::Internal);
        }
        match head.status {
            304 => return self.handle_confirmation(&download, head, now),
            200 | 203 | 204 => {}
            status if is_trouble(status) => {
                let text = format!("the origin answered {status}");
                download.trouble.replace(Some(text.into()));
                return match self.stand_in(&download, now) {
                    Some(entry) => self.serve(&download, entry, now),
                    None => self.refuse(&download, status),
                };
            }
            300..=499 => return self.handle_refusal(&download, head, now),
            // A part that was not asked for, or nothing that HTTP knows.
            _ => return self.fail_before_body(&download, Failure::Internal, now),
        }
        let policy = Policy::new(&download.asked, &head.headers, now);
        if !policy.is_shareable() {
            if let Some(key) = download.key.filter(|_| download.keep.get()) {
                self.entries.remove(&key);
            }
            self.detach(&download);
            self.books.left.set(true);
        }
        download.policy.replace(Some(policy));
        if let Err(failure) = self.resize(&download, head.length.unwrap_or(0)) {
            return self.fail(&download, failure);
        }
        download.set(Progress::Body {
            extent: Extent::default(),
            length: head.length,
        });
    }

    /// `len` bytes of the body are there.
    pub fn handle_extent(&mut self, job: u64, len: u64) {
        let Some(download) = self.jobs.get(&job).map(Rc::clone) else {
            return;
        };
        let Progress::Body { extent, length } = download.progress() else {
            return self.fail(&download, Failure::Internal);
        };
        if len <= extent.len {
            return;
        }
        if length.is_some_and(|length| len > length) {
            return self.fail(&download, Failure::BrokenOff);
        }
        match self.resize(&download, len.max(length.unwrap_or(0))) {
            Ok(()) => {
                let extent = Extent {
                    len,
                    complete: false,
                };
                download.set(Progress::Body { extent, length });
            }
            Err(failure) => self.fail(&download, failure),
        }
    }

    /// The body is whole, with `len` bytes.
    pub fn handle_end(&mut self, job: u64, len: u64, now: Now) {
        let Some(download) = self.jobs.remove(&job) else {
            return;
        };
        let Progress::Body { extent, length } = download.progress() else {
            return self.fail(&download, Failure::Internal);
        };
        if len < extent.len || length.is_some_and(|length| len != length) {
            return self.fail(&download, Failure::BrokenOff);
        }
        if let Err(failure) = self.resize(&download, len) {
            return self.fail(&download, failure);
        }
        self.keep(&download, now);
        self.detach(&download);
        download.set(Progress::Body {
            extent: Extent {
                len,
                complete: true,
            },
            length: Some(len),
        });
    }

    /// There is nothing more from `job`; `detail` says why in more words.
    pub fn handle_failed(&mut self, job: u64, failure: Failure, detail: &str, now: Now) {
        let Some(download) = self.jobs.remove(&job) else {
            return;
        };
        download.note_trouble(failure, detail);
        match download.progress() {
            Progress::Waiting => self.fail_before_body(&download, failure, now),
            _ => self.fail(&download, failure),
        }
    }

    /// 304: the stale entry is good again.
    fn handle_confirmation(&mut self, download: &Rc<Download>, head: &Head, now: Now) {
        let confirmed = download.stale.as_ref().filter(|entry| {
            download.conditional && entry.confirm(&download.asked, &head.headers, now)
        });
        match confirmed.map(Rc::clone) {
            Some(entry) => self.serve(download, entry, now),
            // To a question that was not asked, or about another answer: nothing to go by.
            None => self.fail_before_body(download, Failure::Internal, now),
        }
    }

    /// A status that is the origin's last word: what is kept under the name is no more.
    fn handle_refusal(&mut self, download: &Rc<Download>, head: &Head, now: Now) {
        let policy = Policy::new(&download.asked, &head.headers, now);
        if let Some(key) = download.key.filter(|_| download.keep.get()) {
            self.entries.remove(&key);
            let keep_for = policy.negative_for(NEGATIVE_FOR);
            let until = now
                .clock
                .checked_add(keep_for)
                .filter(|&until| until > now.clock);
            if let Some(until) = until.filter(|_| matches!(head.status, 404 | 410)) {
                self.negatives
                    .insert(key, head.status, policy.clone(), until);
            }
        }
        download.policy.replace(Some(policy));
        self.refuse(download, head.status);
    }

    /// Adjusts what the file of `download` is charged with.
    fn resize(&mut self, download: &Rc<Download>, bytes: u64) -> Result<(), Failure> {
        let Some(file) = download.file() else {
            return Err(Failure::Internal);
        };
        if bytes > self.limits.object {
            return Err(Failure::TooLarge);
        }
        if !self.make_room(download, file.charge(), bytes) {
            return Err(Failure::Disk);
        }
        file.charge().set(bytes);
        Ok(())
    }

    /// Makes the whole body of `download` an entry, if it can be of use to anybody.
    fn keep(&mut self, download: &Rc<Download>, now: Now) {
        let Some(key) = download.key.filter(|_| download.keep.get()) else {
            return;
        };
        let (Some(file), Some(policy)) = (download.file(), download.policy.borrow().clone()) else {
            return;
        };
        // What the origin sent before is not its answer any more.
        self.entries.remove(&key);
        while self.entries.len() >= self.limits.entries && self.entries.evict() {}
        let window = self.limits.stale_if_error;
        if self.limits.entries > 0 && policy.is_useful(&download.asked, window, now.clock) {
            let joined = download.joined.get();
            let entry = Entry::new(download.display.clone(), file, policy, joined);
            self.entries.insert(key, Rc::new(entry), now.clock);
        }
    }

    /// The stale entry, if it can stand in for an origin that fails.
    fn stand_in(&self, download: &Download, now: Now) -> Option<Rc<Entry>> {
        let entry = download.stale.as_ref()?;
        self.allows_stale(entry, &download.asked, now.clock)
            .then(|| Rc::clone(entry))
    }

    fn fail_before_body(&mut self, download: &Rc<Download>, failure: Failure, now: Now) {
        match self
            .stand_in(download, now)
            .filter(|_| is_of_origin(failure))
        {
            Some(entry) => {
                download.note_trouble(failure, "");
                if is_slow(failure) {
                    now.clock
                        .checked_add(HOLD_FOR)
                        .inspect(|&until| entry.hold(until));
                }
                self.serve(download, entry, now);
            }
            None => self.fail(download, failure),
        }
    }

    /// Ends `download` with an entry for its readers.
    fn serve(&mut self, download: &Rc<Download>, entry: Rc<Entry>, now: Now) {
        entry.count_hits(u64::try_from(download.readers()).unwrap_or(u64::MAX));
        if let Some(key) = download.key {
            if entry.is_shareable() {
                self.entries.touch(&key, now.clock);
            } else {
                self.entries.remove(&key);
            }
        }
        self.end(download, Progress::Entry(entry));
    }

    fn refuse(&mut self, download: &Rc<Download>, status: u16) {
        self.end(download, Progress::Refused(status));
    }

    fn fail(&mut self, download: &Rc<Download>, failure: Failure) {
        download.note_trouble(failure, "");
        self.end(download, Progress::Failed(failure));
    }

    /// Gives up a download that nobody wants.
    pub(super) fn abandon(&mut self, download: &Rc<Download>) {
        self.fail(download, Failure::Internal);
    }

    /// Ends `download` without a whole body. If its job is still running, nothing more is wanted
    /// from it.
    fn end(&mut self, download: &Rc<Download>, progress: Progress) {
        self.detach(download);
        download.release();
        download.set(progress);
        let job = download.job.get();
        if let Some(job) = job.filter(|job| self.jobs.remove(job).is_some()) {
            self.cancels.push_back(job);
        }
    }

    /// Lets nobody join `download` any more; its answer is not kept.
    fn detach(&mut self, download: &Rc<Download>) {
        download.keep.set(false);
        if let Some(key) = download.key
            && self
                .running
                .get(&key)
                .is_some_and(|running| Rc::ptr_eq(running, download))
        {
            self.running.remove(&key);
        }
    }
}

/// How long 404 and 410 are passed on without asking: the clients of a rack that boots together
/// walk through the same list of missing names.
const NEGATIVE_FOR: Duration = Duration::from_secs(5);

/// How long a stale entry is served without asking after the origin was silent: a boot of ten
/// files does not wait ten times.
const HOLD_FOR: Duration = Duration::from_secs(5);
