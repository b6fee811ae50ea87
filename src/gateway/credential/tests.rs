use http::HeaderValue;

use super::*;
use crate::model::IssuedKey;

const KEY_BYTES: usize = 40;

fn sources() -> Vec<CredentialSource> {
    vec![
        CredentialSource::Header(HeaderName::from_static("x-api-key")),
        CredentialSource::AuthorizationBearer,
        CredentialSource::Query("key".into()),
    ]
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

/// The key, the other candidates, the names of the headers left and the query to forward.
type Outcome = (String, Vec<String>, Vec<String>, Option<String>);

fn taken(lines: &[(&str, &str)], query: Option<&str>) -> Result<Outcome, Refusal> {
    let mut map = headers(lines);
    let taken = take(&mut map, query, &sources(), KEY_BYTES)?;
    let others = taken.others.iter().map(|other| other.expose().to_owned()).collect();
    let left = map.keys().map(ToString::to_string).collect();
    Ok((taken.key.expose().to_owned(), others, left, taken.query.map(Cow::into_owned)))
}

fn outcome(key: &str, others: &[&str], left: &[&str], query: Option<&str>) -> Result<Outcome, Refusal> {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Ok((key.to_owned(), owned(others), owned(left), query.map(str::to_owned)))
}

#[test]
fn the_first_source_that_is_present_wins_and_is_removed() {
    let authorization = ("authorization", "Bearer b");
    for (lines, query, expected) in [
        (vec![("x-api-key", " a\t")], None, outcome("a", &[], &[], None)),
        (vec![authorization], Some("q=1"), outcome("b", &[], &[], Some("q=1"))),
        (vec![("authorization", "bEARER   b ")], None, outcome("b", &[], &[], None)),
        (vec![("accept", "x")], Some("key=c"), outcome("c", &[], &["accept"], None)),
        (
            vec![("x-api-key", "a"), authorization],
            Some("key=c&q=1"),
            outcome("a", &["b", "c"], &["authorization"], Some("key=c&q=1")),
        ),
        (vec![("authorization", "Basic Zm9v")], Some("key=c"), outcome("c", &[], &["authorization"], None)),
        (vec![("authorization", "Bearerb")], Some("key=c"), outcome("c", &[], &["authorization"], None)),
    ] {
        assert_eq!(taken(&lines, query), expected, "{lines:?} {query:?}");
    }
}

#[test]
fn the_same_value_is_removed_from_every_source() {
    let lines = [("x-api-key", "a"), ("authorization", "Bearer a"), ("accept", "x")];
    assert_eq!(taken(&lines, Some("p=1&key=%61&r=2")), outcome("a", &[], &["accept"], Some("p=1&r=2")));
}

#[test]
fn what_cannot_be_a_key_in_another_source_is_left_alone() {
    let long = "x".repeat(KEY_BYTES + 1);
    for other in ["", "a b", "sha256:00", &long, "é"] {
        let bearer = format!("Bearer {other}");
        let lines = [("x-api-key", "a"), ("authorization", &bearer)];
        assert_eq!(taken(&lines, None), outcome("a", &[], &["authorization"], None), "{other}");
    }
}

#[test]
fn one_source_given_twice_is_ambiguous_wherever_it_stands() {
    for (lines, query) in [
        (vec![("x-api-key", "a"), ("x-api-key", "a")], None),
        (vec![("x-api-key", "a"), ("authorization", "Basic x"), ("authorization", "Bearer b")], None),
        (vec![], Some("key=a&key=a")),
        (vec![("x-api-key", "a")], Some("key=a&x=1&%6bey=b")),
    ] {
        assert_eq!(taken(&lines, query), Err(Refusal::Ambiguous), "{lines:?} {query:?}");
    }
}

#[test]
fn a_malformed_first_source_is_not_made_good_by_the_next_one() {
    let long = "x".repeat(KEY_BYTES + 1);
    for (value, reason) in [
        ("", Malformed::Empty),
        (" ", Malformed::Empty),
        ("a b", Malformed::NotVisibleAscii),
        ("é", Malformed::NotVisibleAscii),
        ("sha256:00", Malformed::Digest),
        ("SHA256:00", Malformed::Digest),
        (&long, Malformed::TooLong),
    ] {
        let lines = [("x-api-key", value), ("authorization", "Bearer good")];
        assert_eq!(taken(&lines, None), Err(Refusal::Malformed(reason)), "{value}");
    }
    assert_eq!(taken(&[("authorization", "Bearer")], None), Err(Refusal::Malformed(Malformed::Empty)));
    assert_eq!(taken(&[], Some("key")), Err(Refusal::Malformed(Malformed::Empty)));
    assert_eq!(taken(&[], Some("key=a+b")), Err(Refusal::Malformed(Malformed::NotVisibleAscii)));
    assert!(taken(&[("x-api-key", &long[..KEY_BYTES])], None).is_ok());
}

#[test]
fn a_request_without_any_source_has_no_key() {
    for query in [None, Some(""), Some("Key=a&keys=b&=key")] {
        assert_eq!(taken(&[("accept", "x")], query), Err(Refusal::Missing), "{query:?}");
    }
}

#[test]
fn taking_a_parameter_out_leaves_every_other_byte() {
    for (query, key, rest) in [
        ("key=a", "a", None),
        ("key=a&b=%zz", "a", Some("b=%zz")),
        ("b=+&key=a", "a", Some("b=+")),
        ("b=%20&key=%61%2B&&c", "a+", Some("b=%20&&c")),
        ("k%65y=a=b&c", "a=b", Some("c")),
        ("&key=a", "a", Some("")),
    ] {
        assert_eq!(taken(&[], Some(query)), outcome(key, &[], &[], rest), "{query}");
    }
}

#[test]
fn an_unchanged_query_is_not_copied() {
    let taken = take(&mut headers(&[("x-api-key", "a")]), Some("b=1"), &sources(), KEY_BYTES).unwrap();
    assert!(matches!(taken.query, Some(Cow::Borrowed("b=1"))));
    assert_eq!(taken.others.capacity(), 0);
}

#[test]
fn an_issued_key_does_not_reach_the_upstream_of_a_public_route() {
    let prefix = KeyPrefix::new("kt").unwrap();
    let key = IssuedKey::generate(&prefix).unwrap().key.expose().to_owned();
    let bearer = format!("bearer {key}");
    let query = format!("a=1&key={key}&key=own");
    let mut map = headers(&[("x-api-key", "own"), ("x-api-key", &key), ("authorization", &bearer)]);
    assert_eq!(strip(&mut map, Some(&query), &sources(), &prefix).as_deref(), Some("a=1"));
    assert!(map.is_empty());

    let mut map = headers(&[("x-api-key", "own"), ("authorization", "Bearer eyJ.x.y")]);
    assert_eq!(strip(&mut map, Some("key=own"), &sources(), &prefix).as_deref(), None);
    assert_eq!(map.keys().collect::<Vec<_>>(), ["authorization"]);
}

#[test]
fn developers_are_told_where_keys_go() {
    assert_eq!(
        describe(&sources()),
        "in the header \"x-api-key\" or as \"Authorization: Bearer KEY\" or in the query parameter \"key\""
    );
}
