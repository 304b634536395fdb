//! What key-value caches have in common on every device: a call of attention, and a copy, are checked in one way.

use core::ops::Range;

use crate::backend::{Attention, BackendError, KvShape, Row};
use crate::buffers::Residual;
use crate::extent::{Extent, mismatch};

/// The keys and values of one sequence, all layers, as far as they have been written.
pub trait Sequence {
    /// Its size.
    fn shape(&self) -> KvShape;

    /// Positions that have been written in a layer.
    fn length(&self, layer: usize) -> usize;
}

/// A cache in this machine's memory.
pub(crate) trait Cache: Sequence {
    /// Writes the key and value rows of one position, at most [`length`](Sequence::length); everything after it is forgotten.
    fn write(&mut self, layer: usize, position: usize, k: &[i32], v: &[i32]);

    /// Copies a position of a cache with the same heads to `position`, at most [`length`](Sequence::length); everything after it is forgotten.
    fn copy(&mut self, layer: usize, position: usize, from: &Self, at: usize);
}

/// Checks a call of attention and claims each row's position in its cache, in their order: `claim(cache, row)` must leave the layer with the
/// row's position as its last.
pub fn claim_rows<C: Sequence>(
    Attention { layer, causal, window, .. }: Attention,
    rows: &[Row],
    [q, k, v]: [&Extent; 3],
    caches: &mut [&mut C],
    mut claim: impl FnMut(&mut C, usize) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    if window.is_some() && !causal {
        return Err(mismatch("attention", "a window of a causal layer".into(), "of another".into()));
    }
    for x in [q, k, v] {
        x.expect_rows("attention", rows.len())?;
    }
    for (i, &Row { sequence, position }) in rows.iter().enumerate() {
        let sequences = caches.len();
        let cache =
            caches.get_mut(sequence).filter(|cache| layer < cache.shape().layers).ok_or_else(|| {
                let expected = format!("a sequence below {sequences} and one of its layers");
                mismatch("attention", expected, format!("sequence {sequence}, layer {layer}"))
            })?;
        let KvShape { attention, capacity, .. } = cache.shape();
        q.expect("attention", attention.query_width())?;
        k.expect("attention", attention.kv_width())?;
        v.expect("attention", attention.kv_width())?;
        if position >= capacity {
            return Err(BackendError::CacheFull { position, capacity });
        }
        let length = cache.length(layer);
        if position > length {
            return Err(mismatch("attention", format!("position {length} or earlier"), position.to_string()));
        }
        claim(cache, i)?;
    }
    // A row must not look past what the last write left: a step that goes back in a sequence cannot also go forward in it.
    if let Some(row) = rows.iter().find(|row| row.position >= caches[row.sequence].length(layer)) {
        let expected = format!("ascending positions below {}", caches[row.sequence].length(layer));
        return Err(mismatch("attention", expected, row.position.to_string()));
    }
    Ok(())
}

/// Checks a call of attention and writes its keys and values into the caches.
pub(crate) fn write_rows<C: Cache>(
    attention: Attention,
    rows: &[Row],
    [q, k, v]: [&Residual; 3],
    caches: &mut [&mut C],
) -> Result<(), BackendError> {
    claim_rows(attention, rows, [q.extent(), k.extent(), v.extent()], caches, |cache, i| {
        cache.write(attention.layer, rows[i].position, k.row(i), v.row(i));
        Ok(())
    })
}

/// Checks a copy of positions from one cache to another.
pub fn check_copy<C: Sequence>(
    from: &C,
    positions: &Range<usize>,
    to: &C,
    at: usize,
) -> Result<(), BackendError> {
    const KERNEL: &str = "copy_positions";
    let (source, target) = (from.shape(), to.shape());
    if (source.layers, source.attention) != (target.layers, target.attention) {
        return Err(mismatch(KERNEL, format!("{target:?}"), format!("{source:?}")));
    }
    for layer in 0..source.layers {
        let (written, length) = (from.length(layer), to.length(layer));
        if positions.end > written {
            return Err(mismatch(KERNEL, format!("positions up to {written}"), format!("{positions:?}")));
        }
        if at > length {
            return Err(mismatch(KERNEL, format!("position {length} or earlier"), at.to_string()));
        }
    }
    let end = at.saturating_add(positions.len());
    if end > target.capacity {
        return Err(BackendError::CacheFull { position: end - 1, capacity: target.capacity });
    }
    Ok(())
}

/// Checks a copy of positions from one cache to another and makes it.
pub(crate) fn copy_positions<C: Cache>(
    from: &C,
    positions: Range<usize>,
    to: &mut C,
    at: usize,
) -> Result<(), BackendError> {
    check_copy(from, &positions, to, at)?;
    for layer in 0..from.shape().layers {
        for (i, position) in positions.clone().enumerate() {
            to.copy(layer, at + i, from, position);
        }
    }
    Ok(())
}
