use proptest::prelude::*;

use super::*;
use crate::http::write_hex;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

#[test]
fn a_clients_request_id_is_kept_when_it_is_harmless() {
    let long = "x".repeat(129);
    for (lines, kept) in [
        (vec![("x-request-id", "aZ0._-")], true),
        (vec![("x-request-id", &long[..128])], true),
        (vec![("x-request-id", &*long)], false),
        (vec![("x-request-id", "")], false),
        (vec![("x-request-id", "a b")], false),
        (vec![("x-request-id", "a\"")], false),
        (vec![("x-request-id", "a"), ("x-request-id", "a")], false),
        (vec![], false),
    ] {
        let id = RequestId::of(&headers(&lines));
        let made = id.as_str().len() == 32 && id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit());
        assert_eq!((lines.first().is_some_and(|line| line.1 == id.as_str()), made), (kept, !kept), "{lines:?}");
    }
    assert_ne!(RequestId::of(&HeaderMap::new()), RequestId::of(&HeaderMap::new()));
}

#[test]
fn a_valid_trace_is_continued_and_any_other_started_anew() {
    let state = ("tracestate", "a=1");
    let map = sent(&[("traceparent", PARENT), state]);
    assert_eq!((values(&map, "traceparent"), values(&map, "tracestate")), (vec![PARENT], vec!["a=1"]));

    for bad in [
        "",
        &PARENT[1..],
        &PARENT.replace("00-4", "01-4"),
        &PARENT.to_uppercase(),
        &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
        &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
        &format!("{PARENT}-x"),
    ] {
        let map = sent(&[("traceparent", bad), state]);
        let [started] = values(&map, "traceparent")[..] else { panic!("one line") };
        assert_ne!(started, bad);
        assert_eq!((started.len(), &started[..3], &started[52..]), (55, "00-", "-01"));
        assert!(!map.contains_key("tracestate"), "{bad}");
    }
    let twice = sent(&[("traceparent", PARENT), ("traceparent", PARENT)]);
    assert_eq!(values(&twice, "traceparent").len(), 1);
}

#[test]
fn a_started_trace_bears_the_generated_request_id() {
    let id = RequestId::of(&HeaderMap::new());
    let mut map = HeaderMap::new();
    trace::continue_or_start(&mut map, &id);
    assert_eq!(values(&map, "traceparent")[0][3..35], *id.as_str());
}

proptest! {
    #[test]
    fn hex_digits_are_those_of_fmt(number: u128) {
        let mut digits = [0; 32];
        write_hex(number, &mut digits);
        prop_assert_eq!(std::str::from_utf8(&digits).unwrap(), format!("{number:032x}"));
        let mut few = [0; 16];
        write_hex(number, &mut few);
        prop_assert_eq!(std::str::from_utf8(&few).unwrap(), &format!("{number:032x}")[16..]);
    }
}
