//! A launch of matrix products: up to four matrices that read the same rows, with what comes before and after them.

use smallvec::SmallVec;

use crate::driver::{Arguments, Launch};

/// Matrices of a launch, as in `gpu/kernels/linear.cu`.
const MATRICES: usize = 4;
/// Rows that are multiplied by vectors of byte products; more are by tiles.
pub(crate) const FEW_ROWS: usize = 8;
/// Rows that blocks normalise for themselves: one after another, so that more are faster by a launch of their own.
const NORMED_ROWS: usize = 2;
/// Threads of a block, and outputs that it does at a time.
const THREADS: u32 = 256;
const WARPS: usize = THREADS as usize / 32;
/// Bytes of rows that a block can make for itself.
const OWN_BYTES: usize = 40 << 10;
/// A tile's rows and outputs.
const TILE: [usize; 2] = [64, 128];
/// Bytes of a block's memory for its tiles.
const TILE_BYTES: u32 = 3 * (2 * 64 + 128) * 64;

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

/// Matrix products of the same rows.
#[derive(Clone, Debug)]
pub(crate) struct Products {
    pub x: Quantised,
    pub rows: usize,
    pub inputs: usize,
    pub source: Source,
    pub matrices: SmallVec<[Matrix; 1]>,
    pub gated: Option<Gated>,
}

impl Products {
    fn grouped(&self) -> bool {
        self.matrices.iter().any(|matrix| matrix.groups != 0)
    }

    fn is_few(&self) -> bool {
        self.rows <= FEW_ROWS
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

    /// Makes the rows, which another launch was to make, in each block.
    pub(crate) fn make_rows(&mut self, made: Quantised, rows: usize, source: Source) -> bool {
        let most = if matches!(source, Source::Normed { .. }) { NORMED_ROWS } else { FEW_ROWS };
        let fits = self.x == made
            && self.rows == rows
            && rows <= most
            && 2 * rows * self.x.stride <= OWN_BYTES
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
        let outputs = match (&self.gated, self.matrices.first()) {
            (Some(_), Some(first)) => first.outputs,
            _ => self.matrices.iter().map(|matrix| matrix.outputs).sum(),
        };
        outputs.div_ceil(WARPS).min(most_blocks(multiprocessors, self.rows, self.grouped()))
    }

    pub(crate) fn launch(&self, multiprocessors: u32) -> Launch {
        let few = self.is_few();
        let kernel = match (self.grouped(), self.rows) {
            (false, ..=1) => "products_1",
            (false, 2) => "products_2",
            (false, 3..=4) => "products_4",
            (false, _) if few => "products_8",
            (true, ..=1) => "grouped_products_1",
            (true, _) if few => "grouped_products_8",
            (false, _) => "product_tiles",
            (true, _) => "grouped_product_tiles",
        };
        let grid = if few {
            [self.blocks(multiprocessors), 1, 1]
        } else {
            let columns = self.matrices.iter().map(|matrix| matrix.outputs.div_ceil(TILE[1])).sum();
            [columns, self.rows.div_ceil(TILE[0]), 1]
        };
        let shared = match self.source {
            _ if !few => TILE_BYTES,
            Source::Stored => 0,
            _ => (2 * self.rows * self.x.stride) as u32,
        };
        let arguments = Arguments::of_struct(self.words(grid[0]));
        Launch { kernel, grid: grid.map(|blocks| blocks as u32), threads: THREADS, shared, arguments }
    }

    /// `Products` of `gpu/kernels/linear.cu`.
    fn words(&self, blocks: usize) -> Vec<u64> {
        let pair = |low: usize, high: usize| low as u64 | (high as u64) << 32;
        let mut words = Vec::with_capacity(18 + 7 * MATRICES);
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
        for m in &self.matrices {
            words.extend([m.bytes, m.scales, m.groups, m.bias, m.out, m.sum, m.outputs as u64]);
        }
        words.resize(18 + 7 * MATRICES, 0);
        words
    }
}

/// Blocks of few rows that a device does at once: what the kernels' registers allow (`FEW_ROWS` of `gpu/kernels/linear.cu`).
const fn most_blocks(multiprocessors: u32, rows: usize, grouped: bool) -> usize {
    let each = match (rows, grouped) {
        (..=1, false) => 4,
        (..=1, true) => 3,
        (2..=4, false) => 2,
        _ => 1,
    };
    multiprocessors as usize * each
}

/// Parts in which the maxima of few rows can be, together.
pub(crate) const fn most_parts(multiprocessors: u32) -> usize {
    FEW_ROWS * most_blocks(multiprocessors, 1, false)
}
