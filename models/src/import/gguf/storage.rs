//! How GGUF stores numbers: floats, and blocks of small integers with a shared scale. Formulas: `docs/numerics.md`, section 11.
//!
//! The scales of blocks are `f16`, whose every finite value is a multiple of `2^-24`; so is every product with an integer and every
//! difference of products. An element is therefore an exact integer in Q24, below `2^52`, and becomes a single by one rounding:
//! the same that the customary float expressions make, because their products are exact as well.

use core::fmt;

use candle_core::DType;
use rayon::prelude::*;

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum Storage {
    /// One number after the other.
    Float(DType),
    /// Blocks of a row's consecutive elements.
    Blocks(BlockFormat),
}

impl Storage {
    /// The bytes of a tensor; `None` when it has no elements, no whole blocks, or too many bytes.
    pub(super) fn length(self, shape: &[usize]) -> Option<usize> {
        let (elements, bytes) = match self {
            Self::Float(dtype) => (1, dtype.size_in_bytes()),
            Self::Blocks(format) => (format.elements(), format.bytes()),
        };
        let row = *shape.last()?;
        let count = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))?;
        (count > 0 && row.is_multiple_of(elements)).then(|| (count / elements).checked_mul(bytes))?
    }
}

impl From<DType> for Storage {
    fn from(dtype: DType) -> Self {
        Self::Float(dtype)
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(dtype) => dtype.as_str().fmt(f),
            Self::Blocks(format) => write!(f, "{format:?}"),
        }
    }
}

/// The number of a tensor's type in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) struct TypeId(pub(super) u32);

/// The types that are read.
pub(in crate::import) const SUPPORTED_TYPES: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K";

impl TypeId {
    pub(super) const fn storage(self) -> Option<Storage> {
        Some(match self.0 {
            0 => Storage::Float(DType::F32),
            1 => Storage::Float(DType::F16),
            30 => Storage::Float(DType::BF16),
            2 => Storage::Blocks(BlockFormat::Q4_0),
            8 => Storage::Blocks(BlockFormat::Q8_0),
            12 => Storage::Blocks(BlockFormat::Q4K),
            13 => Storage::Blocks(BlockFormat::Q5K),
            14 => Storage::Blocks(BlockFormat::Q6K),
            _ => return None,
        })
    }
}

impl fmt::Display for TypeId {
    /// The type's name, for those that are not read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            3 => "Q4_1",
            6 => "Q5_0",
            7 => "Q5_1",
            9 => "Q8_1",
            10 => "Q2_K",
            11 => "Q3_K",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            20 => "IQ4_NL",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            24 => "I8",
            25 => "I16",
            26 => "I32",
            27 => "I64",
            28 => "F64",
            29 => "IQ1_M",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            number => return write!(f, "type {number}"),
        };
        name.fmt(f)
    }
}

/// A block format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum BlockFormat {
    Q8_0,
    Q4_0,
    Q4K,
    Q5K,
    Q6K,
}

impl BlockFormat {
    /// Elements of a block.
    pub(in crate::import) const fn elements(self) -> usize {
        match self {
            Self::Q8_0 | Self::Q4_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    const fn bytes(self) -> usize {
        match self {
            Self::Q8_0 => 2 + 32,
            Self::Q4_0 => 2 + 16,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q5K => 2 + 2 + 12 + 32 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// The elements of whole blocks as bits of singles; the number of a block whose scale is not finite is the error.
    pub(in crate::import) fn singles(self, stored: &[u8]) -> Result<Vec<u32>, usize> {
        let blocks = stored.len() / self.bytes();
        let mut singles = vec![0; blocks * self.elements()];
        let pairs = singles.par_chunks_mut(self.elements()).zip(stored.par_chunks(self.bytes()));
        pairs.enumerate().try_for_each(|(i, (out, block))| self.read(block, out).ok_or(i))?;
        Ok(singles)
    }

    fn read(self, block: &[u8], out: &mut [u32]) -> Option<()> {
        let mut fields = Fields(block);
        match self {
            Self::Q8_0 => {
                let (scale, quants) = (fields.f16_q24()?, fields.bytes::<32>()?);
                fill(out, |e| scale * i64::from(quants[e] as i8));
            }
            Self::Q4_0 => {
                let (scale, nibbles) = (fields.f16_q24()?, fields.bytes::<16>()?);
                fill(out, |e| scale * (i64::from(nibbles[e % 16] >> (e / 16 * 4) & 15) - 8));
            }
            Self::Q4K => {
                let groups = Groups::read(&mut fields)?;
                let nibbles = fields.bytes::<128>()?;
                fill(out, |e| groups.value(e, nibble(nibbles, e)));
            }
            Self::Q5K => {
                let groups = Groups::read(&mut fields)?;
                let (fifths, nibbles) = (fields.bytes::<32>()?, fields.bytes::<128>()?);
                fill(out, |e| groups.value(e, nibble(nibbles, e) | (fifths[e % 32] >> (e / 32) & 1) << 4));
            }
            Self::Q6K => {
                let (nibbles, pairs) = (fields.bytes::<128>()?, fields.bytes::<64>()?);
                let (scales, scale) = (fields.bytes::<16>()?, fields.f16_q24()?);
                fill(out, |e| {
                    let (half, quarter) = (e / 128, e / 32 % 4);
                    let low = nibbles[half * 64 + e % 64] >> (quarter / 2 * 4) & 15;
                    let high = pairs[half * 32 + e % 32] >> (2 * quarter) & 3;
                    scale * i64::from(scales[e / 16] as i8) * (i64::from(high << 4 | low) - 32)
                });
            }
        }
        Some(())
    }
}

fn fill(out: &mut [u32], value_q24: impl Fn(usize) -> i64) {
    out.iter_mut().enumerate().for_each(|(e, out)| *out = single_from_q24(value_q24(e)));
}

/// The four bits of an element: 32 bytes hold 64 elements, the first 32 in the lower halves.
const fn nibble(nibbles: &[u8; 128], element: usize) -> u8 {
    nibbles[element / 64 * 32 + element % 32] >> (element / 32 % 2 * 4) & 15
}

/// The eight groups of 32 in a block of Q4_K or Q5_K: each with a scale and a minimum of six bits.
#[derive(Debug)]
struct Groups<'a> {
    scale_q24: i64,
    minimum_q24: i64,
    packed: &'a [u8; 12],
}

impl<'a> Groups<'a> {
    fn read(fields: &mut Fields<'a>) -> Option<Self> {
        Some(Self { scale_q24: fields.f16_q24()?, minimum_q24: fields.f16_q24()?, packed: fields.bytes()? })
    }

    fn value(&self, element: usize, quant: u8) -> i64 {
        let (scale, minimum) = self.factors(element / 32);
        self.scale_q24 * i64::from(scale) * i64::from(quant) - self.minimum_q24 * i64::from(minimum)
    }

    const fn factors(&self, group: usize) -> (u8, u8) {
        let p = self.packed;
        if group < 4 {
            return (p[group] & 63, p[group + 4] & 63);
        }
        (p[group + 4] & 15 | p[group - 4] >> 6 << 4, p[group + 4] >> 4 | p[group] >> 6 << 4)
    }
}

/// The fields of a block, in order.
#[derive(Debug)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }

    /// An `f16` times `2^24`, exactly; `None` when it is not finite.
    fn f16_q24(&mut self) -> Option<i64> {
        let bits = u16::from_le_bytes(*self.bytes()?);
        let (field, fraction) = (bits >> 10 & 31, i64::from(bits & 1_023));
        let magnitude = match field {
            0 => fraction,
            31 => return None,
            _ => (fraction | 1 << 10) << (field - 1),
        };
        Some(if bits >> 15 == 1 { -magnitude } else { magnitude })
    }
}

/// The bits of the single nearest to `value * 2^-24`; ties go to the even one. Zero is positive.
const fn single_from_q24(value: i64) -> u32 {
    let magnitude = value.unsigned_abs();
    let length = u64::BITS - magnitude.leading_zeros();
    if length == 0 {
        return 0;
    }
    let significand = if length <= 24 {
        magnitude << (24 - length)
    } else {
        let shift = length - 24;
        let (kept, lost, half) = (magnitude >> shift, magnitude & ((1 << shift) - 1), 1 << (shift - 1));
        kept + (lost > half || lost == half && kept & 1 == 1) as u64
    };
    // The significand's leading one adds one to the exponent field, and a carry out of it another.
    let exponent = 127 - 24 + length - 2;
    ((value < 0) as u32) << 31 | ((exponent << 23) + significand as u32)
}

#[cfg(test)]
#[allow(clippy::float_arithmetic, reason = "a test looks at the values behind the integers")]
mod tests {
    use std::borrow::Cow;

    use candle_core::Device;
    use candle_core::quantized::{GgmlDType, QStorage, QTensor};
    use proptest::prelude::*;

    use super::*;

    const FORMATS: [(BlockFormat, GgmlDType); 5] = [
        (BlockFormat::Q8_0, GgmlDType::Q8_0),
        (BlockFormat::Q4_0, GgmlDType::Q4_0),
        (BlockFormat::Q4K, GgmlDType::Q4K),
        (BlockFormat::Q5K, GgmlDType::Q5K),
        (BlockFormat::Q6K, GgmlDType::Q6K),
    ];

    /// Where the `f16` scales of a block are.
    fn scales(format: BlockFormat) -> &'static [usize] {
        match format {
            BlockFormat::Q8_0 | BlockFormat::Q4_0 => &[0],
            BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
            BlockFormat::Q6K => &[208],
        }
    }

    proptest! {
        #[test]
        fn blocks_are_the_float_expressions_bit_for_bit(bytes in prop::collection::vec(any::<u8>(), 3 * 210)) {
            for (format, theirs) in FORMATS {
                prop_assert_eq!((format.elements(), format.bytes()), (theirs.block_size(), theirs.type_size()));
                let mut stored = bytes[..3 * format.bytes()].to_vec();
                for block in stored.chunks_mut(format.bytes()) {
                    // Finite: the exponent's lowest bit is cleared.
                    scales(format).iter().for_each(|at| block[at + 1] &= !4);
                }
                let storage = QStorage::from_data(Cow::Borrowed(&stored), &Device::Cpu, theirs).unwrap();
                let floats = QTensor::new(storage, 3 * format.elements()).unwrap().dequantize(&Device::Cpu).unwrap();
                let ours = format.singles(&stored).unwrap();
                for (found, float) in ours.into_iter().zip(floats.to_vec1::<f32>().unwrap()) {
                    // Only the sign of a zero may differ: ours is positive.
                    let expected = if float == 0.0 { 0 } else { float.to_bits() };
                    prop_assert_eq!(found, expected, "{:?}: {}", format, float);
                }
            }
        }

        #[test]
        fn a_scale_that_is_not_finite_is_found(block in 0usize..3, fraction in 0u8..4, sign: bool) {
            for (format, _) in FORMATS {
                for at in scales(format) {
                    let mut stored = vec![0; 3 * format.bytes()];
                    stored[block * format.bytes() + at + 1] = u8::from(sign) << 7 | 31 << 2 | fraction;
                    prop_assert_eq!(format.singles(&stored), Err(block));
                }
            }
        }

        #[test]
        fn q24_is_rounded_as_the_processor_rounds(value in -(1i64 << 52)..1 << 52, shift in 0u32..52) {
            let value = value >> shift;
            // Exact in a double, so that the conversion to a single is the one rounding.
            let double = value as f64 * 2f64.powi(-24);
            prop_assert_eq!(single_from_q24(value), if value == 0 { 0 } else { (double as f32).to_bits() });
        }
    }
}
