//! The netascii form of a file, made once into a memory file of the broker.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::sys::{Wait, read_pieces};
use crate::tftp::netascii::{encode, encoded_len};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Bytes of the netascii form of the first `size` bytes of a file; may wait for a disk.
///
/// # Errors
/// As preadv2(2), and if the file is shorter than `size`.
pub(crate) fn measure(file: &OwnedFd, size: u64) -> io::Result<u64> {
    let mut length = 0;
    for_each_chunk(file, size, |chunk| {
        length += encoded_len(chunk);
        Ok(())
    })?;
    Ok(length)
}

/// Writes the netascii form, `length` bytes long, to `scratch`; may wait for a disk.
///
/// # Errors
/// As preadv2(2) and write(2), and if the file has changed since it was measured.
pub(crate) fn translate(
    file: &Arc<OwnedFd>,
    size: u64,
    scratch: OwnedFd,
    length: u64,
) -> io::Result<OwnedFd> {
    let mut scratch = File::from(scratch);
    let mut output = Vec::with_capacity(2 * CHUNK);
    let mut left = length;
    for_each_chunk(file, size, |chunk| {
        output.clear();
        encode(chunk, &mut output);
        left = left
            .checked_sub(output.len() as u64)
            .ok_or(io::ErrorKind::InvalidData)?;
        scratch.write_all(&output)
    })?;
    if left == 0 {
        Ok(scratch.into())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn for_each_chunk(
    file: &OwnedFd,
    size: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < size {
        let wanted = usize::try_from(size - offset).map_or(CHUNK, |left| left.min(CHUNK));
        let wanted = buffer.get_mut(..wanted).unwrap_or_default();
        let pieces = std::iter::once(wanted);
        let read = read_pieces(file.as_fd(), offset, pieces, Wait::Yes)?;
        match buffer.get(..read) {
            Some(chunk) if read > 0 => take(chunk)?,
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        offset += read as u64;
    }
    Ok(())
}
