//! Host patterns of accounts: what the server can match, and how it writes them down.

use std::net::{IpAddr, Ipv4Addr};

/// A host pattern as the server stores it (lower case), or why it could never let anybody in as it is meant.
pub fn normalised(text: &str) -> Result<String, &'static str> {
    let host = text.to_ascii_lowercase();
    if let Some((address, mask)) = host.split_once('/') {
        return network(address, mask).map(|()| host);
    }
    if host.parse::<IpAddr>().is_ok() {
        return Ok(host);
    }
    if host.contains(':') {
        // `2001:db8::%` is a pattern, a port is none.
        let hexadecimal = host.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '%' | '_'));
        let pattern = hexadecimal && host.matches(':').count() > 1 && host.contains(['%', '_']);
        return if pattern { Ok(host) } else { Err("it is no IPv6 address, and a port has no place here") };
    }
    if !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '%')) {
        return Err("it is no host name, address, network or pattern");
    }
    let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    if numeric {
        return Err("it is no IPv4 address: four numbers up to 255, or a pattern such as 10.1.%");
    }
    if host.starts_with('.') || host.ends_with('.') || host.contains("..") {
        return Err("a part of the host name is empty");
    }
    Ok(host)
}

fn network(address: &str, mask: &str) -> Result<(), &'static str> {
    let Ok(address) = address.parse::<Ipv4Addr>() else {
        return Err("the server takes networks of IPv4 only: for IPv6 use a pattern such as 2001:db8::%");
    };
    let bits = if let Ok(length) = mask.parse::<u32>() {
        // Written as the server reads it: no sign, no zeros in front.
        if length > 32 || mask != length.to_string() {
            return Err("a prefix length is between 0 and 32");
        }
        u32::MAX.checked_shl(32 - length).unwrap_or(0)
    } else {
        let Ok(mask) = mask.parse::<Ipv4Addr>() else {
            return Err("what follows the slash is neither a prefix length nor a netmask");
        };
        let bits = u32::from(mask);
        if bits.leading_ones() + bits.trailing_zeros() < 32 {
            return Err("a netmask is ones followed by zeros");
        }
        bits
    };
    // The server compares (client & mask) with the address as it stands.
    if u32::from(address) & !bits == 0 {
        Ok(())
    } else {
        Err("it never matches: the address has bits outside of the network")
    }
}

#[cfg(test)]
mod tests {
    use super::normalised;

    #[test]
    fn hosts_are_taken_as_the_server_stores_them() {
        for (text, wanted) in [
            ("%", "%"),
            ("LocalHost", "localhost"),
            ("App-1.Example.ORG", "app-1.example.org"),
            ("%.example.org", "%.example.org"),
            ("10.1.%", "10.1.%"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/255.0.0.0", "10.0.0.0/255.0.0.0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1"),
            ("2001:DB8::%", "2001:db8::%"),
            ("_x.example", "_x.example"),
        ] {
            assert_eq!(normalised(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn hosts_that_match_nobody_are_refused() {
        for text in [
            "",
            "10.1.2",
            "10.1.2.300",
            "10.1.2.3/8",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/255.0.255.0",
            "10.0.0.0/",
            "10.%/8",
            "2001:db8::/32",
            "host:3306",
            "a b",
            "a@b",
            "a'b",
            "a..b",
            ".example.org",
            "caf\u{e9}.example",
        ] {
            assert!(normalised(text).is_err(), "{text}");
        }
    }
}
