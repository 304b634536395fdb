//! The kernels of `gpu/kernels` as a [`Backend`].

use core::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metis_kernels::extent::check_rope;
use metis_kernels::tables::{EXP2, SIGMOID};
use metis_kernels::{
    Activation, Attention, Backend, BackendError, KvShape, LinearWeights, NormWeights, Row, SampleRequest,
    Scale, SoftCap, TokenId, activation,
};
use smallvec::smallvec;

use crate::attention;
use crate::buffers::{Activations, Bias, Linear, Norm, Residual, Rope, filled, i32_bytes, u32_bytes};
use crate::cache::{self, KvCache, Pool};
use crate::choose;
use crate::driver::{Arguments, Driver};
use crate::products::{FEW_ROWS, Matrix, Products, Quantised, Source};
use crate::queue::{Buffer, Queue};
use crate::shares::Shares;
use crate::task::{Gate, Task, by_row, flat};

/// A device.
#[derive(Debug)]
pub struct Gpu<D: Driver> {
    pub(crate) queue: Arc<Queue<D>>,
    tables: Buffer<D>,
    pool: Arc<Pool<D>>,
    attention: Mutex<Option<Buffer<D>>>,
    pub(crate) shares: Shares<D>,
    pub(crate) choices: Mutex<choose::Scratch<D>>,
}

/// A scale as kernels take it.
pub(crate) fn scale_word(scale: Scale) -> u64 {
    u64::from(scale.mantissa()) | u64::from(scale.exponent() as u32) << 32
}

impl<D: Driver> Gpu<D> {
    /// A backend on a device, which takes at most `budget` bytes of its memory.
    pub fn new(driver: D, budget: usize) -> Result<Self, BackendError> {
        let queue = Queue::new(driver, budget)?;
        let mut tables = u32_bytes(EXP2);
        tables.extend(i32_bytes(&SIGMOID));
        tables.extend(i32_bytes(&activation::NORMAL));
        Ok(Self {
            tables: filled(&queue, &tables)?,
            pool: Arc::new(Pool::new(Arc::clone(&queue))),
            attention: Mutex::new(None),
            shares: Shares::new(&queue)?,
            choices: Mutex::new(choose::Scratch::default()),
            queue,
        })
    }

    /// Bytes of the device's memory that weights, rows and caches take.
    pub fn allocated(&self) -> usize {
        self.queue.allocated()
    }

    /// Copies `bytes` of the device's memory `times` times, to measure how fast that is, and waits until it is done.
    pub fn copy(&self, bytes: usize, times: usize) -> Result<(), BackendError> {
        let (from, to) = (self.queue.allocate(bytes)?, self.queue.allocate(bytes)?);
        let count = bytes / 16;
        for _ in 0..times {
            let arguments = Arguments::default().with(from.address()).with(to.address()).with(count);
            self.task(Task::Other(flat("copy", count, arguments)))?;
        }
        self.queue.download(&to, 0, &mut [0; 16])
    }

    pub(crate) const fn tables(&self) -> u64 {
        self.tables.address()
    }

    /// Memory for the intermediate results of attention. It belongs to the operation that is added while it is held.
    pub(crate) fn attention_scratch(&self, bytes: usize) -> Result<Scratch<'_, D>, BackendError> {
        let mut buffer = self.attention.lock().unwrap_or_else(PoisonError::into_inner);
        grow(&self.queue, &mut buffer, bytes)?;
        Ok(Scratch(buffer))
    }

    /// A matrix product of `rows` rows of `x`, to `out`.
    pub(crate) fn product(
        &self,
        x: &Activations<D>,
        rows: Range<usize>,
        weights: &Linear<D>,
        out: u64,
    ) -> Task {
        let Quantised { planes: [high, low, exponents], stride } = x.quantised();
        let first = (rows.start * stride) as u64;
        let planes = [high + first, low + first, exponents + (rows.start * size_of::<i32>()) as u64];
        let matrix = Matrix {
            bytes: weights.bytes.address(),
            scales: weights.scales.address(),
            groups: weights.groups_address(),
            bias: 0,
            out,
            sum: 0,
            outputs: weights.outputs,
        };
        Task::Products(Box::new(Products {
            x: Quantised { planes, stride },
            rows: rows.len(),
            inputs: weights.inputs,
            source: Source::Stored,
            matrices: smallvec![matrix],
            gated: None,
            shared: if rows.len() > FEW_ROWS { self.shares.of_tiles(&self.queue) } else { None },
        }))
    }

    /// Adds a task that needs no inputs.
    fn task(&self, task: Task) -> Result<(), BackendError> {
        self.queue.add(|op| {
            op.add(task);
            Ok(())
        })
    }
}

/// A buffer that is held for an operation.
pub(crate) struct Scratch<'a, D: Driver>(MutexGuard<'a, Option<Buffer<D>>>);

impl<D: Driver> Scratch<'_, D> {
    pub(crate) fn address(&self) -> u64 {
        self.0.as_ref().map_or(0, Buffer::address)
    }
}

/// Makes sure that a buffer has so many bytes; what was in it is lost if it does not.
pub(crate) fn grow<D: Driver>(
    queue: &Arc<Queue<D>>,
    buffer: &mut Option<Buffer<D>>,
    bytes: usize,
) -> Result<(), BackendError> {
    if buffer.as_ref().is_none_or(|buffer| buffer.bytes() < bytes) {
        *buffer = None;
        *buffer = Some(match queue.allocate(bytes.next_power_of_two()) {
            // What is wanted may be there, if not what will be.
            Err(BackendError::OutOfMemory { .. }) => queue.allocate(bytes)?,
            allocated => allocated?,
        });
    }
    Ok(())
}

impl<D: Driver> Backend for Gpu<D> {
    type Linear = Linear<D>;
    type Norm = Norm<D>;
    type Bias = Bias<D>;
    type Rope = Rope<D>;
    type Residual = Residual<D>;
    type Activations = Activations<D>;
    type KvCache = KvCache<D>;

    fn name(&self) -> String {
        self.queue.name()
    }

    fn begin_layer(&self, _layer: Option<usize>) {
        self.queue.begin_part();
    }

    fn load_linear(&self, weights: LinearWeights<'_>) -> Result<Linear<D>, BackendError> {
        Linear::new(&self.queue, weights)
    }

    fn load_bias(&self, values_q16: &[i32]) -> Result<Bias<D>, BackendError> {
        Bias::new(&self.queue, values_q16)
    }

    fn load_norm(&self, weights: NormWeights<'_>) -> Result<Norm<D>, BackendError> {
        Norm::new(&self.queue, weights)
    }

    fn load_rope(&self, frequencies_q64: &[u64], context: usize) -> Result<Rope<D>, BackendError> {
        Rope::new(&self.queue, frequencies_q64, context)
    }

    fn residual(&self, rows: usize, width: usize) -> Result<Residual<D>, BackendError> {
        Residual::new(&self.queue, rows, width)
    }

    fn activations(&self, rows: usize, width: usize) -> Result<Activations<D>, BackendError> {
        Activations::new(&self.queue, rows, width)
    }

    fn kv_cache(&self, shape: KvShape) -> Result<KvCache<D>, BackendError> {
        KvCache::new(Arc::clone(&self.pool), shape)
    }

    fn kv_bytes(&self, shape: KvShape) -> usize {
        KvCache::<D>::bytes(shape)
    }

    fn copy_positions(
        &self,
        from: &KvCache<D>,
        positions: Range<usize>,
        to: &mut KvCache<D>,
        at: usize,
    ) -> Result<(), BackendError> {
        cache::copy_positions(self, from, positions, to, at)
    }

    fn embed(
        &self,
        table: &Linear<D>,
        tokens: &[TokenId],
        factor: Scale,
        out: &mut Residual<D>,
    ) -> Result<(), BackendError> {
        out.extent.start("embed", tokens.len(), table.inputs)?;
        if let Some(&token) = tokens.iter().find(|token| token.index() >= table.outputs) {
            return Err(BackendError::TokenOutOfRange { token, vocabulary: table.outputs });
        }
        let tokens = u32_bytes(tokens.iter().map(|token| token.0));
        self.queue.add(|op| {
            op.reserve(&[tokens.len()])?;
            let arguments = Arguments::default()
                .with(table.bytes.address())
                .with(table.stride)
                .with(table.scales.address())
                .with(table.groups_address())
                .with(op.place(&tokens))
                .with(scale_word(factor))
                .with(out.values.address())
                .with(table.inputs);
            op.launch(by_row("embed", out.extent.rows(), table.inputs, arguments));
            Ok(())
        })
    }

    fn norm(&self, x: &Residual<D>, norm: &Norm<D>, out: &mut Activations<D>) -> Result<(), BackendError> {
        x.extent.expect("norm", norm.width)?;
        out.extent.start("norm", x.extent.rows(), x.extent.width())?;
        self.task(Task::Norm {
            x: x.values.address(),
            norm: norm.at(),
            out: out.quantised(),
            rows: x.extent.rows(),
            width: norm.width,
        })
    }

    fn normalise(&self, x: &mut Residual<D>, norm: &Norm<D>) -> Result<(), BackendError> {
        x.extent.expect_runs("normalise", norm.width)?;
        let runs = x.extent.rows() * (x.extent.width() / norm.width);
        self.task(Task::Normalise { x: x.values.address(), norm: norm.at(), runs, width: norm.width })
    }

    fn quantise(&self, x: &Residual<D>, out: &mut Activations<D>) -> Result<(), BackendError> {
        let (rows, width) = (x.extent.rows(), x.extent.width());
        out.extent.start("quantise", rows, width)?;
        let [high, low, exponents] = out.quantised().planes;
        let arguments = Arguments::default()
            .with(x.values.address())
            .with(width)
            .with(high)
            .with(low)
            .with(exponents)
            .with(out.stride);
        self.task(Task::Other(by_row("quantise", rows, width, arguments)))
    }

    fn linear(
        &self,
        x: &Activations<D>,
        weights: &Linear<D>,
        out: &mut Residual<D>,
    ) -> Result<(), BackendError> {
        x.extent.expect("linear", weights.inputs)?;
        out.extent.start("linear", x.extent.rows(), weights.outputs)?;
        self.task(self.product(x, 0..x.extent.rows(), weights, out.values.address()))
    }

    fn argmax(
        &self,
        x: &Activations<D>,
        weights: &Linear<D>,
        out: &mut Vec<TokenId>,
    ) -> Result<(), BackendError> {
        x.extent.expect("argmax", weights.inputs)?;
        choose::argmax(self, x, weights, out)
    }

    fn rope(
        &self,
        rope: &Rope<D>,
        rows: &[Row],
        head_dim: usize,
        x: &mut Residual<D>,
    ) -> Result<(), BackendError> {
        let width = x.extent.width();
        x.extent.expect_rows("rope", rows.len())?;
        check_rope(rope.pairs, rope.context, rows, head_dim, width)?;
        let positions = u32_bytes(rows.iter().map(|row| row.position as u32));
        self.queue.add(|op| {
            op.reserve(&[positions.len()])?;
            let (x, rotations) = (x.values.address(), rope.rotations.address());
            let positions = op.place(&positions);
            op.add(Task::Rope { x, rotations, positions, rows: rows.len(), width, head_dim });
            Ok(())
        })
    }

    fn attention(
        &self,
        attention: Attention,
        rows: &[Row],
        q: &Residual<D>,
        k: &Residual<D>,
        v: &Residual<D>,
        caches: &mut [&mut KvCache<D>],
        out: &mut Activations<D>,
    ) -> Result<(), BackendError> {
        attention::attention(self, attention, rows, [q, k, v], caches, out)
    }

    fn gate(
        &self,
        activation: Activation,
        gate: &Residual<D>,
        up: Option<&Residual<D>>,
        out: &mut Activations<D>,
    ) -> Result<(), BackendError> {
        let (rows, width) = (gate.extent.rows(), gate.extent.width());
        gate.extent.expect_twin("gate", up.map(|up| &up.extent))?;
        out.extent.start("gate", rows, width)?;
        self.task(Task::Gate(Gate {
            activation: match activation {
                Activation::Silu => 0,
                Activation::GeluTanh => 1,
                Activation::GeluErf => 2,
            },
            gate: gate.values.address(),
            up: up.map(|up| up.values.address()),
            out: out.quantised(),
            room: out.room(rows),
            tables: self.tables(),
            rows,
            width,
        }))
    }

    fn add(&self, x: &mut Residual<D>, y: &Residual<D>) -> Result<(), BackendError> {
        x.extent.expect_twin("add", Some(&y.extent))?;
        let count = x.extent.rows() * x.extent.width();
        self.task(Task::Add { x: x.values.address(), y: y.values.address(), count })
    }

    fn add_bias(&self, x: &mut Residual<D>, bias: &Bias<D>) -> Result<(), BackendError> {
        x.extent.expect("add_bias", bias.width)?;
        let (rows, width) = (x.extent.rows(), bias.width);
        self.task(Task::AddBias { x: x.values.address(), bias: bias.values.address(), rows, width })
    }

    fn soft_cap(&self, x: &mut Residual<D>, cap: SoftCap) -> Result<(), BackendError> {
        let count = x.extent.rows() * x.extent.width();
        let arguments = Arguments::default()
            .with(x.values.address())
            .with(count)
            .with(cap.cap_q16())
            .with(scale_word(cap.inverse()))
            .with(self.tables());
        self.task(Task::Other(flat("soft_cap", count, arguments)))
    }

    fn select_rows(
        &self,
        x: &Residual<D>,
        rows: &[usize],
        out: &mut Residual<D>,
    ) -> Result<(), BackendError> {
        let width = x.extent.width();
        out.extent.start("select_rows", rows.len(), width)?;
        rows.iter().try_for_each(|&row| x.extent.expect_row("select_rows", row))?;
        let wanted = u32_bytes(rows.iter().map(|&row| row as u32));
        self.queue.add(|op| {
            op.reserve(&[wanted.len()])?;
            let arguments = Arguments::default()
                .with(x.values.address())
                .with(width)
                .with(op.place(&wanted))
                .with(out.values.address());
            op.launch(by_row("select_rows", rows.len(), width, arguments));
            Ok(())
        })
    }

    fn sample(
        &self,
        logits: &Residual<D>,
        requests: &[SampleRequest],
        out: &mut Vec<TokenId>,
    ) -> Result<(), BackendError> {
        choose::sample(self, logits, requests, out)
    }

    fn read_row(&self, x: &Residual<D>, row: usize, out: &mut Vec<i32>) -> Result<(), BackendError> {
        x.extent.expect_row("read_row", row)?;
        let mut bytes = vec![0; x.extent.width() * size_of::<i32>()];
        self.queue.download(&x.values, row * bytes.len(), &mut bytes)?;
        out.clear();
        out.extend(bytes.as_chunks().0.iter().map(|&value| i32::from_le_bytes(value)));
        Ok(())
    }

    fn write_residual(&self, values: &[i32], out: &mut Residual<D>) -> Result<(), BackendError> {
        out.extent.start_whole("write_residual", values.len())?;
        self.queue.upload(&mut out.values, 0, &i32_bytes(values))
    }

    fn write_activations(
        &self,
        values: &[i16],
        exponents: &[i32],
        out: &mut Activations<D>,
    ) -> Result<(), BackendError> {
        out.extent.start_whole("write_activations", values.len())?;
        out.extent.expect_rows("write_activations", exponents.len())?;
        let (width, stride) = (out.extent.width(), out.stride);
        let mut planes = [vec![0; exponents.len() * stride], vec![0; exponents.len() * stride]];
        for (row, values) in values.chunks_exact(width).enumerate() {
            for (i, &value) in values.iter().enumerate() {
                let low = value as i8;
                planes[0][row * stride + i] = ((value - i16::from(low)) >> 8) as u8;
                planes[1][row * stride + i] = low as u8;
            }
        }
        let [low_offset, exponents_offset] = out.offsets();
        self.queue.upload(&mut out.planes, 0, &planes[0])?;
        self.queue.upload(&mut out.planes, low_offset, &planes[1])?;
        self.queue.upload(&mut out.planes, exponents_offset, &i32_bytes(exponents))
    }

    fn read_activations(
        &self,
        x: &Activations<D>,
        row: usize,
        out: &mut Vec<i16>,
    ) -> Result<i32, BackendError> {
        x.extent.expect_row("read_activations", row)?;
        let [low_offset, exponents_offset] = x.offsets();
        let mut planes = [vec![0; x.extent.width()], vec![0; x.extent.width()]];
        self.queue.download(&x.planes, row * x.stride, &mut planes[0])?;
        self.queue.download(&x.planes, low_offset + row * x.stride, &mut planes[1])?;
        let mut exponent = [0; size_of::<i32>()];
        self.queue.download(&x.planes, exponents_offset + row * size_of::<i32>(), &mut exponent)?;
        out.clear();
        let halves = planes[0].iter().zip(&planes[1]);
        out.extend(halves.map(|(&high, &low)| i16::from(high as i8) * 256 + i16::from(low as i8)));
        Ok(i32::from_le_bytes(exponent))
    }

    fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let result = f();
        // What fails now fails again, and is reported, at the next call.
        let _ = self.queue.flush();
        result
    }
}
