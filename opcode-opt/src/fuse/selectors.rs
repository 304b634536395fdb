//! Tables of function selectors: chains of `DUP1 PUSH4 EQ PUSHn JUMPI`, in one op.

use super::{Piece, TAKEN_IF_FALSE};
use crate::{isa::Op, stream::StreamOp};

/// Fewest comparisons that are worth an op of their own.
const FEWEST: usize = 3;
/// Most of them, so that the chain's bytes fit into the program's eight bits.
const MOST: usize = 20;

/// Replaces chains in place.
pub(super) fn find(code: &[u8], ops: &mut Vec<Piece>) {
    let is_destination = |pc: u32| code.get(pc as usize) == Some(&Op::JUMPDEST.byte());
    let mut kept = Vec::with_capacity(ops.len());
    let mut rest = std::mem::take(ops).into_iter().peekable();
    while let Some(first) = rest.next() {
        let Some(entry) = link(&first) else {
            kept.push(first);
            continue;
        };
        let mut chain = vec![first];
        let mut entries = vec![entry];
        while entries.len() < MOST {
            // Jumps may land on the first op alone, and all must cost the same.
            let (gas, bytes) = (chain[0].gas, chain.iter().map(|op| op.len).sum::<u32>());
            let Some(next) = rest.next_if(|next| {
                link(next).is_some() && !is_destination(next.pc) && next.gas == gas && bytes + next.len < 256
            }) else {
                break;
            };
            entries.extend(link(&next));
            chain.push(next);
        }
        // A JUMPDEST before the first makes it dearer than the others, which then are a chain of their own.
        if chain.len() < FEWEST {
            kept.append(&mut chain);
            continue;
        }
        kept.push(Piece {
            op: StreamOp::Select,
            a: u8::try_from(entries.len()).unwrap_or(u8::MAX),
            len: chain.iter().map(|op| op.len).sum(),
            parts: chain.iter().map(|op| op.parts).sum(),
            entries,
            ..chain[0].clone()
        });
    }
    *ops = kept;
}

/// What a branch compares the top of the stack with, and where it goes.
fn link(op: &Piece) -> Option<(u32, u32)> {
    let compares_top = matches!(op.op, StreamOp::BrEqId | StreamOp::BrEqDi) && op.a == 1;
    (compares_top && op.b & TAKEN_IF_FALSE == 0)
        .then(|| u32::try_from(op.constant.value).ok().map(|value| (value, op.destination)))
        .flatten()
}
