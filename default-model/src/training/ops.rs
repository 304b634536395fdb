//! The fused operations of the training graph, each with its gradient.
//!
//! Candle's own fused operations have no backward pass, and its composed ones spend most of the time of a
//! small model on copies. These work on *ragged* batches: the rows of all sequences stand one after the
//! other, without padding, and `lengths` says where one ends.
//!
//! All inputs are contiguous f32 on the CPU.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail};
use std::sync::Arc;

/// `x / rms(x) * weight` over the last dimension.
#[derive(Debug, Clone)]
pub(super) struct RmsNorm {
    pub(super) eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "train-rmsnorm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (floats(s1, l1)?, floats(s2, l2)?);
        let mut out = vec![0f32; x.len()];
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            let inverse = inverse_rms(x, self.eps);
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * inverse * weight;
            }
        }
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = with_floats([x, weight, grad], |[x, weight, grad]| {
            let width = weight.len();
            let (mut dx, mut dw) = (vec![0f32; x.len()], vec![0f32; width]);
            let rows = x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
            for ((x, grad), dx) in rows {
                let inverse = inverse_rms(x, self.eps);
                let mut dot = 0f32;
                for i in 0..width {
                    dot += grad[i] * weight[i] * x[i];
                    dw[i] += grad[i] * x[i] * inverse;
                }
                let pull = dot * inverse * inverse * inverse / width as f32;
                for i in 0..width {
                    dx[i] = grad[i] * weight[i] * inverse - x[i] * pull;
                }
            }
            (dx, dw)
        })?;
        Ok((Some(like(x, dx)?), Some(like(weight, dw)?)))
    }
}

fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
    1.0 / (mean + eps).sqrt()
}

/// `silu(gate) * up`, where a row of the input is `gate` followed by `up`.
#[derive(Debug, Clone)]
pub(super) struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "train-swiglu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(storage, layout)?;
        let (rows, width) = layout.shape().dims2()?;
        let half = width / 2;
        let mut out = vec![0f32; rows * half];
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(half)) {
            let (gate, up) = x.split_at(half);
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate * sigmoid(*gate) * up;
            }
        }
        Ok((CpuStorage::F32(out), (rows, half).into()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = x.dim(1)?;
        let half = width / 2;
        let dx = with_floats([x, grad], |[x, grad]| {
            let mut dx = vec![0f32; x.len()];
            let rows = x.chunks_exact(width).zip(grad.chunks_exact(half)).zip(dx.chunks_exact_mut(width));
            for ((x, grad), dx) in rows {
                let (gate, up) = x.split_at(half);
                let (dgate, dup) = dx.split_at_mut(half);
                for i in 0..half {
                    let sigmoid = sigmoid(gate[i]);
                    dup[i] = grad[i] * gate[i] * sigmoid;
                    dgate[i] = grad[i] * up[i] * sigmoid * (1.0 + gate[i] * (1.0 - sigmoid));
                }
            }
            dx
        })?;
        Ok(Some(like(x, dx)?))
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `e^x` to about one part in ten million, in operations that vectorise; `x` is clamped to ±87.
fn exp(x: f32) -> f32 {
    let scaled = x.clamp(-87.0, 87.0) * std::f32::consts::LOG2_E;
    // Rounds to the nearest whole number: beyond 2^23 an f32 has no fraction.
    const MAGIC: f32 = 12_582_912.0;
    let whole = (scaled + MAGIC) - MAGIC;
    let f = (scaled - whole) * std::f32::consts::LN_2;
    let p = 1.0
        + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0))))));
    p * f32::from_bits(((whole as i32 + 127) << 23) as u32)
}

/// Rotary positions and causal attention of a ragged batch. A row of the input is the queries of all heads,
/// then the keys and the values of all key-value heads; a row of the output has the heads' results.
#[derive(Debug, Clone)]
pub(super) struct Attention {
    pub(super) lengths: Arc<[usize]>,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// `cos` then `sin` of every position's angles, `head_dim` values per position.
    pub(super) angles: Arc<[f32]>,
}

impl Attention {
    fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// The rotated queries and keys; the values as they are.
    fn rotated(&self, x: &[f32]) -> Vec<f32> {
        let mut out = x.to_vec();
        self.rotate(&mut out, 1.0);
        out
    }

    /// Rotates the queries and keys of all rows by their positions, or back with `sign` -1.
    fn rotate(&self, x: &mut [f32], sign: f32) {
        let half = self.head_dim / 2;
        let mut rows = x.chunks_exact_mut(self.width());
        for &length in self.lengths.iter() {
            for (angles, row) in self.angles.chunks_exact(self.head_dim).zip(rows.by_ref().take(length)) {
                let (cos, sin) = angles.split_at(half);
                for head in
                    row[..(self.heads + self.kv_heads) * self.head_dim].chunks_exact_mut(self.head_dim)
                {
                    let (a, b) = head.split_at_mut(half);
                    for i in 0..half {
                        let (x, y, sin) = (a[i], b[i], sign * sin[i]);
                        a[i] = x * cos[i] - y * sin;
                        b[i] = x * sin + y * cos[i];
                    }
                }
            }
        }
    }

    /// Calls `visit` with the first row and the length of each sequence.
    fn sequences(&self, mut visit: impl FnMut(usize, usize)) {
        let mut start = 0;
        for &length in self.lengths.iter() {
            visit(start, length);
            start += length;
        }
    }

    /// Where the query, the key and the value of `head` begin in a row.
    fn offsets(&self, head: usize) -> (usize, usize, usize) {
        let kv = head / (self.heads / self.kv_heads);
        let d = self.head_dim;
        (head * d, (self.heads + kv) * d, (self.heads + self.kv_heads + kv) * d)
    }

    /// The attention probabilities of the query in row `start + at` over rows `start..=start + at`.
    fn probabilities(&self, x: &[f32], start: usize, at: usize, head: usize, out: &mut [f32]) {
        let (width, d) = (self.width(), self.head_dim);
        let (q, k, _) = self.offsets(head);
        let query = &x[(start + at) * width + q..][..d];
        let scale = 1.0 / (d as f32).sqrt();
        let mut top = f32::NEG_INFINITY;
        for (j, out) in out[..=at].iter_mut().enumerate() {
            *out = dot(query, &x[(start + j) * width + k..][..d]) * scale;
            top = top.max(*out);
        }
        let mut sum = 0f32;
        for out in &mut out[..=at] {
            *out = exp(*out - top);
            sum += *out;
        }
        for out in &mut out[..=at] {
            *out /= sum;
        }
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "train-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = self.rotated(floats(storage, layout)?);
        let (rows, width) = layout.shape().dims2()?;
        let (d, out_width) = (self.head_dim, self.heads * self.head_dim);
        if width != self.width() || rows != self.lengths.iter().sum::<usize>() {
            bail!("attention of {:?} over a ragged batch of {:?}", layout.shape(), self.lengths);
        }
        let mut out = vec![0f32; rows * out_width];
        let mut p = vec![0f32; self.lengths.iter().copied().max().unwrap_or(0)];
        self.sequences(|start, length| {
            for head in 0..self.heads {
                let (_, _, v) = self.offsets(head);
                for at in 0..length {
                    self.probabilities(&x, start, at, head, &mut p);
                    let out = &mut out[(start + at) * out_width + head * d..][..d];
                    for (j, p) in p[..=at].iter().enumerate() {
                        add_scaled(out, *p, &x[(start + j) * width + v..][..d]);
                    }
                }
            }
        });
        Ok((CpuStorage::F32(out), (rows, out_width).into()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (width, d, out_width) = (self.width(), self.head_dim, self.heads * self.head_dim);
        let scale = 1.0 / (d as f32).sqrt();
        let dx = with_floats([x, grad], |[x, grad]| {
            let x = self.rotated(x);
            let mut dx = vec![0f32; x.len()];
            let longest = self.lengths.iter().copied().max().unwrap_or(0);
            let (mut p, mut dp) = (vec![0f32; longest], vec![0f32; longest]);
            self.sequences(|start, length| {
                for head in 0..self.heads {
                    let (q, k, v) = self.offsets(head);
                    for at in 0..length {
                        self.probabilities(&x, start, at, head, &mut p);
                        let grad = &grad[(start + at) * out_width + head * d..][..d];
                        let mut weighted = 0f32;
                        for j in 0..=at {
                            let row = (start + j) * width;
                            dp[j] = dot(grad, &x[row + v..][..d]);
                            weighted += p[j] * dp[j];
                            add_scaled(&mut dx[row + v..][..d], p[j], grad);
                        }
                        let query = (start + at) * width + q;
                        for j in 0..=at {
                            let key = (start + j) * width + k;
                            let ds = p[j] * (dp[j] - weighted) * scale;
                            add_scaled(&mut dx[query..][..d], ds, &x[key..][..d]);
                            add_scaled(&mut dx[key..][..d], ds, &x[query..][..d]);
                        }
                    }
                }
            });
            self.rotate(&mut dx, -1.0);
            dx
        })?;
        Ok(Some(like(x, dx)?))
    }
}

/// Eight partial sums, so that the compiler may use vectors without reordering a single sum.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum()
}

fn add_scaled(out: &mut [f32], scale: f32, x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += scale * x;
    }
}

/// The sum of the cross entropies of each row of logits with its target.
#[derive(Debug, Clone)]
pub(super) struct CrossEntropy {
    pub(super) targets: Arc<[u32]>,
}

impl CrossEntropy {
    /// Each row's probabilities.
    fn softmax(row: &[f32], out: &mut [f32]) {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0f32;
        for (out, x) in out.iter_mut().zip(row) {
            *out = exp(x - top);
            sum += *out;
        }
        out.iter_mut().for_each(|out| *out /= sum);
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "train-cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = floats(storage, layout)?;
        let (_, width) = layout.shape().dims2()?;
        let mut p = vec![0f32; width];
        let mut loss = 0f32;
        for (row, target) in logits.chunks_exact(width).zip(self.targets.iter()) {
            Self::softmax(row, &mut p);
            loss -= p[*target as usize].max(1e-30).ln();
        }
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.to_scalar::<f32>()?;
        let width = logits.dim(1)?;
        let dx = with_floats([logits], |[logits]| {
            let mut dx = vec![0f32; logits.len()];
            let rows = logits.chunks_exact(width).zip(dx.chunks_exact_mut(width)).zip(self.targets.iter());
            for ((row, dx), target) in rows {
                Self::softmax(row, dx);
                dx[*target as usize] -= 1.0;
                dx.iter_mut().for_each(|dx| *dx *= grad);
            }
            dx
        })?;
        Ok(Some(like(logits, dx)?))
    }
}

fn like(tensor: &Tensor, data: Vec<f32>) -> Result<Tensor> {
    Tensor::from_vec(data, tensor.shape(), tensor.device())
}

fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage.as_slice::<f32>()?, layout.contiguous_offsets()) {
        (slice, Some((start, end))) => Ok(&slice[start..end]),
        (_, None) => bail!("the operations of training want contiguous tensors"),
    }
}

/// Lends the values of contiguous copies of `tensors` to `body`.
fn with_floats<const N: usize, T>(tensors: [&Tensor; N], body: impl FnOnce([&[f32]; N]) -> T) -> Result<T> {
    let tensors = tensors.iter().map(|t| t.contiguous()).collect::<Result<Vec<_>>>()?;
    let lent: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&lent) {
        *slice = match &**storage {
            Storage::Cpu(storage) => floats(storage, layout)?,
            _ => bail!("training runs on the CPU"),
        };
    }
    Ok(body(slices))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// Compares the gradient of `sum(f(x) * c)` with finite differences.
    fn check_gradient(shape: (usize, usize), f: impl Fn(&Tensor) -> Tensor) {
        let value = |i: usize| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 0.9;
        let count = shape.0 * shape.1;
        let data: Vec<f32> = (0..count).map(value).collect();
        let loss = |x: &Tensor| {
            let y = f(x);
            let c: Vec<f32> = (0..y.elem_count()).map(|i| value(i * 7 + 3)).collect();
            let c = Tensor::from_vec(c, y.shape(), &Device::Cpu).unwrap();
            (y * c).unwrap().sum_all().unwrap()
        };
        let x = Var::from_vec(data.clone(), shape, &Device::Cpu).unwrap();
        let grads = loss(&x).backward().unwrap();
        let grad = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for i in (0..count).step_by(5) {
            let at = |delta: f32| {
                let mut data = data.clone();
                data[i] += delta;
                loss(&Tensor::from_vec(data, shape, &Device::Cpu).unwrap()).to_scalar::<f32>().unwrap()
            };
            let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((numeric - grad[i]).abs() < 2e-2, "{i}: {numeric} {}", grad[i]);
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let weight =
            Tensor::from_vec((0..16).map(|i| 0.5 + i as f32 / 16.0).collect(), 16, &Device::Cpu).unwrap();
        check_gradient((3, 16), |x| x.apply_op2(&weight, RmsNorm { eps: 1e-5 }).unwrap());
        check_gradient((3, 16), |x| x.apply_op1(SwiGlu).unwrap());
        let targets: Arc<[u32]> = vec![1, 0, 5].into();
        check_gradient((3, 16), |x| x.apply_op1(CrossEntropy { targets: targets.clone() }).unwrap());
        let angles: Vec<f32> = (0..8)
            .flat_map(|p| {
                let angles: Vec<f32> = (0..4).map(|i| p as f32 / 3f32.powi(i)).collect();
                let sines: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
                angles.iter().map(|a| a.cos()).chain(sines).collect::<Vec<_>>()
            })
            .collect();
        let attention = Attention {
            lengths: vec![2, 4].into(),
            heads: 2,
            kv_heads: 1,
            head_dim: 8,
            angles: angles.into(),
        };
        check_gradient((6, 32), |x| x.apply_op1(attention.clone()).unwrap());
    }

    #[test]
    fn exp_is_close() {
        for i in -800..=800 {
            let x = i as f32 / 10.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 2e-5, "{x}");
        }
    }
}
