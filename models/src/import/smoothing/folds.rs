//! Powers of two by which rows and columns of a checkpoint's tensors are multiplied when they are read.

use std::collections::HashMap;

use metis_kernels::formats::GAIN_BITS;

use crate::bundle::{Manifest, TensorSpec};
use crate::import::Hyperparameters;
use crate::import::names::{Part, SourceTensor, source};

/// Exponents for tensors of a checkpoint, by their names there. Without any, every tensor is read as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folds(HashMap<String, Fold>);

/// Element `[r, c]` of a matrix is multiplied by `2^(rows[r] + columns[c])`; a vector is one row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fold {
    rows: Vec<i32>,
    columns: Vec<i32>,
}

impl Folds {
    /// Multiplies the elements that read input `c` of a bundle's matrix by `2^exponents[c]`.
    pub(super) fn scale_inputs(
        &mut self,
        shape: &Hyperparameters,
        m: &Manifest,
        spec: &TensorSpec,
        exponents: &[i32],
    ) {
        let Some(source) = source(shape, m, spec) else { return };
        let fold = self.of(&source);
        match source.part {
            Part::Columns(_) => fold.rows.copy_from_slice(exponents),
            _ => fold.columns.copy_from_slice(exponents),
        }
    }

    /// Multiplies what makes output `r` of a bundle's matrix, or element `r` of a vector, by `2^exponents[r]`.
    ///
    /// Not for queries and keys, whose rows may be stored in another order.
    pub(super) fn scale_outputs(
        &mut self,
        shape: &Hyperparameters,
        m: &Manifest,
        spec: &TensorSpec,
        exponents: &[i32],
    ) {
        let Some(source) = source(shape, m, spec) else { return };
        debug_assert!(source.part != Part::Rotary);
        let fold = self.of(&source);
        match source.part {
            Part::From(first) if source.shape.len() == 2 => {
                fold.rows[first..first + exponents.len()].copy_from_slice(exponents);
            }
            Part::Columns(first) | Part::From(first) => {
                fold.columns[first..first + exponents.len()].copy_from_slice(exponents);
            }
            _ if source.shape.len() == 1 => fold.columns.copy_from_slice(exponents),
            _ => fold.rows.copy_from_slice(exponents),
        }
    }

    /// The bits of a tensor's singles, multiplied.
    pub(in crate::import) fn apply(&self, name: &str, bits: &mut [u32]) {
        let Some(fold) = self.0.get(name) else { return };
        for (row, &by_row) in bits.chunks_mut(fold.columns.len()).zip(&fold.rows) {
            for (bits, by_column) in row.iter_mut().zip(&fold.columns) {
                *bits = scaled(*bits, by_row + by_column);
            }
        }
    }

    /// Corrects Q20 gains that are stored less one: the one was added after the rest was multiplied.
    pub(in crate::import) fn scale_ones(&self, name: &str, gains_q20: &mut [i32]) {
        let Some(fold) = self.0.get(name) else { return };
        for (gain, exponent) in gains_q20.iter_mut().zip(&fold.columns) {
            *gain += (1 << (GAIN_BITS as i32 + exponent)) - (1 << GAIN_BITS);
        }
    }

    fn of(&mut self, source: &SourceTensor) -> &mut Fold {
        let (rows, columns) = match source.shape[..] {
            [rows, columns] => (rows, columns),
            _ => (1, source.shape.iter().product()),
        };
        self.0
            .entry(source.name.clone())
            .or_insert_with(|| Fold { rows: vec![0; rows], columns: vec![0; columns] })
    }
}

/// The bits of a single times a power of two: exact, or rounded to nearest even where the product is subnormal.
#[allow(
    clippy::float_arithmetic,
    reason = "one multiplication, which IEEE 754 rounds in the same way everywhere"
)]
pub(super) const fn scaled(bits: u32, exponent: i32) -> u32 {
    debug_assert!(exponent > -127 && exponent < 128);
    let power = f32::from_bits(((127 + exponent) as u32) << 23);
    (f32::from_bits(bits) * power).to_bits()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn normal_products_are_exact(bits: u32, exponent in -8i32..=8) {
            let field = ((bits >> 23) & 0xff) as i32;
            prop_assume!((1..255).contains(&field) && (1..255).contains(&(field + exponent)));
            let product = scaled(bits, exponent);
            prop_assert_eq!(product, bits.wrapping_add_signed(exponent << 23));
            prop_assert_eq!(scaled(product, -exponent), bits);
        }
    }

    #[test]
    fn zeros_stay_and_subnormals_round() {
        assert_eq!([0, 0x8000_0000].map(|bits| scaled(bits, 4)), [0, 0x8000_0000]);
        // Three of the smallest steps, halved, are one and a half: even is two.
        assert_eq!(scaled(3, -1), 2);
        assert_eq!(scaled(0x7f00_0000, 4), f32::INFINITY.to_bits());
    }
}
