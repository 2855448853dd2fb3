//! In the fetcher's place.

use std::convert::Infallible;
use std::error::Error;
use std::io;

use r_tftpd_broker::channel::{Channel, Datagram};
use r_tftpd_broker::control::Report;
use r_tftpd_broker::fetch::{FromFetcher, ToFetcher};
use r_tftpd_broker::settings::FetcherStart;
use r_tftpd_broker::start;
use r_tftpd_broker::supervisor::self_test::Scene;
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE};

use super::super::probe::{FetcherPlace, Probe};
use super::wait_for_go;
use crate::fetcher::sandbox;
use crate::log;

/// As the fetcher starts, up to its lock-down, but for what it reads from files; then the deed.
pub(in super::super) fn play(scene: Scene, probe: Probe) -> Result<Infallible, Box<dyn Error>> {
    let control = start::take_control(c"r-tftpd-fetcher")?;
    let (start, descriptors) = start::receive::<FetcherStart>(&control)?;
    let mut descriptors = descriptors.into_iter();
    let broker = descriptors.next().ok_or(start::Error::Descriptors)?;
    let broker = Channel::from_descriptor(broker);
    drop(descriptors);
    log::start(&start.log);
    let facts = sandbox::lock_down(&start)?;
    let mut buffer = [0; MAX_MESSAGE];
    broker.send(wire::encode(&FromFetcher::Hello(Hello::OURS), &mut buffer)?)?;
    control.send(&Report::Ready(facts).to_bytes())?;
    wait_for_go(&control)?;
    let mut place = FetcherPlace {
        control,
        broker,
        job: 0,
        file: None,
        start,
    };
    if scene == Scene::Request {
        wait_for_job(&mut place)?;
    }
    let outcome = probe.run(&place);
    super::tell(probe.expected, outcome, &place.control)
}

fn wait_for_job(place: &mut FetcherPlace) -> Result<(), Box<dyn Error>> {
    loop {
        let mut buffer = [0; MAX_MESSAGE + 1];
        let received = place.broker.receive_with(&mut buffer);
        let Datagram { bytes, descriptors } =
            received.map_err(|error| io::Error::other(error.to_string()))?;
        if let ToFetcher::Fetch(fetch) = wire::decode::<_, MAX_MESSAGE>(bytes)? {
            place.job = fetch.job;
            place.file = descriptors.into_iter().next();
            return Ok(());
        }
    }
}
