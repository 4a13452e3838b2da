-- Who pays, and what: one subscription per user. Users need not be accounts of this installation.
CREATE TABLE subscribers (
    tenant TEXT NOT NULL,
    user_id TEXT NOT NULL,
    product_type TEXT NOT NULL,
    -- In minor units of the currency.
    fee BIGINT NOT NULL,
    currency TEXT NOT NULL,
    -- The sales channel, in lower case.
    origin TEXT NOT NULL,
    PRIMARY KEY (tenant, user_id)
);

-- What tracks are called and whose they are; an empty label is none.
CREATE TABLE tracks (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    label TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- What was watched. Rows are only added: a correction is a row of its own that names the play it corrects.
CREATE TABLE plays (
    tenant TEXT NOT NULL,
    -- Of a session: its id. Of an imported row: a hash of the row and its occurrence in its file.
    id TEXT NOT NULL,
    -- session, import, entry (by hand), adjustment or reversal
    kind TEXT NOT NULL,
    -- The play that an adjustment or reversal corrects.
    corrects TEXT,
    -- The account, or the user of an imported row.
    user_id TEXT NOT NULL,
    content TEXT NOT NULL,
    -- In upper case; empty: not known.
    region TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    -- Not known of an imported row.
    ended_at BIGINT,
    -- Of a correction: the difference, which may be negative.
    seconds BIGINT NOT NULL,
    -- These only of a session.
    device TEXT,
    device_name TEXT,
    device_class TEXT,
    plan TEXT,
    position_ms BIGINT,
    code TEXT,
    recorded_at BIGINT NOT NULL,
    -- Who wrote a row by hand.
    recorded_by TEXT,
    PRIMARY KEY (tenant, id)
);
-- Everything that statements add up, so that they need not look up each row.
CREATE INDEX plays_by_time ON plays (tenant, started_at, user_id, content, region, seconds);
CREATE INDEX plays_by_user ON plays (tenant, user_id, started_at);
CREATE INDEX plays_by_correction ON plays (tenant, corrects) WHERE corrects IS NOT NULL;

-- Changes with every change of what a report of the tenant rests on.
CREATE TABLE ledger_versions (
    tenant TEXT PRIMARY KEY,
    version BIGINT NOT NULL
);

-- Reports that were frozen. Rows are only added.
CREATE TABLE statements (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    model TEXT NOT NULL,
    first_day TEXT NOT NULL,
    end_day TEXT NOT NULL,
    -- Empty: all.
    region TEXT NOT NULL,
    currency TEXT NOT NULL,
    -- 0: the statement; 1 and on: its adjustments.
    revision BIGINT NOT NULL,
    -- The report, JSON.
    report TEXT NOT NULL,
    -- What it changes of the revision before, JSON; none for the first.
    difference TEXT,
    -- SHA-256 of everything that the report rests on, in hex.
    inputs TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, model, first_day, end_day, region, currency, revision)
);
