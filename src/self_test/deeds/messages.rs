//! Messages that the real broker must not accept from a worker. They are fatal: the broker ends,
//! and the generation is replaced.

use nix::errno::Errno;
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::supervisor::self_test::FILE;
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE, MAX_PATH, MAX_SCRATCH, ToBroker};

use super::super::probe::{CHANNEL, Outcome, Probe, REPLACED, WorkerPlace, calls, deeds, sent};

/// Well-formed messages at the wrong time or with the wrong contents.
pub(in super::super) const ORDERLY: &[Probe] = deeds! { Worker:
    REPLACED "message: Open of a request that is not there" |place| say(place, [open(place.id + 1)]);
    REPLACED "message: Open of the largest number" |place| say(place, [open(u64::MAX)]);
    REPLACED "message: Open twice" |place| say(place, [open(place.id), open(place.id)]);
    REPLACED "message: Open after Done" |place| say(place, [done(place.id), open(place.id)]);
    REPLACED "message: Open of too long a path" |place| {
        let path = vec![b'x'; MAX_PATH + 1];
        say(place, [ToBroker::Open { id: place.id, path }])
    };
    REPLACED "message: Scratch without a file" |place| say(place, [scratch(place.id, 10)]);
    REPLACED "message: Scratch twice" |place| {
        let id = place.id;
        say(place, [open(id), scratch(id, 10), scratch(id, 10)])
    };
    REPLACED "message: Scratch too large" |place| {
        say(place, [open(place.id), scratch(place.id, MAX_SCRATCH + 1)])
    };
    REPLACED "message: Scratch of the largest size" |place| {
        say(place, [open(place.id), scratch(place.id, u64::MAX)])
    };
    REPLACED "message: Scratch of a request that is not there" |place| {
        say(place, [scratch(place.id + 7, 10)])
    };
    REPLACED "message: Done twice" |place| say(place, [done(place.id), done(place.id)]);
    REPLACED "message: Done of a request that is not there" |place| say(place, [done(place.id + 1)]);
    REPLACED "message: Proven of a request that is not there" |place| {
        say(place, [ToBroker::Proven { id: place.id + 1 }])
    };
    REPLACED "message: Proven twice" |place| {
        let proven = || ToBroker::Proven { id: place.id };
        say(place, [proven(), proven()])
    };
    REPLACED "message: Proven after Done" |place| {
        say(place, [done(place.id), ToBroker::Proven { id: place.id }])
    };
    REPLACED "message: Hello again" |place| say(place, [ToBroker::Hello(Hello::OURS)]);
    REPLACED "message: flood" |place| {
        for _ in 0..20_000 {
            say(place, [ToBroker::Proven { id: place.id }])?;
        }
        Ok(0)
    };
};

/// Datagrams that are no message.
pub(in super::super) const BROKEN: &[Probe] = deeds! { Worker:
    REPLACED "message: nothing" |place| send(place, &[]);
    REPLACED "message: a byte" |place| send(place, &[0]);
    REPLACED "message: garbage" |place| send(place, &(0..=255).rev().collect::<Vec<u8>>());
    REPLACED "message: cut short" |place| {
        let mut bytes = encoded(&open(place.id))?;
        bytes.pop();
        send(place, &bytes)
    };
    REPLACED "message: in two halves" |place| {
        let bytes = encoded(&open(place.id))?;
        let (one, other) = bytes.split_at(bytes.len() / 2);
        send(place, one)?;
        send(place, other)
    };
    REPLACED "message: bytes behind it" |place| {
        let mut bytes = encoded(&open(place.id))?;
        bytes.push(0);
        send(place, &bytes)
    };
    REPLACED "message: a length that is a lie" |place| send(place, &[1, 1, 253, 0, 0, 0, 0, 1, 0, 0, 0]);
    REPLACED "message: a byte too many" |place| send(place, &[0; MAX_MESSAGE + 1]);
    REPLACED "message: far too many bytes" |place| send(place, &[1; 100_000]);
    REPLACED "message: an unknown one" |place| send(place, &[200, 0, 0, 0]);
};

/// The end of the channel.
pub(in super::super) const CLOSED: &[Probe] = calls! {
    REPLACED "message: the channel is closed" SYS_close(CHANNEL);
};

fn open(id: u64) -> ToBroker {
    let path = FILE.into();
    ToBroker::Open { id, path }
}

fn scratch(id: u64, size: u64) -> ToBroker {
    ToBroker::Scratch { id, size }
}

pub(super) fn done(id: u64) -> ToBroker {
    ToBroker::Done {
        id,
        proven: true,
        kept: false,
    }
}

pub(super) fn say<const N: usize>(place: &WorkerPlace, messages: [ToBroker; N]) -> Outcome {
    for message in &messages {
        send(place, &encoded(message)?)?;
    }
    Ok(0)
}

fn send(place: &WorkerPlace, bytes: &[u8]) -> Outcome {
    match sent(place.broker.send(bytes)) {
        // The broker has had enough of it already.
        Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(0),
        other => other,
    }
}

/// Says something to the broker.
///
/// # Errors
/// It is too long.
pub fn tell(broker: &Channel, message: &ToBroker) -> Outcome {
    // A broker that is gone is noticed when it is read.
    let _ = broker.send(&encoded(message)?);
    Ok(0)
}

fn encoded(message: &ToBroker) -> Result<Vec<u8>, Errno> {
    let mut buffer = [0; 2 * MAX_MESSAGE];
    let bytes = wire::encode(message, &mut buffer).map_err(|_| Errno::UnknownErrno)?;
    Ok(bytes.to_vec())
}
