//! Executes code by every interpreter and compares all that can be seen of it with unmodified revm. The tests, the soak
//! program and the fuzz target are made of these parts.

#![allow(dead_code, unused_imports, reason = "each of those who include it needs a part of it")]

mod bench;
mod case;
mod choices;
mod generator;
mod machine;
mod mutation;
mod snippets;
pub(crate) mod tables;
pub(crate) mod trace;
pub(crate) mod transaction;
mod words;

pub(crate) use bench::{Bench, Difference, Executed, SUBJECTS};
pub(crate) use case::{CALLEE, CALLER, Case, DELEGATED, EOA, OTHER};
pub(crate) use choices::{Choices, Random};
pub(crate) use machine::{Answer, Fused, Machine, Revm};
pub(crate) use mutation::mutated;
pub(crate) use words::INTERESTING;
