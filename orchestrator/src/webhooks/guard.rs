//! Where messages may go: public addresses, unless the configuration allows others.
//!
//! Whoever may make a webhook must not reach, through this service, what only this service can reach. A name is judged by what
//! it resolves to when the connection is made, so that it cannot change in between. Redirects are not followed and no proxy is
//! used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// See the module. `private`: the configuration allows addresses that are not public, and plain HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    pub private: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} has no public address (webhooks.allow_private allows others)")]
struct NotPublic(String);

impl Guard {
    /// What is wrong with a webhook's URL, as far as it can be told without asking for its name.
    ///
    /// # Errors
    ///
    /// A sentence about it.
    pub fn check(self, text: &str) -> Result<(), &'static str> {
        let Ok(url) = Url::parse(text) else { return Err("must be a URL: https://host/path") };
        match url.scheme() {
            "https" => {}
            "http" if self.private => {}
            _ => return Err("must begin with https:// (http:// needs webhooks.allow_private)"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user or password: messages are signed");
        }
        if url.fragment().is_some() {
            return Err("must not have a fragment");
        }
        let Some(host) = url.host_str() else { return Err("must name a host") };
        let public = match host.trim_matches(['[', ']']).parse() {
            Ok(address) => is_public(address),
            Err(_) => !is_local_name(host),
        };
        if public || self.private { Ok(()) } else { Err("must name a host with a public address") }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (private, name) = (self.private, name.as_str().to_owned());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| private || is_public(address.ip())).collect();
            match allowed.is_empty() {
                true => Err(NotPublic(name).into()),
                false => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether an address is reachable from everywhere, by IANA's registries of special-purpose addresses (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special: [(Ipv4Addr, u32); 13] = [
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 0, 0, 0), 24),
        (Ipv4Addr::new(192, 0, 2, 0), 24),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
        (Ipv4Addr::new(198, 51, 100, 0), 24),
        (Ipv4Addr::new(203, 0, 113, 0), 24),
        // Multicast, reserved, broadcast.
        (Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    !special.iter().any(|(network, bits)| (address.to_bits() ^ network.to_bits()) >> (32 - bits) == 0)
}

/// Of what is allocated for the whole Internet, 2000::/3, but for what lies in it for other uses. Addresses that stand for
/// IPv4 addresses are judged as those.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let words = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match words {
        // NAT64 and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(v4(high, low)),
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Protocols such as Teredo; documentation; segment routing lies outside of 2000::/3.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "4000::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_url_is_checked_before_anything_is_sent() {
        let (guarded, open) = (Guard { private: false }, Guard { private: true });
        for text in ["https://example.com/hook?x=1", "https://1.1.1.1:8443/", "https://[2606:4700::1111]/"] {
            assert_eq!((guarded.check(text), open.check(text)), (Ok(()), Ok(())), "{text}");
        }
        for text in [
            "http://example.com/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://localhost/",
            "https://db.localhost./",
            "https://[::ffff:169.254.169.254]/latest",
        ] {
            assert!(guarded.check(text).is_err(), "{text}");
            assert_eq!(open.check(text), Ok(()), "{text}");
        }
        for text in
            ["", "example.com", "ftp://example.com/", "https://u:p@example.com/", "https://example.com/#x", "data:,x"]
        {
            assert!(guarded.check(text).is_err() && open.check(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let name = || "localhost".parse().unwrap();
        let Err(error) = Guard { private: false }.resolve(name()).await else { panic!("that is this machine") };
        assert!(error.to_string().contains("no public address"), "{error}");
        assert!(Guard { private: true }.resolve(name()).await.is_ok());
    }
}
