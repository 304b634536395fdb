//! Weights that a launch asks for before the next ones read them.
//!
//! From the end of a launch to where the next one begins to read, memory would have nothing to do, and while one row attends, little. So
//! launches of one row end with a word to the cache about what comes.

use crate::task::Task;

/// Bytes that a launch asks for, for each multiprocessor; twice as much is on its way at most, a part of the cache of any device.
const BYTES: u64 = 32 << 10;
/// Bytes that are asked for at once.
const LINE: u64 = 128;
/// Pieces of memory of a launch, as in `gpu/kernels/numbers.cuh`.
const PIECES: usize = 4;

/// What a launch asks for: addresses and lines, `Ahead` of the kernels.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ahead {
    from: [u64; PIECES],
    lines: [u64; PIECES],
}

impl Ahead {
    pub(crate) const WORDS: usize = 2 * PIECES;

    pub(crate) const fn is_empty(&self) -> bool {
        self.lines[0] == 0
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = u64> {
        self.from.into_iter().chain(self.lines)
    }
}

/// The weights of tasks that wait, in the order in which they are read.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Addresses and bytes.
    pieces: Vec<[u64; 2]>,
    /// Pieces that have been read.
    read: usize,
    /// The piece, and the bytes of it, up to which they have been asked for.
    asked: (usize, u64),
    each: u64,
}

impl Weights {
    pub(crate) fn new(tasks: &[Task], multiprocessors: u32) -> Self {
        let pieces = tasks.iter().flat_map(Task::streamed).collect();
        Self { pieces, read: 0, asked: (0, 0), each: BYTES * u64::from(multiprocessors) }
    }

    /// What the next task asks for.
    pub(crate) fn after(&mut self, task: &Task) -> Ahead {
        self.read += task.streamed().count();
        self.asked = self.asked.max((self.read, 0));
        let mut ahead = Ahead::default();
        if !task.asks_ahead() {
            return ahead;
        }
        let whole = self.pieces[self.read..self.asked.0].iter().map(|piece| piece[1]).sum::<u64>();
        let mut left = self.each.min((2 * self.each).saturating_sub(whole + self.asked.1));
        for (from, lines) in ahead.from.iter_mut().zip(&mut ahead.lines) {
            let (piece, at) = self.asked;
            let Some(&[address, bytes]) = self.pieces.get(piece) else { break };
            *from = address + at;
            *lines = left.min(bytes - at) / LINE;
            left -= *lines * LINE;
            let end = at + *lines * LINE;
            self.asked = if bytes - end < LINE { (piece + 1, 0) } else { (piece, end) };
            if left < LINE {
                break;
            }
        }
        ahead
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::products::{Matrix, Products, Quantised, Source};

    /// A product of one row of 1,024 inputs.
    fn product(address: u64, outputs: usize) -> Task {
        let matrix = Matrix { bytes: address, scales: 0, groups: 0, bias: 0, out: 0, sum: 0, outputs };
        Task::Products(Box::new(Products {
            x: Quantised { planes: [0; 3], stride: 1024 },
            rows: 1,
            inputs: 1024,
            source: Source::Stored,
            matrices: smallvec![matrix],
            gated: None,
            shared: None,
        }))
    }

    #[test]
    fn what_comes_is_asked_for_once_and_in_order() {
        // 32 KiB are 32 outputs; the second product has fewer, the third more than are on their way at once.
        let products = [(1 << 20, 64), (2 << 20, 10), (3 << 20, 500), (4 << 20, 500)];
        let tasks: Vec<Task> = products.iter().map(|&(address, outputs)| product(address, outputs)).collect();
        let mut weights = Weights::new(&tasks, 1);
        let asked: Vec<Vec<[u64; 2]>> = tasks
            .iter()
            .map(|task| {
                let Ahead { from, lines } = weights.after(task);
                from.into_iter().zip(lines).filter(|piece| piece.1 > 0).map(|(a, n)| [a, n * LINE]).collect()
            })
            .collect();
        let kilobytes = |n: u64| n << 10;
        assert_eq!(asked[0], [[2 << 20, kilobytes(10)], [3 << 20, kilobytes(22)]]);
        assert_eq!(asked[1], [[(3 << 20) + kilobytes(22), kilobytes(32)]]);
        assert_eq!(asked[2], [[4 << 20, kilobytes(32)]]);
        assert_eq!(asked[3], <[[u64; 2]; 0]>::default());
    }
}
