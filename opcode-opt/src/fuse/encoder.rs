//! Instructions to ops, the last ones of a block open for the rules.

use super::{Constant, Piece, Rules, Target, rules};
use crate::{
    decode::{Instruction, instructions, jump_destinations},
    isa::{Flow, Op},
    stream::{Kind, Mode, StreamOp},
};
use alloy_primitives::U256;

/// The ops of code, in order. Code that nothing can reach is not among them.
pub(super) fn encode(code: &[u8], target: &Target, rules: &Rules) -> Vec<Piece> {
    let mut is_destination = vec![false; code.len()];
    jump_destinations(code).for_each(|pc| is_destination[pc] = true);
    let mut encoder = Encoder { target, rules, is_destination, ops: Vec::new(), open: 0, prefix: None };
    let mut reachable = true;
    for instruction in instructions(code) {
        match instruction.op.filter(|&op| op == Op::JUMPDEST && target.is_native(op)) {
            Some(op) => encoder.jumpdest(&instruction, target.gas(op)),
            None if instruction.op == Some(Op::JUMPDEST) => encoder.plain(&instruction),
            None if !reachable => continue,
            None => encoder.instruction(&instruction),
        }
        reachable = goes_on(&instruction);
    }
    if reachable {
        encoder.end(code.len());
    }
    encoder.ops
}

struct Encoder<'a> {
    target: &'a Target,
    rules: &'a Rules,
    is_destination: Vec<bool>,
    ops: Vec<Piece>,
    /// The first op that rules may still replace.
    open: usize,
    /// A JUMPDEST that the next op takes in: gas and offset.
    prefix: Option<(u16, u32)>,
}

impl Encoder<'_> {
    /// Its gas goes to the next op, which is where jumps land then. Of several in a row all but the last become an op.
    fn jumpdest(&mut self, instruction: &Instruction<'_>, gas: u16) {
        if let Some((gas, pc)) = self.prefix.take() {
            self.ops.push(piece(StreamOp::Fall, gas.into(), pc, 1));
        }
        self.open = self.ops.len();
        self.prefix = Some((gas, offset(instruction.pc)));
    }

    fn instruction(&mut self, instruction: &Instruction<'_>) {
        let native = instruction.op.filter(|&op| self.target.is_native(op) && !instruction.bad_immediate);
        let Some((op, made)) = native.and_then(|op| Some((op, native_piece(op, instruction)?))) else {
            return self.plain(instruction);
        };
        let next = Piece { gas: self.target.gas(op).into(), ..made };
        if matches!(op, Op::JUMP | Op::JUMPI) {
            return self.jump(next);
        }
        self.push(next);
    }

    fn push(&mut self, next: Piece) {
        let fused = match self.prefix {
            None => rules::combine(&self.ops[self.open..], &next, self.rules),
            Some(_) => None,
        };
        self.replace(fused, next);
    }

    fn jump(&mut self, next: Piece) {
        let open = &self.ops[self.open..];
        let destination = open
            .last()
            .filter(|last| last.op == StreamOp::PushI && self.prefix.is_none())
            .and_then(|last| last.constant.small())
            .filter(|&pc| self.is_destination.get(pc as usize) == Some(&true));
        let fused = destination.and_then(|pc| rules::branch(open, &next, pc, self.rules));
        match fused {
            Some(_) => self.replace(fused, next),
            None => self.push(next),
        }
        self.open = self.ops.len();
    }

    fn replace(&mut self, fused: Option<rules::Replacement>, next: Piece) {
        match fused {
            Some(rules::Replacement { taken, piece }) => {
                self.ops.truncate(self.ops.len() - taken);
                self.ops.push(piece);
            }
            None => self.append(next),
        }
    }

    /// Appends an op, with the JUMPDEST before it.
    fn append(&mut self, mut next: Piece) {
        if let Some((gas, pc)) = self.prefix.take() {
            next.gas += u32::from(gas);
            next.len += next.pc - pc;
            next.parts += 1;
            next.pc = pc;
        }
        self.ops.push(next);
    }

    /// An instruction that revm's table executes. Nothing may be fused across it.
    fn plain(&mut self, instruction: &Instruction<'_>) {
        let gas = self.target.gas[usize::from(instruction.byte)];
        let len = offset(1 + instruction.immediate.len());
        self.append(Piece {
            a: instruction.byte,
            b: u8::try_from(instruction.immediate.len()).unwrap_or(0)
                | if goes_on(instruction) { 0 } else { ENDS },
            destination: offset(instruction.end()),
            ..piece(StreamOp::Plain, gas.into(), offset(instruction.pc), len)
        });
        self.open = self.ops.len();
    }

    /// Behind the code the EVM stops.
    fn end(&mut self, pc: usize) {
        let stop = Instruction {
            pc,
            byte: Op::STOP.byte(),
            op: Some(Op::STOP),
            immediate: &[],
            bad_immediate: false,
        };
        self.plain(&stop);
    }
}

/// In the second depth of a plain instruction: no op follows it. A user's instruction may go on all the same; revm's loop takes
/// it from there.
pub const ENDS: u8 = 0x80;

/// Whether control goes on behind the instruction, as revm defines it.
fn goes_on(instruction: &Instruction<'_>) -> bool {
    let ends = |op: Op| matches!(op.flow(), Flow::Halt | Flow::Jump);
    instruction.op.is_some_and(|op| !ends(op)) && !instruction.bad_immediate
}

/// Code offsets are 32 bits here: longer code does not fit into a program.
fn offset(pc: usize) -> u32 {
    u32::try_from(pc).unwrap_or(u32::MAX)
}

fn piece(op: StreamOp, gas: u32, pc: u32, len: u32) -> Piece {
    Piece {
        op,
        gas,
        pc,
        len,
        a: 0,
        b: 0,
        destination: 0,
        constant: Constant::NONE,
        entries: Vec::new(),
        parts: 1,
    }
}

/// The op that executes this one instruction, if there is one other than [`StreamOp::Plain`].
fn native_piece(op: Op, instruction: &Instruction<'_>) -> Option<Piece> {
    let stack = |kind, op| StreamOp::find(kind, op, Mode::S).or_else(|| StreamOp::find(kind, op, Mode::Ss));
    let len = offset(1 + instruction.immediate.len());
    let made = |op| piece(op, 0, offset(instruction.pc), len);
    let pushed = |value| Piece { constant: Constant { value, growth: 1 }, ..made(push_op(value)) };
    Some(match op {
        Op::PC => pushed(U256::from(instruction.pc)),
        Op::POP => Piece { a: 1, ..made(StreamOp::PopN) },
        _ if op == Op::PUSH0 || op.hides_immediate() => {
            let mut value = U256::try_from_be_slice(instruction.immediate)?;
            // Behind the code the EVM reads zeros.
            let missing = usize::from(op.immediate_size()) - instruction.immediate.len();
            value <<= 8 * missing;
            pushed(value)
        }
        _ => {
            let kinds = [
                Kind::binary,
                Kind::unary,
                Kind::ternary,
                Kind::exp,
                Kind::keccak,
                Kind::sload,
                Kind::mload,
                Kind::mstore,
                Kind::mstore8,
                Kind::dup,
                Kind::swap,
                Kind::jump,
                Kind::jumpi,
                Kind::environment,
            ];
            let found = kinds.into_iter().find_map(|kind| stack(kind, op))?;
            let a = match found.kind() {
                Kind::dup => op.byte() - Op::DUP1.byte() + 1,
                Kind::swap => op.byte() - Op::SWAP1.byte() + 1,
                _ => 0,
            };
            Piece { a, ..made(found) }
        }
    })
}

/// The op that pushes this constant alone.
fn push_op(value: U256) -> StreamOp {
    if u32::try_from(value).is_ok() { StreamOp::PushI } else { StreamOp::PushW }
}
