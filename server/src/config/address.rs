//! Addresses, `host:port`, checked as text: names are resolved only when they are used.

use std::net::IpAddr;

/// What an address looks like, for error messages.
const ALLOWED: &str = "an address `host:port` with a port from 1 to 65535";

/// Checks that `text` is `host:port`; answers what an address looks like if it is not.
///
/// The host is a name or an IP address, an IPv6 one in brackets.
pub fn check_address(text: &str) -> Result<String, String> {
    split(text).map_or_else(|| Err(ALLOWED.to_owned()), |_| Ok(text.to_owned()))
}

/// Whether it stands for all addresses of the machine, which nobody can connect to from elsewhere.
pub(super) fn is_wildcard(address: &str) -> bool {
    let host = split(address).map_or("", |(host, _)| host);
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

fn split(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        return inner.parse::<std::net::Ipv6Addr>().ok().map(|_| (inner, port));
    }
    is_host(host).then_some((host, port))
}

fn is_host(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ip_addresses_with_a_port_are_addresses() {
        for good in ["127.0.0.1:7400", "localhost:1", "node-1.example.org:65535", "[::1]:7400"] {
            assert_eq!(check_address(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn what_is_not_host_and_port_is_refused() {
        for bad in [
            "",
            ":",
            "7400",
            "localhost",
            ":7400",
            "a:0",
            "a:65536",
            "a:b",
            "::1:7400",
            "[x]:1",
            "a b:1",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wildcards_are_told_from_real_addresses() {
        assert!(is_wildcard("0.0.0.0:7400"));
        assert!(is_wildcard("[::]:7400"));
        assert!(!is_wildcard("127.0.0.1:7400"));
        assert!(!is_wildcard("localhost:7400"));
    }
}
