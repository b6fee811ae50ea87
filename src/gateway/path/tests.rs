use proptest::prelude::*;

use super::*;

const REFUSE: (EncodedSlash, RepeatedSlash) = (EncodedSlash::Refuse, RepeatedSlash::Refuse);
const PASS: (EncodedSlash, RepeatedSlash) = (EncodedSlash::Pass, RepeatedSlash::Pass);

fn checked(path: &str, (encoded, repeated): (EncodedSlash, RepeatedSlash)) -> Result<String, BadPath> {
    let normalized = normalize(path)?;
    normalized.check(encoded, repeated)?;
    Ok(normalized.into_path().into_owned())
}

#[test]
fn every_spelling_of_an_unreserved_octet_is_the_same_path() {
    for (path, normal) in [
        ("/%72eports", "/reports"),
        ("/reports", "/reports"),
        ("/%7Euser/%41%2d%5F", "/~user/A-_"),
        ("/a%2Eb", "/a.b"),
        ("/%2E%2E%2E", "/..."),
        ("/x%61", "/xa"),
    ] {
        assert_eq!(checked(path, REFUSE).as_deref(), Ok(normal), "{path}");
    }
}

#[test]
fn everything_else_stays_byte_for_byte_and_is_not_copied() {
    for path in [
        "/",
        "/a/",
        "/a%20b",
        "/caf%c3%A9",
        "/%252e%252e/",
        "/a;v=1/b",
        "/a/;v=1",
        "/.well-known/x",
        "/..a/a..",
        "/a:b@c!$&'()*+,=",
    ] {
        let normal = normalize(path).unwrap();
        assert_eq!(normal.check(EncodedSlash::Refuse, RepeatedSlash::Refuse), Ok(()), "{path}");
        let normal = normal.into_path();
        assert!(matches!(normal, Cow::Borrowed(_)), "{path}");
        assert_eq!(normal, path);
    }
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_refused() {
    for (path, reason) in [
        ("", BadPath::NotAbsolute),
        ("*", BadPath::NotAbsolute),
        ("a/b", BadPath::NotAbsolute),
        ("%2Fa", BadPath::NotAbsolute),
        ("/%zz", BadPath::InvalidEncoding),
        ("/%+1", BadPath::InvalidEncoding),
        ("/a%", BadPath::InvalidEncoding),
        ("/a%4", BadPath::InvalidEncoding),
        ("/.", BadPath::DotSegment),
        ("/./a", BadPath::DotSegment),
        ("/a/..", BadPath::DotSegment),
        ("/a/../b", BadPath::DotSegment),
        ("/a/%2e%2E/b", BadPath::DotSegment),
        ("/a/.%2e", BadPath::DotSegment),
        ("/a/..;/b", BadPath::DotSegment),
        ("/a/..;x=1/b", BadPath::DotSegment),
        ("/a/.;x", BadPath::DotSegment),
        ("/a/..%3Bx/b", BadPath::DotSegment),
        ("/a/..%2Fb", BadPath::DotSegment),
        ("/a/b%2f../c", BadPath::DotSegment),
        ("/a/b%2f..", BadPath::DotSegment),
        ("//../b", BadPath::DotSegment),
        ("/a%2F%2F..;x", BadPath::DotSegment),
        ("/a\\b", BadPath::Backslash),
        ("/a%5cb", BadPath::Backslash),
        ("/a%00", BadPath::Nul),
        ("/a b", BadPath::ForbiddenByte),
        ("/a\tb", BadPath::ForbiddenByte),
        ("/a\u{7f}", BadPath::ForbiddenByte),
        ("/café", BadPath::ForbiddenByte),
        ("/a?b", BadPath::ForbiddenByte),
        ("/a#b", BadPath::ForbiddenByte),
    ] {
        for settings in [REFUSE, PASS] {
            assert_eq!(checked(path, settings), Err(reason), "{path}");
        }
    }
}

#[test]
fn slashes_pass_only_where_the_api_takes_them() {
    let (encoded, empty, beside) =
        (Err(BadPath::EncodedSlash), Err(BadPath::EmptySegment), Err(BadPath::EncodedSlashBesideSlash));
    let settings =
        [REFUSE, (EncodedSlash::Pass, RepeatedSlash::Refuse), (EncodedSlash::Refuse, RepeatedSlash::Pass), PASS];
    for (path, [refusing, passing_encoded, passing_repeated]) in [
        ("/a%2Fb", [encoded, Ok(()), encoded]),
        ("/a%2fb%2F", [encoded, Ok(()), encoded]),
        ("//", [empty, empty, Ok(())]),
        ("//a", [empty, empty, Ok(())]),
        ("/a//b", [empty, empty, Ok(())]),
        ("/a//", [empty, empty, Ok(())]),
        ("/;x/a", [empty, empty, Ok(())]),
        ("/%3bx/a", [empty, empty, Ok(())]),
        ("/%2F", [encoded, beside, encoded]),
        ("/%2fa", [encoded, beside, encoded]),
        ("/a/%2Fb", [encoded, beside, encoded]),
        ("/a%2F/b", [encoded, beside, encoded]),
        ("/a%2F%2fb", [encoded, beside, encoded]),
        ("/a%2F;x/b", [encoded, beside, encoded]),
        ("/a/;x%2Fb", [encoded, beside, encoded]),
        ("/a%2Fb//c", [encoded, empty, encoded]),
    ] {
        let expected = [refusing, passing_encoded, passing_repeated, Ok(())];
        for (settings, expected) in settings.into_iter().zip(expected) {
            let expected = expected.map(|()| path.to_owned());
            assert_eq!(checked(path, settings), expected, "{path} {settings:?}");
        }
        assert!(normalize(path).unwrap().is_ambiguous(), "{path}");
    }
    assert!(normalize("/a/;x").unwrap().is_ambiguous());
    for path in ["/", "/a/", "/a;x/b", "/a%252Fb", "/a;x"] {
        assert!(!normalize(path).unwrap().is_ambiguous(), "{path}");
    }
}

#[test]
fn a_path_is_read_in_all_orders_in_which_servers_read() {
    for (path, expected) in [
        ("/a%2Fb", vec!["/a%2Fb", "/a/b"]),
        ("/a%252fb", vec!["/a%252fb"]),
        ("/a//b", vec!["/a//b", "/a/b"]),
        ("/a/;x", vec!["/a/;x", "/a/"]),
        ("/%2Fa", vec!["/%2Fa", "//a", "/a", "/"]),
        ("//a/b", vec!["//a/b", "/a/b", "/b"]),
        ("/a%3bx%2Fb", vec!["/a%3bx%2Fb", "/a%3bx/b", "/a", "/a/b"]),
        ("/a/;x%2Fb", vec!["/a/;x%2Fb", "/a/", "/a/;x/b", "/a//b", "/a/b"]),
    ] {
        let mut read = readings(path);
        read.sort();
        let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        expected.sort();
        assert_eq!(read, expected, "{path}");
    }
}

/// What an upstream sees that decodes everything, takes `\` for `/` and takes path parameters off.
fn as_a_lax_upstream_reads(path: &str) -> Vec<Vec<u8>> {
    let (bytes, mut plain, mut at) = (path.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let decoded = (bytes[at] == b'%').then(|| octet(bytes, at).unwrap());
        plain.push(decoded.unwrap_or(bytes[at]));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    let segments = plain.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.map(|segment| segment.split(|byte| *byte == b';').next().unwrap().to_vec()).collect()
}

fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[a-z]{1,3}",
        6 => Just("/".to_owned()),
        3 => Just(".".to_owned()),
        1 => prop::sample::select(vec![";", "\\", "%", "%2", "%2e", "%2E", "%2f", "%5C", "%00", "%3b", "%25", "%61", "%7E", "%20", "é", " ", "?"])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn normal_form_is_final(path in paths()) {
        if let Ok(once) = normalize(&path) {
            let twice = normalize(once.as_str()).unwrap();
            prop_assert!(matches!(twice.path, Cow::Borrowed(_)));
            prop_assert_eq!(&twice, &once);
        }
    }

    #[test]
    fn no_upstream_reads_dots_or_an_empty_segment_into_an_accepted_path(path in paths()) {
        if let Ok(path) = checked(&path, REFUSE) {
            let segments = as_a_lax_upstream_reads(&path);
            let (last, inner) = segments[1..].split_last().unwrap();
            prop_assert!(inner.iter().all(|segment| !segment.is_empty()), "{path}");
            prop_assert!(segments[1..].iter().all(|segment| segment != b"." && segment != b".."), "{path}");
            prop_assert!(!last.contains(&0));
        }
        if let Ok(path) = checked(&path, PASS) {
            prop_assert!(as_a_lax_upstream_reads(&path).iter().all(|segment| segment != b"." && segment != b".."), "{path}");
        }
    }

    /// They are made before a key is looked at, so a client must not be able to ask for many.
    #[test]
    fn a_path_has_few_readings(path in "/(a|b|/|%2F|%2f|;|%3B){0,40}") {
        prop_assert!(readings(&path).len() <= 40, "{} {:?}", path, readings(&path));
    }

    #[test]
    fn any_text_is_answered(path in ".*") {
        let _ = normalize(&path);
    }
}
