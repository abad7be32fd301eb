//! The peer of a connection, and which peers are trusted to describe the original request: none by default.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The other end of a connection to an auth listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, from this address.
    Address(IpAddr),
    /// Over a unix socket, whose permissions decide who can connect.
    Unix,
}

impl Peer {
    /// Whether it is on this machine, by its address.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        match self {
            Self::Address(address) => address.to_canonical().is_loopback(),
            Self::Unix => true,
        }
    }
}

/// One entry of `trusted_peers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Every peer on a unix socket.
    Unix,
    /// The addresses that agree with this one in this many leading bits.
    Network(IpAddr, u8),
}

impl Trusted {
    /// Whether it includes `peer`. An IPv4 address from an IPv6 socket counts as IPv4.
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

/// Addresses that no peer on the internet has. A list that trusts all others trusts everybody.
const NOT_PUBLIC: [Trusted; 8] = [
    Trusted::Network(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8),
    Trusted::Network(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    Trusted::Network(IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
    Trusted::Network(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    Trusted::Network(IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    Trusted::Network(IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    Trusted::Network(IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    Trusted::Network(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 3),
];

/// The addresses of IPv6 that are routed on the internet: `2000::/3` (RFC 4291 §2.4, IANA).
const PUBLIC_V6: (u128, u128) = (0x2000 << 112, (0x4000 << 112) - 1);

/// The version of IP whose public addresses are all trusted by these entries together.
#[must_use]
pub fn everybody(trusted: &[Trusted]) -> Option<&'static str> {
    let all_v4 = (0, u128::from(u32::MAX));
    let v4 = trusted.iter().chain(&NOT_PUBLIC).filter_map(|trusted| trusted.span(true));
    let v6 = trusted.iter().filter_map(|trusted| trusted.span(false));
    if is_covered(all_v4, v4) {
        Some("IPv4")
    } else if is_covered(PUBLIC_V6, v6) {
        Some("IPv6")
    } else {
        None
    }
}

/// Whether these spans cover all numbers from the first to the last.
fn is_covered((first, last): (u128, u128), spans: impl Iterator<Item = (u128, u128)>) -> bool {
    let mut spans: Vec<_> = spans.collect();
    spans.sort_unstable();
    let mut next = first;
    for (from, to) in spans {
        if from > next {
            return false;
        }
        if to >= last {
            return true;
        }
        next = next.max(to + 1);
    }
    false
}

impl Trusted {
    /// The first and the last address, as numbers, if it is a network of this version.
    fn span(self, v4: bool) -> Option<(u128, u128)> {
        match self {
            Self::Network(IpAddr::V4(network), length) if v4 => {
                let rest = u32::MAX.checked_shr(length.into()).unwrap_or(0);
                Some((network.to_bits().into(), (network.to_bits() | rest).into()))
            }
            Self::Network(IpAddr::V6(network), length) if !v4 => {
                let rest = u128::MAX.checked_shr(length.into()).unwrap_or(0);
                Some((network.to_bits(), network.to_bits() | rest))
            }
            _ => None,
        }
    }
}

impl FromStr for Trusted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = "unix, an IP address, or a network such as 10.1.0.0/16 whose other bits are zero; not \
                       all addresses";
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

    fn trusts_everybody(list: &[&str]) -> Option<&'static str> {
        everybody(&list.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn networks_that_are_everybody_together_are_found() {
        for (list, version) in [
            (&["0.0.0.0/1", "128.0.0.0/1"][..], "IPv4"),
            (&["128.0.0.0/1", "unix", "0.0.0.0/1"], "IPv4"),
            (&["128.0.0.0/2", "192.0.0.0/2", "64.0.0.0/2", "10.0.0.0/8", "0.0.0.0/2"], "IPv4"),
            // The remaining addresses are not used on the internet.
            (&["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3"], "IPv4"),
            (&["::/1", "8000::/1"], "IPv6"),
            (&["2000::/3"], "IPv6"),
            (&["::/1"], "IPv6"),
            (&["3000::/4", "10.0.0.0/8", "2000::/4"], "IPv6"),
        ] {
            assert_eq!(trusts_everybody(list), Some(version), "{list:?}");
        }
        for list in [
            &[][..],
            &["unix"],
            &["0.0.0.0/1"],
            &["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/4"],
            &["0.0.0.0/1", "128.0.0.1/32", "192.0.0.0/2", "128.0.0.2/31"],
            &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fd00::/8", "fe80::/10", "::1"],
            &["8000::/1", "::/3"],
            &["3000::/4", "2000::/5"],
        ] {
            assert_eq!(trusts_everybody(list), None, "{list:?}");
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
