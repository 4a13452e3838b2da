DROP TABLE file_accesses;
DROP TABLE file_pieces;
DROP TABLE file_uploads;
DROP TABLE file_tenants;
DROP TABLE file_roles;
DROP TABLE files;
