//! The translation of RFC 764 line ends.
//!
//! Every byte is translated for itself, so a file can be cut into chunks at any place.

/// Appends the netascii form of `chunk` to `output`: LF becomes CR LF, CR becomes CR NUL, every
/// other byte stays. A file whose lines already end in CR LF arrives unchanged too: the receiver
/// turns CR NUL CR LF back into CR LF.
//= rfc1350#section-1
//= rfc764#the-nvt-printer-and-keyboard
pub fn encode(chunk: &[u8], output: &mut Vec<u8>) {
    for byte in chunk {
        match byte {
            b'\n' => output.extend_from_slice(b"\r\n"),
            b'\r' => output.extend_from_slice(b"\r\0"),
            other => output.push(*other),
        }
    }
}

/// Bytes that [`encode`] makes of `chunk`, between one and two times its length.
pub fn encoded_len(chunk: &[u8]) -> u64 {
    let doubled = chunk.iter().filter(|byte| matches!(byte, b'\n' | b'\r'));
    // A chunk in memory has less than 2^63 bytes: the sum fits.
    chunk.len() as u64 + doubled.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(chunk: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        encode(chunk, &mut output);
        assert_eq!(output.len() as u64, encoded_len(chunk));
        output
    }

    //= rfc1350#section-1
    #[test]
    fn line_ends_become_cr_lf_and_a_bare_cr_gets_a_nul() {
        assert_eq!(encoded(b"one\ntwo\n"), b"one\r\ntwo\r\n");
        assert_eq!(encoded(b"a\rb"), b"a\r\0b");
        assert_eq!(encoded(b"dos\r\n"), b"dos\r\0\r\n");
        assert_eq!(encoded(b"\r"), b"\r\0");
        assert_eq!(encoded(b""), b"");
    }

    #[test]
    fn other_bytes_stay() {
        let all = (0..=255)
            .filter(|byte| !matches!(byte, b'\r' | b'\n'))
            .collect::<Vec<u8>>();
        assert_eq!(encoded(&all), all);
    }

    #[test]
    fn chunks_may_end_anywhere() {
        let text = b"a\r\nb\r\r\n\nc\r";
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            let mut output = encoded(first);
            encode(second, &mut output);
            assert_eq!(output, encoded(text));
        }
    }
}
