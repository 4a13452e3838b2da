-- What is watched now: every few seconds each node adds up what its sessions watched of each content. For the live view;
-- no money rests on it, and it is kept for two hours.
CREATE TABLE live_watching (
    tenant TEXT NOT NULL,
    -- The beginning of ten seconds, in milliseconds since 1970.
    at BIGINT NOT NULL,
    content TEXT NOT NULL,
    watched_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, at, content)
);
CREATE INDEX live_watching_by_time ON live_watching (at);
