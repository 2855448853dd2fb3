//! Seeded random sequences of requests, events and departures, against what must always hold.

use std::collections::HashMap;

use super::*;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }
}

/// A fetch as the fetcher sees it.
struct Job {
    link: u64,
    /// Whether it is asked for everybody: not nocache, not alone.
    common: bool,
    head: bool,
    /// Whether others may join it as far as the origin has said.
    open: bool,
    len: u64,
}

/// A transfer.
enum Holder {
    Reader {
        link: u64,
        about: About,
        reader: Reader,
    },
    Entry(#[expect(dead_code, reason = "held, as a transfer does")] Rc<Entry>),
}

const CONTROLS: &[&str] = &[
    "max-age=5",
    "max-age=600",
    "no-cache",
    "no-store",
    "private",
    "",
    "s-maxage=9",
    "max-age=0, must-revalidate",
    "public",
];
const VARIES: &[&str] = &["", "", "accept-encoding", "x-tftp-client", "*"];
const STATUSES: &[u16] = &[
    200, 200, 200, 200, 203, 204, 304, 304, 404, 410, 403, 500, 503, 206, 0,
];
const FAILURES: &[Failure] = &[
    Failure::Timeout,
    Failure::Refused,
    Failure::BrokenOff,
    Failure::Disk,
    Failure::BadUrl,
];

struct Run {
    world: World,
    random: Random,
    limits: Limits,
    asked: HashMap<u64, (u64, bool)>,
    jobs: HashMap<u64, Job>,
    holders: Vec<Holder>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let limits = Limits {
            bytes: 50 + random.below(200),
            object: 20 + random.below(60),
            entries: usize::try_from(random.below(6)).unwrap(),
            downloads: usize::try_from(1 + random.below(5)).unwrap(),
            idle: seconds(30),
            stale_if_error: seconds(random.below(40)),
        };
        let world = World::with(limits);
        let (asked, jobs, holders) = (HashMap::new(), HashMap::new(), Vec::new());
        Self {
            world,
            random,
            limits,
            asked,
            jobs,
            holders,
        }
    }

    /// Even links are cached, some of the odd ones are not.
    fn link(number: u64) -> LinkInfo {
        LinkInfo {
            cache: number % 4 != 3,
            ..link(number)
        }
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..=4 => self.request(),
            5 => self.grant(),
            6..=7 => self.head(),
            8..=9 => self.extent(),
            10 => self.end(),
            11 => self.fail(),
            12..=13 => self.read(),
            14 => {
                let by = self.random.below(12_000);
                self.world.advance(Duration::from_millis(by));
                self.world.cache.handle_timeout(self.world.now.clock);
            }
            _ => match self.random.below(20) {
                0 => {
                    self.world.cache.clear();
                    self.jobs.values_mut().for_each(|job| job.open = false);
                    self.asked.values_mut().for_each(|(_, open)| *open = false);
                }
                _ => self.leave(),
            },
        }
        while let Some(job) = self.world.cache.poll_cancel() {
            assert!(self.jobs.remove(&job).is_some(), "{job} was not running");
        }
        self.check();
    }

    fn request(&mut self) {
        let number = self.random.below(8);
        let about = about(self.random.pick(&["192.0.2.1", "192.0.2.2"]));
        let id = self.world.number();
        let now = self.world.now.clock;
        let answer = self
            .world
            .cache
            .request(id, &Self::link(number), Some(&about), now);
        self.take(id, number, about, answer);
    }

    fn take(&mut self, id: u64, link: u64, about: About, answer: Answer) {
        match answer {
            Answer::Serve(entry) => self.holders.push(Holder::Entry(entry)),
            Answer::Join(reader) => {
                assert!(Self::link(link).cache, "nocache is not merged");
                self.holders.push(Holder::Reader {
                    link,
                    about,
                    reader,
                });
            }
            Answer::Fetch { reader, .. } => {
                let common = self.world.cache.asked[&id].key.is_some();
                self.asked.insert(id, (link, common));
                self.holders.push(Holder::Reader {
                    link,
                    about,
                    reader,
                });
            }
            Answer::Refused(status) => assert!(matches!(status, 404 | 410)),
            Answer::Busy => {}
        }
    }

    fn any_job(&mut self) -> Option<u64> {
        let mut jobs: Vec<_> = self.jobs.keys().copied().collect();
        jobs.sort_unstable();
        (!jobs.is_empty()).then(|| self.random.pick(&jobs))
    }

    fn grant(&mut self) {
        let mut ids: Vec<_> = self.asked.keys().copied().collect();
        ids.sort_unstable();
        if ids.is_empty() {
            return;
        }
        let id = self.random.pick(&ids);
        let (link, common) = self.asked.remove(&id).unwrap();
        if self.random.below(8) == 0 {
            self.world
                .cache
                .handle_denied(id, Failure::Disk, self.world.now);
            return;
        }
        let job = self.world.grant(id);
        self.jobs.insert(
            job,
            Job {
                link,
                common,
                head: false,
                open: common,
                len: 0,
            },
        );
    }

    fn head(&mut self) {
        let Some(number) = self.any_job() else { return };
        let job = self.jobs.get_mut(&number).unwrap();
        if job.head {
            return;
        }
        job.head = true;
        let (control, vary) = (self.random.pick(CONTROLS), self.random.pick(VARIES));
        job.open &= !matches!(control, "no-store" | "private") && vary != "*";
        let status = self.random.pick(STATUSES);
        let length = (self.random.below(3) == 0).then(|| self.random.below(90));
        let etag = self.random.pick(&["\"1\"", "\"2\"", ""]);
        let headers = [("cache-control", control), ("vary", vary), ("etag", etag)];
        let headers: Vec<_> = headers
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        self.world.head(number, status, &headers, length);
    }

    fn extent(&mut self) {
        let Some(number) = self.any_job() else { return };
        let more = self.random.below(15);
        let job = self.jobs.get_mut(&number).unwrap();
        job.len += more;
        self.world.cache.handle_extent(number, job.len);
    }

    fn end(&mut self) {
        let Some(number) = self.any_job() else { return };
        let job = self.jobs.remove(&number).unwrap();
        self.world.end(number, job.len);
    }

    fn fail(&mut self) {
        let Some(number) = self.any_job() else { return };
        self.jobs.remove(&number);
        let failure = self.random.pick(FAILURES);
        self.world
            .cache
            .handle_failed(number, failure, "", self.world.now);
    }

    /// A transfer looks at its reader, and acts on what it says.
    fn read(&mut self) {
        if self.holders.is_empty() {
            return;
        }
        let index = usize::try_from(self.random.below(self.holders.len() as u64)).unwrap();
        let Holder::Reader {
            link,
            about,
            mut reader,
        } = self.holders.swap_remove(index)
        else {
            return;
        };
        match reader.state() {
            State::Waiting => self.holders.push(Holder::Reader {
                link,
                about,
                reader,
            }),
            State::Body { extent, length, .. } => {
                assert!(length.is_none_or(|length| extent.len <= length));
                assert!(!extent.complete || length == Some(extent.len));
                self.holders.push(Holder::Reader {
                    link,
                    about,
                    reader,
                });
            }
            State::Entry(entry) => self.holders.push(Holder::Entry(entry)),
            State::Alone => {
                let id = self.world.number();
                let answer = self
                    .world
                    .cache
                    .fetch_alone(id, &Self::link(link), Some(&about));
                assert!(matches!(answer, Answer::Fetch { .. } | Answer::Busy));
                self.take(id, link, about, answer);
            }
            State::Refused(_) | State::Failed(_) => {}
        }
    }

    fn leave(&mut self) {
        for _ in 0..4 {
            if !self.holders.is_empty() {
                let index = self.random.below(self.holders.len() as u64);
                self.holders.swap_remove(usize::try_from(index).unwrap());
            }
        }
    }

    fn check(&self) {
        let cache = &self.world.cache;
        assert!(cache.bytes() <= self.limits.bytes);
        assert!(cache.descriptors() <= self.limits.entries + self.limits.downloads);
        assert!(cache.entries.len() <= self.limits.entries);
        assert!(cache.asked.len() + cache.jobs.len() <= self.limits.downloads);
        let mut running: Vec<_> = cache.jobs.keys().copied().collect();
        let mut known: Vec<_> = self.jobs.keys().copied().collect();
        running.sort_unstable();
        known.sort_unstable();
        assert_eq!(
            running, known,
            "every job is known to both or was cancelled"
        );
        let asked = self.asked.values().copied();
        let jobs = self
            .jobs
            .values()
            .map(|job| (job.link, job.common && job.open));
        let mut open: Vec<_> = asked.chain(jobs).filter(|&(_, open)| open).collect();
        open.sort_unstable();
        let fetches = open.len();
        open.dedup();
        assert_eq!(fetches, open.len(), "one fetch per key at a time");
        let sum: u64 = cache
            .entries
            .iter()
            .map(|entry| entry.extent().len)
            .sum::<u64>();
        assert!(sum <= cache.bytes());
    }

    /// All transfers leave, all fetches end.
    fn finish(mut self) {
        self.holders.clear();
        for id in std::mem::take(&mut self.asked).into_keys() {
            self.world
                .cache
                .handle_denied(id, Failure::Internal, self.world.now);
        }
        for job in self.world.cancels() {
            self.jobs.remove(&job);
        }
        for job in std::mem::take(&mut self.jobs).into_keys() {
            self.world
                .cache
                .handle_failed(job, Failure::BrokenOff, "", self.world.now);
        }
        let cache = &mut self.world.cache;
        assert_eq!(cache.descriptors(), cache.entries.len());
        assert_eq!(
            cache.bytes(),
            cache
                .entries
                .iter()
                .map(|entry| entry.extent().len)
                .sum::<u64>()
        );
        assert!(cache.running.is_empty() && cache.jobs.is_empty() && cache.asked.is_empty());
        cache.handle_timeout(self.world.now.clock + seconds(30));
        assert_eq!(
            (cache.bytes(), cache.descriptors(), cache.deadline()),
            (0, 0, None)
        );
        assert_eq!(
            Rc::strong_count(&cache.books),
            1,
            "nothing is left that was counted"
        );
    }
}

#[test]
fn random_events_break_no_bound_and_leak_nothing() {
    for seed in 0..400 {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..600 {
            run.step();
        }
        run.finish();
    }
}
