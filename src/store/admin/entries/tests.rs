use crate::store::Role;
use crate::store::admin::entries::*;
use crate::store::sample::Sample;

fn refused<T: std::fmt::Debug>(result: Result<T, WriteError<WalletRefused>>) -> WalletRefused {
    let WriteError::Refused(refused) = result.unwrap_err() else { panic!("unavailable") };
    refused
}

#[tokio::test]
async fn credits_and_debits_are_on_the_books() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    let credit = sample.store.credit(user, Cents(1000), Some("paid".into())).await.unwrap();
    assert_eq!((credit.balance, credit.entry.amount_cents), (Cents(1500), Cents(1000)));
    let debit = sample.store.debit(user, Cents(1500), None).await.unwrap();
    assert_eq!((debit.balance, debit.entry.amount_cents), (Cents(0), Cents(1500)));
    assert_eq!(sample.store.wallet(user).await.unwrap().unwrap().balance_cents, Cents(0));
    assert_eq!(sample.books(user), 0);
    let entries = sample.store.entries(user, PageRequest::default()).await.unwrap().unwrap().data;
    let shown: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.amount_cents.0)).collect();
    assert_eq!(shown, [(EntryKind::Opening, 500), (EntryKind::Credit, 1000), (EntryKind::Debit, 1500)]);
    assert_eq!(sample.store.entry(user, credit.entry.id).await.unwrap(), Some(credit.entry));
}

#[tokio::test]
async fn no_debit_goes_below_zero_and_no_credit_wraps() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    let overdrawn = sample.store.debit(user, Cents(501), None).await;
    assert_eq!(refused(overdrawn), WalletRefused::Overdrawn { balance: Cents(500) });
    assert_eq!(refused(sample.store.credit(user, Cents(i64::MAX), None).await), WalletRefused::Overflow);
    for amount in [0, -1, i64::MIN] {
        assert_eq!(refused(sample.store.debit(user, Cents(amount), None).await), WalletRefused::NotPositive);
    }
    assert_eq!(refused(sample.store.credit(UserId(99), Cents(1), None).await), WalletRefused::NoUser);
    assert_eq!(sample.books(user), 500);
}

#[tokio::test]
async fn a_credit_to_a_missing_wallet_makes_it_with_exactly_that_amount() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    sample.application().execute_batch("DELETE FROM wallets").unwrap();
    assert_eq!(sample.store.wallet(user).await.unwrap().unwrap().balance_cents, Cents(0));
    let overdrawn = sample.store.debit(user, Cents(1), None).await;
    assert_eq!(refused(overdrawn), WalletRefused::Overdrawn { balance: Cents(0) });
    assert_eq!(sample.store.credit(user, Cents(30), None).await.unwrap().balance, Cents(30));
    assert_eq!((sample.number("SELECT balance FROM wallets"), sample.books(user)), (30, 30));
}

#[tokio::test]
async fn what_is_no_money_is_neither_counted_nor_written_over() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    for odd in ["NULL", "'abc'", "1.5"] {
        sample.application().execute_batch(&format!("UPDATE wallets SET balance = {odd}")).unwrap();
        assert_eq!(sample.store.wallet(user).await.unwrap().unwrap().balance_cents, Cents(0));
        assert_eq!(refused(sample.store.credit(user, Cents(1), None).await), WalletRefused::NotMoney);
    }
    assert_eq!(sample.books(user), 0);
}

#[tokio::test]
async fn a_wallet_that_the_writer_remembers_is_read_again_after_a_credit() {
    let sample = Sample::open(Role::Gateway);
    let user = sample.user("a@b.example").await;
    let key = sample.issue(user, "weather").await;
    let ledger = sample.ledger();
    let first = sample.hold(&ledger, &key.key, 100).await;
    sample.store.credit(user, Cents(50), None).await.unwrap();
    let second = sample.hold(&ledger, &key.key, 100).await;
    assert_eq!(second.balance, Cents(350));
    first.charge.release(Some(500)).await;
    second.charge.capture(200).await;
    assert_eq!((sample.number("SELECT balance FROM wallets"), sample.books(user)), (450, 450));
}

#[tokio::test]
async fn what_another_program_changed_is_shown_with_its_sign() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    sample.application().execute_batch("UPDATE wallets SET balance = balance - 20").unwrap();
    sample.store.credit(user, Cents(1), None).await.unwrap();
    let page = sample.store.entries(user, PageRequest { limit: 1, cursor: Some(1) }).await.unwrap().unwrap();
    assert_eq!((page.data[0].kind, page.data[0].amount_cents), (EntryKind::External, Cents(-20)));
    assert_eq!(page.next_cursor, Some(2));
    assert_eq!(sample.store.entries(UserId(9), PageRequest::default()).await.unwrap(), None);
}

fn booking(direction: Direction, amount: i64, note: Option<&str>, key: &str) -> Booking {
    let (note, key) = (note.map(str::to_owned), IdempotencyKey::parse(key.as_bytes()));
    Booking { direction, amount: Cents(amount), note, actor: Some("ada".into()), key }
}

#[tokio::test]
async fn a_booking_is_made_once_under_its_key_as_long_as_its_entry_is_there() {
    let mut sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    let first = sample.store.book(user, booking(Direction::Out, 500, Some("paid"), "k")).await.unwrap();
    assert!(first.is_new && first.balance == Cents(0) && first.entry.actor.as_deref() == Some("ada"));
    for turn in 0..3 {
        // Another one who asks, and a wallet that could not pay again, make no difference; a start neither.
        let again = Booking { actor: Some("bob".into()), ..booking(Direction::Out, 500, Some("paid"), "k") };
        let again = sample.store.book(user, again).await.unwrap();
        assert_eq!((again.entry, again.is_new, again.balance), (first.entry.clone(), false, Cents(0)), "{turn}");
        sample.reopen(Role::Tool);
    }
    assert_eq!((sample.number("SELECT balance FROM wallets"), sample.books(user)), (0, 0));
    // Another key, another user, or none: another booking.
    assert!(sample.store.book(user, booking(Direction::In, 5, None, "l")).await.unwrap().is_new);
    assert!(
        sample.store.book(user, Booking { key: None, ..booking(Direction::In, 5, None, "l") }).await.unwrap().is_new
    );
    let other = sample.user("b@b.example").await;
    assert!(sample.store.book(other, booking(Direction::Out, 500, Some("paid"), "k")).await.unwrap().is_new);
    assert_eq!((sample.books(user), sample.books(other)), (10, 0));
}

#[tokio::test]
async fn another_booking_under_the_same_key_is_refused_with_what_differs() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    sample.store.book(user, booking(Direction::In, 10, Some("paid"), "k")).await.unwrap();
    for (other, kind, amount, note) in [
        (booking(Direction::Out, 10, Some("paid"), "k"), true, false, false),
        (booking(Direction::In, 11, Some("paid"), "k"), false, true, false),
        (booking(Direction::In, 10, Some("Paid"), "k"), false, false, true),
        (booking(Direction::Out, 501, None, "k"), true, true, true),
    ] {
        let reused = sample.store.book(user, other).await;
        assert_eq!(refused(reused), WalletRefused::KeyReused { kind, amount, note });
    }
    assert_eq!((sample.number("SELECT balance FROM wallets"), sample.books(user)), (510, 510));
}

#[tokio::test]
async fn a_booking_that_was_refused_leaves_its_key_free() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    let overdrawn = sample.store.book(user, booking(Direction::Out, 501, None, "k")).await;
    assert_eq!(refused(overdrawn), WalletRefused::Overdrawn { balance: Cents(500) });
    sample.store.credit(user, Cents(1), None).await.unwrap();
    assert!(sample.store.book(user, booking(Direction::Out, 501, None, "k")).await.unwrap().is_new);
    assert_eq!(sample.books(user), 0);
}

#[tokio::test]
async fn a_later_user_with_the_same_id_does_not_inherit_a_bookings_key() {
    let sample = Sample::open(Role::Tool);
    let user = sample.user("a@b.example").await;
    sample.store.book(user, booking(Direction::In, 10, None, "k")).await.unwrap();
    sample.application().execute_batch("DELETE FROM wallets; DELETE FROM users").unwrap();
    sample.store.route_id("weather", "/").await.unwrap();
    sample.application().execute_batch(&format!("INSERT INTO users VALUES ({user}, 'b@b.example', 'B', 1)")).unwrap();
    assert!(sample.store.book(user, booking(Direction::In, 10, None, "k")).await.unwrap().is_new);
    assert_eq!(sample.books(user), 10);
}
