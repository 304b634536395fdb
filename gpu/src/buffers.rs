//! Weights and rows in the device's memory.

use metis_kernels::{BackendError, Extent, LinearWeights, NormWeights};

use crate::driver::{Arguments, Driver};
use crate::products::{FEW_ROWS, NormAt, Quantised, most_parts};
use crate::queue::{Buffer, Queue};
use crate::task::flat;
use std::sync::Arc;

/// Inputs of a matrix are padded to whole steps of its kernels.
const INPUTS: usize = 64;
/// Bytes of a matrix that are copied at a time.
const PIECE: usize = 16 << 20;

pub(crate) fn le_bytes<const N: usize>(values: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
    let values = values.into_iter();
    let mut bytes = Vec::with_capacity(values.size_hint().0 * N);
    values.for_each(|value| bytes.extend_from_slice(&value));
    bytes
}

pub(crate) fn u32_bytes(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    le_bytes(values.into_iter().map(u32::to_le_bytes))
}

pub(crate) fn i32_bytes(values: &[i32]) -> Vec<u8> {
    le_bytes(values.iter().map(|value| value.to_le_bytes()))
}

/// A buffer with these contents.
pub(crate) fn filled<D: Driver>(queue: &Arc<Queue<D>>, bytes: &[u8]) -> Result<Buffer<D>, BackendError> {
    let mut buffer = queue.allocate(bytes.len())?;
    queue.upload(&mut buffer, 0, bytes)?;
    Ok(buffer)
}

/// Signed bytes `[outputs, stride]`, zero past the inputs, with scales and perhaps multipliers.
#[derive(Debug)]
pub struct Linear<D: Driver> {
    pub(crate) bytes: Buffer<D>,
    pub(crate) scales: Buffer<D>,
    pub(crate) groups: Option<Buffer<D>>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) stride: usize,
}

impl<D: Driver> Linear<D> {
    pub(crate) fn new(queue: &Arc<Queue<D>>, weights: LinearWeights<'_>) -> Result<Self, BackendError> {
        weights.check()?;
        let LinearWeights { outputs, inputs, bytes, scales, groups } = weights;
        let stride = inputs.next_multiple_of(INPUTS);
        let mut matrix = queue.allocate(outputs * stride)?;
        let rows = (PIECE / stride).max(1);
        let mut piece = vec![0; rows.min(outputs) * stride];
        for (i, bytes) in bytes.chunks(rows * inputs).enumerate() {
            for (to, from) in piece.chunks_exact_mut(stride).zip(bytes.chunks_exact(inputs)) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from ^ 0x80);
            }
            let used = bytes.len() / inputs * stride;
            queue.upload(&mut matrix, i * rows * stride, &piece[..used])?;
        }
        let scales = scales.iter().flat_map(|scale| [scale.mantissa(), scale.exponent() as u32]);
        Ok(Self {
            bytes: matrix,
            scales: filled(queue, &u32_bytes(scales))?,
            groups: groups.map(|groups| filled(queue, groups)).transpose()?,
            inputs,
            outputs,
            stride,
        })
    }

    pub(crate) fn groups_address(&self) -> u64 {
        self.groups.as_ref().map_or(0, Buffer::address)
    }
}

/// Gains, biases and epsilon.
#[derive(Debug)]
pub struct Norm<D: Driver> {
    pub(crate) gains: Buffer<D>,
    pub(crate) biases: Option<Buffer<D>>,
    pub(crate) epsilon_q32: i64,
    pub(crate) width: usize,
}

impl<D: Driver> Norm<D> {
    pub(crate) fn new(queue: &Arc<Queue<D>>, weights: NormWeights<'_>) -> Result<Self, BackendError> {
        metis_kernels::scalar::Norm::new(weights)?;
        Ok(Self {
            gains: filled(queue, &i32_bytes(weights.gains_q20))?,
            biases: weights.biases_q20.map(|biases| filled(queue, &i32_bytes(biases))).transpose()?,
            epsilon_q32: weights.epsilon_q32,
            width: weights.gains_q20.len(),
        })
    }

    pub(crate) fn at(&self) -> NormAt {
        NormAt {
            gains: self.gains.address(),
            biases: self.biases.as_ref().map_or(0, Buffer::address),
            epsilon_q32: self.epsilon_q32,
        }
    }
}

/// A number for each channel.
#[derive(Debug)]
pub struct Bias<D: Driver> {
    pub(crate) values: Buffer<D>,
    pub(crate) width: usize,
}

impl<D: Driver> Bias<D> {
    pub(crate) fn new(queue: &Arc<Queue<D>>, values_q16: &[i32]) -> Result<Self, BackendError> {
        metis_kernels::buffers::Bias::new(values_q16)?;
        Ok(Self { values: filled(queue, &i32_bytes(values_q16))?, width: values_q16.len() })
    }
}

/// Cosines and sines, `[context, pairs]`, Q30.
#[derive(Debug)]
pub struct Rope<D: Driver> {
    pub(crate) rotations: Buffer<D>,
    pub(crate) pairs: usize,
    pub(crate) context: usize,
}

impl<D: Driver> Rope<D> {
    pub(crate) fn new(
        queue: &Arc<Queue<D>>,
        frequencies_q64: &[u64],
        context: usize,
    ) -> Result<Self, BackendError> {
        metis_kernels::scalar::RopeTable::new(frequencies_q64, context)?;
        let frequencies = le_bytes(frequencies_q64.iter().map(|frequency| frequency.to_le_bytes()));
        let pairs = frequencies_q64.len();
        let rotations = queue.allocate(context * pairs * 2 * size_of::<i32>())?;
        queue.add(|op| {
            op.reserve(&[frequencies.len()])?;
            let arguments = Arguments::default()
                .with(op.place(&frequencies))
                .with(pairs)
                .with(context * pairs)
                .with(rotations.address());
            op.launch(flat("rotations", context * pairs, arguments));
            Ok(())
        })?;
        Ok(Self { rotations, pairs, context })
    }
}

/// `[rows, width]` of `i32`.
#[derive(Debug)]
pub struct Residual<D: Driver> {
    pub(crate) values: Buffer<D>,
    pub(crate) extent: Extent,
}

impl<D: Driver> Residual<D> {
    pub(crate) fn new(queue: &Arc<Queue<D>>, rows: usize, width: usize) -> Result<Self, BackendError> {
        let values = queue.allocate(rows * width * size_of::<i32>())?;
        Ok(Self { values, extent: Extent::new(rows, width) })
    }
}

/// The high and the low bytes of `[rows, stride]` int16 numbers, one after the other, then an exponent for each row. What pads a row is not
/// defined: it meets weights of zero. After them comes room for a few rows that wait to be quantised: their numbers, and maxima of parts.
#[derive(Debug)]
pub struct Activations<D: Driver> {
    pub(crate) planes: Buffer<D>,
    pub(crate) extent: Extent,
    pub(crate) stride: usize,
    waiting: usize,
}

impl<D: Driver> Activations<D> {
    pub(crate) fn new(queue: &Arc<Queue<D>>, rows: usize, width: usize) -> Result<Self, BackendError> {
        let stride = width.next_multiple_of(INPUTS);
        let waiting = (rows * (2 * stride + size_of::<i32>())).next_multiple_of(size_of::<u64>());
        let numbers = rows.min(FEW_ROWS) * width + most_parts(queue.multiprocessors());
        let planes = queue.allocate(waiting + numbers * size_of::<u64>())?;
        Ok(Self { planes, extent: Extent::new(rows, width), stride, waiting })
    }

    /// Rows as kernels know them.
    pub(crate) const fn quantised(&self) -> Quantised {
        Quantised { planes: self.addresses(), stride: self.stride }
    }

    /// Where so many rows can wait to be quantised: numbers and maxima.
    pub(crate) fn room(&self, rows: usize) -> Option<[u64; 2]> {
        let values = self.planes.address() + self.waiting as u64;
        let kept = self.extent.capacity().min(FEW_ROWS);
        let maxima = values + (kept * self.extent.width() * size_of::<i64>()) as u64;
        (rows <= kept).then_some([values, maxima])
    }

    /// Offsets of the low bytes and of the exponents.
    pub(crate) const fn offsets(&self) -> [usize; 2] {
        let plane = self.extent.capacity() * self.stride;
        [plane, 2 * plane]
    }

    /// Addresses of high bytes, low bytes and exponents.
    const fn addresses(&self) -> [u64; 3] {
        let [low, exponents] = self.offsets();
        let high = self.planes.address();
        [high, high + low as u64, high + exponents as u64]
    }
}
