//! Which fusions there are, and which of them a contract uses.

use super::{Constant, Piece, constants};
use crate::{
    isa::Op,
    stream::{Kind, Mode, StreamOp},
};
use std::collections::BTreeMap;

/// A set of fused ops that the encoder may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    allowed: Vec<bool>,
}

/// Most kinds of fused op in one program that has a profile. More of them cost the branch predictor more than they save.
const MOST_RULES: usize = 128;

impl Rules {
    /// Every rule.
    pub fn all() -> Self {
        Self { allowed: vec![true; StreamOp::ALL.len()] }
    }

    /// No rule.
    pub fn none() -> Self {
        Self { allowed: vec![false; StreamOp::ALL.len()] }
    }

    /// The rules that save most dispatches, given how often each op that could be made was executed.
    pub fn chosen(executed: impl Iterator<Item = (StreamOp, u64)>) -> Self {
        let mut weights = BTreeMap::<StreamOp, u64>::new();
        for (op, count) in executed {
            let weight = weights.entry(op).or_default();
            *weight = weight.saturating_add(count.max(1));
        }
        let mut ranked: Vec<_> = weights.into_iter().collect();
        ranked.sort_by_key(|&(op, weight)| (std::cmp::Reverse(weight), op));
        let mut rules = Self::none();
        for (op, _) in ranked.into_iter().take(MOST_RULES) {
            rules.allowed[op as usize] = true;
        }
        // Recognised after the encoder, which makes the branches that a table is made of.
        rules.allowed[StreamOp::Select as usize] = true;
        rules
    }

    /// Whether the encoder may make this op of several instructions.
    pub fn contains(&self, op: StreamOp) -> bool {
        self.allowed[op as usize]
    }

    fn find(&self, kind: Kind, op: Op, mode: Mode) -> Option<StreamOp> {
        StreamOp::find(kind, op, mode).filter(|&op| self.contains(op))
    }
}

/// The op that replaces the last `taken` open ops and `next`.
pub(super) struct Replacement {
    pub(super) taken: usize,
    pub(super) piece: Piece,
}

/// What `next` becomes behind the `open` ops of the same block, if there is a rule. The longest match wins.
pub(super) fn combine(open: &[Piece], next: &Piece, rules: &Rules) -> Option<Replacement> {
    let with_two = open.last_chunk::<2>().and_then(|[first, second]| two(first, second, next, rules));
    with_two
        .and_then(|piece| replacement(open, 2, next, piece))
        .or_else(|| replacement(open, 1, next, one(open.last()?, next, rules)?))
}

/// `made` in the place of the last `taken` open ops and `next`, if its gas and length fit their fields in the program.
fn replacement(open: &[Piece], taken: usize, next: &Piece, made: Piece) -> Option<Replacement> {
    let parts = &open[open.len() - taken..];
    let piece = Piece {
        // Conserved by construction: whatever the rule made, it costs what its parts cost.
        gas: next.gas + parts.iter().map(|part| part.gas).sum::<u32>(),
        len: next.len + parts.iter().map(|part| part.len).sum::<u32>(),
        parts: next.parts + parts.iter().map(|part| part.parts).sum::<u16>(),
        pc: parts[0].pc,
        ..made
    };
    let fits = piece.gas <= u16::MAX.into() && piece.len <= u8::MAX.into();
    fits.then_some(Replacement { taken, piece })
}

fn dup_depth(piece: &Piece) -> Option<u8> {
    (piece.op.kind() == Kind::dup).then_some(piece.a)
}

fn constant(piece: &Piece) -> Option<Constant> {
    (piece.op.kind() == Kind::push).then_some(piece.constant)
}

/// Rules over two open ops.
fn two(first: &Piece, second: &Piece, next: &Piece, rules: &Rules) -> Option<Piece> {
    let kind = next.op.kind();
    if !matches!(kind, Kind::binary | Kind::mstore) || next.op.mode() != Mode::Ss {
        return None;
    }
    let op = next.op.op();
    let made = |mode| rules.find(kind, op, mode);
    match (dup_depth(first), constant(first), dup_depth(second), constant(second)) {
        // DUPn PUSH op: the constant is on top.
        (Some(n), _, _, Some(value)) => sized(value, made, Mode::Id, Mode::Wd, 1).map(|(op, value)| Piece {
            op,
            a: n,
            constant: value,
            ..next.clone()
        }),
        // PUSH DUPn op: the copy is on top. DUP1 would copy the constant.
        (_, Some(value), Some(n @ 2..), _) => sized(value, made, Mode::Di, Mode::Dw, 0).map(|(op, value)| {
            // The copy comes on top of the finished constant.
            let growth = value.growth.max(2);
            Piece { op, a: n - 1, constant: Constant { growth, ..value }, ..next.clone() }
        }),
        // DUPn DUPm op: the second copy is on top, and counted from one word higher.
        (Some(n), _, Some(m), _) => {
            made(Mode::Dd).map(|op| Piece { op, a: if m == 1 { n } else { m - 1 }, b: n, ..next.clone() })
        }
        (_, Some(b), _, Some(a)) if kind == Kind::binary && rules.contains(StreamOp::PushW) => {
            // The first constant lies on the stack while the second is made.
            folded(op, a, Constant { growth: b.growth.max(1 + a.growth), ..b }, next)
        }
        _ => None,
    }
}

/// `a op b` as a constant, whose making needed as many words as `b` says.
fn folded(op: Op, a: Constant, b: Constant, next: &Piece) -> Option<Piece> {
    let value = constants::fold(op, a.value, b.value)?;
    Some(Piece { op: StreamOp::PushW, constant: Constant { value, growth: b.growth }, ..next.clone() })
}

/// The op for a constant of this size, `below` words above what was there before.
fn sized(
    value: Constant,
    made: impl Fn(Mode) -> Option<StreamOp>,
    small: Mode,
    wide: Mode,
    below: u16,
) -> Option<(StreamOp, Constant)> {
    value
        .small()
        .and_then(|_| made(small))
        .or_else(|| made(wide))
        .map(|op| (op, Constant { growth: value.growth + below, ..value }))
}

/// Rules over one open op.
fn one(last: &Piece, next: &Piece, rules: &Rules) -> Option<Piece> {
    let (kind, op, mode) = (next.op.kind(), next.op.op(), next.op.mode());
    let made = |mode| rules.find(kind, op, mode);
    match (kind, mode) {
        (Kind::binary | Kind::mstore, Mode::Ss) => {
            if let Some(n) = dup_depth(last) {
                return made(Mode::Ds).map(|op| Piece { op, a: n, ..next.clone() });
            }
            if let Some(value) = constant(last) {
                return sized(value, made, Mode::Is, Mode::Ws, 0).map(|(op, value)| Piece {
                    op,
                    constant: value,
                    ..next.clone()
                });
            }
            if last.op == StreamOp::Swap1 {
                let commutes = matches!(op, Op::ADD | Op::MUL | Op::EQ | Op::AND | Op::OR | Op::XOR);
                let op =
                    if commutes { Some(next.op).filter(|&op| rules.contains(op)) } else { made(Mode::Rs) };
                return op.map(|op| Piece { op, ..next.clone() });
            }
            None
        }
        (Kind::unary | Kind::mload, Mode::S) => {
            if let Some(n) = dup_depth(last) {
                return made(Mode::D).map(|op| Piece { op, a: n, ..next.clone() });
            }
            let small = constant(last).filter(|value| value.small().is_some())?;
            made(Mode::I).map(|op| Piece { op, constant: small, ..next.clone() })
        }
        (Kind::pop, _) => match last.op.kind() {
            Kind::pop if last.a < u8::MAX => {
                Some(Piece { a: last.a + 1, ..next.clone() }).filter(|_| rules.contains(StreamOp::PopN))
            }
            Kind::swap => {
                rules.find(Kind::swap_pop, Op::POP, Mode::D).map(|op| Piece { op, a: last.a, ..next.clone() })
            }
            _ => None,
        },
        (Kind::jump, _) => match last.op.kind() {
            Kind::pop => rules.find(Kind::pop_jump, Op::JUMP, Mode::D).map(|op| Piece {
                op,
                a: last.a,
                ..next.clone()
            }),
            Kind::swap if last.op == StreamOp::Swap1 => {
                rules.find(Kind::swap_jump, Op::JUMP, Mode::D).map(|op| Piece { op, ..next.clone() })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether it leaves 0 or 1 by comparing two words.
fn is_comparison(op: StreamOp) -> bool {
    op.kind() == Kind::binary && matches!(op.op(), Op::LT | Op::GT | Op::SLT | Op::SGT | Op::EQ)
}

/// A jump whose destination is known, behind the `open` ops. `destination` was pushed by the last of them.
pub(super) fn branch(open: &[Piece], jump: &Piece, destination: u32, rules: &Rules) -> Option<Replacement> {
    let (pushed, before) = open.split_last()?;
    let parts = |taken, made| replacement(open, taken, jump, Piece { destination, ..made });
    debug_assert_eq!(pushed.op.kind(), Kind::push);
    if jump.op.op() == Op::JUMP {
        return parts(1, Piece { op: rules.find(Kind::jump_to, Op::JUMP, Mode::I)?, ..jump.clone() });
    }
    let compared = |piece: &Piece, if_false: bool| {
        let op = rules.find(Kind::compare_branch, piece.op.op(), piece.op.mode())?;
        Some(Piece { op, b: piece.b | (u8::from(if_false) * TAKEN_IF_FALSE), ..piece.clone() })
    };
    let fused = match before {
        [.., comparison, not] if is_comparison(comparison.op) && not.op == StreamOp::IszeroS => {
            compared(comparison, true).and_then(|piece| parts(3, piece))
        }
        _ => None,
    };
    let fused = fused.or_else(|| {
        let last = before.last()?;
        let piece = match last.op.kind() {
            Kind::binary if is_comparison(last.op) => compared(last, false),
            Kind::unary if last.op.op() == Op::ISZERO => rules
                .find(Kind::branch, Op::JUMPI, last.op.mode())
                .map(|op| Piece { op, b: TAKEN_IF_FALSE, ..last.clone() }),
            Kind::dup => {
                rules.find(Kind::branch, Op::JUMPI, Mode::D).map(|op| Piece { op, b: 0, ..last.clone() })
            }
            _ => None,
        };
        parts(2, piece?)
    });
    fused.or_else(|| {
        parts(1, Piece { op: rules.find(Kind::branch, Op::JUMPI, Mode::S)?, b: 0, ..jump.clone() })
    })
}

/// In the second depth of a branch: it is taken if the comparison is false.
pub const TAKEN_IF_FALSE: u8 = 0x80;
