//! The default model of MetisVM: a small Llama that turns an English wallet instruction into one command.
//!
//! Everything that makes the model is here, so that it can be made again from nothing but this crate:
//!
//! 1. [`grammar`] — what the model may answer, and its canonical spelling;
//! 2. [`instructions`] — the generated corpus, split into training, validation and held-out parts;
//! 3. [`tokenizer`] — the byte-level BPE, trained on that corpus;
//! 4. [`training`] — the training graph, the optimiser and the loop (binary `train`);
//! 5. [`heldout`] — the committed held-out set (binary `heldout`), and [`evaluate`], which scores a
//!    checkpoint on it in floating point (binary `evaluate`).
//!
//! 6. [`embedded`] — the checkpoint as the bundle that the binary carries (binary `bundle`);
//! 7. [`score`] — its exact match on the held-out set through the fixed-point engine (binary `score`).
//!
//! Nothing here is consensus code: the engine reads only the converted checkpoint.

#![forbid(unsafe_code)]

pub mod embedded;
pub mod evaluate;
pub mod grammar;
pub mod heldout;
pub mod instructions;
pub mod score;
pub mod tokenizer;
pub mod training;

pub use embedded::{bundle, import};
