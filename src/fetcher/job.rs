//! One fetch, from the broker's message to the last byte in the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use r_tftpd_broker::fetch::{Failure, Fetch, FromFetcher, Head};
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::failed::Failed;
use super::headers;
use super::http::{Answer, Origins, Question};
use super::join::join;
use super::resume::{Resume, Tries};

/// What all jobs share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The HTTP clients.
    pub(super) origins: Origins,
    /// Send the `X-TFTP-` headers.
    pub(super) about: bool,
    /// Largest body in bytes.
    pub(super) max_object: u64,
    /// To the broker.
    pub(super) answers: Sender<FromFetcher>,
}

/// A fetch under way.
struct Job {
    shared: Arc<Shared>,
    number: u64,
    body: Body,
    tries: Tries,
    /// A body that is not wanted.
    unwanted: Option<Response>,
}

/// The file a body goes to.
struct Body {
    file: File,
    /// Bytes written, from the start on.
    written: u64,
    /// Bytes the broker was told of, and when.
    reported: u64,
    reported_at: Option<Instant>,
}

/// Does what `fetch` asks and tells the broker how it ended.
pub(super) async fn run(shared: Arc<Shared>, fetch: Fetch, file: File) {
    let number = fetch.job;
    let answers = shared.answers.clone();
    let body = Body {
        file,
        written: 0,
        reported: 0,
        reported_at: None,
    };
    let mut job = Job {
        shared,
        number,
        body,
        tries: Tries::default(),
        unwanted: None,
    };
    let message = match job.fetch(&fetch).await {
        Ok(len) => FromFetcher::End { job: number, len },
        Err(Failed { failure, detail }) => FromFetcher::Failed {
            job: number,
            failure,
            detail,
        },
    };
    // Nobody to tell: the broker is gone, and this process is about to end.
    let _ = answers.send(message).await;
    if let Some(response) = job.unwanted {
        drain(response).await;
    }
}

impl Job {
    /// The length of the body.
    async fn fetch(&mut self, fetch: &Fetch) -> Result<u64, Failed> {
        let question = self.question(fetch)?;
        let Answer {
            mut response,
            cache_control,
        } = self.ask(&question).await?;
        let status = response.status();
        if status == StatusCode::PARTIAL_CONTENT {
            return Err(Failed::new(
                Failure::BrokenOff,
                "a part of the body, unasked",
            ));
        }
        let received = response.headers();
        // Gone when the client decodes the body.
        let length = received
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let whole = status.is_success();
        if whole && length.is_some_and(|length| length > self.shared.max_object) {
            return Err(self.too_large());
        }
        if !fetch.identity && received.contains_key(CONTENT_ENCODING) {
            debug!(
                job = self.number,
                "an encoding that is not known: passed on as it is"
            );
        }
        let raw = fetch.identity || length.is_some();
        let resume = Resume::of(received, raw, length);
        let headers = headers::kept(received, cache_control);
        let head = Head {
            job: self.number,
            status: status.as_u16(),
            headers,
            length,
        };
        self.tell(FromFetcher::Head(head)).await?;
        if !whole {
            self.unwanted = Some(response);
            return Ok(0);
        }
        let mut skip = 0;
        loop {
            let Err(failed) = self.copy(&mut response, skip, length).await else {
                return Ok(self.body.written);
            };
            (response, skip) = self.resume(&question, resume.as_ref(), failed).await?;
        }
    }

    fn question(&self, fetch: &Fetch) -> Result<Question, Failed> {
        let url = join(&fetch.url, &fetch.rest);
        let url = url.map_err(|reason| Failed::new(Failure::BadUrl, reason))?;
        let about = fetch.about.as_ref().filter(|_| self.shared.about);
        Ok(Question {
            url,
            identity: fetch.identity,
            headers: headers::conditions(&fetch.validators),
            about: about.map(headers::about).unwrap_or_default(),
        })
    }

    /// Asks once more when the connection breaks before an answer: an idle one may have been
    /// closed by the origin that very moment.
    async fn ask(&self, question: &Question) -> Result<Answer, Failed> {
        match self.shared.origins.get(question).await {
            Err(failed) if failed.failure == Failure::BrokenOff => {
                debug!(job = self.number, reason = failed.detail, "asking again");
                self.shared.origins.get(question).await
            }
            other => other,
        }
    }

    /// A response that goes on where the last one broke off, and how many bytes of its body are
    /// there already. A body that has no validator can not be resumed.
    async fn resume(
        &mut self,
        question: &Question,
        resume: Option<&Resume>,
        mut failed: Failed,
    ) -> Result<(Response, u64), Failed> {
        self.report().await?;
        let Some(resume) = resume else {
            return Err(failed);
        };
        while failed.can_pass() && self.tries.next().await {
            debug!(
                job = self.number,
                at = self.body.written,
                reason = failed.detail,
                "resuming"
            );
            let mut again = question.clone();
            again.headers.clear();
            resume.ask(&mut again.headers, self.body.written);
            match self.shared.origins.get(&again).await {
                Ok(answer) => match resume.skip(&answer.response, self.body.written) {
                    Ok(skip) => return Ok((answer.response, skip)),
                    Err(reason) => return Err(Failed::new(Failure::BrokenOff, reason)),
                },
                Err(next) => failed = next,
            }
        }
        Err(failed)
    }

    /// Writes a response's body to the file, but for its first `skip` bytes.
    async fn copy(
        &mut self,
        response: &mut Response,
        mut skip: u64,
        length: Option<u64>,
    ) -> Result<(), Failed> {
        loop {
            let chunk = match self.body.report_at() {
                Some(time) => match timeout_at(time, response.chunk()).await {
                    Ok(chunk) => chunk,
                    Err(_) => {
                        self.report().await?;
                        continue;
                    }
                },
                None => response.chunk().await,
            };
            let Some(chunk) = chunk.map_err(|error| Failed::http(&error))? else {
                break;
            };
            let known = skip.min(size(&chunk));
            skip -= known;
            let known = usize::try_from(known).unwrap_or(usize::MAX);
            let new = chunk.get(known..).unwrap_or_default();
            if self.body.written.saturating_add(size(new)) > self.shared.max_object {
                return Err(self.too_large());
            }
            self.body.write(new)?;
            if self
                .body
                .report_at()
                .is_some_and(|time| time <= Instant::now())
            {
                self.report().await?;
            }
        }
        match length {
            _ if skip > 0 => Err(Failed::new(Failure::BrokenOff, "shorter than before")),
            Some(length) if length != self.body.written => Err(Failed::new(
                Failure::BrokenOff,
                "not as long as Content-Length says",
            )),
            _ => Ok(()),
        }
    }

    /// Tells the broker how much is there, unless it knows.
    async fn report(&mut self) -> Result<(), Failed> {
        if self.body.report_at().is_none() {
            return Ok(());
        }
        let len = self.body.written;
        self.tell(FromFetcher::Extent {
            job: self.number,
            len,
        })
        .await?;
        self.body.reported = len;
        self.body.reported_at = Some(Instant::now());
        Ok(())
    }

    async fn tell(&self, message: FromFetcher) -> Result<(), Failed> {
        let sent = self.shared.answers.send(message).await;
        sent.map_err(|_| Failed::new(Failure::Internal, "the broker is gone"))
    }

    fn too_large(&self) -> Failed {
        let detail = format!("larger than {} bytes", self.shared.max_object);
        Failed::new(Failure::TooLarge, detail)
    }
}

impl Body {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.file
            .write_all_at(bytes, self.written)
            .map_err(|error| disk(&error))?;
        self.written += size(bytes);
        Ok(())
    }

    /// When the broker is to be told of what it does not know yet: the first bytes at once,
    /// as a client waits for them.
    fn report_at(&self) -> Option<Instant> {
        let due = |last: Instant| last + REPORT;
        (self.written > self.reported).then(|| self.reported_at.map_or_else(Instant::now, due))
    }
}

fn disk(error: &io::Error) -> Failed {
    Failed::new(Failure::Disk, format!("writing the cache file: {error}"))
}

/// Reads a short body to its end, so that its connection can be used again.
async fn drain(mut response: Response) {
    let all = async {
        let mut left = DRAIN;
        while let Ok(Some(chunk)) = response.chunk().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Too long, too slow or broken: the connection closes instead.
    let _ = timeout(DRAIN_TIME, all).await;
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Time between two reports of one job: a window of 64 blocks takes about as long at 1 Gbit/s,
/// and 256 jobs still send fewer messages than the broker takes.
const REPORT: Duration = Duration::from_millis(3);

/// The most bytes of a body that is not wanted which are read all the same.
const DRAIN: usize = 16 * 1024;

/// The longest time that takes; it keeps another job from its place.
const DRAIN_TIME: Duration = Duration::from_millis(200);
