//! A fused program: cells, and the ways between them and the code.
//!
//! # Layout
//! An op is one header cell of 16 bytes and, by its kind, more cells behind it:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | the op, as a number; the interpreter puts its handler here |
//! | 8..10 | static gas of all parts |
//! | 10 | first depth, count or byte |
//! | 11 | second depth; bit 7: taken if false, or for a plain instruction that no op follows |
//! | 12..16 | constant; or distance to the destination in bytes; or the offset behind a plain instruction; or for a wide op the most bytes that may be on the stack |
//! | +16..+24 | of a comparing branch: its constant |
//! | +16..+48 | of a wide op: its constant, least limb first |
//! | +16.. | of a select: per entry 8 bytes, constant and distance |

use crate::stream::StreamOp;

/// Bytes of a cell.
pub const CELL: usize = 16;

/// The offset in the code is kept at least for every such number of cells; in between it is counted.
pub(crate) const SEGMENT: usize = 64;

/// The second half of an op's first cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(pub u64);

impl Header {
    /// Its four fields.
    pub const fn new(gas: u16, a: u8, b: u8, immediate: u32) -> Self {
        Self(gas as u64 | (a as u64) << 16 | (b as u64) << 24 | (immediate as u64) << 32)
    }

    /// Static gas of all parts.
    #[inline(always)]
    pub const fn gas(self) -> u16 {
        self.0 as u16
    }

    /// First depth, count or byte.
    #[inline(always)]
    pub const fn a(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Second depth, and a flag in bit 7.
    #[inline(always)]
    pub const fn b(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Constant, distance, offset or limit.
    #[inline(always)]
    pub const fn immediate(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A fused program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    cells: Box<[[u64; 2]]>,
    /// By offset in the code: the cell where a jump to it lands, plus one; 0 is no destination.
    jumps: Box<[u16]>,
    /// By cell: bytes of code that the op there stands for.
    covers: Box<[u8]>,
    /// Cells from which on ops follow one another in the code, and the offset of the first.
    segments: Box<[(u16, u32)]>,
    ops: usize,
    instructions: usize,
}

impl Program {
    pub(crate) fn new(
        cells: Vec<[u64; 2]>,
        jumps: Vec<u16>,
        covers: Vec<u8>,
        segments: Vec<(u16, u32)>,
        ops: usize,
        instructions: usize,
    ) -> Self {
        Self {
            cells: cells.into(),
            jumps: jumps.into(),
            covers: covers.into(),
            segments: segments.into(),
            ops,
            instructions,
        }
    }

    /// The cells.
    pub fn cells(&self) -> &[[u64; 2]] {
        &self.cells
    }

    /// Puts what `handler` says in the place of each op's number.
    pub fn link(&mut self, handler: impl Fn(StreamOp) -> u64) {
        for (cell, _) in self.cells.iter_mut().zip(&self.covers).filter(|&(_, &len)| len > 0) {
            cell[0] = handler(StreamOp::ALL[cell[0] as usize]);
        }
    }

    /// By offset in the code: the cell where a jump to it lands, plus one; 0 is no destination.
    pub fn jumps(&self) -> &[u16] {
        &self.jumps
    }

    /// The cell where execution may begin, or go on behind a call or create, at this offset: that of the op which begins there.
    pub fn entry(&self, pc: usize) -> Option<usize> {
        let behind = self.segments.partition_point(|&(_, begins)| begins as usize <= pc);
        let &(first, begins) = self.segments.get(behind.checked_sub(1)?)?;
        let end = self.segments.get(behind).map_or(self.covers.len(), |&(cell, _)| cell.into());
        let mut here = begins as usize;
        for (cell, &len) in self.covers.iter().enumerate().take(end).skip(first.into()) {
            if len > 0 && here >= pc {
                return (here == pc).then_some(cell);
            }
            here += usize::from(len);
        }
        None
    }

    /// The offset in the code of the op in this cell.
    pub fn pc(&self, cell: usize) -> usize {
        let segment =
            self.segments.partition_point(|&(first, _)| usize::from(first) <= cell).saturating_sub(1);
        let Some(&(first, pc)) = self.segments.get(segment) else { return 0 };
        let before = self.covers.get(usize::from(first)..cell).unwrap_or_default();
        pc as usize + before.iter().map(|&len| usize::from(len)).sum::<usize>()
    }

    /// Every op: its cell, its offset in the code, the bytes that it stands for.
    pub fn starts(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let mut segments = self.segments.iter().peekable();
        let mut next = 0;
        self.covers.iter().enumerate().filter(|&(_, &len)| len > 0).map(move |(cell, &len)| {
            let begun = segments.next_if(|&&(first, _)| usize::from(first) == cell);
            let pc = begun.map_or(next, |&(_, pc)| pc as usize);
            next = pc + usize::from(len);
            (cell, pc, usize::from(len))
        })
    }

    /// Every op and its offset in the code, of a program that is not linked.
    pub fn ops_at(&self) -> impl Iterator<Item = (StreamOp, usize)> + '_ {
        self.starts().filter_map(|(cell, pc, _)| {
            let op = StreamOp::ALL.get(usize::try_from(self.cells[cell][0]).ok()?)?;
            Some((*op, pc))
        })
    }

    /// Ops.
    pub fn ops(&self) -> usize {
        self.ops
    }

    /// Instructions that the ops stand for.
    pub fn instructions(&self) -> usize {
        self.instructions
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
            + size_of_val(&*self.jumps)
            + size_of_val(&*self.covers)
            + size_of_val(&*self.segments)
    }
}
