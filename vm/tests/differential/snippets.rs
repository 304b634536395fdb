//! A few instructions each, of the shapes that fusion looks for and of those around them.

use super::{
    case::{CALLEE, DELEGATED, EOA, OTHER},
    choices::Choices,
    generator::{Assembler, Label},
};
use alloy_primitives::{Address, U256};
use metis_opcode_opt::Op;

const BINARY: [Op; 21] = [
    Op::ADD,
    Op::MUL,
    Op::SUB,
    Op::DIV,
    Op::SDIV,
    Op::MOD,
    Op::SMOD,
    Op::SIGNEXTEND,
    Op::LT,
    Op::GT,
    Op::SLT,
    Op::SGT,
    Op::EQ,
    Op::AND,
    Op::OR,
    Op::XOR,
    Op::BYTE,
    Op::SHL,
    Op::SHR,
    Op::SAR,
    Op::EXP,
];
const COMPARISONS: [Op; 5] = [Op::LT, Op::GT, Op::SLT, Op::SGT, Op::EQ];
const FOLDED: [Op; 8] = [Op::ADD, Op::SUB, Op::MUL, Op::AND, Op::OR, Op::XOR, Op::SHL, Op::SHR];
const KNOWN: [Op; 22] = [
    Op::ADDRESS,
    Op::ORIGIN,
    Op::CALLER,
    Op::CALLVALUE,
    Op::CALLDATASIZE,
    Op::CODESIZE,
    Op::GASPRICE,
    Op::RETURNDATASIZE,
    Op::COINBASE,
    Op::TIMESTAMP,
    Op::NUMBER,
    Op::DIFFICULTY,
    Op::GASLIMIT,
    Op::CHAINID,
    Op::SELFBALANCE,
    Op::BASEFEE,
    Op::BLOBBASEFEE,
    Op::SLOTNUM,
    Op::PC,
    Op::MSIZE,
    Op::GAS,
    Op::PUSH0,
];

/// Any of them.
pub(super) fn any(out: &mut Assembler, choices: &mut Choices<'_>) {
    match choices.below(32) {
        0..=6 => with_operands(out, choices.pick(&BINARY), choices),
        7 | 8 => unary(out, choices),
        9 | 10 => constants(out, choices),
        11 | 12 => stack(out, choices),
        13..=15 => memory(out, choices),
        16 => keccak(out, choices),
        17 | 18 => storage(out, choices),
        19 => copy(out, choices),
        20 | 21 => out.op(choices.pick(&KNOWN)),
        22 => log(out, choices),
        23 | 24 => call(out, choices),
        25 => create(out, choices),
        26 => dynamic_jump(out, choices),
        27 => deep_stack(out, choices),
        28 => ternary(out, choices),
        29 => account(out, choices),
        30 if choices.chance(30) => out.raw(choices.byte()),
        31 if choices.chance(30) => halt(out, choices),
        _ if out.has(Op::PUSH0) => out.push_in(choices.word(), choices.within(0, 32)),
        _ => out.push_in(choices.word(), choices.within(1, 32)),
    }
}

/// An instruction of two operands, which come from anywhere.
fn with_operands(out: &mut Assembler, op: Op, choices: &mut Choices<'_>) {
    let depth = |out: &Assembler, choices: &mut Choices<'_>| choices.within(1, out.height.clamp(1, 16));
    match choices.below(8) {
        0 => {}
        1 => out.swap(1),
        2 => constant(out, choices),
        3 => {
            let n = depth(out, choices);
            out.dup(n);
        }
        4 => {
            let n = depth(out, choices);
            out.dup(n);
            constant(out, choices);
        }
        5 => {
            constant(out, choices);
            let n = depth(out, choices);
            out.dup(n);
        }
        6 => {
            constant(out, choices);
            constant(out, choices);
        }
        _ => {
            let n = depth(out, choices);
            out.dup(n);
            let n = depth(out, choices);
            out.dup(n);
        }
    }
    out.op(op);
}

/// A word by a PUSH of any width that it fits in, or by several instructions.
fn constant(out: &mut Assembler, choices: &mut Choices<'_>) {
    match choices.below(6) {
        0 => constants(out, choices),
        1 => out.op(Op::PC),
        _ => {
            let word = choices.word();
            let least = word.byte_len().max(1);
            let width = if choices.chance(40) { choices.within(least, 32) } else { least };
            out.push_in(word, width);
        }
    }
}

/// Constants, folded.
fn constants(out: &mut Assembler, choices: &mut Choices<'_>) {
    out.push(choices.word());
    for _ in 0..choices.within(1, 3) {
        out.push(choices.word());
        if choices.chance(60) {
            out.push(choices.word());
            out.op(choices.pick(&FOLDED));
        }
        out.op(choices.pick(&FOLDED));
    }
}

fn unary(out: &mut Assembler, choices: &mut Choices<'_>) {
    match choices.below(3) {
        0 => {}
        1 => constant(out, choices),
        _ => out.dup(choices.within(1, out.height.clamp(1, 16))),
    }
    out.op(choices.pick(&[Op::ISZERO, Op::NOT, Op::CALLDATALOAD, Op::CLZ, Op::ISZERO]));
}

fn stack(out: &mut Assembler, choices: &mut Choices<'_>) {
    let highest = out.height.saturating_sub(1).clamp(1, 16);
    match choices.below(5) {
        0 => out.dup(choices.within(1, out.height.clamp(1, 16))),
        1 => out.swap(choices.within(1, highest)),
        2 => {
            out.swap(choices.within(1, highest));
            out.op(Op::POP);
        }
        3 => (0..choices.within(1, 3)).for_each(|_| out.op(Op::POP)),
        _ => {
            out.swap(1);
            out.swap(choices.within(1, highest));
        }
    }
}

/// An offset into memory: mostly small.
fn offset(out: &mut Assembler, choices: &mut Choices<'_>) {
    match choices.below(8) {
        0 => {
            out.dup(choices.within(1, out.height.clamp(1, 16)));
            out.push(0xff);
            out.op(Op::AND);
        }
        1 if choices.chance(40) => out.push(choices.word()),
        2 => out.op(Op::MSIZE),
        _ => out.push(choices.below(160)),
    }
}

fn memory(out: &mut Assembler, choices: &mut Choices<'_>) {
    match choices.below(8) {
        0 | 1 => {
            offset(out, choices);
            out.op(Op::MLOAD);
        }
        2 => {
            offset(out, choices);
            out.op(Op::MSTORE8);
        }
        3 => {
            offset(out, choices);
            out.dup(choices.within(1, out.height.clamp(1, 16)));
            out.op(Op::MSTORE);
        }
        4 => {
            out.push(choices.below(100));
            out.swap(1);
            out.op(Op::MSTORE);
        }
        5 => {
            // A copy of a small word as the offset.
            out.push(choices.below(100));
            out.push(choices.word());
            out.dup(2);
            out.op(Op::MSTORE);
            out.op(Op::POP);
        }
        _ => {
            offset(out, choices);
            out.op(Op::MSTORE);
        }
    }
}

fn keccak(out: &mut Assembler, choices: &mut Choices<'_>) {
    out.push(if choices.chance(8) { choices.word() } else { U256::from(choices.below(100)) });
    offset(out, choices);
    out.op(Op::KECCAK256);
}

fn storage(out: &mut Assembler, choices: &mut Choices<'_>) {
    let key = choices.below(5);
    match choices.below(5) {
        0 | 1 => {
            out.push(key);
            out.op(Op::SLOAD);
        }
        2 => {
            out.push(key);
            out.op(Op::SSTORE);
        }
        3 => {
            out.push(key);
            out.op(Op::TLOAD);
        }
        _ => {
            out.push(key);
            out.op(Op::TSTORE);
        }
    }
}

fn copy(out: &mut Assembler, choices: &mut Choices<'_>) {
    out.push(choices.below(70));
    out.push(choices.below(40));
    out.push(choices.below(100));
    match choices.below(5) {
        0 => out.op(Op::CALLDATACOPY),
        1 => out.op(Op::CODECOPY),
        2 => out.op(Op::RETURNDATACOPY),
        3 => out.op(Op::MCOPY),
        _ => {
            address(out, choices);
            out.op(Op::EXTCODECOPY);
        }
    }
}

fn log(out: &mut Assembler, choices: &mut Choices<'_>) {
    let topics = choices.below(5);
    (0..topics).for_each(|_| out.push(choices.byte()));
    out.push(choices.below(64));
    offset(out, choices);
    out.op([Op::LOG0, Op::LOG1, Op::LOG2, Op::LOG3, Op::LOG4][topics]);
}

fn address(out: &mut Assembler, choices: &mut Choices<'_>) {
    let known = |address: Address| U256::from_be_slice(address.as_slice());
    match choices.below(8) {
        0 => out.op(Op::ADDRESS),
        1 => out.push(known(CALLEE)),
        2 | 3 => out.push(known(OTHER)),
        4 => out.push(known(DELEGATED)),
        5 => out.push(known(EOA)),
        6 => out.push(choices.within(1, 10)),
        _ => out.push(choices.word()),
    }
}

fn account(out: &mut Assembler, choices: &mut Choices<'_>) {
    match choices.below(5) {
        0 => {
            out.push(choices.below(3));
            out.op(choices.pick(&[Op::BLOBHASH, Op::BLOCKHASH]));
        }
        _ => {
            address(out, choices);
            out.op(choices.pick(&[Op::BALANCE, Op::EXTCODESIZE, Op::EXTCODEHASH]));
        }
    }
}

/// A call of any kind; its success stays on the stack, and perhaps what it returned.
fn call(out: &mut Assembler, choices: &mut Choices<'_>) {
    let op = choices.pick(&[Op::CALL, Op::STATICCALL, Op::DELEGATECALL, Op::CALLCODE]);
    for _ in 0..2 {
        out.push(choices.below(70));
        out.push(choices.below(100));
    }
    if matches!(op, Op::CALL | Op::CALLCODE) {
        out.push(if choices.chance(60) { 1 } else { 0 });
    }
    address(out, choices);
    match choices.below(4) {
        0 => out.op(Op::GAS),
        1 => out.push(choices.number() % 1000),
        2 => out.push(choices.word()),
        _ => out.push(choices.number() % 20_000),
    }
    out.op(op);
    match choices.below(5) {
        0 => out.op(Op::POP),
        1 => {
            out.op(Op::RETURNDATASIZE);
            out.push(0);
            out.push(choices.below(64));
            out.op(Op::RETURNDATACOPY);
        }
        2 => out.op(Op::RETURNDATASIZE),
        _ => {}
    }
}

/// Short code that deploys, reverts or halts.
const INITCODE: [&[u8]; 5] = [
    // PUSH1 0 PUSH1 0 MSTORE8 PUSH1 1 PUSH1 0 RETURN
    &[0x60, 0, 0x60, 0, 0x53, 0x60, 1, 0x60, 0, 0xf3],
    // CALLER PUSH1 0 MSTORE PUSH1 32 PUSH1 0 REVERT
    &[0x33, 0x60, 0, 0x52, 0x60, 32, 0x60, 0, 0xfd],
    // PUSH1 3 PUSH1 2 ADD PUSH1 1 SSTORE
    &[0x60, 3, 0x60, 2, 0x01, 0x60, 1, 0x55],
    // JUMPDEST PUSH1 0 JUMP
    &[0x5b, 0x60, 0, 0x56],
    // CALLER SELFDESTRUCT
    &[0x33, 0xff],
];

fn create(out: &mut Assembler, choices: &mut Choices<'_>) {
    let init = choices.pick(&INITCODE);
    let op = choices.pick(&[Op::CREATE, Op::CREATE2]);
    out.push_in(U256::from_be_slice(init), init.len());
    out.push(0);
    out.op(Op::MSTORE);
    if op == Op::CREATE2 {
        out.push(choices.below(2));
    }
    out.push(init.len());
    out.push(32 - init.len());
    out.push(if choices.chance(60) { 1 } else { 0 });
    out.op(op);
}

/// A jump to the next instruction, by an address that only the stack knows.
fn dynamic_jump(out: &mut Assembler, choices: &mut Choices<'_>) {
    let (label, other) = (out.label(), out.label());
    match choices.below(4) {
        0 => {
            out.push_label(label, 2);
            out.ops(&[Op::CALLER, Op::POP]);
            out.op(Op::JUMP);
        }
        1 => {
            out.push(choices.below(2));
            out.push_label(label, 2);
            out.ops(&[Op::MSIZE, Op::POP, Op::JUMPI]);
        }
        2 => {
            out.push_label(label, 2);
            (0..choices.within(1, 3)).for_each(|_| out.push(0));
            while out.height > 0 && choices.chance(200) {
                out.op(Op::POP);
            }
            out.op(Op::JUMP);
        }
        _ => {
            // One of two, by the top word.
            out.dup(1);
            out.push(1);
            out.op(Op::AND);
            out.push_label(label, 2);
            out.push_label(other, 2);
            out.ops(&[Op::XOR, Op::MUL]);
            out.push_label(label, 2);
            out.ops(&[Op::XOR, Op::JUMP]);
        }
    }
    out.place(label);
    out.place(other);
}

/// EIP-8024, with any immediate.
fn deep_stack(out: &mut Assembler, choices: &mut Choices<'_>) {
    let op = choices.pick(&[Op::DUPN, Op::SWAPN, Op::EXCHANGE]);
    // Elsewhere it ends execution: seldom.
    if !out.has(op) && !choices.chance(20) {
        return;
    }
    out.raw(op.byte());
    out.raw(if choices.chance(20) {
        choices.byte()
    } else {
        choices.pick(&[0x80, 0x81, 0x8e, 0x8f, 0x9d, 0x9e, 0x00, 0x5b])
    });
    if op == Op::DUPN {
        out.height += 1;
    }
}

fn ternary(out: &mut Assembler, choices: &mut Choices<'_>) {
    for _ in 0..choices.below(3) {
        out.push(choices.word());
    }
    out.op(choices.pick(&[Op::ADDMOD, Op::MULMOD]));
}

/// A conditional jump, in all the shapes that a comparison has in front of it.
pub(super) fn branch(out: &mut Assembler, label: Label, choices: &mut Choices<'_>) {
    let height = out.height;
    match choices.below(4) {
        0 => out.dup(choices.within(1, out.height.clamp(1, 16))),
        1 => out.push(choices.below(2)),
        _ => with_operands(out, choices.pick(&COMPARISONS), choices),
    }
    (0..choices.pick(&[0, 0, 1, 1, 2])).for_each(|_| out.op(Op::ISZERO));
    // The target expects the height that blocks begin with.
    let _ = height;
    out.push_label(label, choices.pick(&[2, 2, 2, 3, 4, 5, 32]));
    out.op(Op::JUMPI);
}

pub(super) fn jump(out: &mut Assembler, label: Label, choices: &mut Choices<'_>) {
    out.push_label(label, choices.pick(&[2, 2, 2, 3, 4, 5, 32]));
    out.op(Op::JUMP);
}

/// A chain of comparisons with the top word, as at the beginning of a contract.
pub(super) fn selectors(out: &mut Assembler, labels: &[Label], choices: &mut Choices<'_>) {
    match choices.below(3) {
        0 => out.push(choices.below(6)),
        1 => out.push(choices.word()),
        _ => {
            out.push(0);
            out.op(Op::CALLDATALOAD);
            out.push(0xe0);
            out.op(Op::SHR);
        }
    }
    for index in 0..choices.within(1, 24) {
        let value = if choices.chance(30) { choices.word() } else { U256::from(index % 8) };
        let width = if choices.chance(30) { value.byte_len().max(1) } else { value.byte_len().max(4) };
        if choices.chance(20) {
            out.push_in(value, width);
            out.dup(2);
        } else {
            out.dup(1);
            out.push_in(value, width);
        }
        out.op(Op::EQ);
        if choices.chance(10) {
            out.op(Op::ISZERO);
        }
        out.push_label(choices.pick(labels), 2);
        out.op(Op::JUMPI);
        if choices.chance(5) {
            let label = out.label();
            out.place(label);
        }
    }
    out.op(Op::POP);
}

/// The end.
pub(super) fn halt(out: &mut Assembler, choices: &mut Choices<'_>) {
    match choices.below(8) {
        0 => out.op(Op::STOP),
        1 => out.op(Op::INVALID),
        2 => {
            address(out, choices);
            out.op(Op::SELFDESTRUCT);
        }
        3 => {
            out.push(choices.below(64));
            offset(out, choices);
            out.op(Op::REVERT);
        }
        4 => out.raw(choices.pick(&[0x0c, 0x21, 0x4f, 0xa5, 0xef, 0xf6])),
        5 => out.op(Op::JUMP),
        _ => {
            out.push(choices.below(64));
            offset(out, choices);
            out.op(Op::RETURN);
        }
    }
}
