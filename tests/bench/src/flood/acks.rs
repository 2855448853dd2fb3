//! ACKs without end, for transfers that are the sender's own.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use r_tftpd_bench::chance::Chance;

use crate::forged::Forger;
use crate::options::Options;

/// How long the server may take for its first packet.
const PATIENCE: Duration = Duration::from_secs(10);

/// ACKs sent in one go.
const TOGETHER: usize = 32;

/// Bytes of Ethernet, IPv4 and UDP before the payload.
const HEADERS: u64 = 14 + 20 + 8;

/// A transfer that was begun.
struct Transfer {
    socket: UdpSocket,
    tid: SocketAddrV4,
}

/// Begins the transfers, sends ACKs until the time is over, and counts what comes back.
pub fn storm(options: &Options) -> String {
    let mut transfers: Vec<_> = (0..options.sources).map(|_| begin(options)).collect();
    let mut begun = transfers.len();
    let mut chance = Chance::new(options.seed);
    let mut forger = Forger::new(options.server);
    let (mut acks, mut strangers, mut received, mut bytes) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut buffer = [0; 2048];
    let start = Instant::now();
    while start.elapsed() < options.limit {
        for transfer in &mut transfers {
            for _ in 0..TOGETHER {
                // Of the first block, which is a duplicate or reports a gap, or of any.
                let block = match chance.draw() {
                    odd if odd % 2 == 1 => [0, 0],
                    any => any.to_le_bytes()[2..4].try_into().expect("two bytes"),
                };
                let ack = [0, 4, block[0], block[1]];
                if transfer.socket.send(&ack).is_ok() {
                    acks += 1;
                } else {
                    // Refused: the server has closed the port.
                    *transfer = begin(options);
                    begun += 1;
                }
                let stranger = u32::try_from(chance.draw() % 1000).expect("a small number");
                let stranger = u32::from(options.first) + stranger;
                forger.send_to(transfer.tid, stranger.into(), options.port, &ack);
                strangers += 1;
            }
            while let Ok(length) = transfer.socket.recv(&mut buffer) {
                received += 1;
                bytes += HEADERS + u64::try_from(length).expect("64 bits");
            }
        }
    }
    let sent = acks * (HEADERS + 4).max(60);
    format!(
        "{{\"transfers\":{begun},\"acks\":{acks},\"strangers\":{strangers},\"bytes\":{sent},\"received\":{received},\
         \"received_bytes\":{bytes},\"seconds\":{:.6}}}",
        start.elapsed().as_secs_f64()
    )
}

/// Asks for the file, waits for the OACK and takes note of the server's port.
fn begin(options: &Options) -> Transfer {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("SO_RCVTIMEO");
    let request = [
        b"\0\x01",
        options.name.as_bytes(),
        b"\0octet\0blksize\x001428\0windowsize\x0016\0",
    ];
    socket
        .send_to(&request.concat(), options.server)
        .expect("sendto");
    let (_, tid) = socket.recv_from(&mut [0; 2048]).expect("an OACK");
    let SocketAddr::V4(tid) = tid else {
        unreachable!("the socket is of IPv4")
    };
    socket.connect(tid).expect("connect");
    socket.send(&[0, 4, 0, 0]).expect("the ACK of the OACK");
    socket.set_nonblocking(true).expect("O_NONBLOCK");
    Transfer { socket, tid }
}
