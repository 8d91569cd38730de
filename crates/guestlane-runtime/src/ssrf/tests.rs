//! Tests of `ssrf`.

use url::{Host, Url};

use super::*;

/// Hosts as an attacker would write them in a URL, each with its kind. The URL standard accepts
/// many spellings of one address.
const HOSTILE: &[(&str, &[&str])] = &[
    (
        "this machine (RFC 1122)",
        &[
            "127.0.0.1",
            "127.0.0.2",
            "127.1",
            "127.0.1",
            "127.255.255.254",
            "127.8.8.8",
        ],
    ),
    (
        "this machine, otherwise written",
        &[
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0x7F.0x0.0x0.0x1",
            "0177.0.0.1",
            "017700000001",
            "0x7f.0.0.01",
            "127.0.0.1.",
            "127.0.0x1",
            "%31%32%37.0.0.1",
            "①②⑦.⓪.⓪.①",
            "１２７.0.0.1",
        ],
    ),
    (
        "this network (RFC 1122)",
        &[
            "0.0.0.0",
            "0",
            "0x0",
            "00000000",
            "0.1.2.3",
            "0.255.255.255",
        ],
    ),
    (
        "private (RFC 1918)",
        &[
            "10.0.0.0",
            "10.0.0.1",
            "10.255.255.255",
            "167772161",
            "0x0a000001",
            "012.0.0.1",
            "172.16.0.1",
            "172.20.10.5",
            "172.31.255.255",
            "2886729729",
            "0xac100001",
            "192.168.0.1",
            "192.168.1.1",
            "192.168.255.255",
            "3232235521",
            "0xc0a80001",
            "0300.0250.0.1",
            "192.168.1",
        ],
    ),
    (
        "shared by carriers (RFC 6598)",
        &["100.64.0.1", "100.100.100.200", "100.127.255.255"],
    ),
    (
        "link-local, and the clouds' metadata (RFC 3927)",
        &[
            "169.254.169.254",
            "169.254.170.2",
            "169.254.0.1",
            "169.254.255.255",
            "2852039166",
            "0xa9fea9fe",
            "0xA9.0xFE.0xA9.0xFE",
            "0251.0376.0251.0376",
            "169.254.43518",
        ],
    ),
    (
        "the IETF's (RFC 6890)",
        &["192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.0.192"],
    ),
    (
        "documentation (RFC 5737)",
        &["192.0.2.1", "198.51.100.1", "203.0.113.1", "203.0.113.255"],
    ),
    ("benchmarks (RFC 2544)", &["198.18.0.1", "198.19.255.255"]),
    ("6to4 relays (RFC 7526)", &["192.88.99.1"]),
    (
        "multicast, reserved, broadcast",
        &[
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "254.1.1.1",
            "255.255.255.255",
            "4294967295",
        ],
    ),
    (
        "unspecified and this machine, IPv6 (RFC 4291)",
        &["[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]"],
    ),
    (
        "IPv4 in IPv6, mapped (RFC 4291)",
        &[
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::FFFF:10.0.0.1]",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[0:0:0:0:0:ffff:c0a8:0101]",
            "[::ffff:0.0.0.0]",
        ],
    ),
    (
        "IPv4 in IPv6, compatible (RFC 4291)",
        &[
            "[::127.0.0.1]",
            "[::10.0.0.1]",
            "[::a9fe:a9fe]",
            "[::192.168.1.1]",
        ],
    ),
    (
        "IPv4 in IPv6, translated (RFC 2765)",
        &["[::ffff:0:7f00:1]", "[::ffff:0:a9fe:a9fe]"],
    ),
    (
        "IPv4 in IPv6, by NAT64 (RFC 6052, RFC 8215)",
        &[
            "[64:ff9b::7f00:1]",
            "[64:ff9b::10.0.0.1]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::a00:1]",
            "[64:ff9b:1:2:3:4:7f00:1]",
            "[64:ff9b:1:a9fe:a9:fe00:808:808]",
            "[64:ff9b:1::808:808]",
        ],
    ),
    (
        "IPv4 in IPv6, by 6to4 (RFC 3056)",
        &[
            "[2002:7f00:1::]",
            "[2002:a00:1::1]",
            "[2002:a9fe:a9fe::]",
            "[2002:c0a8:101::1]",
        ],
    ),
    (
        "IPv4 in IPv6, by Teredo and other IETF protocols (RFC 4380, RFC 2928)",
        &[
            "[2001::1]",
            "[2001:0:7f00:1::]",
            "[2001:10::1]",
            "[2001:1ff::1]",
        ],
    ),
    ("discard only (RFC 6666)", &["[100::1]", "[100::]"]),
    (
        "documentation, IPv6 (RFC 3849, RFC 9637)",
        &[
            "[2001:db8::1]",
            "[2001:db8:ffff::1]",
            "[3fff::1]",
            "[3fff:fff::1]",
        ],
    ),
    (
        "unique local (RFC 4193)",
        &[
            "[fc00::1]",
            "[fd00::1]",
            "[fd12:3456:789a::1]",
            "[fd00:ec2::254]",
            "[fdff:ffff::1]",
        ],
    ),
    (
        "link-local and site-local (RFC 4291, RFC 3879)",
        &[
            "[fe80::1]",
            "[febf::1]",
            "[fe80::a9fe:a9fe]",
            "[fec0::1]",
            "[feff::1]",
        ],
    ),
    (
        "multicast, IPv6",
        &["[ff01::1]", "[ff02::1]", "[ff05::2]", "[ff0e::1]"],
    ),
    (
        "not allotted (RFC 4291)",
        &[
            "[1::1]",
            "[1000::1]",
            "[4000::1]",
            "[8000::1]",
            "[5f00::1]",
            "[ffff::1]",
        ],
    ),
];

fn resolver(policy: EgressPolicy) -> SsrfGuardResolver {
    SsrfGuardResolver {
        policy,
        refusal: "the address is private",
    }
}

fn address(host: &str) -> IpAddr {
    let url = Url::parse(&format!("https://{host}/hook")).unwrap();
    match url.host().unwrap() {
        Host::Ipv4(address) => address.into(),
        Host::Ipv6(address) => address.into(),
        Host::Domain(name) => panic!("{host} is taken for the name {name}"),
    }
}

#[test]
fn private_and_special_addresses_are_not_public_in_any_notation() {
    let hosts: Vec<_> = HOSTILE
        .iter()
        .flat_map(|(what, hosts)| hosts.iter().map(move |host| (*what, *host)))
        .collect();
    assert!(hosts.len() >= 100, "{}", hosts.len());
    for (what, host) in hosts {
        assert!(!is_public(address(host)), "{host}: {what}");
        assert!(
            !EgressPolicy::Public.allow(address(host)) && EgressPolicy::Any.allow(address(host))
        );
    }
}

#[test]
fn globally_routable_addresses_are_public() {
    for host in [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.0.1",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "11.0.0.1",
        "126.0.0.1",
        "128.0.0.1",
        "[2606:4700::1111]",
        "[2a00::1]",
        "[2001:200::1]",
        "[2001:4860:4860::8888]",
        "[64:ff9b::808:808]",
        "[2002:808:808::1]",
    ] {
        assert!(is_public(address(host)), "{host}");
    }
}

#[tokio::test]
async fn localhost_names_are_refused_by_the_public_egress_policy() {
    for name in [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "crm.localhost",
        "CRM.localhost.",
    ] {
        let resolved = resolver(EgressPolicy::Public)
            .call(name.parse().unwrap())
            .await;
        assert_eq!(
            resolved.map(|_| ()).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied,
            "{name}"
        );
        // Deliveries to such a name may use plain http, so it must never be an address of
        // another host.
        let here = resolver(EgressPolicy::Any)
            .call(name.parse().unwrap())
            .await
            .unwrap();
        assert!(
            here.into_iter().all(|address| address.ip().is_loopback()),
            "{name}"
        );
    }
}
