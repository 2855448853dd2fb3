//! The messages between broker and fetcher, and those of the fetcher that the broker passes on to
//! the worker.
//!
//! Encoded and bounded as those of [`crate::wire`]. With every field at its own limit a message
//! still fits [`MAX_MESSAGE`].

use std::net::IpAddr;

use crate::wire::{Decode, Encode, Hello, MAX_MESSAGE};

pub use crate::link::MAX_URL;

/// The most bytes of what a client asked below a link.
pub const MAX_REST: usize = 2048;

/// The most bytes of a validator; a longer one is not sent.
pub const MAX_VALIDATOR: usize = 192;

/// The most bytes of a file name in [`About`]; a longer one is cut.
pub const MAX_ABOUT: usize = 384;

/// The most bytes of the text in [`FromFetcher::Failed`].
pub const MAX_DETAIL: usize = 512;

/// What the broker tells the fetcher.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum ToFetcher {
    /// Always first.
    Hello(Hello),
    /// GET an object. Comes with one descriptor: an empty file, writable.
    Fetch(Fetch),
    /// Nobody wants this one any more. What it still had under way can arrive after this.
    Cancel {
        /// The job to drop; unknown when it has just ended.
        job: u64,
    },
}

/// One GET.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fetch {
    /// Names the job in all further messages; never used twice in a generation.
    pub job: u64,
    /// URL of the link, without modifiers; at most [`MAX_URL`] bytes.
    pub url: String,
    /// What the client asked below the link, as it sent it; at most [`MAX_REST`] bytes.
    pub rest: Vec<u8>,
    /// Ask for the body as it is, and never decode it.
    pub identity: bool,
    /// Ask only for what differs from these.
    pub validators: Validators,
    /// Who asked, for the `X-TFTP-` headers.
    pub about: Option<About>,
}

/// Validators of a stale entry (RFC 9110, section 8.8), as the origin sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Validators {
    /// For `If-None-Match`; at most [`MAX_VALIDATOR`] bytes.
    pub etag: Option<Vec<u8>>,
    /// For `If-Modified-Since`; at most [`MAX_VALIDATOR`] bytes.
    pub last_modified: Option<Vec<u8>>,
}

/// The request that a fetch is made for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct About {
    /// Who asked.
    pub client: IpAddr,
    /// The file it asked, without leading slashes; at most [`MAX_ABOUT`] bytes.
    pub file: Vec<u8>,
    /// `octet` or `netascii`.
    pub mode: String,
}

/// What the fetcher tells the broker: its whole interface.
///
/// For each job at most one `Head`, then any number of `Extent`, then one `End`; or one `Failed`
/// at any point. Anything not listed, a job that was never given, a descriptor, or a message that
/// does not decode ends the fetcher.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum FromFetcher {
    /// Always first.
    Hello(Hello),
    /// The origin has answered.
    Head(Head),
    /// This much of the body is in the file.
    Extent {
        /// The job.
        job: u64,
        /// Bytes from the start of the file; never less than before.
        len: u64,
    },
    /// The whole body is in the file. For a status other than 2xx `len` is 0: such bodies are
    /// not kept.
    End {
        /// The job.
        job: u64,
        /// Length of the body in bytes.
        len: u64,
    },
    /// The job has ended without the whole body. What is in the file is worth nothing.
    Failed {
        /// The job.
        job: u64,
        /// Why.
        failure: Failure,
        /// Why, for the log alone; at most [`MAX_DETAIL`] bytes of visible ASCII and spaces,
        /// never credentials.
        detail: String,
    },
}

/// Status line and headers of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// The job.
    pub job: u64,
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// The headers that caching needs, in lower case and the order they came. If the answer
    /// came by redirects that may change, they end with a `cache-control` that says so.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Length in bytes of the decoded body, when it is known before its end.
    pub length: Option<u64>,
}

/// Why a fetch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Failure {
    /// The link's URL or what was asked below it: `..`, control characters, not UTF-8 and the
    /// like. Nothing was asked of any origin.
    BadUrl,
    /// The link or a redirect leads to a port that `--proxy-ports` does not allow.
    PortNotAllowed {
        /// The port.
        port: u16,
    },
    /// The host has no address, or no name server answered.
    Dns,
    /// No connection: refused, unreachable.
    Refused,
    /// No connection, no answer or no further byte within the time set.
    Timeout,
    /// The origin's certificate or its TLS.
    Tls,
    /// Too many redirects, or one that leads to no URL we may ask.
    Redirects,
    /// The answer broke off or contradicted itself, and could not be resumed.
    BrokenOff,
    /// Larger than the limit.
    TooLarge,
    /// The cache file can not take more: disk full, limit of the file system.
    Disk,
    /// Too many jobs, or a fault of our own.
    Internal,
}

const _: () = {
    // Every field at its limit, numbers at their longest (9 bytes), each length before its bytes
    // (3), tags (1).
    let validators = 2 * (1 + 3 + MAX_VALIDATOR);
    let about = 1 + 17 + 3 + MAX_ABOUT + 3 + 16;
    assert!(1 + 9 + 3 + MAX_URL + 3 + MAX_REST + 1 + validators + about <= MAX_MESSAGE);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Error, decode, encode};

    fn to_vec<M: Encode>(message: &M) -> Vec<u8> {
        let mut buffer = [0; MAX_MESSAGE];
        encode(message, &mut buffer).unwrap().to_vec()
    }

    fn to_fetcher(bytes: &[u8]) -> Result<ToFetcher, Error> {
        decode::<_, MAX_MESSAGE>(bytes)
    }

    fn from_fetcher(bytes: &[u8]) -> Result<FromFetcher, Error> {
        decode::<_, MAX_MESSAGE>(bytes)
    }

    fn longest() -> Fetch {
        let validator = Some(vec![b'"'; MAX_VALIDATOR]);
        Fetch {
            job: u64::MAX,
            url: "u".repeat(MAX_URL),
            rest: vec![b'r'; MAX_REST],
            identity: true,
            validators: Validators {
                etag: validator.clone(),
                last_modified: validator,
            },
            about: Some(About {
                client: "2001:db8::1".parse().unwrap(),
                file: vec![b'f'; MAX_ABOUT],
                mode: "netascii".into(),
            }),
        }
    }

    #[test]
    fn every_message_survives_the_way_at_its_longest() {
        for message in [
            ToFetcher::Hello(Hello::OURS),
            ToFetcher::Fetch(longest()),
            ToFetcher::Cancel { job: 7 },
        ] {
            assert_eq!(to_fetcher(&to_vec(&message)), Ok(message));
        }
        let head = Head {
            job: 1,
            status: 200,
            headers: vec![
                ("etag".into(), b"\"\xff\"".to_vec()),
                ("vary".into(), b"*".to_vec()),
            ],
            length: Some(u64::MAX),
        };
        let failure = Failure::PortNotAllowed { port: 65535 };
        for message in [
            FromFetcher::Hello(Hello::OURS),
            FromFetcher::Head(head),
            FromFetcher::Extent { job: 2, len: 0 },
            FromFetcher::End {
                job: 3,
                len: u64::MAX,
            },
            FromFetcher::Failed {
                job: 4,
                failure,
                detail: "d".repeat(MAX_DETAIL),
            },
        ] {
            assert_eq!(from_fetcher(&to_vec(&message)), Ok(message));
        }
    }

    #[test]
    fn every_failure_survives_the_way() {
        use Failure as F;
        for failure in [
            F::BadUrl,
            F::PortNotAllowed { port: 0 },
            F::Dns,
            F::Refused,
            F::Timeout,
            F::Tls,
            F::Redirects,
            F::BrokenOff,
            F::TooLarge,
            F::Disk,
            F::Internal,
        ] {
            let message = FromFetcher::Failed {
                job: 1,
                failure,
                detail: String::new(),
            };
            assert_eq!(from_fetcher(&to_vec(&message)), Ok(message));
        }
    }

    #[test]
    fn a_message_with_bytes_behind_it_or_cut_is_refused() {
        let mut bytes = to_vec(&FromFetcher::End {
            job: 300,
            len: 70_000,
        });
        for length in 0..bytes.len() {
            assert_eq!(
                from_fetcher(&bytes[..length]),
                Err(Error::Malformed),
                "{length} bytes"
            );
        }
        bytes.push(0);
        assert_eq!(from_fetcher(&bytes), Err(Error::Trailing));
        let bytes = to_vec(&ToFetcher::Fetch(longest()));
        for length in 0..bytes.len() {
            assert_eq!(
                to_fetcher(&bytes[..length]),
                Err(Error::Malformed),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn a_claimed_length_beyond_the_message_is_refused_before_it_is_allocated() {
        for length in [4097_u64, 1 << 20, 1 << 32, 1 << 40, u64::MAX] {
            let mut bytes = vec![1, 1, 251, 200, 0, 253]; // Head of job 1, status 200, headers
            bytes.extend(length.to_le_bytes());
            assert_eq!(from_fetcher(&bytes), Err(Error::Malformed), "{length}");
            let mut bytes = vec![1, 1, 253]; // Fetch of job 1, URL
            bytes.extend(length.to_le_bytes());
            assert_eq!(to_fetcher(&bytes), Err(Error::Malformed), "{length}");
        }
    }

    #[test]
    fn text_that_is_not_utf_8_and_numbers_that_name_nothing_are_refused() {
        assert_eq!(from_fetcher(&[4, 1, 2, 1, 0xff]), Err(Error::Malformed));
        assert_eq!(from_fetcher(&[4, 1, 11, 0]), Err(Error::Malformed));
        assert_eq!(from_fetcher(&[5, 1]), Err(Error::Malformed));
        assert_eq!(to_fetcher(&[3, 1]), Err(Error::Malformed));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200_000 {
            let mut bytes = [0; 48];
            for byte in &mut bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state.to_le_bytes()[3];
            }
            let length = usize::from(bytes[0]) % bytes.len();
            bytes[1] %= 6;
            let _ = from_fetcher(&bytes[1..=length]);
            let _ = to_fetcher(&bytes[1..=length]);
        }
    }
}
