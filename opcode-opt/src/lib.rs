//! EVM bytecode to fused programs, for MetisVM's own interpreter. Nothing is executed here.
//!
//! - [`isa`]: the instruction set as one table. Each [`Op`] has its stack effect, its immediate, how control leaves it
//!   ([`Flow`]) and whether gas may be moved across it ([`GasClass`]). No gas number is in it: costs come from the
//!   gas table in force, which a fork or a user may change.
//! - [`decode`]: bytecode to [`Instruction`]s and to [`Block`]s, with the stack heights that a block needs. Jump destinations
//!   are those of the EVM's own analysis, on every fork.
//!
//! - [`stream`]: the instruction set of programs, as one table. A [`StreamOp`] is one or several instructions at once.
//! - [`mod@fuse`]: code to a [`Program`], by the rules that a contract's [`Profile`] says pay.
//! - [`program`]: how a program lies in memory, and how to get from it back to the code.
//! - [`cache`]: programs by code, shared between threads, within a bound, made in the background.
//! - [`mod@print`]: programs for people.
//!
//! `docs/interpreter.md` says how the interpreter executes them.
//!
//! ```
//! use metis_opcode_opt::{Listing, StreamOp, Target, fuse};
//!
//! // PUSH1 3 JUMP JUMPDEST CALLER
//! let code = [0x60, 0x03, 0x56, 0x5b, 0x33];
//! let target = Target { gas: [1; 256], native: [true; 256] };
//! let program = fuse::fuse(&code, &target).expect("short code");
//! let ops: Vec<_> = program.ops_at().collect();
//! // Behind the code the EVM stops.
//! assert_eq!(ops, [(StreamOp::JumpTo, 0), (StreamOp::Caller, 3), (StreamOp::Plain, 5)]);
//! assert!(Listing { program: &program, code: &code }.to_string().contains("PUSH1 0x03 JUMP"));
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

pub use cache::{CacheStats, Cached, CodeCache, Key, Linker, Request};
pub use decode::{Block, Exit, Instruction};
pub use fuse::{Rules, Target};
pub use isa::{Flow, GasClass, Op};
pub use print::Listing;
pub use profile::Profile;
pub use program::{Header, Program};
pub use stream::{Kind, Mode, StreamOp};
