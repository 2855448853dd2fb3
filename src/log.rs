//! How all processes write their log records: one line each, to standard error.
