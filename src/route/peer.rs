//! Who asks, and whose word about the original request is believed: nobody's, unless configured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The other end of a connection to an auth listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, from this address.
    Address(IpAddr),
    /// Over a unix socket, whose permissions say who that may be.
    Unix,
}

/// One entry of `trusted_peers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Every peer on a unix socket.
    Unix,
    /// The addresses that agree with this one in so many leading bits.
    Network(IpAddr, u8),
}

impl Trusted {
    /// Whether `peer` is meant. An IPv4 address that came over an IPv6 socket counts as what it is.
    #[must_use]
    pub fn covers(self, peer: Peer) -> bool {
        match (self, peer) {
            (Self::Unix, Peer::Unix) => true,
            (Self::Network(network, length), Peer::Address(address)) => {
                match (network, address.to_canonical()) {
                    (IpAddr::V4(network), IpAddr::V4(address)) => {
                        masked_v4(network, length) == masked_v4(address, length)
                    }
                    (IpAddr::V6(network), IpAddr::V6(address)) => {
                        masked_v6(network, length) == masked_v6(address, length)
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

impl FromStr for Trusted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = "unix, an IP address, or a network such as 10.1.0.0/16 whose other bits are zero; \
                       not all addresses there are";
        let parse = || {
            let (address, length) =
                text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let length = match length {
                Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
                Some(_) => return None,
                None => most,
            };
            let exact = match address {
                IpAddr::V4(address) => masked_v4(address, length) == address,
                IpAddr::V6(address) => {
                    masked_v6(address, length) == address && address.to_ipv4_mapped().is_none()
                }
            };
            ((1..=most).contains(&length) && exact).then_some(Self::Network(address, length))
        };
        if text == "unix" { Ok(Self::Unix) } else { parse().ok_or_else(|| allowed.to_owned()) }
    }
}

fn masked_v4(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length.into())).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn masked_v6(address: Ipv6Addr, length: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length.into())).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(trusted: &str, peer: &str) -> bool {
        let peer = if peer == "unix" { Peer::Unix } else { Peer::Address(peer.parse().unwrap()) };
        trusted.parse::<Trusted>().unwrap().covers(peer)
    }

    #[test]
    fn a_network_covers_its_addresses_and_no_others() {
        for (trusted, peer) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1/32", "::ffff:127.0.0.1"),
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.128.0.0/9", "10.128.0.0"),
            ("128.0.0.0/1", "255.255.255.255"),
            ("::1", "::1"),
            ("fd00::/8", "fdff::1"),
            ("unix", "unix"),
        ] {
            assert!(covers(trusted, peer), "{trusted} {peer}");
        }
        for (trusted, peer) in [
            ("127.0.0.1", "127.0.0.2"),
            ("10.0.0.0/8", "11.0.0.0"),
            ("10.128.0.0/9", "10.127.255.255"),
            ("::1", "127.0.0.1"),
            ("fd00::/8", "fe00::1"),
            ("127.0.0.1", "unix"),
            ("unix", "127.0.0.1"),
        ] {
            assert!(!covers(trusted, peer), "{trusted} {peer}");
        }
    }

    #[test]
    fn everybody_cannot_be_trusted_nor_can_what_is_no_network() {
        for text in [
            "",
            "*",
            "0.0.0.0/0",
            "::/0",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "fd00::1/8",
            "localhost",
            "UNIX",
            "unix:/run/a",
            "::ffff:10.0.0.1",
            "10.0.0.0/999",
        ] {
            assert!(text.parse::<Trusted>().is_err(), "{text}");
        }
    }
}
