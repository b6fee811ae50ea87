CREATE TABLE users (
    id INTEGER NOT NULL, email VARCHAR NOT NULL, name VARCHAR NOT NULL, is_active BOOLEAN, PRIMARY KEY (id), UNIQUE (email)
);
CREATE TABLE api_keys (
    id INTEGER NOT NULL, "key" VARCHAR NOT NULL, user_id INTEGER NOT NULL, api_name VARCHAR NOT NULL, is_active BOOLEAN,
    created_at DATETIME, PRIMARY KEY (id), UNIQUE (user_id, api_name), UNIQUE ("key"),
    FOREIGN KEY(user_id) REFERENCES users (id)
);
CREATE TABLE wallets (
    id INTEGER NOT NULL, user_id INTEGER NOT NULL, balance INTEGER, PRIMARY KEY (id), UNIQUE (user_id),
    FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO users VALUES (1, 'ada@example.com', 'Ada', 1), (2, 'bob@example.com', 'Bob', 0);
INSERT INTO api_keys VALUES (1, 'key-of-ada-0123456789', 1, 'weather', 1, '2026-01-02 03:04:05.000000');
INSERT INTO wallets VALUES (1, 1, 700), (2, 2, 300);
