//! What the command line asks of the flood.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use r_tftpd_bench::number;

/// Shown for a wrong command line.
pub const USAGE: &str = "\
usage: r-tftpd-flood MODE --server ADDRESS:PORT [OPTIONS]

  requests           for NAME, with various options, from forged senders
  junk               of all opcodes and sizes, from forged senders
  acks               one transfer for each source, all from the own address, and then ACKs of any
                     block, as many again to the same ports from forged senders

  --name NAME        (file)
  --first ADDRESS    the first forged sender (198.18.0.1)
  --sources N        senders: this and the following addresses, or transfers (10000)
  --port N           the senders' first port; each turn of all senders uses another (1024)
  --total N          datagrams; 0 = until the time is over (0)
  --limit SECONDS    when to stop (10)
  --rate N           datagrams in a second; 0 = what the machine can do (0)
  --seed N           where chance begins (1)
";

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Requests that are never answered.
    Requests,
    /// Anything.
    Junk,
    /// ACKs without end.
    Acks,
}

/// The run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is sent.
    pub mode: Mode,
    /// Where to.
    pub server: SocketAddrV4,
    /// Name of the file.
    pub name: String,
    /// The first forged sender.
    pub first: Ipv4Addr,
    /// How many there are.
    pub sources: u32,
    /// Their first port.
    pub port: u16,
    /// Datagrams in all; 0 = without end.
    pub total: u64,
    /// When to stop.
    pub limit: Duration,
    /// Datagrams in a second; 0 = as many as can be sent.
    pub rate: u64,
    /// Where chance begins.
    pub seed: u64,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mode = match arguments.next().as_deref() {
            Some("requests") => Mode::Requests,
            Some("junk") => Mode::Junk,
            Some("acks") => Mode::Acks,
            _ => return Err("MODE is missing".into()),
        };
        let mut options = Self {
            mode,
            server: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            name: "file".into(),
            first: Ipv4Addr::new(198, 18, 0, 1),
            sources: 10_000,
            port: 1024,
            total: 0,
            limit: Duration::from_secs(10),
            rate: 0,
            seed: 1,
        };
        while let Some(option) = arguments.next() {
            let value = arguments.next();
            let value = value.ok_or_else(|| format!("{option} needs a value"))?;
            match &option[..] {
                "--server" => options.server = number(&value)?,
                "--name" => options.name = value,
                "--first" => options.first = number(&value)?,
                "--sources" => options.sources = number(&value)?,
                "--port" => options.port = number(&value)?,
                "--total" => options.total = number(&value)?,
                "--limit" => options.limit = Duration::from_secs_f64(number(&value)?),
                "--rate" => options.rate = number(&value)?,
                "--seed" => options.seed = number(&value)?,
                _ => return Err(format!("unknown option {option}")),
            }
        }
        match (options.server.port(), options.sources) {
            (0, _) => Err("--server is missing".into()),
            (_, 0) => Err("--sources is at least 1".into()),
            _ => Ok(options),
        }
    }
}
