//! The gateway from outside: real processes, real sockets, real TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod chromium;
mod cutter;
mod harness;
mod library;
mod postgres;
mod raw;
mod receiver;
mod redis_servers;
mod stage;

mod accounts;
mod admin;
mod balancer;
mod browser;
mod catalogue;
mod catalogue_files;
mod catalogue_play;
mod cli;
mod conformance;
mod consent;
mod console;
mod containers;
mod cors;
mod database;
mod deploy;
mod doors;
mod facade;
mod frames;
mod grafana;
mod http;
mod http_leases;
mod leaving;
mod ledger_deaths;
mod ledger_files;
mod ledger_http;
mod ledger_insight;
mod ledger_plays;
mod ledger_rows;
mod ledger_sources;
mod lifecycle;
mod media;
mod media_catalogue;
mod media_delivery;
mod media_hls;
mod media_player;
mod media_playlists;
mod media_uploads;
mod messages;
mod messages_kept;
mod nodes;
mod openapi;
mod operators;
mod players;
mod rates;
mod readme;
mod redis_failover;
mod redis_link;
mod refusals;
mod resources;
mod rooms;
mod rule_histories;
mod rules;
mod schemathesis;
mod sdk;
mod service;
mod sessions;
mod silence;
mod store_contract;
mod store_twins;
mod talks;
mod ticket_examples;
mod tickets;
mod tokens;
mod webhooks;
