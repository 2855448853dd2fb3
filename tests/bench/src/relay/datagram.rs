//! UDP over IPv4 in an Ethernet frame: where the payload is, and what the checksum should be.

use std::ops::Range;

const ETHERNET: usize = 14;
const UDP: usize = 8;

/// The payload of the UDP datagram that a frame carries whole; `None` = it carries something else.
pub fn payload(frame: &[u8]) -> Option<Range<usize>> {
    let [kind @ .., _, _] = frame.get(12..16)? else {
        return None;
    };
    let ip = frame.get(ETHERNET..)?;
    let header = usize::from(ip.first()? & 0xf) * 4;
    let is_fragment = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3fff != 0;
    if kind != [8, 0] || ip.first()? >> 4 != 4 || *ip.get(9)? != 17 || is_fragment {
        return None;
    }
    let start = ETHERNET + header;
    let length = u16::from_be_bytes([*frame.get(start + 4)?, *frame.get(start + 5)?]);
    let range = start + UDP..start + usize::from(length);
    (range.start <= range.end && range.end <= frame.len()).then_some(range)
}

/// Shortens or lengthens the payload and corrects all lengths, and the checksum of IP.
pub fn resize(frame: &mut Vec<u8>, payload: &Range<usize>, length: usize) -> Range<usize> {
    let resized = payload.start..payload.start + length;
    frame.resize(resized.end, 0);
    let udp = payload.start - UDP;
    put(frame, udp + 4, UDP + length);
    put(frame, ETHERNET + 2, resized.end - ETHERNET);
    put(frame, ETHERNET + 10, 0);
    let checksum = !fold(sum(&frame[ETHERNET..udp]));
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
    resized
}

/// Fills in the checksum of the datagram.
//= rfc768#fields
pub fn complete(frame: &mut [u8], payload: &Range<usize>) {
    let udp = payload.start - UDP;
    frame[udp + 6..udp + 8].fill(0);
    let addresses = sum(&frame[ETHERNET + 12..ETHERNET + 20]);
    let length = u64::try_from(payload.end - udp).expect("a frame");
    let checksum = match !fold(addresses + 17 + length + sum(&frame[udp..payload.end])) {
        0 => 0xffff,
        checksum => checksum,
    };
    frame[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
}

fn put(frame: &mut [u8], at: usize, value: usize) {
    let value = u16::try_from(value).expect("a frame");
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            [high] => u64::from(*high) << 8,
            _ => 0,
        })
        .sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.99.0.2:3 to 10.99.0.1:4 with 5 bytes, as tcpdump -x shows it.
    fn frame() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 33, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame.extend([10, 99, 0, 2, 10, 99, 0, 1, 0, 3, 0, 4, 0, 13, 0, 0]);
        frame.extend([0, 4, 0, 1, 9]);
        frame
    }

    #[test]
    fn the_sum_over_a_datagram_with_its_checksum_is_all_ones() {
        let mut frame = frame();
        let range = payload(&frame).unwrap();
        assert_eq!(frame[range.clone()], [0, 4, 0, 1, 9]);
        complete(&mut frame, &range);
        let udp = range.start - UDP;
        let whole = sum(&frame[26..34]) + 17 + 13 + sum(&frame[udp..]);
        assert_eq!(fold(whole), 0xffff);
    }

    #[test]
    fn a_resized_datagram_has_right_lengths_and_a_right_header() {
        for length in [0, 3, 5, 9] {
            let mut frame = frame();
            let range = payload(&frame).unwrap();
            let resized = resize(&mut frame, &range, length);
            assert_eq!(payload(&frame), Some(resized));
            assert_eq!(frame.len(), 14 + 20 + 8 + length);
            assert_eq!(fold(sum(&frame[14..34])), 0xffff);
        }
    }

    #[test]
    fn what_is_no_whole_datagram_has_no_payload() {
        let whole = frame();
        for cut in 0..whole.len() {
            assert_eq!(payload(&whole[..cut]), None, "{cut}");
        }
        let mut fragment = whole.clone();
        fragment[20] = 0x20;
        let mut arp = whole;
        arp[13] = 6;
        assert_eq!((payload(&fragment), payload(&arp)), (None, None));
    }
}
