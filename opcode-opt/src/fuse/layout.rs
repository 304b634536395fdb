//! Ops to cells, destinations to distances.

use super::{MAX_CELLS, Piece};
use crate::{
    isa::Op,
    program::{CELL, Header, Program, SEGMENT},
    stream::{Kind, Mode, StreamOp},
};

/// EVM stack words.
const STACK_LIMIT: u32 = 1024;
/// Bytes of a stack word.
const WORD: u32 = 32;
/// Most JUMPDESTs that one op steps over.
const LONGEST_FALL: usize = 60_000;

pub(super) fn lay_out(code: &[u8], ops: &[Piece]) -> Option<Program> {
    let total: usize = ops.iter().map(cells_of).sum();
    if total > MAX_CELLS {
        return None;
    }

    let mut cell_at = vec![0u16; code.len() + 1];
    let mut cell = 0;
    for op in ops {
        cell_at[op.pc as usize] = u16::try_from(cell + 1).ok()?;
        cell += cells_of(op);
    }

    let mut cells = Vec::with_capacity(total);
    let mut covers = Vec::with_capacity(total);
    let mut segments: Vec<(u16, u32)> = Vec::new();
    let mut expected = u32::MAX;
    let mut falls = falls(ops).into_iter();
    let distance = |here: usize, pc: u32| {
        let there = i64::from(cell_at[pc as usize]) - 1;
        debug_assert!(there >= 0, "a destination without an op");
        ((there - here as i64) * CELL as i64) as u32
    };
    for op in ops {
        let here = cells.len();
        let (gas, immediate) = match op.op.kind() {
            Kind::fall => {
                let (gas, ops) = falls.next()?;
                (gas, ops * CELL as u32)
            }
            Kind::compare_branch | Kind::branch | Kind::jump_to => (op.gas, distance(here, op.destination)),
            Kind::plain => (op.gas, op.destination),
            // The most bytes that may be on the stack before.
            _ if op.op.mode() == Mode::W || op.op.mode().is_wide() => {
                (op.gas, STACK_LIMIT.saturating_sub(op.constant.growth.into()) * WORD)
            }
            _ => (op.gas, immediate_of(op)?),
        };
        let header = Header::new(u16::try_from(gas).ok()?, op.a, op.b, immediate);
        cells.push([op.op as u64, header.0]);
        if op.op.mode().is_wide() {
            let [a, b, c, d] = *op.constant.value.as_limbs();
            cells.extend([[a, b], [c, d]]);
        } else if op.op.cells() == 2 {
            cells.push([immediate_of(op)?.into(), 0]);
        }
        let mut pairs = op.entries.chunks(2);
        cells.extend(pairs.by_ref().map(|pair| {
            let entry = |&(value, pc): &(u32, u32)| u64::from(value) | u64::from(distance(here, pc)) << 32;
            [entry(&pair[0]), pair.get(1).map_or(0, entry)]
        }));
        // Where the op does not follow the one before, or every so many cells, the offset is written down.
        if op.pc != expected || segments.last().is_none_or(|&(cell, _)| here - usize::from(cell) >= SEGMENT) {
            segments.push((u16::try_from(here).ok()?, op.pc));
        }
        expected = op.pc + op.len;
        covers.push(u8::try_from(op.len).ok()?);
        covers.resize(cells.len(), 0);
    }

    let mut jumps = cell_at;
    for (pc, cell) in jumps.iter_mut().enumerate() {
        if code.get(pc) != Some(&Op::JUMPDEST.byte()) {
            *cell = 0;
        }
    }
    jumps.truncate(code.len());
    let instructions = ops.iter().map(|op| usize::from(op.parts)).sum();
    Some(Program::new(cells, jumps, covers, segments, ops.len(), instructions))
}

/// The 32 bits of an immediate that is not wide. The rules put no longer one there.
fn immediate_of(op: &Piece) -> Option<u32> {
    u32::try_from(op.constant.value).ok()
}

fn cells_of(op: &Piece) -> usize {
    op.op.cells() + op.entries.len().div_ceil(2)
}

/// For each fall in order: the gas of the JUMPDESTs up to the last of its run, and how many ops on it goes.
fn falls(ops: &[Piece]) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    // Gas of the run so far, from its end: a prefix sum for each JUMPDEST.
    let mut sums: Vec<u64> = vec![0];
    for op in ops.iter().rev() {
        if op.op != StreamOp::Fall {
            sums.truncate(1);
            continue;
        }
        sums.push(sums[sums.len() - 1] + u64::from(op.gas));
        let length = sums.len() - 1;
        let longest = length.min(LONGEST_FALL);
        let gas = sums[length] - sums[length - longest];
        // A JUMPDEST dearer than mainnet's could make the sum too wide for its field: then one at a time.
        found.push(match u16::try_from(gas) {
            Ok(gas) => (gas.into(), longest as u32),
            Err(_) => (op.gas, 1),
        });
    }
    found.reverse();
    found
}
