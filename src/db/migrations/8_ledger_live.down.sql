DROP TABLE live_watching;
