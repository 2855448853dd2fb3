//! How things are measured.
//!
//! An operation is repeated in batches of about half a millisecond: long enough for the clock, and
//! short enough that most batches are left alone by whatever else the machine does. The median of
//! 200 batches is the result; the spread is half of what lies between its quartiles.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Length of a batch.
pub const BATCH: Duration = Duration::from_micros(500);

/// Batches of one measurement.
pub const SAMPLES: usize = 200;

/// Runs measurements and prints them.
pub struct Bench {
    quick: bool,
    /// This process runs on the last one.
    cores: Cores,
    filter: Option<String>,
    count: usize,
}

/// What an operation costs, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Of all batches.
    pub median: f64,
    /// Half of the distance between the quartiles.
    pub spread: f64,
    /// Of the fastest batch.
    pub fastest: f64,
}

/// What the cost is set in relation to.
#[derive(Clone, Copy, Debug)]
pub enum Per {
    /// Nothing.
    Operation,
    /// Blocks that one operation moves.
    Blocks(u32),
    /// Bytes that one operation moves.
    Bytes(u32),
}

impl Bench {
    /// `cargo bench` says `--bench`; without it everything is done once. Any other word is a
    /// filter.
    pub fn from_arguments() -> Self {
        let mut arguments: Vec<String> = std::env::args().skip(1).collect();
        let quick = !arguments.iter().any(|argument| argument == "--bench");
        arguments.retain(|argument| !argument.starts_with('-'));
        let cores = Cores::of_this_process();
        if !quick {
            pin(Pid::from_raw(0), cores.last);
        }
        Self {
            quick,
            cores,
            filter: arguments.pop(),
            count: 0,
        }
    }

    /// Everything is to be done just once.
    pub fn is_quick(&self) -> bool {
        self.quick
    }

    /// Gives another process a core of its own, if there is one.
    pub fn set_apart(&self, process: Pid) {
        if !self.quick {
            pin(process, self.cores.first);
        }
    }

    /// Begins a table; false if nobody wants it.
    pub fn group(&self, title: &str, columns: &str) -> bool {
        let wanted = self.filter.as_ref().is_none_or(|word| title.contains(word));
        if wanted {
            println!("\n{title:<44}{columns}");
        }
        wanted
    }

    /// The columns of [`Bench::run`].
    pub const COLUMNS: &str = "       ns    spread   fastest";

    /// Measures an operation that can be repeated as it is.
    pub fn run(&mut self, name: &str, per: Per, mut operation: impl FnMut()) {
        self.run_timed(name, per, |count| {
            let start = Instant::now();
            for _ in 0..count {
                operation();
            }
            start.elapsed()
        });
    }

    /// Measures an operation that takes the time itself: of so many repetitions.
    pub fn run_timed(&mut self, name: &str, per: Per, mut operation: impl FnMut(u32) -> Duration) {
        self.count += 1;
        if self.quick {
            operation(1);
            println!("  {name:<42}works");
            return;
        }
        let count = batch(&mut operation);
        let samples = (0..SAMPLES).map(|_| nanoseconds(operation(count), count));
        let figure = Figure::of(samples.collect());
        println!("  {name:<42}{figure}{}", per.of(figure.median));
    }

    /// Counts a row that was measured and printed by other means.
    pub fn count(&mut self) {
        self.count += 1;
    }

    /// The end.
    pub fn finish(&self) -> ExitCode {
        if self.quick {
            println!("\n{} passed, 0 failed", self.count);
        }
        ExitCode::SUCCESS
    }
}

impl Figure {
    /// Of samples in nanoseconds, one or more.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |quarter: usize| samples[(samples.len() - 1) * quarter / 4];
        Self {
            median: at(2),
            spread: (at(3) - at(1)) / 2.0,
            fastest: at(0),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            median,
            spread,
            fastest,
        } = self;
        write!(f, "{median:>9.1} {spread:>9.1} {fastest:>9.1}")
    }
}

impl Per {
    fn of(self, nanoseconds: f64) -> String {
        match self {
            Self::Operation => String::new(),
            Self::Blocks(blocks) => {
                format!("   {:.1} ns a block", nanoseconds / f64::from(blocks))
            }
            Self::Bytes(bytes) => format!("   {:.2} GB/s", f64::from(bytes) / nanoseconds),
        }
    }
}

/// So many repetitions take about [`BATCH`]. Also warms everything up.
pub fn batch(mut operation: impl FnMut(u32) -> Duration) -> u32 {
    let mut count = 1;
    loop {
        let time = operation(count);
        if time >= BATCH || count >= 1 << 24 {
            return count;
        }
        let left = BATCH.as_nanos() / time.as_nanos().max(1);
        // No more than ten times as many at once: the first repetitions are slow.
        let factor = u32::try_from(left.clamp(1, 9)).expect("a small number");
        count = count * factor + count.div_ceil(4);
    }
}

/// What one of so many repetitions took.
pub fn nanoseconds(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(count)
}

/// The processor cores that may be used.
#[derive(Clone, Copy, Debug)]
struct Cores {
    first: usize,
    last: usize,
}

impl Cores {
    fn of_this_process() -> Self {
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("sched_getaffinity");
        let is_allowed = |core: &usize| allowed.is_set(*core).is_ok_and(|is_set| is_set);
        let mut cores = (0..CpuSet::count()).filter(is_allowed);
        let first = cores.next().expect("a core");
        let last = cores.next_back().unwrap_or(first);
        Self { first, last }
    }
}

/// Keeps a process (0 = this one) on one core. Where that is not allowed, the scheduler decides.
fn pin(process: Pid, core: usize) {
    let mut only = CpuSet::new();
    if only.set(core).is_ok() {
        let _ = sched_setaffinity(process, &only);
    }
}
