//! Load generator for TFTP servers: many clients from one thread, every byte verified.
//!
//! Each client has an address of its own, and another port for each of four transfers in a row.
//! Clients receive with recvmmsg and UDP GRO, so that it is the server that is measured. Prints one
//! JSON object: see `report`.

mod options;
mod ports;
mod receive;
mod report;
mod session;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use options::Options;
use ports::{Ports, place_of};
use receive::Buffer;
use report::Report;
use session::{Session, Step};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("r-tftpd-load: {error}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("setrlimit");
    println!("{}", Run::new(&options).run());
    ExitCode::SUCCESS
}

/// All sessions and what is known of those that are over.
struct Run<'a> {
    options: &'a Options,
    epoll: Epoll,
    /// By place.
    ports: Vec<Ports>,
    /// By place; `None` = over, and nobody followed.
    sessions: Vec<Option<Session>>,
    started: usize,
    /// Sessions that the run waits for.
    awaited: usize,
    report: Report,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options) -> Self {
        Self {
            options,
            epoll: Epoll::new(EpollCreateFlags::empty()).expect("epoll_create"),
            ports: Vec::with_capacity(options.sessions),
            sessions: Vec::with_capacity(options.sessions),
            started: 0,
            awaited: 0,
            report: Report::default(),
        }
    }

    /// All requests at once, and then until all are over or time is.
    fn run(mut self) -> Report {
        for slot in 0..self.options.sessions {
            self.ports.push(Ports::new(self.options, slot));
            self.sessions.push(None);
            self.open(slot);
        }
        let start = Instant::now();
        for session in self.sessions.iter_mut().flatten() {
            session.ask(self.options, Instant::now());
        }
        let pause = self.pause();
        let timeout = EpollTimeout::try_from(pause).expect("a short time");
        let mut buffer = Buffer::new();
        let mut events = vec![EpollEvent::empty(); 256];
        let mut now = start;
        let mut swept = start;
        while self.awaited > 0 && now - start < self.options.limit {
            let ready = self.wait(&mut events, timeout);
            now = Instant::now();
            for event in &events[..ready] {
                let (slot, port) = place_of(event);
                self.ports[slot].drain(port);
                self.handle_readable(slot, &mut buffer, now);
            }
            if now - swept >= pause {
                swept = now;
                for session in self.sessions.iter_mut().flatten() {
                    session.handle_time(self.options, now);
                }
            }
        }
        self.report.seconds = start.elapsed();
        for session in self.sessions.iter().flatten() {
            self.report.count_unfinished(session);
        }
        self.report
    }

    /// How many events there are. Is awake for a while before it sleeps: to wake a core up takes
    /// longer than to serve a window, and it is not the clients' core that is measured.
    fn wait(&mut self, events: &mut [EpollEvent], timeout: EpollTimeout) -> usize {
        let begin = Instant::now();
        let mut ready = 0;
        while ready == 0 && begin.elapsed() < self.options.awake {
            ready = self.epoll.wait(events, EpollTimeout::ZERO).unwrap_or(0);
        }
        if ready == 0 {
            ready = self.epoll.wait(events, timeout).unwrap_or(0);
        }
        self.report.waited += begin.elapsed();
        ready
    }

    /// Between two looks at the time of all sessions.
    fn pause(&self) -> Duration {
        let shortest = match self.options.slow {
            0 => self.options.silence,
            _ => self.options.silence.min(self.options.slowness),
        };
        (shortest / 4).clamp(Duration::from_millis(2), Duration::from_millis(50))
    }

    fn open(&mut self, slot: usize) {
        let socket = self.ports[slot].take(self.options, &self.epoll);
        let session = Session::new(self.options, slot, self.started, socket);
        self.awaited += usize::from(!session.is_slow());
        self.started += 1;
        self.sessions[slot] = Some(session);
    }

    fn handle_readable(&mut self, slot: usize, buffer: &mut Buffer, now: Instant) {
        let Some(session) = &mut self.sessions[slot] else {
            return;
        };
        let step = session.handle_readable(self.options, buffer, now);
        if step == Step::GoesOn {
            return;
        }
        self.report.count_over(session, step);
        self.awaited -= usize::from(!session.is_slow());
        if let Some(socket) = self.sessions[slot].take().and_then(Session::socket) {
            self.ports[slot].give_back(socket);
        }
        if self.options.total == 0 || self.started < self.options.total {
            self.open(slot);
            if let Some(session) = &mut self.sessions[slot] {
                session.ask(self.options, Instant::now());
            }
        }
    }
}
