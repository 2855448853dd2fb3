//! Load generator for TFTP servers: many sessions at once from one thread, every byte verified.
//!
//! `r-tftpd-bench SERVER NAME FILE SESSIONS BLKSIZE WINDOWSIZE SECONDS` reads NAME from SERVER
//! (`address:port`) SESSIONS times at once and compares it with the local FILE. After SECONDS at
//! most it prints one JSON object: how many sessions finished, the bytes they brought, the time
//! until the last one ended, and how long sessions took (50th and 99th percentile).
//!
//! Receives with UDP GRO, so that a server's large sends are not cut into small receives.

mod session;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use session::{Asked, Buffer, Session, Step};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, name, file, sessions, blksize, windowsize, seconds] = &arguments[..] else {
        eprintln!("usage: r-tftpd-bench SERVER NAME FILE SESSIONS BLKSIZE WINDOWSIZE SECONDS");
        return ExitCode::from(2);
    };
    let server: SocketAddr = server.parse().expect("SERVER is address:port");
    let expected = std::fs::read(file).expect("FILE can be read");
    let asked = Asked {
        name: name.clone(),
        blksize: blksize.parse().expect("BLKSIZE is a number"),
        windowsize: windowsize.parse().expect("WINDOWSIZE is a number"),
    };
    let sessions = sessions.parse().expect("SESSIONS is a number");
    let limit = Duration::from_secs(seconds.parse().expect("SECONDS is a number"));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("setrlimit");
    let result = run(server, &asked, &expected, sessions, limit);
    println!("{result}");
    ExitCode::SUCCESS
}

/// How often sessions are looked at for silence.
const SWEEP: Duration = Duration::from_millis(50);

fn run(server: SocketAddr, asked: &Asked, file: &[u8], count: usize, limit: Duration) -> String {
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll_create");
    let start = Instant::now();
    let mut sessions: Vec<Session> = (0..count)
        .map(|index| {
            let session = Session::start(server, asked);
            let token = u64::try_from(index).expect("an index");
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
            epoll.add(session.socket(), event).expect("epoll_ctl");
            session
        })
        .collect();
    let mut buffer = Buffer::new();
    let (mut open, mut failed, mut bytes) = (count, 0, 0_u64);
    let mut times = Vec::with_capacity(count);
    let mut events = vec![EpollEvent::empty(); 256];
    let mut swept = start;
    while open > 0 && start.elapsed() < limit {
        let timeout = EpollTimeout::try_from(SWEEP).expect("a short time");
        let ready = epoll.wait(&mut events, timeout).unwrap_or(0);
        for event in &events[..ready] {
            let session = &mut sessions[usize::try_from(event.data()).expect("an index")];
            match session.handle_readable(&mut buffer, file) {
                Step::GoesOn => continue,
                Step::Finished => {
                    bytes += u64::try_from(file.len()).expect("a length");
                    times.push(start.elapsed());
                }
                Step::Failed => failed += 1,
            }
            epoll.delete(session.socket()).expect("epoll_ctl");
            open -= 1;
        }
        if swept.elapsed() > SWEEP {
            swept = Instant::now();
            sessions
                .iter_mut()
                .for_each(|session| session.handle_silence(swept));
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    times.sort_unstable();
    let percentile = |percent: usize| {
        let time = times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        time.map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    let repeats: u64 = sessions.iter().map(Session::repeats).sum();
    format!(
        "{{\"finished\":{},\"failed\":{},\"bytes\":{bytes},\"seconds\":{elapsed:.4},\"p50_ms\":{:.2},\
         \"p99_ms\":{:.2},\"repeats\":{repeats}}}",
        times.len(),
        failed + open,
        percentile(50),
        percentile(99),
    )
}
