//! The key-value cache in pages, and attention over it.
//!
//! A page holds sixteen positions of all layers. For each layer it has, one after the other, `[kv_heads, 16, stride]` high bytes of keys, low
//! bytes of keys and values, then `[kv_heads, 16]` exponents of keys and maxima of values, four bytes each.

use core::ops::Range;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use metis_kernels::bounds::AttentionShape;
use metis_kernels::cache::{Sequence, check_copy, claim_rows};
use metis_kernels::{Attention, BackendError, KvShape, Row};
use smallvec::{SmallVec, smallvec};

use crate::backend::{Gpu, scale_word};
use crate::buffers::{Activations, Residual};
use crate::driver::{Arguments, Driver, Launch};
use crate::products::Raw;
use crate::queue::{Buffer, Queue};
use crate::task::{Begin, Task, row_threads};

/// Positions of a page, as in `gpu/kernels/attention.cu`.
const PAGE: usize = 16;
/// Positions of a block of threads, as there.
const CHUNK: usize = 128;
/// Positions that one block does by itself, as there.
const NEAR: usize = 1024;
/// Scores that are kept at a time, for as many rows as that is.
const SCORE_BYTES: usize = 64 << 20;
/// Bytes of the least table of pages.
const LEAST_TABLE: usize = 64;
/// Threads of a block that does a head: enough for every four channels, and as many sums as there are.
const NEAR_THREADS: [usize; 2] = [64, 256];

/// Pages that are not in use, by their size.
#[derive(Debug)]
pub(crate) struct Pool<D: Driver> {
    queue: Arc<Queue<D>>,
    free: Mutex<BTreeMap<usize, Vec<Buffer<D>>>>,
}

impl<D: Driver> Pool<D> {
    pub(crate) fn new(queue: Arc<Queue<D>>) -> Self {
        Self { queue, free: Mutex::new(BTreeMap::new()) }
    }

    fn take(&self, bytes: usize) -> Result<Buffer<D>, BackendError> {
        let free =
            self.free.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&bytes).and_then(Vec::pop);
        if let Some(page) = free {
            return Ok(page);
        }
        self.queue.allocate(bytes).or_else(|error| match error {
            // Pages of other sizes may be what is missing.
            BackendError::OutOfMemory { .. } => {
                self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.queue.allocate(bytes)
            }
            error => Err(error),
        })
    }

    fn give_back(&self, pages: impl Iterator<Item = Buffer<D>>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        pages.for_each(|page| free.entry(page.bytes()).or_default().push(page));
    }
}

/// Keys and values of one sequence, all layers. Grows by pages.
#[derive(Debug)]
pub struct KvCache<D: Driver> {
    shape: KvShape,
    /// Positions that have been written, or will be by what waits, for each layer.
    lengths: Vec<usize>,
    pages: Vec<Buffer<D>>,
    /// The pages' addresses, as kernels read them; zero after them.
    table: Vec<u8>,
    pool: Arc<Pool<D>>,
}

/// Bytes of a quantised head.
const fn head_stride(shape: AttentionShape) -> usize {
    shape.head_dim.next_multiple_of(16)
}

/// Bytes of a layer in a page.
const fn layer_bytes(shape: AttentionShape) -> usize {
    shape.kv_heads * PAGE * (3 * head_stride(shape) + 8)
}

impl<D: Driver> KvCache<D> {
    pub(crate) fn new(pool: Arc<Pool<D>>, shape: KvShape) -> Result<Self, BackendError> {
        shape.check()?;
        Ok(Self { shape, lengths: vec![0; shape.layers], pages: Vec::new(), table: Vec::new(), pool })
    }

    /// Bytes of a full cache.
    pub(crate) const fn bytes(shape: KvShape) -> usize {
        shape
            .capacity
            .div_ceil(PAGE)
            .saturating_mul(shape.layers.saturating_mul(layer_bytes(shape.attention)))
    }

    fn reach(&mut self, positions: usize) -> Result<(), BackendError> {
        while self.pages.len() * PAGE < positions {
            let page = self.pool.take(self.shape.layers * layer_bytes(self.shape.attention))?;
            let at = self.pages.len() * size_of::<u64>();
            // Of few lengths, so that what is staged after it keeps its place from step to step.
            if at == self.table.len() {
                self.table.resize((2 * at).max(LEAST_TABLE), 0);
            }
            self.table[at..][..size_of::<u64>()].copy_from_slice(&page.address().to_le_bytes());
            self.pages.push(page);
        }
        Ok(())
    }
}

impl<D: Driver> Drop for KvCache<D> {
    fn drop(&mut self) {
        self.pool.give_back(self.pages.drain(..));
    }
}

impl<D: Driver> Sequence for KvCache<D> {
    fn shape(&self) -> KvShape {
        self.shape
    }

    fn length(&self, layer: usize) -> usize {
        self.lengths[layer]
    }
}

/// A layer of a cache as kernels take it: its offset in a page, shape, causality and window.
fn layer_words(attention: AttentionShape, layer: usize, causal: bool, window: usize) -> [u64; 4] {
    let pair = |low: usize, high: usize| low as u64 | (high as u64) << 32;
    [
        (layer * layer_bytes(attention)) as u64,
        pair(attention.heads, attention.kv_heads),
        pair(attention.head_dim, head_stride(attention)),
        pair(causal.into(), window),
    ]
}

pub(crate) fn copy_positions<D: Driver>(
    gpu: &Gpu<D>,
    from: &KvCache<D>,
    positions: Range<usize>,
    to: &mut KvCache<D>,
    at: usize,
) -> Result<(), BackendError> {
    check_copy(from, &positions, to, at)?;
    to.reach(at + positions.len())?;
    to.lengths.fill(at + positions.len());
    let (source, target) = (&from.table, &to.table);
    let KvShape { layers, attention, .. } = from.shape;
    gpu.queue.add(|op| {
        op.reserve(&[source.len(), target.len()])?;
        let arguments = Arguments::default()
            .with_struct(&layer_words(attention, 0, true, 0))
            .with(layer_bytes(attention))
            .with(op.place(source))
            .with(positions.start)
            .with(op.place(target))
            .with(at);
        let grid = [positions.len() as u32, layers as u32, attention.kv_heads as u32];
        op.launch(Launch { kernel: "copy_positions", grid, threads: 32, shared: 0, arguments });
        Ok(())
    })
}

/// How intermediate results lie in one buffer.
struct Layout {
    bytes: usize,
}

impl Layout {
    const fn take(&mut self, bytes: usize) -> u64 {
        let at = self.bytes;
        self.bytes += bytes.next_multiple_of(16);
        at as u64
    }
}

#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::attention`")]
pub(crate) fn attention<D: Driver>(
    gpu: &Gpu<D>,
    attention: Attention,
    rows: &[Row],
    [q, k, v]: [&Residual<D>; 3],
    caches: &mut [&mut KvCache<D>],
    out: &mut Activations<D>,
) -> Result<(), BackendError> {
    let layer = attention.layer;
    claim_rows(attention, rows, [&q.extent, &k.extent, &v.extent], caches, |cache, i| {
        let length = rows[i].position + 1;
        cache.reach(length)?;
        cache.lengths[layer] = length;
        Ok(())
    })?;
    out.extent.start("attention", rows.len(), q.extent.width())?;
    let Some(first) = rows.first() else { return Ok(()) };
    let shape = caches[first.sequence].shape.attention;
    if rows.iter().any(|row| caches[row.sequence].shape.attention != shape) {
        let (expected, actual) = ("caches of one shape".into(), "several".into());
        return Err(BackendError::Shape { kernel: "attention", expected, actual });
    }

    let (infos, pages) = describe(layer, rows, caches);
    let most_seen = rows
        .iter()
        .map(|row| attention.sees(row.position, caches[row.sequence].lengths[layer]).len())
        .max()
        .unwrap_or(0);
    // Few sizes, so that the steps of a growing sequence have equal launches; none where no scores are kept.
    let positions = if most_seen > NEAR { most_seen.next_power_of_two() } else { 0 };
    let tile = SCORE_BYTES.checked_div(shape.heads * positions * size_of::<i32>()).unwrap_or(rows.len());
    let tile = tile.clamp(1, rows.len());

    let (slots, stride) = (rows.len() * shape.heads, head_stride(shape));
    let mut layout = Layout { bytes: 0 };
    let parts = [
        slots * stride,
        slots * stride,
        slots * size_of::<i32>(),
        slots * size_of::<i32>(),
        slots * size_of::<u64>(),
        slots * size_of::<u64>(),
        slots * shape.head_dim * size_of::<u64>(),
        tile * shape.heads * positions * size_of::<i32>(),
    ]
    .map(|bytes| layout.take(bytes));
    let scratch = gpu.attention_scratch(layout.bytes)?;
    let base = scratch.address();

    gpu.queue.add(|op| {
        op.reserve(&[infos.len(), pages.len()])?;
        let (infos, pages) = (op.place(&infos), op.place(&pages));
        let call = |first_row: usize| {
            let mut words = Vec::with_capacity(40);
            words.extend(layer_words(
                shape,
                layer,
                attention.causal,
                attention.window.map_or(0, |w| w.max(1)),
            ));
            words.extend(parts.map(|part| base + part));
            words.push(positions as u64);
            words.extend([infos, first_row as u64, pages, gpu.tables()]);
            words.push(scale_word(attention.scale));
            words.extend(
                attention.soft_cap.map_or([0; 2], |cap| [cap.cap_q16() as u64, scale_word(cap.inverse())]),
            );
            words
        };
        op.add(Task::Begin(Box::new(Begin {
            call: call(0),
            heads: [q, k, v].map(|heads| heads.values.address()),
            rows: rows.len(),
            query_heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            work: Default::default(),
        })));
        let launch = |kernel, grid: [usize; 3], threads, arguments| Launch {
            kernel,
            grid: grid.map(|blocks| blocks as u32),
            threads,
            shared: 0,
            arguments,
        };
        if positions == 0 {
            let [values, maxima] = [parts[6], parts[4]].map(|part| base + part);
            // Heads that share keys are one block's where there is work enough for all blocks.
            let busy = rows.len() * shape.kv_heads >= 2 * gpu.queue.multiprocessors() as usize;
            let heads_each = if busy { shape.heads / shape.kv_heads } else { 1 };
            let arguments = Arguments::of_struct(call(0)).with(maxima).with(heads_each);
            let threads = most_seen.next_power_of_two().clamp(NEAR_THREADS[0], NEAR_THREADS[1]);
            let grid = [rows.len(), shape.heads / heads_each, 1];
            op.launch(launch("attention_near", grid, threads as u32, arguments));
            let raw = Raw { values, maxima, parts: shape.heads, base: -16 };
            op.add(Task::Finish { raw, out: out.quantised(), rows: rows.len(), width: shape.query_width() });
            return Ok(());
        }
        let (chunks, threads) = (positions / CHUNK, CHUNK as u32);
        for first in (0..rows.len()).step_by(tile) {
            let count = tile.min(rows.len() - first);
            for (kernel, heads) in [
                ("attention_scores", shape.kv_heads),
                ("attention_weights", shape.heads),
                ("attention_values", shape.heads),
            ] {
                let arguments = Arguments::of_struct(call(first));
                op.launch(launch(kernel, [chunks, heads, count], threads, arguments));
            }
        }
        let [high, low, exponents] = out.quantised().planes;
        let end = Arguments::of_struct(call(0));
        let end = end.with(high).with(low).with(exponents).with(out.stride);
        op.launch(launch("attention_end", [rows.len(), 1, 1], row_threads(shape.query_width()), end));
        Ok(())
    })
}

/// What kernels need to know of each row, and the tables of the sequences' pages.
fn describe<'a, D: Driver>(
    layer: usize,
    rows: &[Row],
    caches: &'a [&mut KvCache<D>],
) -> (Vec<u8>, Cow<'a, [u8]>) {
    let mut first_pages = SmallVec::<[u32; 8]>::new();
    let mut pages = 0;
    for cache in caches {
        first_pages.push((pages / size_of::<u64>()) as u32);
        pages += cache.table.len();
    }
    let table = match caches {
        [cache] => Cow::Borrowed(&*cache.table),
        caches => Cow::Owned(caches.iter().flat_map(|cache| &cache.table).copied().collect()),
    };
    // Of rows with one place the last one is kept.
    let mut later: SmallVec<[Option<usize>; 8]> = smallvec![None; caches.len()];
    let mut kept: SmallVec<[bool; 8]> = smallvec![false; rows.len()];
    for (kept, row) in kept.iter_mut().zip(rows).rev() {
        *kept = later[row.sequence].replace(row.position) != Some(row.position);
    }
    let mut infos = Vec::with_capacity(rows.len() * 4 * size_of::<u32>());
    for (row, kept) in rows.iter().zip(kept) {
        let length = caches[row.sequence].lengths[layer];
        let info = [row.position as u32, length as u32, first_pages[row.sequence], kept.into()];
        infos.extend(info.iter().flat_map(|value| value.to_le_bytes()));
    }
    (infos, table)
}
