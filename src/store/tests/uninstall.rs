//! What `uninstall` does with leases that gateways have left.

use crate::config::{DatabaseConfig, Durability};
use crate::model::Cents;
use crate::store::sample::Sample;
use crate::store::{OpenError, Role, Uninstalled, uninstall};

/// A file with a user who has 500, of which a gateway that is gone has leased 40.
async fn leased() -> Sample {
    let sample = Sample::open(Role::Gateway);
    let (_, key, ledger) = sample.customer().await;
    let held = sample.hold(&ledger, &key, 40).await;
    // The store ends as if its process did.
    sample.store.close();
    drop(held);
    assert_eq!(sample.number("SELECT balance FROM wallets"), 460);
    sample
}

fn run(sample: &Sample) -> Result<Uninstalled, OpenError> {
    uninstall(&DatabaseConfig {
        path: sample.path(),
        create: false,
        file_mode: 0o600,
        durability: Durability::Normal,
        keep_charges: None,
    })
}

#[tokio::test]
async fn what_a_gateway_that_is_gone_leased_is_returned() {
    let sample = leased().await;
    assert_eq!(run(&sample).unwrap(), Uninstalled::Done);
    assert_eq!(sample.number("SELECT balance FROM wallets"), 500);
    assert_eq!(sample.number("SELECT count(*) FROM sqlite_master WHERE name LIKE 'keytoll%'"), 0);
}

#[tokio::test]
async fn a_later_user_with_the_same_id_gets_nothing_of_it() {
    let replace_user = "DELETE FROM wallets; DELETE FROM users WHERE id = 1;
                INSERT INTO users (id, email, name) VALUES (1, 'new@example.com', 'New');
                INSERT INTO wallets (user_id, balance) VALUES (1, 100)";
    for unseen in ["", "DROP TRIGGER keytoll_wallets_after_delete;"] {
        let sample = leased().await;
        let application = sample.application();
        application.pragma_update(None, "foreign_keys", false).unwrap();
        application.execute_batch(&format!("{unseen}{replace_user}")).unwrap();
        drop(application);
        assert_eq!(run(&sample).unwrap(), Uninstalled::Done);
        assert_eq!(sample.number("SELECT balance FROM wallets"), 100, "{unseen}");
    }
}

#[tokio::test]
async fn a_lease_of_a_gateway_that_has_ended_is_returned() {
    let sample = leased().await;
    sample.application().execute_batch("UPDATE keytoll_instances SET ended_at = 1").unwrap();
    assert_eq!(run(&sample).unwrap(), Uninstalled::Done);
    assert_eq!(sample.number("SELECT balance FROM wallets"), 500);
}

#[tokio::test]
async fn with_a_lease_that_cannot_be_returned_nothing_is_changed() {
    let sample = leased().await;
    let application = sample.application();
    application.pragma_update(None, "foreign_keys", false).unwrap();
    application.execute_batch("UPDATE keytoll_leases SET account_id = 99").unwrap();
    let refused = run(&sample).unwrap_err();
    assert!(matches!(refused, OpenError::LeasesLeft(_, Cents(40))), "{refused}");
    assert!(refused.to_string().contains("leases of 40 cents"), "{refused}");
    assert_eq!(sample.number("SELECT sum(cents) FROM keytoll_leases"), 40);
}
