//! What a transfer hears of the body that is being fetched for it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::cache::{Answer, Extent, File, LinkInfo, Reader, State};
use super::record::{CacheUse, NotFetched};
use super::server::Server;
use super::ticket::Ticket;
use crate::tftp::packet::Refusal;

/// A body that was not there yet when it was asked for.
pub(crate) struct Feed {
    link: LinkInfo,
    /// Waits for the next state; none after the last one. It is kept from one poll to the next,
    /// or its waker would be lost.
    next: Option<Next>,
    /// When there was something new last.
    heard: Instant,
}

type Next = Pin<Box<dyn Future<Output = (Reader, State)>>>;

/// What is new.
#[derive(Debug)]
pub(crate) enum News {
    /// The body has begun, has grown, or is there as a whole.
    Body {
        /// The same every time.
        file: Rc<File>,
        /// How much of it can be read.
        extent: Extent,
        /// Its final length in bytes, when known.
        length: Option<u64>,
    },
    /// There is none, or not all of it. Nothing follows.
    Over(Box<NotFetched>),
}

/// A source that brings nothing for this long ends the transfers that wait for it. No client is
/// known that waits longer for a packet: most repeat theirs five or six times, every 1 to 5
/// seconds; U-Boot ten times, every 5. The fetcher has limits of its own, and most often the
/// first word.
pub(crate) const STALL: Duration = Duration::from_secs(60);

impl Feed {
    /// What `reader` reads of `link`.
    pub(crate) fn new(reader: Reader, link: LinkInfo) -> Self {
        Self {
            link,
            next: Some(look(reader)),
            heard: Instant::now(),
        }
    }

    /// Whether there is anything to come.
    pub(crate) fn is_open(&self) -> bool {
        self.next.is_some()
    }

    /// When it has stalled.
    pub(crate) fn deadline(&self) -> Instant {
        self.heard + STALL
    }

    /// What is new since the last call.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        server: &Server,
        ticket: &Ticket,
    ) -> Poll<News> {
        while let Some(next) = &mut self.next {
            let (reader, state) = ready!(next.as_mut().poll(cx));
            self.next = None;
            self.heard = Instant::now();
            return Poll::Ready(match state {
                State::Waiting => {
                    self.next = Some(wait(reader));
                    continue;
                }
                State::Alone => {
                    drop(reader);
                    ticket.note_cache(CacheUse::Miss, None);
                    match server.proxy.fetch_alone(&server.link, ticket, &self.link) {
                        Answer::Fetch { reader, .. } => {
                            self.next = Some(look(reader));
                            continue;
                        }
                        _ => News::Over(busy()),
                    }
                }
                State::Body {
                    file,
                    extent,
                    length,
                } => {
                    if !extent.complete {
                        self.next = Some(wait(reader));
                    }
                    News::Body {
                        file,
                        extent,
                        length,
                    }
                }
                State::Entry(entry) => {
                    let trouble = reader.trouble();
                    let cache = match trouble {
                        Some(_) => CacheUse::Stale,
                        None => CacheUse::Revalidated,
                    };
                    ticket.note_cache(cache, trouble);
                    News::Body {
                        file: Rc::clone(entry.file()),
                        extent: entry.extent(),
                        length: None,
                    }
                }
                State::Refused(status) => News::Over(refused(status)),
                State::Failed(_) => News::Over(failed(&reader.trouble().unwrap_or_default())),
            });
        }
        Poll::Pending
    }
}

/// The origin refuses with this HTTP status.
pub(crate) fn refused(status: u16) -> Box<NotFetched> {
    let refusal = match status {
        404 | 410 => Refusal::Missing,
        401 | 403 => Refusal::Denied,
        _ => Refusal::NotFetched,
    };
    let reason = format!("the origin answered {status}");
    Box::new(NotFetched { refusal, reason })
}

/// More is being fetched than may be.
pub(crate) fn busy() -> Box<NotFetched> {
    let refusal = Refusal::Busy;
    let reason = "a limit of the cache".to_owned();
    Box::new(NotFetched { refusal, reason })
}

/// Nothing came for too long.
pub(crate) fn stalled() -> News {
    News::Over(failed("the origin sends nothing more"))
}

fn failed(reason: &str) -> Box<NotFetched> {
    let refusal = Refusal::NotFetched;
    let reason = reason.to_owned();
    Box::new(NotFetched { refusal, reason })
}

/// The state as it is.
fn look(mut reader: Reader) -> Next {
    Box::pin(async move {
        let state = reader.state();
        (reader, state)
    })
}

/// The next state.
fn wait(mut reader: Reader) -> Next {
    Box::pin(async move {
        reader.changed().await;
        let state = reader.state();
        (reader, state)
    })
}
