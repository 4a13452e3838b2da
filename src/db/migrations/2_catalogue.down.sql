DROP TABLE content_demo;
DROP TABLE content_terms;
DROP TABLE contents;
