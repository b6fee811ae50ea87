use super::*;

#[test]
fn only_a_price_of_nothing_is_a_free_passage() {
    assert!(Passage::free(Cents(0)).is_some_and(|passage| passage.hold().is_none()));
    assert!(Passage::free(Cents(1)).is_none());
    assert!(Passage::free(Cents(-1)).is_none());
}
