CREATE TABLE contents (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    -- The name in lower case, and name, id and description so, for order and search.
    name_key TEXT NOT NULL,
    search_key TEXT NOT NULL,
    -- livestream or vod
    type TEXT NOT NULL,
    -- One of the two: an https URL, or a file of the table files.
    source TEXT,
    file_id TEXT,
    description TEXT,
    category TEXT,
    language TEXT,
    -- Lists: each value between two line feeds; the empty text is the empty list.
    tags TEXT NOT NULL,
    roles TEXT NOT NULL,
    plans TEXT NOT NULL,
    -- The rights holder.
    label TEXT,
    -- A JSON object.
    metadata TEXT,
    duration_ms BIGINT,
    thumbnail TEXT,
    -- 1: made as a demo, and not changed since.
    demo BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX contents_by_name ON contents (tenant, name_key, id);
CREATE INDEX contents_by_file ON contents (tenant, file_id);
-- The managed lists: which categories, languages and roles contents may name.
CREATE TABLE content_terms (
    tenant TEXT NOT NULL,
    -- category, language or role
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    demo BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind, id)
);
-- A row here: demo contents were made once.
CREATE TABLE content_demo (
    tenant TEXT NOT NULL PRIMARY KEY,
    made_at BIGINT NOT NULL
);
