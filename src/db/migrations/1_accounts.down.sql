DROP TABLE password_resets;
DROP TABLE sign_ins;
DROP TABLE users;
