//! In the broker's place.

use std::convert::Infallible;
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};

use r_tftpd_broker::broker::sandbox;
use r_tftpd_broker::channel::{Channel, Datagram};
use r_tftpd_broker::control::{self, Order, Report};
use r_tftpd_broker::settings::BrokerStart;
use r_tftpd_broker::start;
use r_tftpd_broker::supervisor::self_test::Scene;

use super::super::probe::{BrokerPlace, Probe};
use crate::log;

/// As the broker starts, up to its lock-down; then the deed.
pub(in super::super) fn play(_: Scene, probe: Probe) -> Result<Infallible, Box<dyn Error>> {
    let control = start::take_control(c"r-tftpd-broker")?;
    let (start, descriptors) = start::receive::<BrokerStart>(&control)?;
    let mut place = place(control, &start, descriptors)?;
    log::start(&start.log);
    let served = [
        Some(place.root.as_fd()),
        place.served.as_ref().map(AsFd::as_fd),
    ];
    let cache = place.cache.as_ref().map(AsFd::as_fd);
    let facts = sandbox::restrict(served.into_iter().flatten(), cache, start.sandbox)?;
    let facts = sandbox::filter(facts, start.sandbox)?;
    place
        .control
        .send_with(&Report::Ready(facts).to_bytes(), &[])?;
    loop {
        let mut buffer = [0; control::SIZE + 1];
        let received = place.control.receive_with(&mut buffer);
        let Datagram { bytes, descriptors } = received.map_err(start::Error::Control)?;
        match Order::from_bytes(bytes)? {
            Order::Go => break,
            _ => place.fetcher = descriptors.into_iter().next().map(Channel::from_descriptor),
        }
    }
    let outcome = probe.run(&place);
    super::tell(probe.expected, outcome, &place.control)
}

/// What the descriptors of a broker are, in the order that [`BrokerStart`] says.
///
/// # Errors
/// There are too few.
pub fn place(
    control: Channel,
    start: &BrokerStart,
    descriptors: Vec<OwnedFd>,
) -> Result<BrokerPlace, start::Error> {
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or(start::Error::Descriptors);
    let has_cache = start
        .proxy
        .as_ref()
        .is_some_and(|proxy| proxy.cache_directory);
    Ok(BrokerPlace {
        control,
        worker: Channel::from_descriptor(next()?),
        root: next()?,
        served: start.fallback_directory.then(&mut next).transpose()?,
        cache: has_cache.then(&mut next).transpose()?,
        listener: next()?,
        fetcher: None,
    })
}
