DROP TABLE attempts;
DROP TABLE stale_days;
DROP TABLE play_days;
