#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| r_tftpd_fuzz::targets::freshness::run(data));
