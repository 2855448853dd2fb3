//! The translation of RFC 764 line ends.
