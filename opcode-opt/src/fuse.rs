//! Bytecode to a fused program.
//!
//! One pass over the instructions with a peephole over the ops that are still open (`encoder`), whose rules
//! (`rules`) replace the last ones by one; a second pass finds selector tables (`selectors`); a third lays the program out.
//! What the rules replace has the sum of its parts' gas, so that no rule can change what code costs.

mod constants;
mod encoder;
mod layout;
mod rules;
mod selectors;

pub use encoder::ENDS;
pub use rules::{Rules, TAKEN_IF_FALSE};

use crate::{isa::Op, profile::Profile, program::Program, stream::StreamOp};

/// What a program depends on besides the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The static cost of each byte, on the chain and fork in force.
    pub gas: [u16; 256],
    /// The bytes that stream ops may be made of. Every other byte is left to revm's instruction table: what the fork does not
    /// have, and what a user has replaced.
    pub native: [bool; 256],
}

impl Target {
    /// Whether the instruction may be part of a stream op.
    fn is_native(&self, op: Op) -> bool {
        self.native[usize::from(op.byte())]
    }

    /// The instruction's static cost.
    fn gas(&self, op: Op) -> u16 {
        self.gas[usize::from(op.byte())]
    }
}

/// Most cells of a program. Larger code is not fused.
pub const MAX_CELLS: usize = u16::MAX as usize - 1;

/// Fuses `code` by all rules. `None` if the program would have more than [`MAX_CELLS`].
pub fn fuse(code: &[u8], target: &Target) -> Option<Program> {
    fuse_with(code, target, &Rules::all())
}

/// Fuses `code` by the rules that its profile says pay.
pub fn fuse_profiled(code: &[u8], target: &Target, profile: &Profile) -> Option<Program> {
    let all = encoder::encode(code, target, &Rules::all());
    let rules = Rules::chosen(all.iter().map(|op| (op.op, profile.count(op.pc))));
    fuse_with(code, target, &rules)
}

/// One op for each instruction: no rule at all.
pub fn translate(code: &[u8], target: &Target) -> Option<Program> {
    fuse_with(code, target, &Rules::none())
}

/// Fuses `code` by these rules.
pub fn fuse_with(code: &[u8], target: &Target, rules: &Rules) -> Option<Program> {
    let mut ops = encoder::encode(code, target, rules);
    if rules.contains(StreamOp::Select) {
        selectors::find(code, &mut ops);
    }
    layout::lay_out(code, &ops)
}

/// An op while the program is being made. Jumps still name offsets of the code.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    op: StreamOp,
    /// Static gas of all parts.
    gas: u32,
    /// Offset of the first part.
    pc: u32,
    /// Bytes of all parts.
    len: u32,
    /// First depth, count or byte; what it is depends on the kind.
    a: u8,
    /// Second depth, or bytes of a plain instruction's immediate; bit 7 is [`TAKEN_IF_FALSE`] or [`ENDS`].
    b: u8,
    /// Destination of a jump, or the offset behind a plain instruction.
    destination: u32,
    /// The immediate.
    constant: Constant,
    /// Of a select: its entries, as (constant, destination).
    entries: Vec<(u32, u32)>,
    /// Instructions that it stands for.
    parts: u16,
}

/// A constant, and the most words that the instructions which made it had on the stack.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Constant {
    value: alloy_primitives::U256,
    growth: u16,
}

impl Constant {
    const NONE: Self = Self { value: alloy_primitives::U256::ZERO, growth: 0 };

    /// Its 32 bits, if it has no more and was pushed by one instruction.
    fn small(&self) -> Option<u32> {
        (self.growth <= 1).then(|| u32::try_from(self.value).ok()).flatten()
    }
}
