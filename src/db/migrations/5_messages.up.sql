-- An account or a room ("room:<content>") that has a part in messages. Its row is locked while one is added, so that
-- ids ascend in the order in which messages become visible to it.
CREATE TABLE mailboxes (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    -- The newest id of any message from or to it,
    last_id BIGINT NOT NULL,
    -- and of those to it.
    last_in BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
CREATE TABLE messages (
    tenant TEXT NOT NULL,
    -- The two parties in the order of their bytes, which is the conversation.
    low TEXT NOT NULL,
    high TEXT NOT NULL,
    id BIGINT NOT NULL CHECK (id > 0 AND id < 9007199254740992),
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    -- JSON.
    content TEXT NOT NULL,
    -- The file of the own library that it shows.
    file_id TEXT,
    client_id TEXT,
    sent_at BIGINT NOT NULL,
    -- When it was taken back or removed; its content is gone then.
    removed_at BIGINT,
    PRIMARY KEY (tenant, low, high, id)
);
CREATE UNIQUE INDEX messages_in ON messages (tenant, recipient, id);
CREATE UNIQUE INDEX messages_client ON messages (tenant, sender, client_id);
CREATE INDEX messages_sent ON messages (tenant, sent_at);
CREATE INDEX messages_file ON messages (tenant, file_id);
-- A conversation as one of its parties sees it.
CREATE TABLE conversations (
    tenant TEXT NOT NULL,
    account TEXT NOT NULL,
    peer TEXT NOT NULL,
    last_id BIGINT NOT NULL,
    -- The newest message of the peer that was read.
    read_id BIGINT NOT NULL,
    PRIMARY KEY (tenant, account, peer)
);
CREATE INDEX conversations_last ON conversations (tenant, account, last_id);
CREATE INDEX conversations_peer ON conversations (tenant, peer);
CREATE TABLE message_blocks (
    tenant TEXT NOT NULL,
    account TEXT NOT NULL,
    blocked TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, account, blocked)
);
-- The copy of the content is what the reporter saw, whatever becomes of the message.
CREATE TABLE message_reports (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    reporter TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    message_id BIGINT NOT NULL,
    content TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    closed_at BIGINT,
    closed_by TEXT,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX message_reports_once ON message_reports (tenant, reporter, sender, recipient, message_id);
CREATE INDEX message_reports_open ON message_reports (tenant, created_at);
