//! The cache's promises, with an origin and a clock that are played by hand.

mod failures;
mod freshness;
mod limits;
mod random;
mod sharing;

use std::os::fd::OwnedFd;
use std::time::SystemTime;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;

/// A cache, its time, and the other side of it.
struct World {
    cache: Cache,
    now: Now,
    next: u64,
}

impl World {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let date = SystemTime::UNIX_EPOCH + seconds(1_800_000_000);
        Self {
            cache: Cache::new(limits),
            now: Now {
                clock: Instant::now(),
                date,
            },
            next: 1,
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now.clock += by;
        self.now.date += by;
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A new request for `link`.
    fn ask(&mut self, link: &LinkInfo) -> Answer {
        self.ask_as(link, None)
    }

    fn ask_as(&mut self, link: &LinkInfo, about: Option<&About>) -> Answer {
        let id = self.number();
        self.cache.request(id, link, about, self.now.clock)
    }

    /// A new request that has to be a fetch, which is granted: job, reader and validators.
    fn lead(&mut self, link: &LinkInfo) -> (u64, Reader, Validators) {
        self.lead_as(link, None)
    }

    fn lead_as(&mut self, link: &LinkInfo, about: Option<&About>) -> (u64, Reader, Validators) {
        let id = self.number();
        let answer = self.cache.request(id, link, about, self.now.clock);
        let Answer::Fetch { validators, reader } = answer else {
            panic!("no fetch: {answer:?}")
        };
        (self.grant(id), reader, validators)
    }

    fn grant(&mut self, id: u64) -> u64 {
        let job = self.number();
        self.cache.handle_granted(id, job, memfd(), true);
        job
    }

    /// A new request that has to join.
    fn join(&mut self, link: &LinkInfo) -> Reader {
        match self.ask(link) {
            Answer::Join(reader) => reader,
            answer => panic!("no join: {answer:?}"),
        }
    }

    fn head(&mut self, job: u64, status: u16, headers: &[(&str, &str)], length: Option<u64>) {
        let text = |(name, value): &(&str, &str)| (name.to_string(), value.as_bytes().to_vec());
        let headers = headers.iter().map(text).collect();
        self.cache.handle_head(
            &Head {
                job,
                status,
                headers,
                length,
            },
            self.now,
        );
    }

    fn end(&mut self, job: u64, len: u64) {
        self.cache.handle_end(job, len, self.now);
    }

    /// Fetches the whole of `link`, `len` bytes of it, for a reader that leaves.
    fn fill(&mut self, link: &LinkInfo, headers: &[(&str, &str)], len: u64) {
        let (job, mut reader, _) = self.lead(link);
        self.head(job, 200, headers, Some(len));
        self.end(job, len);
        assert!(matches!(reader.state(), State::Body { extent, .. }
            if extent == Extent { len, complete: true }));
    }

    /// Whether a request for `link` is served at once.
    fn is_served(&mut self, link: &LinkInfo) -> bool {
        match self.ask(link) {
            Answer::Serve(_) => true,
            Answer::Fetch { reader, .. } => {
                self.cancel(reader);
                false
            }
            answer => panic!("neither served nor fetched: {answer:?}"),
        }
    }

    /// Undoes a fetch that was just asked.
    fn cancel(&mut self, reader: Reader) {
        drop(reader);
        self.cache
            .handle_denied(self.next, Failure::BadUrl, self.now);
    }

    fn cancels(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.cache.poll_cancel()).collect()
    }
}

fn memfd() -> OwnedFd {
    memfd_create(c"cache", MFdFlags::MFD_CLOEXEC).unwrap()
}

fn link(number: u64) -> LinkInfo {
    let display = format!("http://origin.example/{number}");
    LinkInfo {
        key: [number, !number],
        display,
        cache: true,
        identity: true,
    }
}

fn about(client: &str) -> About {
    About {
        client: client.parse().unwrap(),
        file: b"kernel".to_vec(),
        mode: "octet".to_owned(),
    }
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=600"), ("etag", "\"1\"")];
