//! EVM bytecode as data.
//!
//! This crate will turn a contract's bytecode into a fused program for MetisVM's own interpreter. It holds the two
//! parts that everything after them rests on:
//!
//! - [`isa`]: the instruction set as one table. Each [`Op`] has its stack effect, its immediate, how control leaves it
//!   ([`Flow`]) and whether gas may be moved across it ([`GasClass`]). No gas number is in it: costs come from the
//!   gas table in force, which a fork or a user may change.
//! - [`decode`]: bytecode to [`Instruction`]s and to [`Block`]s, with the stack heights that a block needs. Jump destinations
//!   are those of the EVM's own analysis, on every fork.
//!
//! What is not here yet: fusion rules, the profile that chooses among them, and the cache of programs.
//!
//! ```
//! use metis_opcode_opt::{Exit, Op, decode};
//!
//! // PUSH1 3 JUMP JUMPDEST CALLER
//! let code = [0x60, 0x03, 0x56, 0x5b, 0x33];
//! let blocks: Vec<_> = decode::blocks(&code).collect();
//! assert_eq!(blocks.len(), 2);
//! assert_eq!(blocks[0].exit, Exit::Op(Op::JUMP));
//! assert!(blocks[1].is_target && blocks[1].growth == 1);
//! ```

#![forbid(unsafe_code)]

pub mod cache;
pub mod decode;
pub mod fuse;
pub mod isa;
pub mod print;
pub mod profile;
pub mod program;
pub mod stream;

pub use cache::{CacheStats, CodeCache, Key, Linker, Request};
pub use decode::{Block, Exit, Instruction};
pub use fuse::{Rules, Target};
pub use isa::{Flow, GasClass, Op};
pub use print::Listing;
pub use profile::Profile;
pub use program::Program;
pub use stream::{Kind, Mode, StreamOp};
