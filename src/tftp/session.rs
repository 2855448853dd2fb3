//! One transfer to a client.
