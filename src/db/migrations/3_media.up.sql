CREATE TABLE files (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- The key of its bytes in the store: random, and told to nobody.
    object_key TEXT NOT NULL UNIQUE,
    -- The account that brought it.
    owner TEXT NOT NULL,
    -- receiving, scanning, ready or quarantined
    state TEXT NOT NULL,
    type TEXT NOT NULL,
    size BIGINT NOT NULL,
    -- SHA-256 in hexadecimal digits.
    sha256 TEXT NOT NULL,
    title TEXT NOT NULL,
    -- Title and description in lower case, for search.
    search_key TEXT NOT NULL,
    description TEXT NOT NULL,
    category TEXT,
    language TEXT,
    provider TEXT,
    -- The content whose lease opens it, beside the file's own id and the catalogue's items.
    content TEXT,
    -- A list in JSON, as it is shown; file_roles has the same, to be asked.
    roles TEXT NOT NULL,
    -- Of created_at: 2026-11
    month TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);
CREATE INDEX files_by_time ON files (tenant, created_at, id);
CREATE INDEX files_by_state ON files (state, changed_at);
CREATE TABLE file_roles (
    file_id TEXT NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    PRIMARY KEY (file_id, role)
);
-- Bytes of a tenant: files, and what unfinished uploads announced.
CREATE TABLE file_tenants (
    tenant TEXT PRIMARY KEY,
    bytes BIGINT NOT NULL
);
-- Resumable uploads that are not whole.
CREATE TABLE file_uploads (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    object_key TEXT NOT NULL,
    length BIGINT NOT NULL,
    received BIGINT NOT NULL,
    -- Upload-Metadata as it came.
    metadata TEXT NOT NULL,
    -- The file that it became, with its last byte.
    file_id TEXT,
    -- Whoever appends to it, until when: one at a time, on any node.
    writer TEXT NOT NULL,
    writing_until BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX file_uploads_by_end ON file_uploads (expires_at);
-- What came of an upload so far, in objects of their own.
CREATE TABLE file_pieces (
    upload_id TEXT NOT NULL,
    start BIGINT NOT NULL,
    object_key TEXT NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY (upload_id, start)
);
-- Who fetched what, for how long. No reference to files: what was used stays counted.
CREATE TABLE file_accesses (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    file_id TEXT NOT NULL,
    -- play, stream or download
    kind TEXT NOT NULL,
    account TEXT NOT NULL,
    -- The lease that opened it, if one did.
    session TEXT,
    role TEXT NOT NULL,
    nation TEXT NOT NULL,
    company TEXT NOT NULL,
    language TEXT NOT NULL,
    category TEXT NOT NULL,
    -- 2026-11
    month TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    completed BIGINT NOT NULL,
    opened_at BIGINT NOT NULL,
    -- When bytes were last fetched.
    seen_at BIGINT NOT NULL,
    closed_at BIGINT
);
CREATE INDEX file_accesses_by_time ON file_accesses (tenant, opened_at, id);
CREATE INDEX file_accesses_by_file ON file_accesses (tenant, file_id);
CREATE INDEX file_accesses_open ON file_accesses (closed_at, seen_at);
