DROP TABLE message_reports;
DROP TABLE message_blocks;
DROP TABLE conversations;
DROP TABLE messages;
DROP TABLE mailboxes;
