//! What a client asks and what it is granted (RFC 2347, 2348, 2349, 7440).

/// The options of a request, each already in the range its RFC allows; `None` = not asked, or
/// asked with a value that is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// RFC 2348: bytes in a block, 8 to 65464.
    pub blksize: Option<u16>,
    /// RFC 2349: seconds before a resend, 1 to 255.
    pub timeout: Option<u8>,
    /// RFC 2349: the client wants to know the size (RRQ), or tells it (WRQ).
    pub tsize: Option<u64>,
    /// RFC 7440: blocks in a window, 1 to 65535.
    pub windowsize: Option<u16>,
}
