//! What a client does: asks for a file, and takes it.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::stage::{CONTENTS, FILE};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client asks again after this time, as a datagram can get lost.
const AGAIN: Duration = Duration::from_millis(500);

/// Asks for `name`. The answer goes to the socket that is returned.
///
/// # Errors
/// As bind(2), sendto(2).
pub(super) fn begin(listener: &UdpSocket, name: &str) -> io::Result<UdpSocket> {
    let address = listener.local_addr()?;
    let socket = UdpSocket::bind((address.ip(), 0))?;
    // RFC 1350: opcode 1 is a read request, names end with a zero.
    let request = [&[0, 1], name.as_bytes(), b"\0octet\0"].concat();
    socket.send_to(&request, address)?;
    Ok(socket)
}

/// Gets [`FILE`].
///
/// # Errors
/// No answer in time, or another one.
pub(super) fn get(listener: &UdpSocket) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let socket = begin(listener, FILE)?;
        socket.set_read_timeout(Some(AGAIN))?;
        let mut datagram = [0; 1024];
        match socket.recv_from(&mut datagram) {
            Ok((length, server)) => {
                // Opcode 3 is data, 4 an acknowledgement; the block is the first.
                let expected = [&[0, 3, 0, 1], CONTENTS].concat();
                if datagram.get(..length) != Some(&expected) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                socket.send_to(&[0, 4, 0, 1], server)?;
                return Ok(());
            }
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => (),
        }
    }
}
