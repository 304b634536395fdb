//! The key-value cache in pages.
//!
//! A page holds sixteen positions of all layers. For each layer it has, one after the other, `[kv_heads, 16, stride]` high bytes of keys, low
//! bytes of keys and values, then `[kv_heads, 16]` exponents of keys and maxima of values, four bytes each.

use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use metis_kernels::bounds::AttentionShape;
use metis_kernels::cache::{Sequence, check_copy};
use metis_kernels::{BackendError, KvShape};

use crate::backend::Gpu;
use crate::driver::{Arguments, Driver, Launch};
use crate::queue::{Buffer, Queue};

/// Positions of a page, as in `gpu/kernels/attention.cu`.
pub(crate) const PAGE: usize = 16;
/// Bytes of the least table of pages.
const LEAST_TABLE: usize = 64;

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
    pub(crate) shape: KvShape,
    /// Positions that have been written, or will be by what waits, for each layer.
    pub(crate) lengths: Vec<usize>,
    pages: Vec<Buffer<D>>,
    /// The pages' addresses, as kernels read them; zero after them.
    pub(crate) table: Vec<u8>,
    pool: Arc<Pool<D>>,
}

/// Bytes of a quantised head.
pub(crate) const fn head_stride(shape: AttentionShape) -> usize {
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

    /// Takes pages for so many positions.
    pub(crate) fn reach(&mut self, positions: usize) -> Result<(), BackendError> {
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
pub(crate) fn layer_words(attention: AttentionShape, layer: usize, causal: bool, window: usize) -> [u64; 4] {
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
