//! What the command line asks of the load generator.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use r_tftpd_bench::number;

/// Shown for a wrong command line.
pub const USAGE: &str = "\
usage: r-tftpd-load --server ADDRESS:PORT --name NAME [OPTIONS]

  --expect FILE      what NAME holds; without it, ERROR 1 (not found) is the right answer
  --from ADDRESS     of all clients; otherwise each has one of its own in 127.16.0.0/12
  --sessions N       at once (1)
  --total N          sessions in all: one begins as soon as another ends; 0 = without end (as many
                     as --sessions)
  --limit SECONDS    when to stop (10)
  --blksize N,...    asked by the sessions in turn; 512 is asked by no option (512)
  --windowsize N,... likewise; 1 is asked by no option (1)
  --tsize            ask for the size, and check it
  --netascii         in this mode; FILE is translated for the comparison
  --loss PERCENT     of the DATA received and of the ACKs sent, by --seed N (0)
  --silence MS       without progress before a client repeats itself (1000)
  --ack-all          answer every unexpected block, as EDK2 does; otherwise one report of a gap
  --slow N:MS        the first N sessions answer each window after MS; the run ends without them
  --sleep            wait for the server asleep; otherwise awake, which costs the core but no time
  --lose-window-end  drop the last block of one window, and tell how long its repair takes
";

/// Longer than any server needs for a block in lock-step.
const AWAKE: Duration = Duration::from_micros(200);

/// The run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where requests go.
    pub server: SocketAddrV4,
    /// Name of the file.
    pub name: String,
    /// What it holds, as it travels; `None` = it does not exist.
    pub expected: Option<Vec<u8>>,
    /// The address of all clients; `None` = each has one of its own.
    pub from: Option<Ipv4Addr>,
    /// Sessions at once.
    pub sessions: usize,
    /// Sessions in all; 0 = without end.
    pub total: usize,
    /// When to stop.
    pub limit: Duration,
    /// Bytes in a block, by the sessions in turn.
    pub blksize: Vec<usize>,
    /// Blocks in a window, likewise.
    pub windowsize: Vec<u64>,
    /// Ask for the size.
    pub tsize: bool,
    /// Line ends are translated.
    pub netascii: bool,
    /// Of datagrams, from 0 to 1.
    pub loss: f64,
    /// Where chance begins.
    pub seed: u64,
    /// Without progress before a client repeats itself.
    pub silence: Duration,
    /// Answer every unexpected block.
    pub ack_all: bool,
    /// Sessions that answer late.
    pub slow: usize,
    /// How late.
    pub slowness: Duration,
    /// How long to wait for the server before falling asleep.
    pub awake: Duration,
    /// Drop the last block of one window.
    pub lose_window_end: bool,
}

impl Options {
    /// Reads the command line and the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let (mut server, mut name, mut file, mut total) = (None, None, None, None);
        while let Some(option) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{option} needs a value"))
            };
            match &option[..] {
                "--server" => server = Some(number(&value()?)?),
                "--name" => name = Some(value()?),
                "--expect" => file = Some(value()?),
                "--from" => options.from = Some(number(&value()?)?),
                "--sessions" => options.sessions = number(&value()?)?,
                "--total" => total = Some(number(&value()?)?),
                "--limit" => options.limit = Duration::from_secs_f64(number(&value()?)?),
                "--blksize" => options.blksize = numbers(&value()?)?,
                "--windowsize" => options.windowsize = numbers(&value()?)?,
                "--tsize" => options.tsize = true,
                "--netascii" => options.netascii = true,
                "--loss" => options.loss = number::<f64>(&value()?)? / 100.0,
                "--seed" => options.seed = number(&value()?)?,
                "--silence" => options.silence = Duration::from_millis(number(&value()?)?),
                "--ack-all" => options.ack_all = true,
                "--slow" => {
                    let value = value()?;
                    let (count, late) = value.split_once(':').ok_or("--slow is N:MS")?;
                    options.slow = number(count)?;
                    options.slowness = Duration::from_millis(number(late)?);
                }
                "--sleep" => options.awake = Duration::ZERO,
                "--lose-window-end" => options.lose_window_end = true,
                _ => return Err(format!("unknown option {option}")),
            }
        }
        options.server = server.ok_or("--server is missing")?;
        options.name = name.ok_or("--name is missing")?;
        options.total = total.unwrap_or(options.sessions);
        if let Some(file) = file {
            let bytes = std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?;
            options.expected = Some(if options.netascii {
                to_netascii(&bytes)
            } else {
                bytes
            });
        }
        Ok(options)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            server: SocketAddrV4::new([127, 0, 0, 1].into(), 69),
            name: String::new(),
            expected: None,
            from: None,
            sessions: 1,
            total: 1,
            limit: Duration::from_secs(10),
            blksize: vec![512],
            windowsize: vec![1],
            tsize: false,
            netascii: false,
            loss: 0.0,
            seed: 1,
            silence: Duration::from_secs(1),
            ack_all: false,
            slow: 0,
            slowness: Duration::ZERO,
            awake: AWAKE,
            lose_window_end: false,
        }
    }
}

fn numbers<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').map(number).collect()
}

/// RFC 764: a line ends with CR LF, and a CR that ends none is followed by NUL.
fn to_netascii(bytes: &[u8]) -> Vec<u8> {
    let mut translated = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    for byte in bytes {
        match byte {
            b'\n' => translated.extend(b"\r\n"),
            b'\r' => translated.extend(b"\r\0"),
            other => translated.push(*other),
        }
    }
    translated
}
