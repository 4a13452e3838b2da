DROP TABLE statements;
DROP TABLE ledger_versions;
DROP TABLE plays;
DROP TABLE tracks;
DROP TABLE subscribers;
