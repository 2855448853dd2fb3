//! Networks in CIDR notation, for `--allow-net` and `--deny-net`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::wire::{Decode, Encode};

/// An address prefix, such as `192.0.2.0/24`, `2001:db8::/32` or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` lies in the network. v4-mapped addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = u32::from(network) ^ u32::from(address);
                u32::from(self.prefix) <= differing.leading_zeros()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = u128::from(network) ^ u128::from(address);
                u32::from(self.prefix) <= differing.leading_zeros()
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParseError::Address)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| ParseError::Prefix { longest })?,
            None => longest,
        };
        if prefix > longest {
            return Err(ParseError::Prefix { longest });
        }
        let network = Self { address, prefix };
        let base = network.base();
        if base != address {
            return Err(ParseError::HostBits {
                meant: Self {
                    address: base,
                    prefix,
                },
            });
        }
        Ok(network)
    }
}

impl Network {
    /// The address with all bits behind the prefix cleared.
    fn base(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.prefix))
                    .unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.prefix))
                    .unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The part before the slash is no IP address.
    Address,
    /// The part behind the slash is no prefix length.
    Prefix {
        /// The longest prefix of this address family, in bits.
        longest: u8,
    },
    /// Bits behind the prefix are set: a host, not a network.
    HostBits {
        /// The network that was probably meant.
        meant: Network,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("not an IP address; write for example 192.0.2.0/24"),
            Self::Prefix { longest } => {
                write!(f, "the prefix length must be a number from 0 to {longest}")
            }
            Self::HostBits { meant } => {
                write!(f, "bits behind the prefix are set; did you mean {meant}?")
            }
        }
    }
}

impl std::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn contains(text: &str, address: &str) -> bool {
        network(text).contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        assert!(contains("192.0.2.0/24", "192.0.2.255"));
        assert!(!contains("192.0.2.0/24", "192.0.3.0"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
        assert!(contains("::/0", "fe80::1"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.6"));
    }

    #[test]
    fn a_mapped_address_counts_as_ipv4() {
        assert!(contains("192.0.2.0/24", "::ffff:192.0.2.1"));
        assert!(!contains("::/0", "::ffff:192.0.2.1"));
    }

    #[test]
    fn a_bad_network_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Network>().unwrap_err();
        assert_eq!(error("lan"), ParseError::Address);
        assert_eq!(error("192.0.2.0/33"), ParseError::Prefix { longest: 32 });
        assert_eq!(error("::/129"), ParseError::Prefix { longest: 128 });
        assert_eq!(error("192.0.2.0/"), ParseError::Prefix { longest: 32 });
        let meant = network("192.0.2.0/24");
        assert_eq!(error("192.0.2.7/24"), ParseError::HostBits { meant });
    }
}
