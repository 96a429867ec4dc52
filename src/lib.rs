//! A columnar warehouse for customer data, served as SQL over the PostgreSQL protocol.
//!
//! The life of a query: bytes on the socket (`wire`) become a statement (`sql`); names become tables of one pinned
//! generation, each wrapped by the user's policy (`catalog`, `session`); reports become ordinary plans (`analysis`); the
//! engine reads Parquet through stock scans (`scan`, `store`); rows go out as they are made (`wire`). Imports run one way:
//! `cli, wire -> sql -> session -> catalog, analysis, identity, ingest -> report, scan -> store`; all may use `config`, `dialect`,
//! `workspace` and `error`. A test reads the imports and holds this.

pub mod analysis;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod dialect;
pub mod error;
pub mod identity;
pub mod ingest;
pub mod report;
pub mod scan;
pub mod session;
pub mod sql;
pub mod store;
pub mod wire;
pub mod workspace;
