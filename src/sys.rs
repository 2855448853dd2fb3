//! System calls without a safe signature: the only unsafe code of this package.
#![allow(unsafe_code)]
