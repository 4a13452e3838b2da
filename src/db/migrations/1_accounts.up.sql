CREATE TABLE users (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    email TEXT NOT NULL,
    -- The e-mail in lower case.
    email_key TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (tenant, email_key)
);
