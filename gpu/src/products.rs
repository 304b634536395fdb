//! A launch of matrix products: up to four matrices that read the same rows, with what comes before and after them.

use smallvec::SmallVec;

use crate::ahead::Ahead;
use crate::driver::{Arguments, Launch};

/// Matrices of a launch, as in `gpu/kernels/linear.cu`.
const MATRICES: usize = 4;
/// Words of `Products` there.
const WORDS: usize = 20 + Ahead::WORDS + 7 * MATRICES;
/// Rows that are multiplied while the weights stream by; more are by tiles.
pub(crate) const FEW_ROWS: usize = 8;
/// Bytes of a row's high bytes, and of its low bytes, that a block of one row can have.
const PLANE_BYTES: usize = 16 << 10;
/// Bytes of a row that a warp of one row does at a time.
const ROW_SPAN: usize = 2048;
/// Outputs that a block of few rows does at a time.
const EIGHT_OUTPUTS: usize = 8;
/// Outputs and inputs of a stage of a tile.
const TILE_OUTPUTS: usize = 128;
const TILE_INPUTS: usize = 64;
/// Rows of a small and of a large tile.
const TILE_ROWS: [usize; 2] = [64, 128];
/// Bytes of a block's memory for its tiles: three stages of small ones, two of large ones.
const TILE_BYTES: u32 = 48 << 10;
/// Bytes of a large tile's sums.
pub(crate) const TILE_SUM_BYTES: usize = TILE_ROWS[1] * TILE_OUTPUTS * size_of::<i64>();
/// Stages of inputs that are worth a block of their own.
const LEAST_STAGES: usize = 8;

/// Quantised rows in the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantised {
    /// Addresses of high bytes, low bytes and exponents.
    pub planes: [u64; 3],
    pub stride: usize,
}

/// The weights of a norm, at addresses; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NormAt {
    pub gains: u64,
    pub biases: u64,
    pub epsilon_q32: i64,
}

/// Rows that wait to be quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    pub values: u64,
    pub maxima: u64,
    pub parts: usize,
    /// The exponent of a number.
    pub base: i32,
}

impl Raw {
    pub(crate) fn words(&self) -> [u64; 3] {
        [self.values, self.maxima, self.parts as u64 | u64::from(self.base as u32) << 32]
    }
}

/// Where the rows come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    Stored,
    Normed { x: u64, norm: NormAt },
    Waiting(Raw),
}

impl Source {
    /// Whether blocks read what is at an address, while others may be done already.
    fn reads(&self, address: u64) -> bool {
        match *self {
            Self::Stored => false,
            Self::Normed { x, .. } => x == address,
            Self::Waiting(raw) => raw.values == address,
        }
    }
}

/// A matrix and where its outputs go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    pub bytes: u64,
    pub scales: u64,
    /// Zero: none, as of the next ones.
    pub groups: u64,
    pub bias: u64,
    pub out: u64,
    pub sum: u64,
    pub outputs: usize,
}

/// What becomes of the outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gated {
    pub tables: u64,
    pub values: u64,
    pub maxima: u64,
    pub activation: u64,
}

/// Where blocks that share a tile leave their sums: addresses of sums and of counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    pub sums: u64,
    pub done: u64,
}

/// Matrix products of the same rows.
#[derive(Clone, Debug)]
pub(crate) struct Products {
    pub x: Quantised,
    pub rows: usize,
    pub inputs: usize,
    pub source: Source,
    pub matrices: SmallVec<[Matrix; 1]>,
    pub gated: Option<Gated>,
    /// For many rows.
    pub shared: Option<Shared>,
}

impl Products {
    fn grouped(&self) -> bool {
        self.matrices.iter().any(|matrix| matrix.groups != 0)
    }

    fn is_few(&self) -> bool {
        self.rows <= FEW_ROWS
    }

    /// Whether blocks have the row in their own memory.
    fn is_one(&self) -> bool {
        self.rows == 1 && self.x.stride <= PLANE_BYTES
    }

    /// Takes products of the same rows in.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        let apart = |a: &Matrix, b: &Matrix| a.out != b.out && a.sum != b.out;
        let overwritten = other.matrices.iter().any(|matrix| self.source.reads(matrix.out));
        let fits = self.x == other.x
            && (self.rows, self.inputs) == (other.rows, other.inputs)
            && matches!(other.source, Source::Stored)
            && self.gated.is_none()
            && other.gated.is_none()
            && self.grouped() == other.grouped()
            && self.matrices.len() + other.matrices.len() <= MATRICES
            && !overwritten
            && self.matrices.iter().all(|a| other.matrices.iter().all(|b| apart(a, b)));
        if fits {
            self.matrices.extend_from_slice(&other.matrices);
        }
        fits
    }

    /// Makes the row, which another launch was to make, in each block.
    pub(crate) fn make_row(&mut self, made: Quantised, rows: usize, source: Source) -> bool {
        let fits = self.x == made
            && self.rows == rows
            && self.is_one()
            && matches!(self.source, Source::Stored)
            && !self.matrices.iter().any(|matrix| source.reads(matrix.out));
        if fits {
            self.source = source;
        }
        fits
    }

    /// Adds a bias to outputs.
    pub(crate) fn add_bias(&mut self, x: u64, bias: u64, rows: usize, width: usize) -> bool {
        let open = |matrix: &&mut Matrix| matrix.out == x && matrix.bias == 0 && matrix.sum == 0;
        let found = self.matrices.iter_mut().find(open).filter(|matrix| matrix.outputs == width);
        match found {
            Some(matrix) if self.rows == rows && self.gated.is_none() => {
                matrix.bias = bias;
                true
            }
            _ => false,
        }
    }

    /// Adds outputs to other rows, which nothing else in the launch reads or writes.
    pub(crate) fn add_to(&mut self, x: u64, y: u64, count: usize) -> bool {
        if self.source.reads(x)
            || self.gated.is_some()
            || self.matrices.iter().any(|m| m.out == x || m.sum == x)
        {
            return false;
        }
        let rows = self.rows;
        let open = |m: &&mut Matrix| m.out == y && m.sum == 0 && m.outputs * rows == count;
        self.matrices.iter_mut().find(open).is_some_and(|matrix| {
            matrix.sum = x;
            true
        })
    }

    /// Applies an activation to the outputs, times `up`'s if there are such; says in how many parts the maxima are.
    pub(crate) fn gate(
        &mut self,
        gate: u64,
        up: Option<u64>,
        width: usize,
        gated: Gated,
        multiprocessors: u32,
    ) -> Option<usize> {
        let outs = [Some(gate), up];
        let outs: &[_] = if up.is_some() { &outs } else { &outs[..1] };
        let fits = self.is_few()
            && self.gated.is_none()
            && !self.source.reads(gated.values)
            && self.matrices.len() == outs.len()
            && self.matrices.iter().zip(outs).all(|(m, &out)| Some(m.out) == out)
            && self.matrices.iter().all(|m| m.outputs == width && m.sum == 0);
        fits.then(|| {
            self.gated = Some(gated);
            self.blocks(multiprocessors)
        })
    }

    /// Blocks of few rows: as many as a device does at once, if there is work for them.
    fn blocks(&self, multiprocessors: u32) -> usize {
        let unit = if self.is_one() { 1 } else { EIGHT_OUTPUTS };
        let units = self.matrices.iter().map(|matrix| matrix.outputs.div_ceil(unit));
        let units: usize = if self.gated.is_some() { units.take(1).sum() } else { units.sum() };
        let each = match (self.is_one(), self.grouped()) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => EIGHT_BLOCKS,
        };
        units.min(multiprocessors as usize * each)
    }

    /// The weights that one row streams: addresses and bytes.
    pub(crate) fn streamed(&self) -> impl Iterator<Item = [u64; 2]> {
        let matrices = self.matrices.iter().filter(|_| self.is_one());
        matrices.map(|matrix| [matrix.bytes, (matrix.outputs * self.x.stride) as u64])
    }

    fn tile_rows(&self) -> usize {
        let small = self.grouped() || self.rows <= TILE_ROWS[0];
        TILE_ROWS[usize::from(!small)]
    }

    /// Tiles of many rows: columns, rows, and blocks that share the inputs of each, so that no multiprocessor has nothing to do.
    fn tiles(&self, multiprocessors: u32) -> [usize; 3] {
        let columns: usize = self.matrices.iter().map(|matrix| matrix.outputs.div_ceil(TILE_OUTPUTS)).sum();
        let rows = self.rows.div_ceil(self.tile_rows());
        let stages = self.x.stride / TILE_INPUTS;
        let idle = if self.shared.is_some() { multiprocessors as usize / (columns * rows).max(1) } else { 1 };
        let most = idle.min(stages / LEAST_STAGES).max(1);
        [columns, rows, stages.div_ceil(stages.div_ceil(most))]
    }

    pub(crate) fn launch(&self, multiprocessors: u32, ahead: &Ahead) -> Launch {
        let (kernel, threads) = match self.grouped() {
            false if self.is_one() => ("products_1", 1024),
            true if self.is_one() => ("grouped_products_1", 768),
            false if self.is_few() => ("products_8", 256),
            true if self.is_few() => ("grouped_products_8", 256),
            false if self.tile_rows() == TILE_ROWS[0] => ("product_tiles_64", 256),
            false => ("product_tiles_128", 256),
            true => ("grouped_product_tiles_64", 256),
        };
        let grid =
            if self.is_few() { [self.blocks(multiprocessors), 1, 1] } else { self.tiles(multiprocessors) };
        let shared = if self.is_one() {
            2 * self.x.stride.next_multiple_of(ROW_SPAN) as u32
        } else if self.is_few() {
            0
        } else {
            TILE_BYTES
        };
        let arguments =
            Arguments::of_struct(self.words(if self.is_few() { grid[0] } else { grid[2] }, ahead));
        Launch { kernel, grid: grid.map(|blocks| blocks as u32), threads, shared, arguments }
    }

    /// `Products` of `gpu/kernels/linear.cu`, with the blocks of few rows or those that share a tile.
    fn words(&self, blocks: usize, ahead: &Ahead) -> Vec<u64> {
        let pair = |low: usize, high: usize| low as u64 | (high as u64) << 32;
        let mut words = Vec::with_capacity(WORDS);
        words.extend(self.x.planes);
        words.extend([self.x.stride as u64, pair(self.rows, self.inputs), pair(self.matrices.len(), blocks)]);
        let none = Raw { values: 0, maxima: 0, parts: 0, base: 0 };
        let (kind, x, norm, raw) = match self.source {
            Source::Stored => (0, 0, NormAt::default(), none),
            Source::Normed { x, norm } => (1, x, norm, none),
            Source::Waiting(raw) => (2, 0, NormAt::default(), raw),
        };
        words.extend([kind, x, norm.gains, norm.biases, norm.epsilon_q32 as u64]);
        words.extend(raw.words());
        words.extend(
            self.gated.map_or([0; 4], |gated| [gated.tables, gated.values, gated.maxima, gated.activation]),
        );
        words.extend(self.shared.map_or([0; 2], |shared| [shared.sums, shared.done]));
        words.extend(ahead.words());
        for m in &self.matrices {
            words.extend([m.bytes, m.scales, m.groups, m.bias, m.out, m.sum, m.outputs as u64]);
        }
        words.resize(WORDS, 0);
        words
    }
}

/// Blocks of few rows that a multiprocessor does at once: what registers allow, as in `gpu/kernels/eight_rows.cu`.
const EIGHT_BLOCKS: usize = 3;

/// Parts in which the maxima of few rows can be, together.
pub(crate) const fn most_parts(multiprocessors: u32) -> usize {
    FEW_ROWS * EIGHT_BLOCKS * multiprocessors as usize
}
