-- Sources of the ledger ([ledger.sources.<name>]): when each is read next, and what came of it.
CREATE TABLE ledger_sources (
    name TEXT PRIMARY KEY,
    -- Milliseconds since 1970; one node reads it then, and puts it off while it does.
    due_at BIGINT NOT NULL,
    -- When all of it was last read,
    read_at BIGINT,
    -- and its rows: read, new or changed, as they were, not as they must be.
    rows_read BIGINT NOT NULL DEFAULT 0,
    rows_taken BIGINT NOT NULL DEFAULT 0,
    rows_already BIGINT NOT NULL DEFAULT 0,
    rows_rejected BIGINT NOT NULL DEFAULT 0,
    -- Why the last reading failed; NULL: it did not.
    failed TEXT
);
