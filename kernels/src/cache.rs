//! What the key-value caches of the CPU backends have in common: a call of attention is checked and written in one way, and
//! so are copies.

use core::ops::Range;

use crate::backend::{Attention, BackendError, KvShape, Row};
use crate::buffers::{Residual, mismatch};

/// Keys and values of one sequence, all layers.
pub(crate) trait Cache {
    /// Its size.
    fn shape(&self) -> KvShape;

    /// Positions that have been written in a layer.
    fn length(&self, layer: usize) -> usize;

    /// Writes the key and value rows of one position, at most [`length`](Self::length); everything after it is forgotten.
    fn write(&mut self, layer: usize, position: usize, k: &[i32], v: &[i32]);

    /// Copies a position of a cache with the same heads to `position`, at most [`length`](Self::length); everything after it is forgotten.
    fn copy(&mut self, layer: usize, position: usize, from: &Self, at: usize);
}

/// Checks a call of attention and writes its keys and values into the caches.
pub(crate) fn write_rows<C: Cache>(
    Attention { layer, causal, window, .. }: Attention,
    rows: &[Row],
    [q, k, v]: [&Residual; 3],
    caches: &mut [&mut C],
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
        cache.write(layer, position, k.row(i), v.row(i));
    }
    // A row must not look past what the last write left: a step that goes back in a sequence cannot also go forward in it.
    if let Some(row) = rows.iter().find(|row| row.position >= caches[row.sequence].length(layer)) {
        let expected = format!("ascending positions below {}", caches[row.sequence].length(layer));
        return Err(mismatch("attention", expected, row.position.to_string()));
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
    for layer in 0..source.layers {
        for (i, position) in positions.clone().enumerate() {
            to.copy(layer, at + i, from, position);
        }
    }
    Ok(())
}
