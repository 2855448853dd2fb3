//! From `Open` to what the worker gets: a file, a link, or a reason; and a line for the operator
//! where one can do something.

use std::net::SocketAddr;
use std::time::Instant;

use tracing::warn;

use super::requests::Answered;
use super::resolve::{Opened, Path, Refused, Signpost, Symlink};
use super::trouble::Trouble;
use super::{Broker, Error};
use crate::link::Link;
use crate::wire::{Denial, ToWorker};

impl Broker {
    /// Opens a file now if that cannot take long, else has a helper thread do it.
    pub(super) fn open(&mut self, id: u64, name: &[u8], now: Instant) -> Result<(), Error> {
        let path = match Path::parse(name) {
            Ok(path) => path,
            Err(reason) => return self.grant(id, name, Err(Refused::Denied(reason)), now),
        };
        match self.resolver.open_cached(&path) {
            Err(Refused::Waits) if self.helpers.ask(id, path) => Ok(()),
            Err(Refused::Waits) => {
                self.grant(id, name, Err(Refused::Denied(Denial::Resources)), now)
            }
            result => self.grant(id, name, result, now),
        }
    }

    /// Tells the worker what came of an open; the log, if somebody should know.
    pub(super) fn grant(
        &mut self,
        id: u64,
        name: &[u8],
        result: Result<Opened, Refused>,
        now: Instant,
    ) -> Result<(), Error> {
        let Some(peer) = self.requests.peer(id) else {
            // The request ended while a helper thread was at it.
            return Ok(());
        };
        // Leading slashes count for nothing, and are lost on the way through a helper thread.
        let slashes = name.iter().take_while(|byte| **byte == b'/').count();
        let name = name.get(slashes..).unwrap_or_default();
        let place = Place { peer, name, now };
        match result {
            Ok(opened) => self.grant_file(id, opened),
            Err(Refused::Missing) => {
                let fallback = self.proxy.as_ref().and_then(|proxy| proxy.fallback.clone());
                match fallback {
                    Some(link) => self.grant_link(id, &place, link, place.name.to_vec()),
                    None => {
                        self.requests.answer_open(id, Answered::Refused);
                        self.send(ToWorker::Missing { id }, None)
                    }
                }
            }
            Err(Refused::Url(signpost)) => self.follow(id, &place, *signpost),
            Err(Refused::Escape(symlink)) => {
                let reason =
                    "it leads out of the root: only relative targets below it are followed";
                self.refuse_symlink(&place, &symlink, reason);
                self.refuse(id, Denial::OutsideRoot)
            }
            Err(Refused::Denied(reason)) => {
                if reason == Denial::OutsideRoot
                    && self.may_tell(Some(peer.ip()), Trouble::Path, now)
                {
                    let file = name.escape_ascii();
                    warn!(%peer, %file, ?reason, "path refused");
                }
                self.refuse(id, reason)
            }
            Err(Refused::Waits) => self.refuse(id, Denial::System),
        }
    }

    /// Says no to a request, of a file or of scratch memory.
    pub(super) fn deny(&mut self, id: u64, reason: Denial) -> Result<(), Error> {
        self.send(ToWorker::Denied { id, reason }, None)
    }

    fn refuse(&mut self, id: u64, reason: Denial) -> Result<(), Error> {
        self.requests.answer_open(id, Answered::Refused);
        self.deny(id, reason)
    }

    fn grant_file(&mut self, id: u64, opened: Opened) -> Result<(), Error> {
        let Opened {
            file,
            size,
            in_memory,
        } = opened;
        self.requests.answer_open(id, Answered::Granted);
        let message = ToWorker::File {
            id,
            size,
            in_memory,
        };
        self.send(message, Some(file))
    }

    /// Where a dangling symlink leads that names a URL.
    fn follow(&mut self, id: u64, place: &Place<'_>, signpost: Signpost) -> Result<(), Error> {
        let reason = match (&self.proxy, signpost.link) {
            (None, _) => "it names a URL, and the proxy is off (--disable-proxy)".to_owned(),
            (Some(_), Err(error)) => error.to_string(),
            (Some(proxy), Ok(link)) if !proxy.allows(&link) => {
                let port = link.port();
                format!("port {port} is not allowed: add it with --proxy-ports")
            }
            (Some(_), Ok(link)) => return self.grant_link(id, place, link, signpost.rest),
        };
        self.refuse_symlink(place, &signpost.symlink, &reason);
        self.refuse(id, Denial::Proxy)
    }

    fn grant_link(
        &mut self,
        id: u64,
        place: &Place<'_>,
        link: Link,
        rest: Vec<u8>,
    ) -> Result<(), Error> {
        let Some(proxy) = &self.proxy else {
            return self.refuse(id, Denial::Proxy);
        };
        let (lead, link) = proxy.lead(link, rest, place.name);
        self.requests.answer_open(id, Answered::Linked(lead));
        self.send(ToWorker::Link { id, link }, None)
    }

    /// One line for the operator; the target is shown without credentials.
    fn refuse_symlink(&mut self, place: &Place<'_>, symlink: &Symlink, reason: &str) {
        if !self.may_tell(Some(place.peer.ip()), Trouble::Symlink, place.now) {
            return;
        }
        let (peer, file) = (place.peer, place.name.escape_ascii());
        let link = symlink.name.escape_ascii();
        let target = without_credentials(&symlink.target);
        warn!(%peer, %file, %link, target, reason, "symlink refused");
    }
}

/// Who asked for what, and when it was answered.
struct Place<'n> {
    peer: SocketAddr,
    name: &'n [u8],
    now: Instant,
}

/// A symlink's target for the log: what stands between `//` and the last `@` of an authority is
/// left out, also of URLs that mean nothing.
fn without_credentials(target: &[u8]) -> String {
    let text = target.escape_ascii().to_string();
    let Some((scheme, tail)) = text.split_once("://") else {
        return text;
    };
    let end = tail.find(['/', '?', '#']).unwrap_or(tail.len());
    let (authority, rest) = tail.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{rest}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_never_logged_also_of_a_broken_url() {
        for (target, shown) in [
            ("../other", "../other"),
            ("ftp://u:p@h/f@g", "ftp://h/f@g"),
            ("http+x://u:p@w@h:80", "http+x://h:80"),
            ("http://h/@", "http://h/@"),
        ] {
            assert_eq!(without_credentials(target.as_bytes()), shown);
        }
    }
}
