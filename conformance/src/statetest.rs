//! State tests: one transaction on a given state, for each fork the root of the state afterwards.
//!
//! | module | what it holds |
//! |---|---|
//! | [`files`] | the files that are named by paths and folders |
//! | `suite` | the JSON of a file, and what the file is when it holds no state tests |
//! | `quantity` | numbers as the files write them |
//! | `rules` | a fork's name, its configuration and the block |
//! | `transaction` | the transaction of one subtest |
//! | `world` | the state before, as a database, and the state after, as a root |
//! | `exception` | for which reasons a transaction may be rejected |
//! | `subtest` | one execution and its verdict |
//! | [`run`](self::run()) | many files on many threads |
//! | [`summary`] | what came of it |
//!
//! The way through: [`files::find`] turns paths into a [`files::Found`]; [`run`](self::run()) executes it with the
//! interpreter that a [`FusionCache`](metis_vm::FusionCache) names; the [`Summary`] holds every failure and every skip
//! by name. There is no list of tests that are left out: whatever is not executed is in the summary with its reason. What
//! looks like a state test and cannot be read is a failure; the other tests of its file are executed.
//!
//! # What is checked
//! The root of the state, the hash of the logs, and whether the transaction is rejected; where the test says why it
//! must be, the reason too, and that the EVM changed no account. A reason that is not known here fails the subtest.

pub mod files;
pub mod summary;

mod exception;
mod quantity;
mod rules;
mod run;
mod subtest;
mod suite;
mod transaction;
mod world;

pub use run::{Options, run};
pub use summary::{Failure, Skip, Summary};
