//! Programs that do something: blocks with known stack heights, branches, loops, functions, and now and then anything.

use super::{choices::Choices, snippets};
use alloy_primitives::U256;
use metis_opcode_opt::Op;
use metis_vm::SpecId;

/// Words on the stack between two blocks.
pub(super) const BASE: usize = 5;

/// A place in the code that is jumped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Code in the making, and the height of the stack where it stands.
#[derive(Debug)]
pub(super) struct Assembler {
    spec: SpecId,
    code: Vec<u8>,
    pub(super) height: usize,
    labels: Vec<Option<usize>>,
    /// Where a label's offset belongs, and in how many bytes.
    uses: Vec<(usize, usize, Label)>,
}

impl Assembler {
    fn new(spec: SpecId) -> Self {
        Self { spec, code: Vec::new(), height: 0, labels: Vec::new(), uses: Vec::new() }
    }

    /// An instruction; where the fork does not have it, something else that takes and leaves as many words.
    pub(super) fn op(&mut self, op: Op) {
        if self.has(op) {
            self.raw(op.byte());
        } else {
            (0..op.inputs()).for_each(|_| self.raw(Op::POP.byte()));
            (0..op.outputs()).for_each(|_| self.raw(Op::MSIZE.byte()));
        }
        self.height = (self.height + usize::from(op.outputs())).saturating_sub(op.inputs().into());
    }

    pub(super) fn ops(&mut self, ops: &[Op]) {
        ops.iter().for_each(|&op| self.op(op));
    }

    pub(super) fn raw(&mut self, byte: u8) {
        self.code.push(byte);
    }

    pub(super) fn dup(&mut self, depth: usize) {
        self.raw(Op::DUP1.byte() + (depth - 1) as u8);
        self.height += 1;
    }

    pub(super) fn swap(&mut self, depth: usize) {
        self.raw(Op::SWAP1.byte() + (depth - 1) as u8);
    }

    /// Whether the fork has an instruction.
    pub(super) fn has(&self, op: Op) -> bool {
        self.spec.is_enabled_in(since(op))
    }

    /// By the shortest PUSH that every fork has.
    pub(super) fn push(&mut self, value: impl TryInto<U256>) {
        let value = value.try_into().unwrap_or_default();
        self.push_in(value, value.byte_len().max(1));
    }

    /// In so many bytes, 0 for PUSH0.
    pub(super) fn push_in(&mut self, value: U256, width: usize) {
        self.raw(Op::PUSH0.byte() + width as u8);
        self.code.extend_from_slice(&value.to_be_bytes::<32>()[32 - width..]);
        self.height += 1;
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub(super) fn push_label(&mut self, label: Label, width: usize) {
        self.raw(Op::PUSH0.byte() + width as u8);
        self.uses.push((self.code.len(), width, label));
        self.code.resize(self.code.len() + width, 0);
        self.height += 1;
    }

    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
        self.raw(Op::JUMPDEST.byte());
    }

    /// Brings the stack to a height.
    pub(super) fn level(&mut self, height: usize, choices: &mut Choices<'_>) {
        while self.height > height {
            match choices.below(4) {
                0 if self.height > height + 1 => {
                    self.swap(choices.within(1, (self.height - 1).min(16)));
                    self.op(Op::POP);
                }
                // Keeps what was computed in sight.
                1 | 2 if self.height > height + 1 => self.op(Op::XOR),
                _ => self.op(Op::POP),
            }
        }
        while self.height < height {
            match choices.below(3) {
                0 if self.height > 0 => self.dup(choices.within(1, self.height.min(16))),
                1 => self.op(Op::MSIZE),
                _ => self.push(choices.word()),
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        for (at, width, label) in self.uses {
            let offset = U256::from(self.labels[label.0].unwrap_or(0));
            self.code[at..at + width].copy_from_slice(&offset.to_be_bytes::<32>()[32 - width..]);
        }
        self.code
    }
}

/// The first fork with an instruction.
fn since(op: Op) -> SpecId {
    match op {
        Op::DELEGATECALL => SpecId::HOMESTEAD,
        Op::REVERT | Op::RETURNDATASIZE | Op::RETURNDATACOPY | Op::STATICCALL => SpecId::BYZANTIUM,
        Op::SHL | Op::SHR | Op::SAR | Op::EXTCODEHASH | Op::CREATE2 => SpecId::PETERSBURG,
        Op::CHAINID | Op::SELFBALANCE => SpecId::ISTANBUL,
        Op::BASEFEE => SpecId::LONDON,
        Op::PUSH0 => SpecId::SHANGHAI,
        Op::TLOAD | Op::TSTORE | Op::MCOPY | Op::BLOBHASH | Op::BLOBBASEFEE => SpecId::CANCUN,
        Op::CLZ => SpecId::OSAKA,
        Op::DUPN | Op::SWAPN | Op::EXCHANGE | Op::SLOTNUM => SpecId::AMSTERDAM,
        _ => SpecId::FRONTIER,
    }
}

/// Code of any kind.
pub(crate) fn code(choices: &mut Choices<'_>, spec: SpecId) -> Vec<u8> {
    match choices.below(16) {
        0 => weighted_bytes(choices),
        1 => choices.bytes(60),
        _ => structured(choices, spec),
    }
}

/// Mostly valid code: it ends by returning what is on its stack and in its memory.
fn structured(choices: &mut Choices<'_>, spec: SpecId) -> Vec<u8> {
    let mut out = Assembler::new(spec);
    prologue(&mut out, choices);
    let blocks: Vec<_> = (0..choices.within(1, 6)).map(|_| out.label()).collect();
    let functions: Vec<_> = (0..choices.below(3)).map(|_| (out.label(), choices.below(3))).collect();
    let end = out.label();
    for (index, &block) in blocks.iter().enumerate() {
        jumpdests(&mut out, choices);
        out.place(block);
        let later = blocks[index + 1..].iter().copied().chain([end]).collect::<Vec<_>>();
        for _ in 0..choices.within(1, 8) {
            match choices.below(12) {
                0 if !functions.is_empty() => call(&mut out, choices.pick(&functions), choices),
                1 => snippets::branch(&mut out, choices.pick(&later), choices),
                2 => snippets::selectors(&mut out, &later, choices),
                3 => counted_loop(&mut out, choices),
                _ => snippets::any(&mut out, choices),
            }
        }
        out.level(BASE, choices);
        match choices.below(12) {
            0 => snippets::halt(&mut out, choices),
            1 => snippets::jump(&mut out, choices.pick(&later), choices),
            2 => snippets::branch(&mut out, choices.pick(&later), choices),
            _ => {}
        }
        out.height = BASE;
    }
    out.place(end);
    epilogue(&mut out, choices);
    for (function, arguments) in functions {
        body(&mut out, function, arguments, choices);
    }
    tail(&mut out, choices);
    out.finish()
}

/// The first words; seldom so many that the stack is nearly full.
fn prologue(out: &mut Assembler, choices: &mut Choices<'_>) {
    if choices.chance(10) {
        let words = 1024 - BASE - choices.below(8);
        out.push(choices.word());
        (1..words).for_each(|_| out.raw(Op::DUP1.byte()));
    }
    for index in 0..BASE {
        if choices.chance(100) {
            out.push(32 * index);
            out.op(Op::CALLDATALOAD);
        } else {
            out.push(choices.word());
        }
    }
    out.height = BASE;
}

/// Some JUMPDESTs in a row, and perhaps a jump to one of them.
fn jumpdests(out: &mut Assembler, choices: &mut Choices<'_>) {
    if !choices.chance(60) {
        return;
    }
    let labels: Vec<_> = (0..choices.within(1, 5)).map(|_| out.label()).collect();
    if choices.chance(128) {
        snippets::jump(out, choices.pick(&labels), choices);
    }
    labels.into_iter().for_each(|label| out.place(label));
}

/// A function call: return address, arguments, jump. What it returns is on top.
fn call(out: &mut Assembler, (function, arguments): (Label, usize), choices: &mut Choices<'_>) {
    let back = out.label();
    out.push_label(back, 2);
    (0..arguments).for_each(|_| out.push(choices.word()));
    out.push_label(function, choices.within(2, 3));
    out.op(Op::JUMP);
    out.place(back);
    // The return address has become the result.
    out.height -= arguments;
}

/// A function: it takes its arguments and leaves one word.
fn body(out: &mut Assembler, function: Label, arguments: usize, choices: &mut Choices<'_>) {
    out.place(function);
    out.height = BASE + 1 + arguments;
    for _ in 0..choices.below(3) {
        snippets::any(out, choices);
    }
    out.level(BASE + 1, choices);
    // [back] -> [result]
    match choices.below(3) {
        0 => {
            out.push(choices.word());
            out.swap(1);
            out.op(Op::JUMP);
        }
        1 => {
            out.push(choices.word());
            out.dup(2);
            out.ops(&[Op::CALLER, Op::MSIZE, Op::POP, Op::POP]);
            out.op(Op::JUMP);
        }
        _ => {
            out.dup(1);
            out.op(Op::JUMP);
        }
    }
}

/// A loop with a counter, which ends after a few turns unless its body plays with the stack.
fn counted_loop(out: &mut Assembler, choices: &mut Choices<'_>) {
    let start = out.label();
    out.push(choices.within(1, 8));
    let height = out.height;
    out.place(start);
    for _ in 0..choices.below(4) {
        snippets::any(out, choices);
    }
    out.level(height.max(BASE), choices);
    out.push(1);
    if choices.chance(128) {
        out.swap(1);
        out.op(Op::SUB);
    } else {
        out.op(Op::NOT);
        out.op(Op::ADD);
        out.push(1);
        out.op(Op::ADD);
    }
    // The counter, not more than eight whatever the body has made of it.
    out.push(7);
    out.op(Op::AND);
    out.dup(1);
    if choices.chance(64) {
        out.ops(&[Op::ISZERO, Op::ISZERO]);
    }
    out.push_label(start, choices.within(2, 4));
    out.op(Op::JUMPI);
}

/// Shows what there is: the stack in memory, all of it returned.
fn epilogue(out: &mut Assembler, choices: &mut Choices<'_>) {
    for index in 0..BASE {
        out.push(32 * index);
        out.op(Op::MSTORE);
    }
    if choices.chance(200) {
        out.push(192);
        out.push(0);
        out.op(if choices.chance(32) { Op::REVERT } else { Op::RETURN });
    }
}

/// Bytes behind the code that are never meant to be executed.
fn tail(out: &mut Assembler, choices: &mut Choices<'_>) {
    for _ in 0..choices.below(6) {
        let byte = choices.pick(&[0x5b, 0x60, 0xfe, 0x7f, 0x00, 0x56]);
        out.raw(byte);
    }
    if choices.chance(60) {
        out.raw(Op::PUSH0.byte() + choices.within(1, 32) as u8);
        out.raw(choices.byte());
    }
}

/// Bytes that are mostly instructions of the kind that programs consist of.
fn weighted_bytes(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut code = Vec::new();
    (0..choices.below(8)).for_each(|_| code.extend([0x60, choices.byte()]));
    for _ in 0..choices.within(4, 80) {
        match choices.below(12) {
            0 | 1 => code.extend([0x60, choices.byte()]),
            2 | 3 => code.push(0x80 + choices.below(6) as u8),
            4 => code.push(0x90 + choices.below(6) as u8),
            5 | 6 => code.push(choices.below(0x20) as u8),
            7 => code.push(0x50 + choices.below(0x10) as u8),
            8 => code.push(0x30 + choices.below(0x20) as u8),
            9 => code.push(0x5b),
            10 => code.extend([0x60, choices.below(80) as u8, choices.pick(&[0x56, 0x57])]),
            _ => code.push(choices.byte()),
        }
    }
    code
}
