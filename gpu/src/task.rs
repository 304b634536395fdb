//! What a device is asked to do, and how neighbours become one launch.
//!
//! A launch costs about a microsecond, as long as the memory needs for some megabytes of weights, and a decoding step of one row has a
//! dozen kernels a layer that do next to nothing. So a task that comes takes in, or is taken into, the one before it. What is left in memory
//! is the same: intermediate rows are still written, once. `docs/gpu.md` has the list.

use crate::ahead::{Ahead, Weights};
use crate::driver::{Arguments, Launch};
use crate::products::{Gated, NormAt, Products, Quantised, Raw, Source};

/// One or more kernels of the [`Backend`](metis_kernels::Backend).
#[derive(Clone, Debug)]
pub(crate) enum Task {
    Norm {
        x: u64,
        norm: NormAt,
        out: Quantised,
        rows: usize,
        width: usize,
    },
    Products(Box<Products>),
    AddBias {
        x: u64,
        bias: u64,
        rows: usize,
        width: usize,
    },
    Add {
        x: u64,
        y: u64,
        count: usize,
    },
    Gate(Gate),
    /// Quantises rows that wait for it.
    Finish {
        raw: Raw,
        out: Quantised,
        rows: usize,
        width: usize,
    },
    Normalise {
        x: u64,
        norm: NormAt,
        runs: usize,
        width: usize,
    },
    Rope {
        x: u64,
        rotations: u64,
        positions: u64,
        rows: usize,
        width: usize,
        head_dim: usize,
    },
    Begin(Box<Begin>),
    Other(Launch),
}

/// An activation, times `up` if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    pub activation: u64,
    pub gate: u64,
    pub up: Option<u64>,
    pub out: Quantised,
    /// Where rows of `out` can wait, if there is room for them: numbers and maxima.
    pub room: Option<[u64; 2]>,
    pub tables: u64,
    pub rows: usize,
    pub width: usize,
}

/// What is done to heads before they are quantised.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadWork {
    norm: Option<NormAt>,
    /// Addresses of rotations and positions.
    rope: Option<[u64; 2]>,
}

/// The start of attention: keys, values and queries are quantised.
#[derive(Clone, Debug)]
pub(crate) struct Begin {
    /// The words of a `Call`.
    pub call: Vec<u64>,
    /// Addresses of queries, keys and values.
    pub heads: [u64; 3],
    pub rows: usize,
    pub query_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Of queries and keys.
    pub work: [HeadWork; 2],
    /// Whether the same blocks go on with attention.
    pub near: Option<Near>,
}

/// Attention over few positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Near {
    /// The address of the heads' maxima.
    pub maxima: u64,
    /// Heads of a block.
    pub heads_each: usize,
    pub threads: usize,
    /// The address of counts of the blocks that have read a key.
    pub done: u64,
}

/// Threads of a block of warps that quantise heads, as in `gpu/kernels/attention.cu`.
const BEGIN_THREADS: usize = 128;
/// Words of a `Beginning` of `gpu/kernels/attention_near.cu`.
const BEGINNING_WORDS: usize = 14;
/// Threads of a block where a thread does one number.
const FLAT_THREADS: u32 = 256;

/// Threads of a block that does a row of so many numbers.
pub(crate) const fn row_threads(width: usize) -> u32 {
    let quarter = width.div_ceil(4).next_power_of_two();
    if quarter < 32 {
        32
    } else if quarter > 1024 {
        1024
    } else {
        quarter as u32
    }
}

/// A launch with a block for each row.
pub(crate) fn by_row(kernel: &'static str, rows: usize, width: usize, arguments: Arguments) -> Launch {
    Launch { kernel, grid: [rows as u32, 1, 1], threads: row_threads(width), shared: 0, arguments }
}

/// A launch with a thread for each number.
pub(crate) fn flat(kernel: &'static str, count: usize, arguments: Arguments) -> Launch {
    let grid = [count.div_ceil(FLAT_THREADS as usize) as u32, 1, 1];
    Launch { kernel, grid, threads: FLAT_THREADS, shared: 0, arguments }
}

/// Adds a task to those that wait.
pub(crate) fn add(tasks: &mut Vec<Task>, mut task: Task, multiprocessors: u32) {
    if let Task::Begin(begin) = &mut task {
        while tasks.last().is_some_and(|last| begin.take_in(last)) {
            tasks.pop();
        }
    }
    let left = match tasks.last_mut() {
        Some(last) => last.follow(task, multiprocessors),
        None => Some(task),
    };
    tasks.extend(left);
}

/// The launches of tasks that are begun together.
pub(crate) fn launches(tasks: &[Task], multiprocessors: u32) -> Vec<Launch> {
    let mut weights = Weights::new(tasks, multiprocessors);
    tasks.iter().map(|task| task.launch(multiprocessors, &weights.after(task))).collect()
}

impl Task {
    /// The weights that it streams: addresses and bytes.
    pub(crate) fn streamed(&self) -> impl Iterator<Item = [u64; 2]> {
        let products = if let Self::Products(products) = self { Some(products) } else { None };
        products.into_iter().flat_map(|products| products.streamed())
    }

    /// Whether it can ask for what comes next.
    pub(crate) fn asks_ahead(&self) -> bool {
        match self {
            Self::Products(_) => self.streamed().next().is_some(),
            Self::Begin(begin) => begin.near.is_some() && begin.rows == 1,
            _ => false,
        }
    }

    /// Becomes both, if it can; returns what is left to do.
    fn follow(&mut self, task: Self, multiprocessors: u32) -> Option<Self> {
        let (made, rows, source) = match *self {
            Self::Norm { x, norm, out, rows, .. } => (out, rows, Source::Normed { x, norm }),
            Self::Finish { raw, out, rows, .. } => (out, rows, Source::Waiting(raw)),
            Self::Products(ref mut last) => return last.follow(task, multiprocessors),
            _ => return Some(task),
        };
        let Self::Products(mut next) = task else { return Some(task) };
        if next.make_row(made, rows, source) {
            *self = Self::Products(next);
            None
        } else {
            Some(Self::Products(next))
        }
    }

    /// What the driver is asked for.
    fn launch(&self, multiprocessors: u32, ahead: &Ahead) -> Launch {
        let arguments = Arguments::default();
        let with_norm = |arguments: Arguments, norm: &NormAt| {
            arguments.with(norm.gains).with(norm.biases).with(norm.epsilon_q32)
        };
        let with_rows = |arguments: Arguments, out: &Quantised| {
            let [high, low, exponents] = out.planes;
            arguments.with(high).with(low).with(exponents).with(out.stride)
        };
        match *self {
            Self::Norm { x, ref norm, ref out, rows, width } => {
                by_row("norm", rows, width, with_rows(with_norm(arguments.with(x), norm).with(width), out))
            }
            Self::Products(ref products) => products.launch(multiprocessors, ahead),
            Self::AddBias { x, bias, rows, width } => {
                let grid = [rows as u32, width.div_ceil(FLAT_THREADS as usize) as u32, 1];
                let arguments = arguments.with(x).with(bias).with(width);
                Launch { kernel: "add_bias", grid, threads: FLAT_THREADS, shared: 0, arguments }
            }
            Self::Add { x, y, count } => flat("add", count, arguments.with(x).with(y).with(count)),
            Self::Gate(ref gate) => {
                let arguments = arguments.with(gate.activation).with(gate.gate).with(gate.up.unwrap_or(0));
                let arguments = with_rows(arguments.with(gate.width), &gate.out).with(gate.tables);
                by_row("gate", gate.rows, gate.width, arguments)
            }
            Self::Finish { ref raw, ref out, rows, width } => {
                let arguments = with_rows(arguments.with_struct(&raw.words()).with(width), out);
                by_row("finish", rows, width, arguments)
            }
            Self::Normalise { x, ref norm, runs, width } => {
                by_row("normalise", runs, width, with_norm(arguments.with(x), norm).with(width))
            }
            Self::Rope { x, rotations, positions, rows, width, head_dim } => {
                let arguments = arguments.with(x).with(width).with(head_dim).with(rotations).with(positions);
                by_row("rope", rows, width, arguments)
            }
            Self::Begin(ref begin) => begin.launch(multiprocessors, ahead),
            Self::Other(ref launch) => launch.clone(),
        }
    }
}

impl Products {
    /// As [`Task::follow`].
    fn follow(&mut self, task: Task, multiprocessors: u32) -> Option<Task> {
        let taken_in = match task {
            Task::Products(ref next) => self.merge(next),
            Task::AddBias { x, bias, rows, width } => self.add_bias(x, bias, rows, width),
            Task::Add { x, y, count } => self.add_to(x, y, count),
            Task::Gate(ref gate) => return Some(gate.split(self, multiprocessors).unwrap_or(task)),
            _ => false,
        };
        (!taken_in).then_some(task)
    }
}

impl Gate {
    /// Leaves the activation to the products before it; returns the quantisation.
    fn split(&self, last: &mut Products, multiprocessors: u32) -> Option<Task> {
        let &Self { activation, gate, up, out, room, tables, rows, width } = self;
        let [values, maxima] = room?;
        let gated = Gated { tables, values, maxima, activation };
        let parts = (last.rows == rows).then(|| last.gate(gate, up, width, gated, multiprocessors))??;
        let base = if up.is_some() { -32 } else { -16 };
        Some(Task::Finish { raw: Raw { values, maxima, parts, base }, out, rows, width })
    }
}

impl Begin {
    /// Takes the work of a task before this one, which is on whole queries or keys.
    fn take_in(&mut self, task: &Task) -> bool {
        let [q, k, v] = self.heads;
        if q == k || q == v || k == v {
            return false;
        }
        let counts = [self.query_heads, self.kv_heads];
        let which = |x: u64| self.heads[..2].iter().position(|&heads| heads == x);
        match *task {
            Task::Rope { x, rotations, positions, rows, width, head_dim } => {
                let Some(i) = which(x) else { return false };
                // What is done to a head is done in this order: norm, rotation.
                let fits = (rows, head_dim, width) == (self.rows, self.head_dim, counts[i] * head_dim)
                    && self.work[i].norm.is_none()
                    && self.work[i].rope.is_none();
                if fits {
                    self.work[i].rope = Some([rotations, positions]);
                }
                fits
            }
            Task::Normalise { x, norm, runs, width } => {
                let Some(i) = which(x) else { return false };
                let fits =
                    (runs, width) == (self.rows * counts[i], self.head_dim) && self.work[i].norm.is_none();
                if fits {
                    self.work[i].norm = Some(norm);
                }
                fits
            }
            _ => false,
        }
    }

    fn launch(&self, multiprocessors: u32, ahead: &Ahead) -> Launch {
        let [q, k, v] = self.heads;
        let work = self.work.map(|work| {
            let norm = work.norm.unwrap_or_default();
            let [rotations, positions] = work.rope.unwrap_or_default();
            [norm.gains, norm.biases, norm.epsilon_q32 as u64, rotations, positions]
        });
        if let Some(near) = self.near {
            let beginning = [&[q, k, v], &work[0][..], &work[1], &[near.done]].concat();
            // Other multiprocessors than those of the heads have nothing to do.
            let fetchers = if ahead.is_empty() { 0 } else { (multiprocessors as usize / 2).max(1) };
            return near.launch(
                self.call.clone(),
                self.rows,
                self.query_heads,
                &beginning,
                (ahead, fetchers),
            );
        }
        let mut arguments = Arguments::of_struct(self.call.clone()).with(q).with(k).with(v);
        for work in work {
            arguments = arguments.with_struct(&work);
        }
        // A warp for each head.
        let warps = self.rows * (self.kv_heads + self.query_heads);
        let grid = [warps.div_ceil(BEGIN_THREADS / 32) as u32, 1, 1];
        let (threads, arguments) = (BEGIN_THREADS as u32, arguments.with(self.rows));
        Launch { kernel: "attention_begin", grid, threads, shared: 0, arguments }
    }
}

impl Near {
    /// The launch, with the words of a `Beginning` of `gpu/kernels/attention_near.cu`: none if heads are quantised already.
    pub(crate) fn launch(
        &self,
        call: Vec<u64>,
        rows: usize,
        heads: usize,
        beginning: &[u64],
        (ahead, fetchers): (&Ahead, usize),
    ) -> Launch {
        let mut words = [0; BEGINNING_WORDS];
        words[..beginning.len()].copy_from_slice(beginning);
        let arguments =
            Arguments::of_struct(call).with(self.maxima).with(self.heads_each).with_struct(&words);
        let arguments = arguments.with_struct(&ahead.words().collect::<Vec<_>>()).with(fetchers);
        let grid = [rows as u32, (heads / self.heads_each + fetchers) as u32, 1];
        Launch { kernel: "attention_near", grid, threads: self.threads as u32, shared: 0, arguments }
    }
}
