//! Where does a name lead, and may one connect there though nobody named that address?
//!
//! Who says which names a server connects to need not know what these resolve to, and who answers for the names of a
//! network need not be who runs the server. So what only this machine or its cloud should reach is reached by its own
//! address alone: that is asked of what is connected to, after DNS, each time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where clouds tell a machine its credentials, besides 169.254.169.254: Amazon's and Google's over IPv6, Alibaba's.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// The addresses of `host`, to connect to these and not to what the name may mean a moment later.
///
/// # Errors
/// Where there are none, or one of them may be reached only where it is among the hosts that were `named`: as the
/// address that it is, or as `localhost`.
pub async fn resolve((host, port): (&str, u16), named: &[&str]) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    for address in addresses.iter().map(SocketAddr::ip) {
        if let Some(what) = kept_back(address).filter(|_| !named.iter().any(|named| names(named, address))) {
            let cause = format!(
                "`{host}` leads to {address}, {what}, and is not connected to: only a connection that names this very \
                 address leads there"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, cause));
        }
    }
    Ok(addresses)
}

/// Whether `host` says `address` itself.
fn names(host: &str, address: IpAddr) -> bool {
    host.parse() == Ok(address) || host == "localhost" && address.is_loopback()
}

/// Why an address is only for who names it.
fn kept_back(address: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&address) {
        return Some("where a cloud tells secrets");
    }
    let (is_link_local, is_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.is_multicast()),
    };
    // All of 0.0.0.0/8 is this host, and so is `::`.
    let is_unspecified = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    match address {
        _ if address.is_loopback() || is_unspecified => Some("which is this machine itself"),
        _ if is_link_local => Some("a link-local address"),
        _ if is_multicast => Some("a multicast address"),
        IpAddr::V6(v6) => kept_back(within(v6)?.into()),
        IpAddr::V4(_) => None,
    }
}

/// The address of IPv4 that one of IPv6 stands for: mapped, compatible, translated, or behind NAT64.
fn within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let [.., a, b, c, d] = octets;
    let prefixes: [[u8; 12]; 4] = [
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        [0; 12],
        [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0],
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    prefixes.iter().any(|prefix| octets.starts_with(prefix)).then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_machine_should_reach_is_kept_back() {
        for text in [
            "127.0.0.1",
            "127.255.0.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "::ffff:100.100.100.200",
        ] {
            assert!(kept_back(text.parse().expect("an address")).is_some(), "{text}");
        }
        for text in ["10.0.0.1", "192.168.1.1", "100.100.100.201", "169.253.1.1", "8.8.8.8", "fd00:ec2::253"]
        {
            assert_eq!(kept_back(text.parse().expect("an address")), None, "{text}");
        }
        for text in ["fec0::1", "2001:db8::1", "::ffff:10.0.0.1", "64:ff9b::8.8.8.8"] {
            assert_eq!(kept_back(text.parse().expect("an address")), None, "{text}");
        }
    }

    #[tokio::test]
    async fn who_names_an_address_may_reach_it() {
        // A name, to whoever looks at it, that the system resolves to 127.0.0.1.
        let name = "127.1";
        let refused = resolve((name, 1), &[name]).await.expect_err("refused").to_string();
        assert!(refused.contains("`127.1` leads to 127.0.0.1, which is this machine itself"), "{refused}");
        for (host, named) in [("127.0.0.1", "127.0.0.1"), (name, "127.0.0.1"), (name, "localhost")] {
            let found = resolve((host, 1), &["other", named]).await.expect("allowed");
            assert_eq!(found, ["127.0.0.1:1".parse().expect("an address")]);
        }
        for named in ["127.0.0.2", "::ffff:127.0.0.1", "::1"] {
            assert!(resolve(("127.0.0.1", 1), &[named]).await.is_err(), "{named}");
        }
        assert!(resolve(("::ffff:127.0.0.1", 1), &["127.0.0.1"]).await.is_err());
        assert!(resolve(("localhost", 1), &["localhost"]).await.is_ok());
        assert!(resolve(("10.0.0.1", 1), &[]).await.is_ok());
    }
}
