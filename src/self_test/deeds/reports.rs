//! What the supervisor must not accept from worker or fetcher. A self-test has no supervisor that
//! could be watched: the tests of the sandbox have one.

use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::{Facts, Report};

use super::super::probe::{CHANNEL, CONTROL, Outcome, Probe, REPLACED, calls, deeds, sent};

/// By a worker.
pub const OF_WORKER: &[Probe] = deeds! { Worker:
    REPLACED "control: nothing" |place| send(&place.control, &[]);
    REPLACED "control: a byte" |place| send(&place.control, b"x");
    REPLACED "control: garbage" |place| send(&place.control, &[0xa5; 64]);
    REPLACED "control: too long" |place| send(&place.control, &[1; 65]);
    REPLACED "control: far too long" |place| send(&place.control, &[1; 9000]);
    REPLACED "control: Retired" |place| tell(&place.control, Report::Retired);
    REPLACED "control: Distrust" |place| tell(&place.control, Report::Distrust);
    REPLACED "control: Ready again" |place| tell(&place.control, Report::Ready(Facts::default()));
};

/// By a worker, as calls.
pub const ENDS_OF_WORKER: &[Probe] = calls! {
    REPLACED "control: closed" SYS_close(CONTROL);
};

/// By a fetcher.
pub const OF_FETCHER: &[Probe] = deeds! { Fetcher:
    REPLACED "control: Ready again" |place| tell(&place.control, Report::Ready(Facts::default()));
    REPLACED "control: Retired" |place| tell(&place.control, Report::Retired);
    REPLACED "control: Distrust" |place| tell(&place.control, Report::Distrust);
    REPLACED "control: garbage" |place| send(&place.control, &[0xa5; 64]);
    REPLACED "control: too long" |place| send(&place.control, &[1; 65]);
};

/// By a fetcher, as calls.
pub const ENDS_OF_FETCHER: &[Probe] = calls! {
    REPLACED "channel: shut down" SYS_shutdown(CHANNEL, 2);
    REPLACED "control channel: shut down" SYS_shutdown(CONTROL, 2);
};

fn tell(control: &Channel, report: Report) -> Outcome {
    send(control, &report.to_bytes())
}

fn send(control: &Channel, bytes: &[u8]) -> Outcome {
    sent(control.send(bytes))
}
