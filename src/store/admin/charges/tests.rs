use crate::store::Role;
use crate::store::admin::charges::*;
use crate::store::sample::Sample;

#[tokio::test]
async fn a_charge_is_shown_once_it_is_settled() {
    let sample = Sample::open(Role::Gateway);
    let user = sample.user("a@b.example").await;
    let key = sample.issue(user, "weather").await;
    let ledger = sample.ledger();
    let held = sample.hold(&ledger, &key.key, 2).await;
    let id = held.charge.id();
    assert_eq!(sample.store.charge(id).await.unwrap(), None);
    held.charge.capture(204).await;
    let charge = sample.store.charge(id).await.unwrap().unwrap();
    assert_eq!((charge.user_id, charge.key_id, charge.api_name.as_str()), (user, key.record.id, "weather"));
    assert_eq!((charge.cents, charge.state, charge.status), (Cents(2), ChargeState::Captured, Some(204)));
    assert!(charge.settled_at >= charge.held_at);
    assert_eq!(sample.store.charges(ChargeFilter::default(), PageRequest::default()).await.unwrap().data, [charge]);
    assert_eq!(sample.store.charge(ChargeId(99)).await.unwrap(), None);
}

/// Charges 11 to 16, by turns of two users with a key each; charge `10 + n` was held at `n` seconds. Those that were held
/// later were settled first.
async fn six() -> Sample {
    let sample = Sample::open(Role::Tool);
    for (email, api) in [("a@b.example", "weather"), ("c@d.example", "maps")] {
        let user = sample.user(email).await;
        sample.issue(user, api).await;
        sample.store.route_id(api, "/").await.unwrap();
    }
    for number in 1..=6 {
        let who = 2 - number % 2;
        sample
            .application()
            .execute(
                "INSERT INTO keytoll_charges (position, id, account_id, key_id, route_id, cents, state, held_at, settled_at)
                 VALUES (7 - ?1, 10 + ?1, ?2, ?2, ?2, 2, 1, ?1 * 1000, 7000 - ?1 * 1000)",
                [number, who],
            )
            .unwrap();
    }
    sample
}

fn ids(page: &Page<ChargeRecord>) -> Vec<i64> {
    page.data.iter().map(|charge| charge.id.0).collect()
}

#[tokio::test]
async fn charges_are_listed_last_settled_first_by_every_filter() {
    let sample = six().await;
    let at = |seconds: i64| Some(Timestamp::from_unix_ms(seconds * 1000));
    let none = ChargeFilter::default;
    for (filter, wanted) in [
        (none(), vec![11, 12, 13, 14, 15, 16]),
        (ChargeFilter { user_id: Some(UserId(1)), ..none() }, vec![11, 13, 15]),
        (ChargeFilter { user_id: Some(UserId(9)), ..none() }, vec![]),
        (ChargeFilter { key_id: Some(KeyId(2)), ..none() }, vec![12, 14, 16]),
        (ChargeFilter { api_name: Some("maps".into()), ..none() }, vec![12, 14, 16]),
        (ChargeFilter { from: at(2), to: at(4), ..none() }, vec![12, 13]),
    ] {
        let page = sample.store.charges(filter, PageRequest::default()).await.unwrap();
        assert_eq!((ids(&page), page.next_cursor), (wanted, None));
    }
}

#[tokio::test]
async fn pages_of_charges_follow_each_other_without_gap_or_double() {
    let sample = six().await;
    let filter = ChargeFilter { user_id: Some(UserId(1)), ..ChargeFilter::default() };
    let mut seen = Vec::new();
    let mut wish = PageRequest { limit: 2, cursor: None };
    loop {
        let page = sample.store.charges(filter.clone(), wish).await.unwrap();
        seen.extend(ids(&page));
        wish.cursor = page.next_cursor;
        if wish.cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [11, 13, 15]);
}

#[tokio::test]
async fn a_page_looks_at_a_bounded_number_of_charges() {
    let sample = six().await;
    let filter = ChargeFilter { api_name: Some("weather".into()), ..ChargeFilter::default() };
    let page = sample.store.read(move |connection| list(connection, &filter, PageRequest::default(), 3)).await.unwrap();
    assert_eq!((ids(&page), page.next_cursor), (vec![11, 13], Some(4)));
}

#[tokio::test]
async fn a_later_user_with_the_same_id_does_not_see_the_charges_of_the_first() {
    let sample = six().await;
    sample
        .application()
        .execute_batch("UPDATE keytoll_accounts SET closed_at = 1; INSERT INTO keytoll_accounts (user_id, opened_at) VALUES (1, 2)")
        .unwrap();
    let of = |user| ChargeFilter { user_id: Some(UserId(user)), ..ChargeFilter::default() };
    let list = |filter| sample.store.charges(filter, PageRequest::default());
    assert!(list(of(1)).await.unwrap().data.is_empty());
    // The charges of one who is gone stay to be found.
    assert_eq!(ids(&list(of(2)).await.unwrap()), [12, 14, 16]);
}
