//! The netascii form of any file, cut anywhere, is what a receiver turns back into the file.

use crate::input::Input;
use crate::tftp::netascii::{encode, encoded_len};

/// Encodes the bytes in two chunks and decodes them as a client would.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let cut = input.below(256);
    let file = input.rest();
    let (first, second) = file.split_at(cut.min(file.len()));
    let mut form = Vec::new();
    encode(first, &mut form);
    assert_eq!(
        form.len() as u64,
        encoded_len(first),
        "length of the first chunk"
    );
    encode(second, &mut form);
    assert_eq!(
        form.len() as u64,
        encoded_len(first) + encoded_len(second),
        "length of all"
    );
    assert_eq!(form.len() as u64, encoded_len(file), "length of the file");
    assert_eq!(decode(&form), file, "the file that a client gets");
}

/// As RFC 764 has it: CR LF is the end of a line, CR NUL is CR, and nothing else follows a CR.
fn decode(form: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut bytes = form.iter();
    while let Some(byte) = bytes.next() {
        file.push(match byte {
            b'\r' => match bytes.next() {
                Some(b'\n') => b'\n',
                Some(0) => b'\r',
                other => panic!("CR and {other:?}"),
            },
            b'\n' => panic!("a bare LF"),
            other => *other,
        });
    }
    file
}
