-- People who sign up here, their sign-ins, and the links by which they get a new password.
CREATE TABLE users (
    -- 128 random bits in base64url.
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    email TEXT NOT NULL,
    -- The e-mail in lower case.
    email_key TEXT NOT NULL,
    user_name TEXT,
    -- The user name in lower case.
    user_name_key TEXT,
    name TEXT NOT NULL DEFAULT '',
    -- An https URL.
    picture TEXT,
    plan TEXT,
    -- Scopes beside `watch`, separated by spaces.
    scopes TEXT NOT NULL DEFAULT '',
    -- A PHC string of Argon2id; empty: no password fits.
    password TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL DEFAULT 0,
    -- Access tokens that were issued before are not accepted.
    tokens_after BIGINT NOT NULL DEFAULT 0,
    UNIQUE (tenant, email_key),
    UNIQUE (tenant, user_name_key)
);
CREATE INDEX users_by_time ON users (tenant, created_at);
-- One row for each sign-in that may still be refreshed. A refresh token is two secrets: one that stays and finds the
-- row, one that changes with each use.
CREATE TABLE sign_ins (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device TEXT,
    device_name TEXT,
    created_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- SHA-256 of the secret that stays, in base64url.
    lasting_hash TEXT NOT NULL UNIQUE,
    -- SHA-256 of the one that is good for the next refresh.
    current_hash TEXT NOT NULL
);
CREATE INDEX sign_ins_by_user ON sign_ins (user_id, used_at);
CREATE INDEX sign_ins_by_end ON sign_ins (expires_at);
-- At most one for each person.
CREATE TABLE password_resets (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 of the token, in base64url.
    token_hash TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
