-- The shared tables as SQLAlchemy writes them.
CREATE TABLE users (
    id INTEGER NOT NULL,
    email VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    is_active BOOLEAN,
    PRIMARY KEY (id),
    UNIQUE (email)
);
CREATE TABLE api_keys (
    id INTEGER NOT NULL,
    "key" VARCHAR NOT NULL,
    user_id INTEGER NOT NULL,
    api_name VARCHAR NOT NULL,
    is_active BOOLEAN,
    created_at DATETIME,
    PRIMARY KEY (id),
    UNIQUE (user_id, api_name),
    UNIQUE ("key"),
    FOREIGN KEY(user_id) REFERENCES users (id)
);
CREATE TABLE wallets (
    id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    balance INTEGER,
    PRIMARY KEY (id),
    UNIQUE (user_id),
    FOREIGN KEY(user_id) REFERENCES users (id)
);
