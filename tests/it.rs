//! The real program, from outside: a server on a free port, real drivers, the command line.
//!
//! One test binary. It finds the program that cargo built; each test has a warehouse folder of its own and ends the server it
//! started.

#![expect(clippy::unwrap_used, reason = "in a test a failure is the message")]

mod it {
    mod backup;
    mod bucket;
    mod clustered;
    mod command_line;
    mod customers;
    mod demo;
    mod durability;
    mod erasure;
    mod imports;
    mod integrity;
    mod protocol;
    mod psql;
    mod quality;
    mod reports;
    mod rfm;
    mod security;
    mod server;
    mod slt;
}
