//! Instructions that become a given stream op, and programs around them.

use alloy_primitives::U256;
use metis_opcode_opt::{Kind, Mode, Op, StreamOp, decode::instructions};
use metis_vm::SpecId;

/// Words nearest to the top that are distinct and come from the call data.
pub(crate) const DISTINCT: usize = 20;

/// What separates the snippet from the instructions before it, so that nothing is fused across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barrier {
    Jumpdest,
    /// A jump that is not taken. It needs two more words of stack.
    Branch,
}

/// A piece of code, with places for the offset of a JUMPDEST.
#[derive(Clone, Debug)]
enum Part {
    Op(Op),
    Push(U256, usize),
    Destination,
}

/// Instructions that become one stream op.
#[derive(Clone, Debug)]
pub(crate) struct Snippet {
    parts: Vec<Part>,
    /// The deepest word that is named.
    pub(crate) depth: usize,
    /// How many different stack words the result depends on, at most two.
    pub(crate) reads: usize,
    /// Whether another one differs from it in nothing but a constant's value.
    pub(crate) is_particular: bool,
    /// A word that must be the offset of a JUMPDEST, by depth.
    target: Option<usize>,
}

/// A snippet at the end of a stack of a given height.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) code: Vec<u8>,
    /// Where the barrier begins.
    pub(crate) barrier: usize,
    /// Where the snippet begins.
    pub(crate) snippet: usize,
    /// Where it ends.
    pub(crate) behind: usize,
    pub(crate) static_gas: u64,
}

impl Snippet {
    /// Its bytes.
    pub(crate) fn code(&self, destination: usize) -> Vec<u8> {
        let mut code = Vec::new();
        for part in &self.parts {
            match part {
                Part::Op(op) => code.push(op.byte()),
                Part::Push(value, width) => push_in(&mut code, *value, *width),
                Part::Destination => push_in(&mut code, U256::from(destination), 2),
            }
        }
        code
    }

    /// Words that must be on the stack, and how many there are afterwards instead of `height`.
    fn stack(&self, height: usize) -> (usize, usize) {
        let (mut needs, mut net) = (0i64, 0i64);
        for instruction in instructions(&self.code(0)) {
            let (inputs, outputs) = instruction.stack().unwrap_or_default();
            needs = needs.max(i64::from(inputs) - net);
            net += i64::from(outputs) - i64::from(inputs);
        }
        (needs as usize, (height as i64 + net).max(0) as usize)
    }

    pub(crate) fn needs(&self) -> usize {
        self.stack(0).0
    }

    /// The snippet on a stack of so many words; what is then on the stack and in memory is returned, and by which way.
    pub(crate) fn at_height(&self, height: usize, barrier: Barrier) -> Program {
        // Offsets depend on lengths alone, which do not depend on the destination.
        let destination = self.assemble(height, barrier, 0).1;
        let (program, found) = self.assemble(height, barrier, destination);
        assert_eq!(found, destination);
        program
    }

    fn assemble(&self, height: usize, barrier: Barrier, destination: usize) -> (Program, usize) {
        let mut code = Vec::new();
        let distinct = height.min(DISTINCT);
        for index in 0..height - distinct {
            if index == 0 { push_in(&mut code, U256::from(0x77), 1) } else { code.push(Op::DUP1.byte()) }
        }
        for depth in (1..=distinct).rev() {
            if self.target == Some(depth) {
                push_in(&mut code, U256::from(destination), 2);
            } else {
                push_in(&mut code, U256::from(32 * (depth - 1)), 2);
                code.push(Op::CALLDATALOAD.byte());
            }
        }
        let at = code.len();
        match barrier {
            Barrier::Jumpdest => code.push(Op::JUMPDEST.byte()),
            Barrier::Branch => {
                push_in(&mut code, U256::ZERO, 1);
                push_in(&mut code, U256::from(destination), 2);
                code.push(Op::JUMPI.byte());
            }
        }
        let snippet = code.len();
        code.extend(self.code(destination));
        let behind = code.len();
        let gas = metis_vm::fusion::analysis::target(SpecId::OSAKA).gas;
        let static_gas =
            instructions(&code[snippet..behind]).map(|i| u64::from(gas[usize::from(i.byte)])).sum();
        let (_, after) = self.stack(height);
        epilogue(&mut code, after, 0);
        let destination = code.len();
        code.push(Op::JUMPDEST.byte());
        epilogue(&mut code, after, 32);
        (Program { code, barrier: at, snippet, behind, static_gas }, destination)
    }
}

/// Returns the topmost words, and so much more.
fn epilogue(code: &mut Vec<u8>, height: usize, more: usize) {
    let mut height = height;
    if height == 1024 {
        code.push(Op::POP.byte());
        height -= 1;
    }
    for index in 0..height.min(DISTINCT) {
        push_in(code, U256::from(256 + 32 * index), 2);
        code.push(Op::MSTORE.byte());
    }
    push_in(code, U256::from(256 + 32 * DISTINCT + more), 2);
    push_in(code, U256::ZERO, 1);
    code.push(Op::RETURN.byte());
}

fn push_in(code: &mut Vec<u8>, value: U256, width: usize) {
    code.push(Op::PUSH0.byte() + width as u8);
    code.extend_from_slice(&value.to_be_bytes::<32>()[32 - width..]);
}

const NARROW: [u64; 14] = [0, 1, 2, 3, 7, 31, 32, 33, 64, 255, 256, 0xffff, 0x8000_0000, 0xffff_ffff];

fn wide() -> [U256; 10] {
    [
        U256::from(u64::from(u32::MAX) + 1),
        U256::from(u64::MAX),
        U256::from(1) << 64,
        U256::from(1) << 128,
        (U256::from(1) << 160) - U256::from(1),
        U256::from(1) << 255,
        (U256::from(1) << 255) - U256::from(1),
        U256::MAX,
        U256::MAX - U256::from(1),
        U256::from_limbs([0x0123_4567_89ab_cdef, 0, 0xfeed, 0x8000_0000_0000_1234]),
    ]
}

/// Constants that this mode holds, as parts; those by several instructions too.
fn constants(mode: Mode) -> Vec<Vec<Part>> {
    let push = |value: U256| vec![Part::Push(value, value.byte_len().max(1))];
    let one = U256::from(1);
    match mode {
        _ if mode.is_wide() => {
            let folded = [
                // (1 << 160) - 1, three words deep.
                vec![
                    Part::Push(one, 1),
                    Part::Push(one, 1),
                    Part::Push(U256::from(160), 1),
                    Part::Op(Op::SHL),
                    Part::Op(Op::SUB),
                ],
                // A small number that took two words.
                vec![Part::Push(one, 1), Part::Push(U256::from(32), 1), Part::Op(Op::ADD)],
            ];
            wide().into_iter().map(push).chain(folded).collect()
        }
        _ => NARROW
            .into_iter()
            .map(|value| push(U256::from(value)))
            // In more bytes than it needs, and of none.
            .chain([vec![Part::Push(U256::from(5), 32)], vec![Part::Op(Op::PUSH0)], vec![Part::Op(Op::PC)]])
            .collect(),
    }
}

fn dup(depth: usize) -> Part {
    Part::Op(Op::from_byte(Op::DUP1.byte() + depth as u8 - 1).expect("DUP1 to DUP16"))
}

fn swap(depth: usize) -> Part {
    Part::Op(Op::from_byte(Op::SWAP1.byte() + depth as u8 - 1).expect("SWAP1 to SWAP16"))
}

/// The instructions before the one at the op's heart, for a mode: parts, depth, stack words that count.
fn operands(mode: Mode) -> Vec<(Vec<Part>, usize, usize)> {
    let constants = || constants(mode);
    let (few, all) = (1..=2, 1..=16);
    match mode {
        Mode::S => vec![(vec![], 1, 1)],
        Mode::Ss => vec![(vec![], 1, 2)],
        Mode::Rs => vec![(vec![swap(1)], 1, 2)],
        Mode::I | Mode::W => constants().into_iter().map(|constant| (constant, 1, 0)).collect(),
        Mode::Is | Mode::Ws => constants().into_iter().map(|constant| (constant, 1, 1)).collect(),
        Mode::D => all.map(|n| (vec![dup(n)], n, 1)).collect(),
        Mode::Ds => all.map(|n| (vec![dup(n)], n, 2)).collect(),
        Mode::Id | Mode::Wd => {
            let behind = |n, constant: Vec<Part>| ([vec![dup(n)], constant].concat(), n, 1);
            let first = constants().swap_remove(0);
            let every = few.flat_map(|n| constants().into_iter().map(move |constant| behind(n, constant)));
            every.chain((3..=16).map(|n| behind(n, first.clone()))).collect()
        }
        Mode::Di | Mode::Dw => {
            let before = |n, constant: Vec<Part>| ([constant, vec![dup(n + 1)]].concat(), n, 1);
            let first = constants().swap_remove(0);
            let every = few.flat_map(|n| constants().into_iter().map(move |constant| before(n, constant)));
            every.chain((3..=15).map(|n| before(n, first.clone()))).collect()
        }
        Mode::Dd => {
            let pairs = all.flat_map(|n| [1, 2, n + 1, 16].map(|m| (n, m))).filter(|&(_, m)| m <= 16);
            pairs.map(|(n, m)| (vec![dup(n), dup(m)], n.max(m), 2)).collect()
        }
    }
}

/// Constants that stand for all of their size.
fn is_first(value: U256) -> bool {
    [0, 1, 160, 32].map(U256::from).contains(&value) || value == wide()[0]
}

/// Instructions that become `op`, in all their variety.
pub(crate) fn snippets(op: StreamOp) -> Vec<Snippet> {
    let heart = Part::Op(op.op());
    let made = |parts: Vec<Part>, depth, reads| Snippet {
        is_particular: parts.iter().all(|part| match part {
            // The first of the narrow and of the wide, what has leading zeros, what is folded.
            Part::Push(value, width) => is_first(*value) || *width != value.byte_len().max(1),
            Part::Op(_) | Part::Destination => true,
        }),
        parts,
        depth,
        reads,
        target: None,
    };
    let with = |behind: &[&[Part]]| -> Vec<Snippet> {
        let operands = operands(op.mode());
        let each = |(before, depth, reads): (Vec<Part>, usize, usize)| {
            let behind = behind.iter();
            behind.map(move |&behind| made([before.clone(), behind.to_vec()].concat(), depth, reads))
        };
        operands.into_iter().flat_map(each).collect()
    };
    let (iszero, jumpi) = (Part::Op(Op::ISZERO), Part::Op(Op::JUMPI));
    let at = |target, snippet| Snippet { target: Some(target), ..snippet };
    let pops = |count| vec![Part::Op(Op::POP); count];
    match op.kind() {
        Kind::binary | Kind::unary | Kind::mload | Kind::mstore | Kind::mstore8 | Kind::keccak => {
            with(&[&[heart]])
                .into_iter()
                .map(|snippet| Snippet { reads: snippet.reads.min(2), ..snippet })
                .collect()
        }
        Kind::compare_branch => with(&[
            &[heart.clone(), Part::Destination, jumpi.clone()],
            &[heart, iszero, Part::Destination, jumpi],
        ]),
        Kind::branch => with(&[&[Part::Destination, jumpi.clone()], &[iszero, Part::Destination, jumpi]]),
        Kind::ternary | Kind::exp => vec![made(vec![heart], 1, 2)],
        Kind::sload | Kind::environment => vec![made(vec![heart], 1, 1)],
        Kind::push => with(&[&[]]),
        Kind::dup | Kind::swap => {
            // The table names the instruction, whose depth is its place among them.
            vec![made(vec![heart], 1, 1)]
        }
        Kind::pop => (1..=18).map(|count| made(pops(count), count, 1)).collect(),
        Kind::swap_pop => (1..=16).map(|n| made([vec![swap(n)], pops(1)].concat(), n, 1)).collect(),
        Kind::jump => vec![at(1, made(vec![heart.clone()], 1, 1)), made(vec![heart], 1, 1)],
        Kind::pop_jump => (1..=17)
            .map(|count| made([pops(count), vec![heart.clone()]].concat(), count, 1))
            .flat_map(|snippet| [at(snippet.depth + 1, snippet.clone()), snippet])
            .collect(),
        Kind::swap_jump => {
            let snippet = made(vec![swap(1), heart], 1, 2);
            vec![at(2, snippet.clone()), snippet]
        }
        Kind::jump_to => vec![made(vec![Part::Destination, heart], 1, 0)],
        Kind::jumpi => vec![at(1, made(vec![heart.clone()], 1, 2)), made(vec![heart], 1, 2)],
        Kind::fall => (2..=6).map(|count| made(vec![heart.clone(); count], 1, 0)).collect(),
        Kind::select => (4..=22).map(select).collect(),
        Kind::plain => [Op::COINBASE, Op::CODESIZE, Op::CALLDATACOPY, Op::SSTORE, Op::STOP, Op::INVALID]
            .map(|op| made(vec![Part::Op(op)], 1, 2))
            .into(),
    }
}

/// A chain of comparisons; all go to the same place.
fn select(count: usize) -> Snippet {
    let link = |index: usize| {
        // What operands can be equal to.
        let value =
            [0, 1, 255, 0xffff, 0xffff_ffff, 32, 3, 63][index % 8] + u64::from(index >= 8) * index as u64;
        let value = Part::Push(U256::from(value & 0xffff_ffff), 4);
        [dup(1), value, Part::Op(Op::EQ), Part::Destination, Part::Op(Op::JUMPI)]
    };
    Snippet {
        parts: (0..count).flat_map(link).collect(),
        depth: 1,
        reads: 1,
        is_particular: true,
        target: None,
    }
}
