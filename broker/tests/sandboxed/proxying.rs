//! Links, with the sandbox on.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::Order;
use r_tftpd_broker::fetch::{ToFetcher, Validators};
use r_tftpd_broker::wire::{MAX_MESSAGE, ToBroker, ToWorker, decode};

use crate::rig::Rig;
use crate::{BROKER, OPEN_FILES};

pub(crate) fn it_has_links_fetched() {
    for with_cache_directory in [true, false] {
        let rig = Rig::with_proxy(BROKER, OPEN_FILES, Some(with_cache_directory));
        let (ours, brokers) = Channel::pair().unwrap();
        setsockopt(&ours, sockopt::ReceiveTimeout, &TimeVal::seconds(20)).unwrap();
        brokers.set_nonblocking().unwrap();
        let order = Order::Fetcher.to_bytes();
        rig.supervisor
            .send_with(&order, &[brokers.as_fd()])
            .unwrap();
        drop(brokers);
        let mut buffer = [0; MAX_MESSAGE];
        for round in 0..3 {
            let request = rig.ask("127.0.0.1:0").0;
            let (id, path) = (request.id, format!("url/kernel{round}").into_bytes());
            rig.say(&ToBroker::Open { id, path });
            assert!(matches!(rig.hear().0, ToWorker::Link { .. }));
            rig.say(&ToBroker::Fetch {
                id,
                validators: Validators::default(),
                netascii: false,
            });
            let (message, mut files) = rig.hear();
            assert!(matches!(message, ToWorker::Fetching { .. }), "{message:?}");
            let readable = File::from(files.remove(0));
            let fetched = loop {
                let datagram = ours.receive_with(&mut buffer).unwrap();
                match decode::<_, MAX_MESSAGE>(datagram.bytes).unwrap() {
                    ToFetcher::Hello(_) => (),
                    ToFetcher::Fetch(fetch) => break (fetch, datagram.descriptors),
                    other => panic!("{other:?}"),
                }
            };
            let (fetch, mut files) = fetched;
            assert_eq!(fetch.rest, format!("kernel{round}").into_bytes());
            let writable = File::from(files.remove(0));
            writable.write_all_at(b"good", 0).unwrap();
            let mut body = [0; 4];
            readable.read_exact_at(&mut body, 0).unwrap();
            assert_eq!(&body, b"good");
            // Opened anew through /proc, in spite of Landlock.
            assert!(readable.write_all_at(b"x", 0).is_err());
        }
        // What is in the cache directory has no name, and no other file there can be made.
        let cache = rig.directory.join("cache");
        assert_eq!(fs::read_dir(cache).unwrap().count(), 0);
        // The real end of a fetcher.
        drop(ours);
        for _ in 0..3 {
            assert!(matches!(rig.hear().0, ToWorker::Failed { .. }));
        }
    }
}
