-- Keytoll's tables and triggers as version 1 had them.
CREATE TABLE keytoll_migrations (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL);
INSERT INTO keytoll_migrations (version, applied_at) VALUES (1, 1);
CREATE TABLE keytoll_meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
);
INSERT INTO keytoll_meta (name, value) VALUES ('next_charge_id', 1);
CREATE TABLE keytoll_instances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    started_at INTEGER NOT NULL,
    low_water INTEGER NOT NULL,
    ended_at INTEGER
);
CREATE TABLE keytoll_accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    email TEXT,
    opened_at INTEGER NOT NULL,
    closed_at INTEGER
);
CREATE UNIQUE INDEX keytoll_accounts_open ON keytoll_accounts (user_id) WHERE closed_at IS NULL;
CREATE TABLE keytoll_entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id INTEGER NOT NULL REFERENCES keytoll_accounts (id),
    kind TEXT NOT NULL,
    amount_cents INTEGER NOT NULL,
    note TEXT,
    created_at INTEGER NOT NULL
);
CREATE INDEX keytoll_entries_account ON keytoll_entries (account_id, id);
CREATE TABLE keytoll_routes (
    id INTEGER PRIMARY KEY,
    api_name TEXT NOT NULL,
    route TEXT NOT NULL,
    UNIQUE (api_name, route)
);
CREATE TABLE keytoll_charges (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    route_id INTEGER NOT NULL,
    instance_id INTEGER NOT NULL,
    cents INTEGER NOT NULL,
    state INTEGER NOT NULL,
    held_at INTEGER NOT NULL,
    settled_at INTEGER,
    status INTEGER
);
CREATE TABLE keytoll_key_hints (
    key_id INTEGER PRIMARY KEY,
    stored_hint TEXT NOT NULL,
    hint TEXT NOT NULL
);
CREATE TABLE keytoll_wallet_log (
    id INTEGER PRIMARY KEY,
    op,
    wallet_id,
    user_id,
    balance
);
CREATE TRIGGER keytoll_wallets_before_insert BEFORE INSERT ON wallets BEGIN INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) SELECT 'replace', id, user_id, balance FROM wallets WHERE id = NEW.id OR user_id = NEW.user_id; END;
CREATE TRIGGER keytoll_wallets_after_insert AFTER INSERT ON wallets BEGIN INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) VALUES ('insert', NEW.id, NEW.user_id, NEW.balance); END;
CREATE TRIGGER keytoll_wallets_after_delete AFTER DELETE ON wallets BEGIN INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) VALUES ('delete', OLD.id, OLD.user_id, OLD.balance); END;
CREATE TRIGGER keytoll_wallets_before_update BEFORE UPDATE OF id, user_id ON wallets BEGIN INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) SELECT 'replace', id, user_id, balance FROM wallets WHERE (id = NEW.id OR user_id = NEW.user_id) AND id <> OLD.id; END;
CREATE TRIGGER keytoll_wallets_after_update AFTER UPDATE OF id, user_id, balance ON wallets WHEN OLD.balance IS NOT NEW.balance OR OLD.user_id IS NOT NEW.user_id OR OLD.id IS NOT NEW.id BEGIN INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) VALUES ('from', OLD.id, OLD.user_id, OLD.balance); INSERT INTO keytoll_wallet_log (op, wallet_id, user_id, balance) VALUES ('to', NEW.id, NEW.user_id, NEW.balance); END;
