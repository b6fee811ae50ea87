use super::*;

#[test]
fn only_a_price_of_nothing_is_a_free_passage() {
    assert!(Passage::free(Cents(0)).is_some_and(|passage| passage.hold().is_none()));
    assert!(Passage::free(Cents(1)).is_none());
    assert!(Passage::free(Cents(-1)).is_none());
}

#[test]
fn what_failed_is_never_charged() {
    let all = ChargeOn::parse(["2xx", "3xx", "4xx", "5xx"]).unwrap();
    assert!(!Outcome::Failed.is_charged(&all));
    assert!(Outcome::Replied(StatusCode::BAD_GATEWAY).is_charged(&all));
    assert!(!Outcome::Replied(StatusCode::BAD_GATEWAY).is_charged(&ChargeOn::default()));
}
