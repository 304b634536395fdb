//! Attention of many rows of several sequences, which a device does by tiles.

use super::cases::Stream;
use crate::activation::SoftCap;
use crate::backend::{Attention, Backend, BackendError, KvShape, Row};
use crate::bounds::AttentionShape;

/// A step of some sequences after another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Many {
    heads: [usize; 2],
    head_dim: usize,
    causal: bool,
    window: Option<usize>,
    capped: bool,
    sequences: usize,
    /// Rows of the first sequence in both steps, and of each other one.
    rows: [[usize; 2]; 2],
}

impl Many {
    /// Heads of one and of several tiles' channels, with and without a group of queries for each key; a cap, a window, a whole text; more scores
    /// than a block keeps; so many heads that blocks are small; and so many sequences that blocks have several heads.
    pub(super) const ALL: [Self; 7] = {
        let many = Self {
            heads: [6, 2],
            head_dim: 64,
            causal: true,
            window: None,
            capped: false,
            sequences: 2,
            rows: [[37, 50], [3, 21]],
        };
        [
            many,
            Self { heads: [2, 2], head_dim: 80, capped: true, ..many },
            Self { heads: [4, 1], head_dim: 256, window: Some(29), ..many },
            Self { heads: [5, 1], head_dim: 128, causal: false, ..many },
            Self { heads: [1, 1], head_dim: 8, rows: [[570, 33], [0, 9]], ..many },
            Self { heads: [70, 70], head_dim: 8, rows: [[5, 50], [0, 9]], ..many },
            Self { heads: [12, 6], head_dim: 8, sequences: 50, rows: [[3, 1], [2, 1]], ..many },
        ]
    };

    pub(super) fn name(&self) -> String {
        let Self { heads, head_dim, causal, window, capped, sequences, rows } = self;
        format!(
            "heads_{heads:?}_{head_dim}_sequences_{sequences}_rows_{rows:?}_causal_{causal}_window_{window:?}_capped_{capped}"
        )
    }

    /// The answers of both steps.
    pub(super) fn on<B: Backend>(&self, backend: &B) -> Result<Vec<i64>, BackendError> {
        let Self { heads: [heads, kv_heads], head_dim, causal, window, capped, sequences, rows } = *self;
        let shape = AttentionShape { heads, kv_heads, head_dim };
        let soft_cap = if capped { SoftCap::new(2 << 16).map(SoftCap::in_log2_units) } else { None };
        let attention = Attention { causal, window, soft_cap, ..Attention::causal(0, head_dim) };
        let mut s = Stream::new(13);
        let counts = |sequence: usize| rows[sequence.min(1)];
        let cache = |sequence| {
            let capacity = counts(sequence).iter().sum();
            backend.kv_cache(KvShape { layers: 1, attention: shape, capacity })
        };
        let mut caches: Vec<B::KvCache> = (0..sequences).map(cache).collect::<Result<_, _>>()?;
        let mut numbers = Vec::new();
        for step in 0..2 {
            let rows = (0..sequences).flat_map(|sequence| {
                let start = if step == 0 { 0 } else { counts(sequence)[0] };
                (start..start + counts(sequence)[step]).map(move |position| Row { sequence, position })
            });
            let rows: Vec<Row> = rows.collect();
            let mut fill = |width: usize, bits| {
                let mut x = backend.residual(rows.len(), width)?;
                let values = s.values(rows.len() * width, bits).into_iter().map(|v| v as i32);
                backend.write_residual(&values.collect::<Vec<i32>>(), &mut x)?;
                Ok::<_, BackendError>(x)
            };
            let q = fill(shape.query_width(), 18)?;
            let (k, v) = (fill(shape.kv_width(), 18)?, fill(shape.kv_width(), 20)?);
            let mut out = backend.activations(rows.len(), shape.query_width())?;
            let mut borrowed: Vec<&mut B::KvCache> = caches.iter_mut().collect();
            backend.attention(attention, &rows, &q, &k, &v, &mut borrowed, &mut out)?;
            let mut row = Vec::new();
            for i in 0..rows.len() {
                numbers.push(backend.read_activations(&out, i, &mut row)?.into());
                numbers.extend(row.iter().map(|&value| i64::from(value)));
            }
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scalar;

    #[test]
    fn numbers_are_not_lost() {
        for case in Many::ALL {
            let numbers = case.on(&Scalar::new()).unwrap();
            let zeros = numbers.iter().filter(|&&number| number == 0).count();
            assert!(zeros < numbers.len() / 20, "{}: {zeros} of {}", case.name(), numbers.len());
        }
    }
}
