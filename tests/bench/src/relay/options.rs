//! What the command line asks of the relay.

use std::time::Duration;

use r_tftpd_bench::number;

/// Shown for a wrong command line.
pub const USAGE: &str = "\
usage: r-tftpd-relay [OPTIONS] <PACKET-SOCKET >PACKET-SOCKET

  --delay MS           of every frame, in each direction (0)
  --duplicate PERCENT  of datagrams arrive twice (0)
  --reorder PERCENT    of datagrams are up to 3 ms late, and others overtake them (0)
  --corrupt PERCENT    of datagrams have a bit turned over, which their checksum shows (0)
  --garble PERCENT     of DATA and ACKs get another opcode, number or length, and a checksum
                       that fits it (0)
  --seed N             where chance begins (1)
";

/// What the wire does to datagrams; probabilities from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Of every frame.
    pub delay: Duration,
    /// Arrives twice.
    pub duplicate: f64,
    /// Arrives late.
    pub reorder: f64,
    /// Arrives with a wrong bit.
    pub corrupt: f64,
    /// Arrives as something else.
    pub garble: f64,
    /// Where chance begins.
    pub seed: u64,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            delay: Duration::ZERO,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            garble: 0.0,
            seed: 1,
        };
        while let Some(option) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{option} needs a value"))?;
            match &option[..] {
                "--delay" => {
                    options.delay = Duration::from_secs_f64(number::<f64>(&value)? / 1000.0);
                }
                "--duplicate" => options.duplicate = number::<f64>(&value)? / 100.0,
                "--reorder" => options.reorder = number::<f64>(&value)? / 100.0,
                "--corrupt" => options.corrupt = number::<f64>(&value)? / 100.0,
                "--garble" => options.garble = number::<f64>(&value)? / 100.0,
                "--seed" => options.seed = number(&value)?,
                _ => return Err(format!("unknown option {option}")),
            }
        }
        Ok(options)
    }
}
