use super::*;

fn to_vec<M: Encode>(message: &M) -> Vec<u8> {
    let mut buffer = [0; MAX_MESSAGE];
    encode(message, &mut buffer).unwrap().to_vec()
}

fn to_broker(bytes: &[u8]) -> Result<ToBroker, Error> {
    decode::<_, MAX_MESSAGE>(bytes)
}

#[test]
fn every_message_survives_the_way() {
    let request = Request {
        id: u64::MAX,
        peer: "[fe80::1%7]:1069".parse::<SocketAddr>().unwrap().into(),
        socket: SocketUse::First(u16::MAX),
        local: "192.0.2.1:69".parse::<SocketAddr>().unwrap().into(),
        mtu: 1500,
        replaces: Some(u64::MAX - 1),
        datagram: vec![7; MAX_REQUEST],
    };
    assert_eq!(request.peer.scope, 7);
    for message in [
        ToWorker::Hello(Hello::OURS),
        ToWorker::Request(request),
        ToWorker::File {
            id: 1,
            size: u64::MAX,
            in_memory: true,
        },
        ToWorker::Close { number: u16::MAX },
        ToWorker::Missing { id: 0 },
        ToWorker::Denied {
            id: 2,
            reason: Denial::Loop,
        },
        ToWorker::Scratch { id: 3 },
        ToWorker::Link {
            id: 4,
            link: LinkInfo {
                key: [u64::MAX; 2],
                display: "x".repeat(MAX_DISPLAY),
                cache: true,
                identity: false,
            },
        },
        ToWorker::Fetching {
            id: 5,
            job: 6,
            in_memory: true,
        },
        ToWorker::NotFetched {
            id: 5,
            failure: Failure::Internal,
        },
        ToWorker::Extent { job: 6, len: 1 },
        ToWorker::End { job: 6, len: 2 },
        ToWorker::Failed {
            job: 6,
            failure: Failure::Tls,
            detail: "why".into(),
        },
    ] {
        let bytes = to_vec(&message);
        assert_eq!(decode::<ToWorker, MAX_MESSAGE>(&bytes), Ok(message));
    }
    for message in [
        ToBroker::Hello(Hello::OURS),
        ToBroker::Open {
            id: 9,
            path: vec![b'x'; MAX_PATH],
        },
        ToBroker::Scratch {
            id: 9,
            size: MAX_SCRATCH,
        },
        ToBroker::Proven { id: 9 },
        ToBroker::Fetch {
            id: 9,
            validators: Validators::default(),
            netascii: true,
        },
        ToBroker::Cancel { job: 9 },
        ToBroker::Done {
            id: 9,
            proven: true,
            kept: false,
        },
    ] {
        assert_eq!(to_broker(&to_vec(&message)), Ok(message));
    }
}

#[test]
fn a_message_with_bytes_behind_it_is_refused() {
    let mut bytes = to_vec(&ToBroker::Done {
        id: 1,
        proven: false,
        kept: false,
    });
    bytes.push(0);
    assert_eq!(to_broker(&bytes), Err(Error::Trailing));
}

#[test]
fn every_cut_message_is_refused() {
    let bytes = to_vec(&ToBroker::Open {
        id: 300,
        path: b"pxelinux.0".to_vec(),
    });
    for length in 0..bytes.len() {
        assert_eq!(
            to_broker(&bytes[..length]),
            Err(Error::Malformed),
            "{length} bytes"
        );
    }
}

#[test]
fn a_claimed_length_beyond_the_message_is_refused_before_it_is_allocated() {
    for length in [4097_u64, 1 << 20, 1 << 32, 1 << 40, u64::MAX] {
        let mut bytes = vec![1, 1, 253];
        bytes.extend(length.to_le_bytes());
        assert_eq!(to_broker(&bytes), Err(Error::Malformed), "{length}");
    }
}

#[test]
fn a_message_over_the_limit_is_refused() {
    assert_eq!(to_broker(&[0; MAX_MESSAGE + 1]), Err(Error::TooLong));
    let message = ToBroker::Open {
        id: 1,
        path: vec![0; MAX_MESSAGE],
    };
    assert_eq!(encode(&message, &mut [0; MAX_MESSAGE]), Err(Error::TooLong));
}

#[test]
fn random_bytes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200_000 {
        let mut bytes = [0; 40];
        for byte in &mut bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[3];
        }
        let length = usize::from(bytes[0]) % bytes.len();
        bytes[1] %= 13;
        let _ = to_broker(&bytes[1..=length]);
        let _ = decode::<ToWorker, MAX_MESSAGE>(&bytes[1..=length]);
    }
}

#[test]
fn a_mapped_peer_becomes_ipv4() {
    let endpoint = Endpoint::from("[::ffff:192.0.2.9]:69".parse::<SocketAddr>().unwrap());
    assert_eq!(endpoint.to_string(), "192.0.2.9:69");
}
