//! Bytecode to instructions and basic blocks.
//!
//! Both run over the code once, in constant memory. Code may be anything: every byte string decodes.

use crate::isa::{Flow, Op};

/// An instruction where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction<'a> {
    /// Offset of its byte.
    pub pc: usize,
    /// Its byte.
    pub byte: u8,
    /// What it is; `None` is undefined on every fork and halts.
    pub op: Option<Op>,
    /// The immediate, as far as the code has it. Past the end of the code the EVM reads zeros.
    pub immediate: &'a [u8],
    /// Whether the byte behind is no valid immediate for this instruction of EIP-8024. It halts then, and
    /// the byte is an instruction of its own, perhaps a JUMPDEST.
    pub bad_immediate: bool,
}

impl Instruction<'_> {
    /// The offset after it.
    pub const fn end(&self) -> usize {
        self.pc + 1 + self.immediate.len()
    }

    /// Stack words in and out, as (words that must be there, words that are there instead). For the instructions of EIP-8024
    /// the immediate counts. `None` where the instruction halts before it looks at the stack.
    pub fn stack(&self) -> Option<(u16, u16)> {
        let op = self.op.filter(|_| !self.bad_immediate)?;
        let immediate = self.immediate.first().copied().unwrap_or(0);
        Some(match op {
            Op::DUPN => depth(immediate).map(|n| (n, n + 1))?,
            Op::SWAPN => depth(immediate).map(|n| (n + 1, n + 1))?,
            Op::EXCHANGE => pair(immediate).map(|(_, m)| (m + 1, m + 1))?,
            _ => (op.inputs().into(), op.outputs().into()),
        })
    }
}

/// EIP-8024: the depth that DUPN and SWAPN name, 17 to 235.
fn depth(immediate: u8) -> Option<u16> {
    (!matches!(immediate, 91..=127)).then(|| u16::from(immediate.wrapping_add(145)))
}

/// EIP-8024: the two depths that EXCHANGE names, the lesser first.
fn pair(immediate: u8) -> Option<(u16, u16)> {
    let k = u16::from(immediate ^ 143);
    let (q, r) = (k / 16, k % 16);
    (!matches!(immediate, 82..=127)).then_some(if q < r { (q + 1, r + 1) } else { (r + 1, 29 - q) })
}

/// The instructions of `code` in order, such that every jump destination is one of them.
pub fn instructions(code: &[u8]) -> impl Iterator<Item = Instruction<'_>> {
    let mut pc = 0;
    std::iter::from_fn(move || {
        let byte = *code.get(pc)?;
        let op = Op::from_byte(byte);
        let rest = &code[pc + 1..];
        let size = op.map_or(0, |op| usize::from(op.immediate_size())).min(rest.len());
        let mut instruction = Instruction { pc, byte, op, immediate: &rest[..size], bad_immediate: false };
        if op.is_some() && instruction.stack().is_none() {
            (instruction.immediate, instruction.bad_immediate) = (&[], true);
        }
        pc = instruction.end();
        Some(instruction)
    })
}

/// Where `code` may be jumped to, ascending. This is the EVM's own analysis, the same on every fork.
pub fn jump_destinations(code: &[u8]) -> impl Iterator<Item = usize> {
    instructions(code).filter(|i| i.op == Some(Op::JUMPDEST)).map(|i| i.pc)
}

/// Why a block ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this instruction, which jumps, branches or halts. Also with an EIP-8024 instruction whose immediate is not valid.
    Op(Op),
    /// With this byte, which is no instruction.
    Undefined(u8),
    /// Before a JUMPDEST, into which it falls.
    Fall,
    /// With the code: the EVM stops.
    End,
}

/// A run of instructions that is only entered at its first one.
///
/// A call does not end a block here: control comes back to the next instruction. Where gas may not be moved inside of a block is
/// told by [`GasClass::Boundary`](crate::GasClass::Boundary).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Offset of the first instruction.
    pub start: usize,
    /// Offset after the last.
    pub end: usize,
    /// Whether it begins with a JUMPDEST. If not, it is only reached from the block before, or not at all.
    pub is_target: bool,
    /// Stack words that must be there at the start, so that no instruction underflows.
    pub needs: u16,
    /// Most words above the height at the start, at any time.
    pub growth: u16,
    /// Height at the end less height at the start.
    pub net: i32,
    /// Why it ends.
    pub exit: Exit,
}

/// The basic blocks of `code` in order, also those that nothing reaches. Together they are all of the code.
///
/// `needs` and `growth` count saturating: a block beyond 65,535 words cannot run on a stack of 1,024 either way.
pub fn blocks(code: &[u8]) -> impl Iterator<Item = Block> {
    let mut instructions = instructions(code).peekable();
    std::iter::from_fn(move || {
        let first = instructions.peek()?;
        let mut block = Block {
            start: first.pc,
            end: first.pc,
            is_target: first.op == Some(Op::JUMPDEST),
            needs: 0,
            growth: 0,
            net: 0,
            exit: Exit::End,
        };
        while let Some(instruction) = instructions.next() {
            block.end = instruction.end();
            let exit = match (instruction.op, instruction.stack()) {
                (None, _) => Some(Exit::Undefined(instruction.byte)),
                (Some(op), None) => Some(Exit::Op(op)),
                (Some(op), Some(stack)) => {
                    block.account(stack);
                    (!matches!(op.flow(), Flow::Next | Flow::Frame)).then_some(Exit::Op(op))
                }
            };
            let falls =
                || instructions.peek().filter(|next| next.op == Some(Op::JUMPDEST)).map(|_| Exit::Fall);
            if let Some(exit) = exit.or_else(falls) {
                block.exit = exit;
                break;
            }
        }
        Some(block)
    })
}

impl Block {
    /// Counts in an instruction that takes and leaves this many words.
    fn account(&mut self, (inputs, outputs): (u16, u16)) {
        let below = i32::from(inputs) - self.net;
        self.needs = self.needs.max(u16::try_from(below.max(0)).unwrap_or(u16::MAX));
        self.net += i32::from(outputs) - i32::from(inputs);
        self.growth = self.growth.max(u16::try_from(self.net.max(0)).unwrap_or(u16::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection, prelude::*};
    use revm::bytecode::Bytecode;

    fn any_code() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            any::<u8>(),
            Just(Op::JUMPDEST.byte()),
            0x5fu8..=0x7f,
            Just(Op::DUPN.byte()),
            Just(Op::EXCHANGE.byte()),
        ];
        collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn jump_destinations_are_revms(code in any_code()) {
            let theirs = Bytecode::new_legacy(code.clone().into());
            let table = theirs.legacy_jump_table();
            let expected: Vec<_> = (0..code.len()).filter(|&pc| table.is_some_and(|t| t.is_valid(pc))).collect();
            prop_assert_eq!(jump_destinations(&code).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn instructions_and_blocks_are_all_of_the_code(code in any_code()) {
            let mut end = 0;
            for instruction in instructions(&code) {
                prop_assert_eq!(instruction.pc, end);
                end = instruction.end();
            }
            prop_assert_eq!(end, code.len());

            let targets: Vec<_> = jump_destinations(&code).collect();
            let mut end = 0;
            for block in blocks(&code) {
                prop_assert!(block.start == end && block.end > block.start);
                prop_assert_eq!(block.is_target, targets.contains(&block.start));
                prop_assert!(!targets.iter().any(|&t| t > block.start && t < block.end), "a target inside of {:?}", block);
                end = block.end;
            }
            prop_assert_eq!(end, code.len());
        }

        /// Walks a block with a plain counter from every height.
        #[test]
        fn needs_and_growth_are_exact(code in any_code(), height in 0i32..40) {
            for block in blocks(&code) {
                let (mut now, mut highest, mut underflow) = (height, height, false);
                for instruction in instructions(&code).filter(|i| (block.start..block.end).contains(&i.pc)) {
                    let Some((inputs, outputs)) = instruction.stack() else { break };
                    underflow |= now < i32::from(inputs);
                    now += i32::from(outputs) - i32::from(inputs);
                    highest = highest.max(now);
                }
                prop_assert_eq!(underflow, height < i32::from(block.needs));
                prop_assert_eq!(highest - height, i32::from(block.growth));
                prop_assert_eq!(now - height, block.net);
            }
        }
    }

    #[test]
    fn eip_8024_immediates_have_their_depth() {
        assert_eq!(
            (depth(0), depth(90), depth(128), depth(255)),
            (Some(145), Some(235), Some(17), Some(144))
        );
        assert_eq!((depth(91), depth(127), pair(82), pair(127)), (None, None, None, None));
        assert_eq!((pair(0x8e), pair(0)), (Some((1, 2)), Some((9, 16))));
        // DUPN with a JUMPDEST behind it halts, and the JUMPDEST can be jumped to.
        assert_eq!(jump_destinations(&[0xe6, 0x5b]).collect::<Vec<_>>(), [1]);
        let block = blocks(&[0xe6, 0x5b]).next();
        assert_eq!(block.map(|b| b.exit), Some(Exit::Op(Op::DUPN)));
    }
}
