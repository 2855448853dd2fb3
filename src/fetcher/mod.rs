//! The process that talks HTTP: it fetches what the broker asks into files the broker grants.
//!
//! - `service`: messages in, jobs and their answers out.
//! - `job`: one fetch, resumed where it broke off. `http`: one GET with its redirects. `resume`:
//!   when two answers are one. `headers`: which headers go out and in.
//! - `join`: a link and what was asked below it, to a URL that stays below the link.
//! - `dns`: hosts file and DNS over TCP.
//! - `sandbox`: after it, this process can open TCP connections to the allowed ports and write
//!   what it was granted, and nothing else.

mod dns;
mod failed;
mod headers;
mod http;
mod job;
mod join;
mod resume;
pub mod sandbox;
mod service;

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::lockdown;
use r_tftpd_broker::settings::FetcherStart;
use r_tftpd_broker::start;
use tracing::error;

use self::dns::Resolver;
use self::http::Origins;
use self::service::{End, Service};
use crate::{log, sys};

/// The most bytes of resolv.conf, hosts or a file of certificates. Lists of blocked hosts and
/// the roots of all the world stay below.
const MAX_FILE: u64 = 16 << 20;

/// Runs the fetcher.
#[must_use]
pub fn main() -> ExitCode {
    match start() {
        Ok(End::Stopped | End::Retired) => ExitCode::SUCCESS,
        Ok(end) => {
            error!(reason = %end, "fetcher ends");
            ExitCode::FAILURE
        }
        Err(reason) => {
            lockdown::last_words("r-tftpd-fetcher", reason.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<End, Box<dyn Error>> {
    // 1. The control channel, the only thing that is inherited, and a name. A file that may grow
    //    no more is an error to report, no reason to die.
    let control = start::take_control(c"r-tftpd-fetcher")?;
    sys::ignore_file_size_signal()?;

    // 2. The settings from a supervisor of the same build, and what came with them.
    let (settings, descriptors) = start::receive::<FetcherStart>(&control)?;
    let mut descriptors = descriptors.into_iter();
    let broker = Channel::from_descriptor(descriptors.next().ok_or(start::Error::Descriptors)?);
    log::start(&settings.log);

    // 3. Every file this process will ever read, before it can open none.
    let resolv_conf = read(descriptors.next())?;
    let hosts = read(descriptors.next())?;
    let bundles = descriptors
        .map(|file| read(Some(file)))
        .collect::<Result<Vec<_>, _>>()?;

    // 4. Name servers, trust, HTTP clients: what needs those files.
    let connect_timeout = Duration::from_millis(settings.connect_timeout_ms);
    let resolver = Resolver::new(&resolv_conf, &hosts, settings.dns_port, connect_timeout)?;
    let origins = Origins::new(&settings, &bundles, &resolver)?;

    // 5. One thread, no others ever: the loop's epoll and its timer.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let _inside = runtime.enter();
    let service = Service::new(
        control,
        broker,
        origins,
        settings.about,
        settings.max_object,
    )?;

    // 6. Give up every right that is left but the network's.
    let facts = sandbox::lock_down(&settings)?;

    // 7. Ready.
    Ok(runtime.block_on(service.run(facts)))
}

fn read(file: Option<OwnedFd>) -> Result<Vec<u8>, Box<dyn Error>> {
    let file = File::from(file.ok_or(start::Error::Descriptors)?);
    let mut content = Vec::new();
    let length = file.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if u64::try_from(length)? > MAX_FILE {
        return Err("resolv.conf, hosts or a CA file is longer than 16 MiB".into());
    }
    Ok(content)
}
