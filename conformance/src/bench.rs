//! How fast each interpreter executes contracts, next to revm in the same process.
//!
//! | item | what it is |
//! |---|---|
//! | [`Case`] | a contract, its input, and what must come of it; read from JSON by [`parse`] |
//! | [`Machine`] | one engine with one contract: executes the bare frame and times it |
//! | [`measure()`] | interleaved rounds over the engines, the cold start, the check of every result |
//! | [`Summary`] | all rows and their geometric means |
//! | [`dispatch`] | how many opcodes revm executes, and how many operations a fused program dispatches for them |
//! | [`statistics`] | medians and geometric means |
//!
//! # Method
//! All engines run one frame through revm's own handler loop, on the same context type and in-memory database; the
//! clock runs from the frame's creation to its result, so loading accounts and emptying the journal are not in it. A
//! round takes one sample of every engine, each in a new machine that has executed the contract once, and the order
//! rotates from round to round. A sample is the median of its executions. Ratios are formed within a
//! round, where the computer was about equally busy for all, and the median over the rounds is reported.
//!
//! **Cold** is the first execution in a new machine with an empty cache, under the production configuration. Neither side
//! pays for hashing the code or for revm's jump table, which come with the code out of the database; an equal cost on
//! both sides would only draw the ratio towards one.

mod case;
pub mod dispatch;
mod machine;
mod measure;
pub mod statistics;

pub use case::{Case, CaseError, parse};
pub use machine::{CALLEE, CALLER, Engine, Executed, ExecutionError, GAS_LIMIT, Machine, Metis, Revm};
pub use measure::{Options, Row, Summary, measure};
