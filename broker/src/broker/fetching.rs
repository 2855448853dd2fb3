//! What the broker does for fetches: orders to the fetcher, its answers to the worker.

use std::time::Instant;

use tracing::{debug, warn};

use super::fetches::{Fault, Heard};
use super::requests::Violation;
use super::serve::MESSAGES;
use super::trouble::Trouble;
use super::{Broker, Error};
use crate::channel::Channel;
use crate::control::Report;
use crate::fetch::{Failure, MAX_VALIDATOR, Validators};
use crate::wire::ToWorker;

impl Broker {
    /// Has a link fetched, into a new file that the worker can read.
    pub(super) fn fetch(
        &mut self,
        id: u64,
        validators: Validators,
        netascii: bool,
        now: Instant,
    ) -> Result<(), Error> {
        let (lead, peer) = self.requests.fetch(id)?;
        let is_long = |validator: &Option<Vec<u8>>| {
            validator
                .as_ref()
                .is_some_and(|value| value.len() > MAX_VALIDATOR)
        };
        if is_long(&validators.etag) || is_long(&validators.last_modified) {
            return Err(Violation::ValidatorTooLong.into());
        }
        // A lead comes from a proxy.
        let Some(proxy) = &mut self.proxy else {
            return Err(Violation::Fetch.into());
        };
        let file = match proxy.files.create() {
            Ok(file) => file,
            Err((failure, error)) => {
                if self.may_tell(None, Trouble::CacheFile, now) {
                    warn!(%error, "no cache file");
                }
                return self.send(ToWorker::NotFetched { id, failure }, None);
            }
        };
        let Some(job) = proxy.fetches.admit() else {
            if self.may_tell(Some(peer.ip()), Trouble::Fetch, now) {
                warn!(%peer, "not fetched: no fetcher, or too many fetches at once");
            }
            let failure = Failure::Internal;
            return self.send(ToWorker::NotFetched { id, failure }, None);
        };
        let order = proxy.order(job, lead, peer.into(), validators, netascii);
        proxy.fetches.order(order, file.writable);
        let granted = ToWorker::Fetching {
            id,
            job,
            in_memory: file.in_memory,
        };
        self.send(granted, Some(file.readable))?;
        self.send_orders()
    }

    /// Ends a job that nobody wants any more.
    pub(super) fn cancel(&mut self, job: u64) -> Result<(), Error> {
        let fetches = self.proxy.as_mut().map(|proxy| &mut proxy.fetches);
        if fetches.is_some_and(|fetches| fetches.cancel(job)) {
            self.send_orders()
        } else {
            Err(Violation::UnknownJob.into())
        }
    }

    /// Uses a new fetcher.
    pub(super) fn replace_fetcher(&mut self, channel: Channel) -> Result<(), Error> {
        // Without a proxy nobody has a fetcher to offer.
        let proxy = self.proxy.as_mut().ok_or(Error::Order)?;
        proxy.fetches.replace(channel);
        self.send_orders()
    }

    /// Sends what waits for the fetcher.
    pub(super) fn send_orders(&mut self) -> Result<(), Error> {
        let sent = self.proxy.as_mut().map(|proxy| proxy.fetches.flush());
        match sent {
            Some(Err(fault)) => self.distrust(&fault),
            _ => Ok(()),
        }
    }

    /// Passes on what the fetcher says, as long as the worker's channel has room.
    pub(super) fn relay(&mut self) -> Result<(), Error> {
        for _ in 0..MESSAGES {
            let Some(proxy) = self.proxy.as_mut().filter(|_| !self.outbox.is_blocked()) else {
                break;
            };
            match proxy.fetches.receive() {
                Ok(Heard::Nothing) => break,
                Ok(Heard::Handled) => (),
                Ok(Heard::Relay(message)) => self.send(message, None)?,
                Err(fault) => return self.distrust(&fault),
            }
        }
        Ok(())
    }

    /// Tells the worker of jobs whose fetcher is gone, as long as its channel has room.
    pub(super) fn relay_lost(&mut self) -> Result<(), Error> {
        while !self.outbox.is_blocked() {
            let lost = self
                .proxy
                .as_mut()
                .and_then(|proxy| proxy.fetches.next_lost());
            let Some(message) = lost else { break };
            self.send(message, None)?;
        }
        Ok(())
    }

    /// Listens to a fetcher no more. The files below the root are served all the same.
    fn distrust(&mut self, fault: &Fault) -> Result<(), Error> {
        let lost = self
            .proxy
            .as_mut()
            .map_or(0, |proxy| proxy.fetches.give_up());
        match fault {
            // The supervisor knows, and says why.
            Fault::Gone if lost == 0 => debug!("fetcher: {fault}"),
            Fault::Gone => warn!(lost, "fetcher: {fault}, its fetches fail"),
            _ => warn!(lost, "fetcher: {fault}; it is replaced, its fetches fail"),
        }
        // Also of one that is gone: a captured one may have hung up on us and live on.
        self.report(Report::Distrust)
    }
}
