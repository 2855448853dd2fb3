//! The command line of `r-tftpd`.
