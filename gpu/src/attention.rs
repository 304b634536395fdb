//! Attention over the key-value cache: which kernels do it, and what they need to know.

use std::borrow::Cow;

use metis_kernels::cache::claim_rows;
use metis_kernels::{Attention, BackendError, Row};
use smallvec::{SmallVec, smallvec};

use crate::ahead::Ahead;
use crate::backend::{Gpu, scale_word};
use crate::buffers::{Activations, Residual};
use crate::cache::{KvCache, head_stride, layer_words};
use crate::driver::{Arguments, Driver, Launch};
use crate::products::Raw;
use crate::shares::Shares;
use crate::task::{Begin, Near, Task, row_threads};

/// Positions of a block of threads, as in `gpu/kernels/attention_far.cu`.
const CHUNK: usize = 128;
/// Positions that one block does by itself, as in `gpu/kernels/attention_near.cu`.
const NEAR: usize = 1024;
/// Bytes of scores that are kept at a time, for as many rows as that is.
const SCORE_BYTES: usize = 64 << 20;
/// Rows that are multiplied by tiles, if tiles are at least half full of them.
const MANY_ROWS: usize = 32;
/// Pairs of a row and a head that a tile has, as in `gpu/kernels/attention_tiles.cu`.
const PAIRS: usize = 16;
/// Positions that a warp does at a time there, and bytes of their scores.
const GROUP: usize = 32;
const GROUP_BYTES: usize = PAIRS * GROUP * size_of::<i32>();
/// Groups of which a block has the scores in its own memory, and the bytes of that before them.
const OWN_GROUPS: usize = 17;
const OWN_BYTES: usize = 8 << 10;
/// Exponents of scales with which scores are never shifted to the left, whatever the exponents of queries and keys (at most 1).
const LEAST_DOWN: i32 = -18;
/// Threads of a block that does a head: enough for every four channels, and as many sums as there are.
const NEAR_THREADS: [usize; 2] = [64, 512];

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
    let group = shape.heads / shape.kv_heads;
    let tiles = Tiles::new(attention, rows, caches, group);
    let most_seen = rows
        .iter()
        .map(|row| attention.sees(row.position, caches[row.sequence].lengths[layer]).len())
        .max()
        .unwrap_or(0);
    // Few sizes, so that the steps of a growing sequence have equal launches; none where no scores are kept.
    // Nobody sees what is new but the row itself.
    let alone = rows.len() == 1
        || (1..rows.len()).all(|i| rows[..i].iter().all(|row| row.sequence != rows[i].sequence));
    let far = most_seen > NEAR && tiles.is_none();
    let positions = if far { most_seen.next_power_of_two() } else { 0 };
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
        match &tiles {
            Some(tiles) => tiles.score_bytes(shape.kv_heads),
            None => tile * shape.heads * positions * size_of::<i32>(),
        },
    ]
    .map(|bytes| layout.take(bytes));
    let scratch = gpu.attention_scratch(layout.bytes)?;
    let base = scratch.address();

    gpu.queue.add(|op| {
        let lists = tiles.as_ref().map_or(&[][..], |tiles| &tiles.list);
        op.reserve(&[infos.len(), pages.len(), lists.len()])?;
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
        // Heads that share keys are one block's where there is work enough for all blocks, and where blocks that share them cannot be counted.
        let busy = rows.len() * shape.kv_heads >= Shares::pieces(&gpu.queue);
        let near = (!far && tiles.is_none()).then(|| Near {
            maxima: base + parts[4],
            heads_each: if busy { group } else { 1 },
            threads: most_seen.next_power_of_two().clamp(NEAR_THREADS[0], NEAR_THREADS[1]),
            done: gpu.shares.counts(),
        });
        op.add(Task::Begin(Box::new(Begin {
            call: call(0),
            heads: [q, k, v].map(|heads| heads.values.address()),
            rows: rows.len(),
            query_heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            work: Default::default(),
            near: near.filter(|_| alone),
        })));
        let launch = |kernel, grid: [usize; 3], threads, arguments| Launch {
            kernel,
            grid: grid.map(|blocks| blocks as u32),
            threads,
            shared: 0,
            arguments,
        };
        if !far {
            let [values, maxima, scores] = [parts[6], parts[4], parts[7]].map(|part| base + part);
            if let Some(tiles) = &tiles {
                let list = op.place(&tiles.list);
                for (blocks, first) in tiles.launches(shape.kv_heads) {
                    let arguments = Arguments::of_struct(call(0)).with(list + first as u64).with(maxima);
                    let arguments = arguments.with(if tiles.is_near() { 0 } else { scores });
                    op.launch(Launch {
                        shared: tiles.shared_bytes() as u32,
                        ..launch(
                            "attention_tiles",
                            [blocks, shape.kv_heads, 1],
                            tiles.threads(shape.kv_heads, gpu.queue.multiprocessors()),
                            arguments.with(tiles.groups * GROUP_BYTES / 16),
                        )
                    });
                }
            } else if let Some(near) = near.filter(|_| !alone) {
                op.launch(near.launch(call(0), rows.len(), shape.heads, &[], (&Ahead::default(), 0)));
            }
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

/// Tiles of pairs of a row and a head that share keys, row by row.
#[derive(Debug)]
struct Tiles {
    /// For each tile its first pair, how many there are, and the positions that one of them sees: `PairTile` of `gpu/kernels/attention_tiles.cu`.
    list: Vec<u8>,
    /// Groups of positions of the tile that sees most.
    groups: usize,
}

/// Bytes of a tile in the list.
const TILE_BYTES: usize = 4 * size_of::<u32>();

impl Tiles {
    /// Tiles of rows, of one sequence each, if they are worth it.
    fn new<D: Driver>(
        attention: Attention,
        rows: &[Row],
        caches: &[&mut KvCache<D>],
        group: usize,
    ) -> Option<Self> {
        if rows.len() < MANY_ROWS || attention.scale.exponent() >= LEAST_DOWN {
            return None;
        }
        let (mut list, mut most, mut tiles, mut pair) = (Vec::new(), 0, 0, 0);
        for rows in rows.chunk_by(|a, b| a.sequence == b.sequence) {
            let length = caches[rows[0].sequence].lengths[attention.layer];
            let end = pair + rows.len() * group;
            let first_row = pair / group;
            while pair < end {
                let count = PAIRS.min(end - pair);
                let rows = &rows[pair / group - first_row..=(pair + count - 1) / group - first_row];
                let seen = rows.iter().map(|row| attention.sees(row.position, length));
                let (start, stop) = seen
                    .fold((usize::MAX, 0), |(start, stop), seen| (start.min(seen.start), stop.max(seen.end)));
                let start = start / GROUP * GROUP;
                most = most.max((stop - start).div_ceil(GROUP));
                list.extend(
                    [pair, count, start, stop].iter().flat_map(|&value| (value as u32).to_le_bytes()),
                );
                tiles += 1;
                pair += count;
            }
        }
        // Few sizes, as the memory of a launch.
        let groups = most.next_power_of_two();
        let groups = if most <= OWN_GROUPS { groups.min(OWN_GROUPS) } else { groups };
        (2 * pair >= tiles * PAIRS).then_some(Self { list, groups })
    }

    const fn count(&self) -> usize {
        self.list.len() / TILE_BYTES
    }

    /// Whether blocks have the scores in their own memory.
    const fn is_near(&self) -> bool {
        self.groups <= OWN_GROUPS
    }

    /// Bytes of a block's memory.
    const fn shared_bytes(&self) -> usize {
        OWN_BYTES + if self.is_near() { self.groups * GROUP_BYTES } else { 0 }
    }

    /// Tiles that are done at a time.
    fn at_once(&self, kv_heads: usize) -> usize {
        let most =
            if self.is_near() { self.count() } else { SCORE_BYTES / (kv_heads * self.groups * GROUP_BYTES) };
        most.clamp(1, self.count().max(1))
    }

    /// Bytes of scores in the device's memory.
    fn score_bytes(&self, kv_heads: usize) -> usize {
        if self.is_near() { 0 } else { self.at_once(kv_heads) * kv_heads * self.groups * GROUP_BYTES }
    }

    /// How many tiles each launch does, and where in the list they begin.
    fn launches(&self, kv_heads: usize) -> impl Iterator<Item = (usize, usize)> {
        let (count, most) = (self.count(), self.at_once(kv_heads));
        (0..count).step_by(most).map(move |first| (most.min(count - first), first * TILE_BYTES))
    }

    /// Threads of a block: more where there are few blocks.
    fn threads(&self, kv_heads: usize, multiprocessors: u32) -> u32 {
        if self.at_once(kv_heads) * kv_heads < 2 * multiprocessors as usize { 256 } else { 128 }
    }
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
