//! What each layer of the sandbox adds to a system call.
//!
//! One process for each layer, which has taken that and all before it, makes the same call; the
//! processes take turns, so that whatever else slows the machine down slows all of them. A layer's
//! cost is the median of the differences to the process without any.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::calls::{self, BROKER_LEVELS, Call, ORDER, WORKER_LEVELS};
use crate::measure::{Bench, Figure, SAMPLES, batch, nanoseconds};
use crate::processes::{Directory, Process, Role};
use crate::windows::Places;

/// Measures them.
pub fn run(bench: &mut Bench) {
    let directory = Directory::new();
    let content = Places::disk("calls", &[7; 1 << 17]);
    let worker = Set {
        title: "sandbox layers, worker",
        role: Role::WorkerCalls,
        levels: WORKER_LEVELS,
        calls: calls::WORKER,
    };
    worker.compare(bench, &directory, || content.open());
    let broker = Set {
        title: "sandbox layers, broker",
        role: Role::BrokerCalls,
        levels: BROKER_LEVELS,
        calls: calls::BROKER,
    };
    broker.compare(bench, &directory, || directory.open_root());
}

/// A process, the layers of its sandbox and the calls it makes.
struct Set<T: 'static> {
    title: &'static str,
    role: Role,
    levels: &'static [&'static str],
    calls: &'static [Call<T>],
}

impl<T> Set<T> {
    fn compare(&self, bench: &mut Bench, directory: &Directory, descriptor: impl Fn() -> OwnedFd) {
        let (none, layers) = self.levels.split_first().expect("a level");
        let columns = layers
            .iter()
            .map(|layer| format!("{:>15}", format!("+ {layer}")));
        let columns = format!("{none:>9}{}", columns.collect::<String>());
        if !bench.group(self.title, &columns) {
            return;
        }
        let callers: Vec<Caller> = (0..self.levels.len())
            .map(|level| Caller::start(directory, self.role, level, descriptor()))
            .collect();
        let filters = callers.iter().map(|caller| caller.process.filters());
        let filters: Option<Vec<u32>> = filters.collect();
        if let Some([none, layers @ ..]) = filters.as_deref() {
            let layers: String = layers.iter().map(|count| format!("{count:>15}")).collect();
            println!("  {:<42}{none:>9}{layers}", "seccomp filters");
        }
        for (index, (name, _)) in self.calls.iter().enumerate() {
            bench.count();
            let order = u8::try_from(index).expect("a short table");
            if bench.is_quick() {
                for caller in &callers {
                    caller.time(order, 1);
                }
                println!("  {name:<42}works");
                continue;
            }
            let (none, layers) = in_turns(&callers, order);
            let layers: String = layers.iter().map(ToString::to_string).collect();
            println!("  {name:<42}{:>9.0}{layers}", none.median);
        }
    }
}

/// What the first one's call costs, and how much more that of each other one.
fn in_turns(callers: &[Caller], order: u8) -> (Figure, Vec<Difference>) {
    let count = batch(|count| callers[0].time(order, count));
    let mut samples = vec![Vec::with_capacity(SAMPLES); callers.len()];
    for round in 0..SAMPLES {
        for turn in 0..callers.len() {
            let at = (round + turn) % callers.len();
            samples[at].push(nanoseconds(callers[at].time(order, count), count));
        }
    }
    let (none, layers) = samples.split_first().expect("a level");
    let differences = layers.iter().map(|layer| {
        let differences = layer.iter().zip(none).map(|(with, without)| with - without);
        Difference(Figure::of(differences.collect()))
    });
    (Figure::of(none.clone()), differences.collect())
}

/// Nanoseconds more.
struct Difference(Figure);

impl std::fmt::Display for Difference {
    /// With twice the standard error of the median: 1.25 standard deviations over the root of the
    /// number of samples, a deviation being 1.48 times the spread.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = 2.0 * 1.25 * 1.48 * self.0.spread / (SAMPLES as f64).sqrt();
        write!(f, "{:>+9.0} ±{error:>4.0}", self.0.median)
    }
}

/// A process that makes calls.
struct Caller {
    process: Process,
}

impl Caller {
    fn start(directory: &Directory, role: Role, level: usize, descriptor: OwnedFd) -> Self {
        let process = Process::start(directory, role);
        let level = u8::try_from(level).expect("few");
        let sent = process.control.send_with(&[level], &[descriptor.as_fd()]);
        sent.expect("the start message");
        let caller = Self { process };
        assert_eq!(caller.answer(), Duration::ZERO, "it is ready");
        caller
    }

    /// How long so many of a call take.
    fn time(&self, call: u8, count: u32) -> Duration {
        let mut order = [call; ORDER];
        order[1..].copy_from_slice(&count.to_ne_bytes());
        self.process.control.send(&order).expect("a process");
        self.answer()
    }

    fn answer(&self) -> Duration {
        let mut time = [0; 8];
        self.process.control.receive(&mut time).expect("an answer");
        Duration::from_nanos(u64::from_ne_bytes(time))
    }
}
