-- What was watched of each content on a day (UTC, counted from 1970-01-01), so that a report of years does not add up
-- every play. Right for a day that is not in stale_days.
CREATE TABLE play_days (
    tenant TEXT NOT NULL,
    day BIGINT NOT NULL,
    content TEXT NOT NULL,
    region TEXT NOT NULL,
    -- Of all its plays and their corrections.
    seconds BIGINT NOT NULL,
    PRIMARY KEY (tenant, day, content, region)
);

-- Days whose plays changed since their sums were made, or that never had any.
CREATE TABLE stale_days (
    tenant TEXT NOT NULL,
    day BIGINT NOT NULL,
    -- The tenant's number in ledger_versions at the last change of the day.
    version BIGINT NOT NULL,
    PRIMARY KEY (tenant, day)
);
INSERT INTO stale_days (tenant, day, version) SELECT DISTINCT tenant, started_at / 86400000, 0 FROM plays;

-- Starts by the slot of the account that they took or were refused: what another limit would change.
CREATE TABLE attempts (
    tenant TEXT NOT NULL,
    day BIGINT NOT NULL,
    -- As the token says; empty: none.
    plan TEXT NOT NULL,
    -- The slot that was asked for, from 1.
    asked BIGINT NOT NULL,
    granted BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    PRIMARY KEY (tenant, day, plan, asked)
);
