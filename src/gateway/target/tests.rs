use http::uri::Authority;
use proptest::prelude::*;

use super::is_host;

proptest! {
    /// What is told without the parser is told as the parser does.
    #[test]
    fn a_host_is_what_the_parser_takes_but_for_user_information(text in "[a-zA-Z0-9.:@%_-]{0,12}|[\\[\\]:.a-f0-9]{0,12}") {
        let parsed = text.parse::<Authority>().is_ok_and(|host| !host.as_str().contains('@'));
        prop_assert_eq!(is_host(&text), text.is_empty() || parsed, "{}", text);
    }
}

#[test]
fn names_addresses_and_ports_are_hosts() {
    for text in ["", "example.com", "example.com:8080", "127.0.0.1:80", "[::1]:80", "xn--bcher-kva.example", "a_b"] {
        assert!(is_host(text), "{text}");
    }
    for text in ["a@b", "a/b", "a b", "[::1", "a:b:c"] {
        assert!(!is_host(text), "{text}");
    }
}
