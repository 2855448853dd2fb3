//! The process that answers clients: it reads what they send, and can do nothing but answer it.
//!
//! - [`sandbox`]: how it gives up every right.
//! - `server`: what one runtime thread knows; messages of the broker arrive here.
//! - `requests`, `ticket`, `places`: who asked, how far each request is, whose turn it is.
//! - `begin`, `transfer`, `engine`: the task of one transfer around the pure state machine.
//! - `socket`, `idle`, `window`, `source`, `netascii`: the bytes, from the file to the network.
//! - [`cache`], `proxy`, `feed`: files that come from an origin, from the answer to a request to
//!   the transfer.
//! - `link`, `control`: the channels to broker and supervisor.
//! - `cuts`, `near`: what is remembered of clients. `record`: the one record of each request; `summary`:
//!   how many were not written.

mod ahead;
mod begin;
pub mod cache;
mod control;
mod cuts;
mod engine;
mod feed;
mod held;
mod idle;
mod link;
mod near;
mod netascii;
mod places;
mod proxy;
mod record;
mod requests;
pub mod sandbox;
mod server;
mod socket;
mod source;
mod summary;
#[cfg(test)]
mod tests;
mod ticket;
mod transfer;
mod window;

use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::{Facts, Report};
use r_tftpd_broker::lockdown;
use r_tftpd_broker::settings::WorkerStart;
use r_tftpd_broker::start;
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE, ToBroker};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_local};
use tracing::error;

use link::Link;
use server::Server;

/// Threads for reads that have to wait for a disk, and for translations. All are started before
/// the lock-down, which allows no others.
const BLOCKING_THREADS: usize = 4;

/// How long blocking threads stay without work: for ever, as no others can be started.
const FOR_EVER: Duration = Duration::from_secs(1 << 40);

/// How long the start of all threads may take.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// The whole life of the worker. Never returns once it serves.
#[must_use]
pub fn main() -> ExitCode {
    match start() {
        Ok(never) => match never {},
        Err(reason) => {
            lockdown::last_words("r-tftpd-worker", reason.as_ref());
            ExitCode::FAILURE
        }
    }
}

/// The start, from the first instruction to the first request.
fn start() -> Result<std::convert::Infallible, Box<dyn Error>> {
    // 1. The control channel, the only thing that is inherited, and a name.
    let control = start::take_control(c"r-tftpd-worker")?;
    // 2. The settings and the channel to the broker, from a supervisor of the same build.
    let (settings, descriptors) = start::receive::<WorkerStart>(&control)?;
    let [broker] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| start::Error::Descriptors)?;
    let broker = Channel::from_descriptor(broker);
    // 3. The log writes to standard error, which is open already.
    crate::log::start(&settings.log);
    // 4. The broker checks our build as we check its.
    let mut buffer = [0; MAX_MESSAGE];
    broker.send(wire::encode(&ToBroker::Hello(Hello::OURS), &mut buffer)?)?;
    control.set_nonblocking()?;
    broker.set_nonblocking()?;
    // 5. Lock-down, around the start of the runtime and its threads.
    let (runtime, facts) = sandbox::enter(settings.sandbox, start_runtime)?;
    // 6. Ready, and serve.
    crate::log::hold_back();
    // A task of its own: what the runtime is given itself, it asks after every event of a transfer.
    let code = LocalSet::new().block_on(&runtime, async {
        let serving = spawn_local(serve(settings, control, broker, facts));
        serving.await.unwrap_or(1)
    });
    crate::log::write_held();
    // Not by returning: that would end the threads one by one, with calls that are not allowed.
    std::process::exit(code)
}

/// One thread that serves, and all blocking threads it will ever have.
pub(crate) fn start_runtime() -> io::Result<Runtime> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(FOR_EVER)
        // Before the thread waits: the records of all that it has done since it waited last.
        .on_thread_park(crate::log::write_held)
        .thread_name("r-tftpd-read")
        .build()?;
    // Each task waits for all others, so that each needs a thread of its own.
    let arrived = Arc::new((Mutex::new(0), Condvar::new()));
    let missing = |count: &mut usize| *count < BLOCKING_THREADS;
    for _ in 0..BLOCKING_THREADS {
        let arrived = Arc::clone(&arrived);
        runtime.spawn_blocking(move || {
            let (count, changed) = &*arrived;
            let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
            *count += 1;
            changed.notify_all();
            drop(changed.wait_while(count, missing));
        });
    }
    let (count, changed) = &*arrived;
    let count = count.lock().unwrap_or_else(PoisonError::into_inner);
    let (count, _) = changed
        .wait_timeout_while(count, START_PATIENCE, missing)
        .unwrap_or_else(PoisonError::into_inner);
    if *count < BLOCKING_THREADS {
        return Err(io::Error::other("the system starts no more threads"));
    }
    drop(count);
    Ok(runtime)
}

/// Serves until the supervisor says stop, or one of the other processes is gone.
async fn serve(settings: WorkerStart, control: Channel, broker: Channel, facts: Facts) -> i32 {
    let link = match Link::new(broker) {
        Ok(link) => link,
        Err(error) => {
            error!(%error, "watching the channel to the broker");
            return 1;
        }
    };
    let server = Server::new(settings, link);
    control::report(&control, Report::Ready(facts));
    let failure: Option<Box<dyn Error>> = tokio::select! {
        biased;
        obeyed = control::obey(control, &server) => obeyed.err().map(Into::into),
        () = server.drained() => {
            server.link.send_last();
            None
        }
        never = server.proxy.expire(&server.link) => match never {},
        never = server.summaries.tell() => match never {},
        error = server.link.flush() => Some(error.into()),
        error = server.link.receive(|message, descriptor| server.handle(message, descriptor)) => {
            Some(error.into())
        }
    };
    server.summaries.tell_now();
    match failure {
        None => 0,
        Some(reason) => {
            error!(%reason, "worker ends");
            1
        }
    }
}
