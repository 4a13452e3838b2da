//! Usher: a WebSocket streaming-session gateway. A player keeps one TLS WebSocket open while it plays; the
//! connection is the lease on one of the account's concurrent streams.
//!
//! # Architecture map
//!
//! Data flows one way: socket -> protocol -> lease -> store.
//!
//! | room | owns |
//! |---|---|
//! | [`cli`] | the commands; `cli::serve` is the boot order |
//! | [`app`] | the only place that wires the rooms together |
//! | [`messages`] | messages between viewers: their rows, their routes, their way to open sockets |
//! | [`ledger`] | plays, files of history, royalty statements |
//! | [`media`] | files: upload, delivery that hangs on a lease, who used what |
//! | [`catalogue`] | what there is to play: contents, who may see them, import and export |
//! | [`accounts`] | people: sign-up, sign-in, passwords; rules, SQL and routes side by side |
//! | [`api`] | HTTP routes and the one error shape; `api::watch` turns a request into a player |
//! | [`gateway`] | one task per player, from its first frame to its last; leaving a node |
//! | [`webhooks`] | telling servers of others what was started, refused and ended |
//! | [`net`] | listeners, TLS, limits on strangers, and getting the raw stream back from hyper |
//! | [`lease`] | who may play: pure rules, the store interface, its memory twin |
//! | [`auth`] | verifying and issuing tokens, keys |
//! | [`db`] | the SQL database: pool, deadlines, migrations |
//! | [`outbound`] | calling servers of others: which addresses, within which bounds |
//! | [`protocol`] | messages, close codes, ids: pure |
//! | [`telemetry`] | metrics and logs |
//! | [`config`] | typed settings; `default.toml` is their manual |
//!
//! A room imports only from those below it in this table (the test `rooms` reads the `use` lines).
//!
//! ## One start, walked through
//!
//! `net::listener` accepts, judges limits, does TLS and gives the connection to hyper (`net::http`). A request for
//! `/v1/watch` reaches `api::watch`, which refuses in plain HTTP or answers 101 and attaches what comes after.
//! hyper lets go of the stream; [`gateway::Gateway::open`] runs the session on a task of its own, so that nothing
//! of the handshake stays in memory. `gateway::start` asks the store for a slot; `gateway::play` is the steady
//! state, in which frames only touch `gateway::line`; `gateway::ending` frees the slot, or `gateway::park` keeps
//! it for a resume.
//!
//! What starts and ends leaves a fact in the store; `webhooks` reads these facts (`lease::journal`) and tells them,
//! on tasks of its own.

pub mod accounts;
pub mod api;
pub mod app;
pub mod auth;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod db;
pub mod gateway;
pub mod lease;
pub mod ledger;
pub mod media;
pub mod messages;
pub mod net;
pub mod outbound;
pub mod protocol;
pub mod telemetry;
pub mod webhooks;
