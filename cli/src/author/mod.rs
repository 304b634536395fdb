//! The author's side of a chain: keys, calls and transactions to the system contracts through JSON-RPC.
//!
//! | module | what it holds |
//! |---|---|
//! | [`keys`] | where a key comes from: never the command line, never a log |
//! | [`keystore`] | encrypted key files |
//! | [`transport`] | JSON-RPC over HTTP, with answers that end |
//! | [`error`] | what a chain answers instead of what it was asked |
//! | [`client`] | a chain with a model registry, asked and changed |
//! | [`costs`] | what a transaction will cost, before it is sent |
//! | [`money`] | amounts as people write and read them |
//! | [`sending`] | a command that changes the chain |

pub mod client;
pub mod costs;
pub mod error;
pub mod keys;
pub mod keystore;
pub mod money;
pub mod sending;
pub mod transport;
