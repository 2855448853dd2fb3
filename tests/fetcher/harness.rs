//! A supervisor and a broker for one fetcher.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{dup, geteuid};
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::{Counts, Facts, Order, Report, SIZE};
use r_tftpd_broker::fetch::{About, Failure, Fetch, FromFetcher, Head, ToFetcher, Validators};
use r_tftpd_broker::settings::{FetcherStart, LogFormat, LogSettings, MAX_START, Sandbox};
use r_tftpd_broker::wire::{Hello, MAX_MESSAGE, decode, encode};

/// The longest time anything here may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a fetcher is started with.
pub(crate) struct Setup {
    pub(crate) start: FetcherStart,
    pub(crate) resolv_conf: Vec<u8>,
    pub(crate) hosts: Vec<u8>,
    pub(crate) certificates: Vec<u8>,
    /// Arguments of ulimit.
    pub(crate) limit: &'static str,
}

/// As in production, but for any port and short times.
pub(crate) fn setup() -> Setup {
    let start = FetcherStart {
        hello: Hello::OURS,
        log: LogSettings {
            format: LogFormat::Compact,
            filter: "debug".into(),
            priorities: false,
        },
        sandbox: Sandbox::Strict,
        ports: Vec::new(),
        dns_port: 53,
        user_agent: "r-tftpd/test".into(),
        about: true,
        connect_timeout_ms: 3000,
        read_timeout_ms: 3000,
        max_object: 64 << 20,
        max_redirects: 5,
    };
    let hosts = b"127.0.0.1 origin.test\n".to_vec();
    Setup {
        start,
        resolv_conf: Vec::new(),
        hosts,
        certificates: Vec::new(),
        limit: "-f unlimited",
    }
}

/// A running fetcher.
pub(crate) struct Fetcher {
    child: Child,
    pub(crate) control: Channel,
    pub(crate) broker: Channel,
    pub(crate) facts: Facts,
    last: u64,
}

/// How one fetch went.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) head: Option<Head>,
    pub(crate) extents: Vec<u64>,
    pub(crate) end: Option<u64>,
    pub(crate) failed: Option<(Failure, String)>,
    pub(crate) body: Vec<u8>,
}

impl Fetched {
    pub(crate) fn status(&self) -> u16 {
        self.head.as_ref().expect("an answer").status
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.head.as_ref().expect("an answer").length
    }

    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
        let headers = &self.head.as_ref().expect("an answer").headers;
        headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| text(value))
            .collect()
    }

    /// The body, if it came whole.
    #[track_caller]
    pub(crate) fn whole(&self) -> &[u8] {
        assert_eq!(self.failed, None);
        assert_eq!(self.end, Some(self.body.len() as u64));
        &self.body
    }

    #[track_caller]
    pub(crate) fn failure(&self) -> Failure {
        self.failed.as_ref().expect("a failure").0
    }
}

/// A fetch of `url` and nothing special.
pub(crate) fn fetch(url: &str) -> Fetch {
    Fetch {
        job: 0,
        url: url.into(),
        rest: Vec::new(),
        identity: false,
        validators: Validators::default(),
        about: None,
    }
}

/// As asked by a client with a line break in its file name.
pub(crate) fn about() -> Option<About> {
    let client: IpAddr = "192.0.2.7".parse().unwrap();
    Some(About {
        client,
        file: b"grub/a b\r\nx".to_vec(),
        mode: "octet".into(),
    })
}

impl Fetcher {
    /// Starts one and waits until it is locked down.
    pub(crate) fn start(setup: &Setup) -> Self {
        let (mut child, control) = spawn(setup.limit);
        let (broker, theirs) = Channel::pair().unwrap();
        let files = [&setup.resolv_conf, &setup.hosts, &setup.certificates];
        let files: Vec<_> = files.map(|content| granted(content)).into();
        let mut descriptors = vec![theirs.as_fd()];
        descriptors.extend(files.iter().map(AsFd::as_fd));
        let mut buffer = vec![0; MAX_START];
        control
            .send_with(encode(&setup.start, &mut buffer).unwrap(), &descriptors)
            .unwrap();
        drop(theirs);
        let Some(report) = receive(&control, SIZE) else {
            panic!("no start: {}", child.wait().unwrap());
        };
        let Ok(Report::Ready(facts)) = Report::from_bytes(&report) else {
            panic!("not ready")
        };
        let fetcher = Self {
            child,
            control,
            broker,
            facts,
            last: 0,
        };
        assert_eq!(fetcher.receive(), FromFetcher::Hello(Hello::OURS));
        fetcher.tell(&ToFetcher::Hello(Hello::OURS), None);
        fetcher
    }

    /// Sends as the broker does.
    pub(crate) fn tell(&self, message: &ToFetcher, file: Option<&File>) {
        let descriptors: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
        let mut buffer = [0; MAX_MESSAGE];
        self.broker
            .send_with(encode(message, &mut buffer).unwrap(), &descriptors)
            .unwrap();
    }

    /// The next message to the broker.
    #[track_caller]
    pub(crate) fn receive(&self) -> FromFetcher {
        let bytes = receive(&self.broker, MAX_MESSAGE).expect("the fetcher ended");
        decode::<_, MAX_MESSAGE>(&bytes).unwrap()
    }

    /// Asks, without waiting for anything.
    pub(crate) fn ask(&mut self, fetch: &Fetch, file: &File) -> u64 {
        self.last += 1;
        let fetch = Fetch {
            job: self.last,
            ..fetch.clone()
        };
        self.tell(&ToFetcher::Fetch(fetch), Some(file));
        self.last
    }

    /// Fetches to the end.
    #[track_caller]
    pub(crate) fn fetch(&mut self, fetch: &Fetch) -> Fetched {
        let file = File::from(granted(b""));
        let asked = self.ask(fetch, &file);
        let mut fetched = Fetched::default();
        while fetched.end.is_none() && fetched.failed.is_none() {
            match self.receive() {
                FromFetcher::Head(head) if head.job == asked => {
                    assert_eq!((&fetched.head, fetched.extents.len()), (&None, 0));
                    fetched.head = Some(head);
                }
                FromFetcher::Extent { job, len } if job == asked => {
                    assert!(fetched.head.is_some() && fetched.extents.last() < Some(&len));
                    assert!(file.metadata().unwrap().len() >= len);
                    fetched.extents.push(len);
                }
                FromFetcher::End { job, len } if job == asked => {
                    assert!(fetched.head.is_some() && fetched.extents.last() <= Some(&len));
                    fetched.end = Some(len);
                }
                FromFetcher::Failed {
                    job,
                    failure,
                    detail,
                } if job == asked => {
                    fetched.failed = Some((failure, detail));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        fetched.body = content(&file);
        fetched
    }

    /// Fetches `url` to the end.
    #[track_caller]
    pub(crate) fn get(&mut self, url: &str) -> Fetched {
        self.fetch(&fetch(url))
    }

    pub(crate) fn counts(&self) -> Counts {
        self.control.send(&Order::Ping.to_bytes()).unwrap();
        match Report::from_bytes(&receive(&self.control, SIZE).expect("an answer")) {
            Ok(Report::Counts(counts)) => counts,
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Ends it in order. A fetcher that its sandbox killed meanwhile fails here.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.control.send(&Order::Stop.to_bytes()).unwrap();
        assert_eq!(self.wait().code(), Some(0));
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> ExitStatus {
        // Its end of the channel closes with the process.
        while receive(&self.control, SIZE).is_some() {}
        self.child.wait().unwrap()
    }

    /// Closes the broker's end.
    pub(crate) fn close_broker(&mut self) {
        self.broker = Channel::pair().unwrap().0;
    }
}

/// What a file holds.
pub(crate) fn content(file: &File) -> Vec<u8> {
    let mut content = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    content
}

/// A memory file.
pub(crate) fn granted(content: &[u8]) -> OwnedFd {
    let file = File::from(memfd_create("granted", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all_at(content, 0).unwrap();
    file.into()
}

/// Starts the program with the control channel as descriptor 3. As root, as another user: the
/// fetcher refuses to run as root, and the program need not lie where that user can look.
fn spawn(limit: &str) -> (Child, Channel) {
    let (control, theirs) = Channel::pair().unwrap();
    let program = File::open(env!("CARGO_BIN_EXE_r-tftpd-fetcher")).unwrap();
    let theirs = dup(theirs.as_fd()).unwrap();
    let mut command = Command::new("sh");
    let script = "ulimit $0; exec 3<&0 0</dev/null 4<&1 1>&2 && exec /proc/self/fd/4";
    command.args(["-c", script, limit]);
    command
        .env_clear()
        .current_dir("/")
        .stdin(theirs)
        .stdout(Stdio::from(program));
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    (command.spawn().unwrap(), control)
}

const NOBODY: u32 = 65534;

/// One datagram within the deadline; `None` = the other side is gone.
#[track_caller]
fn receive(channel: &Channel, size: usize) -> Option<Vec<u8>> {
    let end = Instant::now() + DEADLINE;
    let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now())).unwrap();
    let ready = poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], left).unwrap();
    assert_eq!(ready, 1, "nothing came in time");
    let mut buffer = vec![0; size];
    channel.receive(&mut buffer).ok().map(<[u8]>::to_vec)
}
