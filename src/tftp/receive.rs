//! One transfer from a client, whose data is discarded.
