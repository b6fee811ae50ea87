use crate::store::Role;
use crate::store::admin::users::*;
use crate::store::sample::Sample;

fn refused<T: std::fmt::Debug>(result: Result<T, WriteError<UserRefused>>) -> UserRefused {
    let WriteError::Refused(refused) = result.unwrap_err() else { panic!("unavailable") };
    refused
}

#[tokio::test]
async fn a_user_is_made_with_a_wallet_and_an_opening_entry() {
    let sample = Sample::open(Role::Tool);
    let user = sample.store.add_user("a@b.example", "Ada", Cents(700)).await.unwrap();
    assert!(user.is_active);
    assert_eq!(sample.store.user(user.id).await.unwrap(), Some(user.clone()));
    assert_eq!(sample.store.user_by_email("a@b.example").await.unwrap(), Some(user.clone()));
    assert_eq!(sample.store.wallet(user.id).await.unwrap().unwrap().balance_cents, Cents(700));
    assert_eq!(sample.books(user.id), 700);
}

#[tokio::test]
async fn an_address_is_given_to_one_user_only_and_a_refusal_leaves_nothing_behind() {
    let sample = Sample::open(Role::Tool);
    let first = sample.user("a@b.example").await;
    let second = sample.user("c@d.example").await;
    assert_eq!(refused(sample.store.add_user("a@b.example", "B", Cents(1)).await), UserRefused::DuplicateEmail);
    assert_eq!(refused(sample.store.add_user("e@f.example", "B", Cents(-1)).await), UserRefused::NegativeBalance);
    let change = UserChange { email: Some("a@b.example".into()), ..UserChange::default() };
    assert_eq!(refused(sample.store.update_user(second, change.clone()).await), UserRefused::DuplicateEmail);
    assert_eq!(refused(sample.store.update_user(UserId(99), change.clone()).await), UserRefused::NotFound);
    sample.store.update_user(first, change).await.unwrap();
    assert_eq!(sample.number("SELECT count(*) FROM wallets"), 2);
}

#[tokio::test]
async fn a_change_touches_what_it_names_and_advances_the_view() {
    let sample = Sample::open(Role::Tool);
    let id = sample.user("a@b.example").await;
    let before = sample.store.generation();
    let change = UserChange { is_active: Some(false), ..UserChange::default() };
    let user = sample.store.update_user(id, change).await.unwrap();
    assert_eq!((user.email.as_str(), user.is_active), ("a@b.example", false));
    assert!(sample.store.generation() > before);
    let change = UserChange { email: Some("new@b.example".into()), name: Some("N".into()), is_active: None };
    let user = sample.store.update_user(id, change).await.unwrap();
    assert_eq!((user.name.as_str(), user.is_active), ("N", false));
    // The wallet stays on the same account when the application replaces it under the new address.
    let account = "SELECT count(*) FROM keytoll_accounts WHERE email = 'new@b.example' AND closed_at IS NULL";
    assert_eq!(sample.number(account), 1);
}

#[tokio::test]
async fn a_new_user_inherits_nothing_of_one_that_the_application_deleted() {
    let sample = Sample::open(Role::Tool);
    let old = sample.user("a@b.example").await;
    let key = sample.issue(old, "weather").await;
    sample.application().execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM users").unwrap();
    let new = sample.store.add_user("c@d.example", "New", Cents(3)).await.unwrap();
    assert_ne!(new.id, old);
    assert_ne!(sample.store.key(key.record.id).await.unwrap().unwrap().user_id, new.id);
    assert_eq!(sample.store.wallet(new.id).await.unwrap().unwrap().balance_cents, Cents(3));
}

#[tokio::test]
async fn rows_that_other_programs_left_are_shown_as_they_count() {
    let sample = Sample::open(Role::Tool);
    let application = sample.application();
    application.execute_batch("INSERT INTO users (id, email, name) VALUES (7, 'n@u.example', x'ff41')").unwrap();
    let user = sample.store.user(UserId(7)).await.unwrap().unwrap();
    assert_eq!((user.is_active, user.name.as_str()), (false, "\u{fffd}A"));
}

#[tokio::test]
async fn pages_end_where_the_list_ends() {
    let sample = Sample::open(Role::Tool);
    for number in 0..4 {
        sample.user(&format!("{number}@b.example")).await;
    }
    let first = sample.store.users(PageRequest { limit: 2, cursor: None }).await.unwrap();
    assert_eq!(first.data.len(), 2);
    let second = sample.store.users(PageRequest { limit: 2, cursor: first.next_cursor }).await.unwrap();
    assert_eq!(second.data.iter().map(|user| user.id.0).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(second.next_cursor, None);
}
