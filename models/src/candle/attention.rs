//! Attention in fixed point.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor};
use metis_kernels::{Attention, AttentionShape, Backend, Cpu, KvShape, Row};

use super::{FixedError, rows};

/// `softmax(q k^T * scale) v` by the kernels `cache` and `attention` of `docs/numerics.md`.
///
/// Queries are floats on the CPU `[batch, heads, tokens, head_dim]`, keys and values `[batch, kv_heads, tokens, head_dim]`, after RoPE if there is any; the
/// batch may be left out. The result has the queries' shape and type. All three are rounded to Q16; then queries and keys become int16
/// with a power of two per token and head, values int8 with a maximum per token and head, and of the result each token's heads together are int16
/// with a power of two, which is what a linear layer reads. Every sequence begins at position zero, and there is no gradient.
///
/// ```
/// use std::sync::Arc;
///
/// use candle_core::{Device, Tensor};
/// use metis_kernels::{Attention, Cpu};
/// use metis_models::candle::FixedAttention;
///
/// let random = |heads: usize| Tensor::randn(0f32, 1.0, (1, heads, 10, 16), &Device::Cpu);
/// // Four query heads share two key-value heads; each token sees itself and the four before it.
/// let window = Attention { window: Some(5), ..Attention::causal(0, 16) };
/// let attention = FixedAttention::new(window, Arc::new(Cpu::new(1)?));
/// assert_eq!(attention.forward(&random(4)?, &random(2)?, &random(2)?)?.dims(), [1, 4, 10, 16]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FixedAttention<B: Backend = Cpu> {
    backend: Arc<B>,
    attention: Attention,
}

impl<B: Backend> FixedAttention<B> {
    /// What a query sees, and the scale and soft cap of scores. The number of the layer is not looked at.
    pub const fn new(attention: Attention, backend: Arc<B>) -> Self {
        Self { backend, attention: Attention { layer: 0, ..attention } }
    }

    /// Attends every token of `q` to `k` and `v`. Shapes that do not fit together or that the backend refuses, and numbers that are infinite or none,
    /// are errors.
    pub fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> candle_core::Result<Tensor> {
        let [q32, k, v] = [q, k, v].map(|x| x.to_dtype(DType::F32).and_then(|x| x.contiguous()));
        q32?.apply_op3_no_bwd(&k?, &v?, self)?.to_dtype(q.dtype())
    }

    /// One sequence: rows `[heads, tokens, head_dim]`.
    fn run(
        &self,
        shape: AttentionShape,
        tokens: usize,
        [q, k, v]: [&[f32]; 3],
    ) -> Result<Vec<f32>, FixedError> {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let backend = &*self.backend;
        let by_token = |x: &[f32], heads: usize| {
            let rows = swap(x, heads, tokens, head_dim);
            rows::write_q16(backend, &rows, heads * head_dim)
        };
        let (q, k, v) = (by_token(q, heads)?, by_token(k, kv_heads)?, by_token(v, kv_heads)?);
        let mut cache = backend.kv_cache(KvShape { layers: 1, attention: shape, capacity: tokens })?;
        let mut out = backend.activations(tokens, shape.query_width())?;
        let rows: Vec<Row> = (0..tokens).map(|position| Row { sequence: 0, position }).collect();
        backend
            .enter(|| backend.attention(self.attention, &rows, &q, &k, &v, &mut [&mut cache], &mut out))?;
        let out = rows::read_activations(backend, &out, tokens)?;
        Ok(swap(&out, tokens, heads, head_dim))
    }
}

/// `[a, b, width]` as `[b, a, width]`.
fn swap(x: &[f32], a: usize, b: usize, width: usize) -> Vec<f32> {
    let runs = (0..b).flat_map(|j| (0..a).map(move |i| (i * b + j) * width));
    runs.flat_map(|start| &x[start..start + width]).copied().collect()
}

/// Batch, heads, tokens and channels of a head.
fn dims(what: &'static str, layout: &Layout) -> Result<[usize; 4], FixedError> {
    match *layout.dims() {
        [heads, tokens, head_dim] => Ok([1, heads, tokens, head_dim]),
        [batch, heads, tokens, head_dim] => Ok([batch, heads, tokens, head_dim]),
        ref other => Err(FixedError::Shape {
            what,
            expected: "[batch, heads, tokens, head_dim]".into(),
            actual: other.to_vec(),
        }),
    }
}

impl<B: Backend> CustomOp3 for FixedAttention<B> {
    fn name(&self) -> &'static str {
        "fixed-attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let [batch, heads, tokens, head_dim] = dims("queries", l1)?;
        let [_, kv_heads, ..] = dims("keys", l2)?;
        for (what, layout) in [("keys", l2), ("values", l3)] {
            if dims(what, layout)? != [batch, kv_heads, tokens, head_dim] {
                let expected = format!("[{batch}, {kv_heads}, {tokens}, {head_dim}]");
                let actual = layout.dims().to_vec();
                return Err(FixedError::Shape { what, expected, actual }.into());
            }
        }
        let (q, k, v) = (rows::elements(s1, l1)?, rows::elements(s2, l2)?, rows::elements(s3, l3)?);
        let shape = AttentionShape { heads, kv_heads, head_dim };
        let (wide, narrow) = (heads * tokens * head_dim, kv_heads * tokens * head_dim);
        let mut out = Vec::with_capacity(q.len());
        for i in 0..batch {
            let (q, k, v) = (&q[i * wide..][..wide], &k[i * narrow..][..narrow], &v[i * narrow..][..narrow]);
            out.extend(self.run(shape, tokens, [q, k, v])?);
        }
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device};
    use candle_nn::ops::softmax_last_dim;
    use metis_kernels::softmax::attention_scale;
    use metis_kernels::{Scalar, SoftCap};

    use super::*;

    fn random(heads: usize) -> Tensor {
        Tensor::randn(0f32, 1.0, (2, heads, 21, 16), &Device::Cpu).unwrap()
    }

    /// With as many key-value heads as query heads.
    fn float(a: &Attention, divisor: f64, cap: Option<f64>, [q, k, v]: [&Tensor; 3]) -> Tensor {
        let tokens = q.dim(2).unwrap();
        let mask = (0..tokens).flat_map(|i| {
            let seen = a.sees(i, tokens);
            (0..tokens).map(move |j| if seen.contains(&j) { 0f32 } else { f32::NEG_INFINITY })
        });
        let mask = Tensor::from_iter(mask, &Device::Cpu).unwrap().reshape((tokens, tokens)).unwrap();
        let mut scores = (q.matmul(&k.t().unwrap()).unwrap() / divisor.sqrt()).unwrap();
        if let Some(cap) = cap {
            scores = ((scores / cap).unwrap().tanh().unwrap() * cap).unwrap();
        }
        softmax_last_dim(&scores.broadcast_add(&mask).unwrap()).unwrap().matmul(v).unwrap()
    }

    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn attention_is_close_to_a_float_softmax_whatever_a_query_sees() {
        let backend = Arc::new(Cpu::new(1).unwrap());
        let causal = Attention::causal(3, 16);
        let cap = SoftCap::new(2 << 16).map(SoftCap::in_log2_units);
        for (attention, divisor, bound) in [
            (causal, 16.0, None),
            (Attention { causal: false, ..causal }, 16.0, None),
            (Attention { window: Some(4), ..causal }, 16.0, None),
            (Attention { scale: attention_scale(4), ..causal }, 4.0, None),
            (Attention { soft_cap: cap, ..causal }, 16.0, Some(2.0)),
        ] {
            let (q, k, v) = (random(3), random(3), random(3));
            let fixed = FixedAttention::new(attention, Arc::clone(&backend)).forward(&q, &k, &v).unwrap();
            let float = float(&attention, divisor, bound, [&q, &k, &v]);
            // Values have 7 bits.
            assert!(difference(&fixed, &float) < 0.02, "{attention:?}: {}", difference(&fixed, &float));
        }
    }

    #[test]
    fn query_heads_share_key_value_heads_and_the_batch_may_be_left_out() {
        let attention = FixedAttention::new(Attention::causal(0, 16), Arc::new(Scalar::new()));
        let (q, k, v) = (random(4), random(2), random(2));
        let shared = attention.forward(&q, &k, &v).unwrap();
        let repeated = |x: &Tensor| Tensor::stack(&[x, x], 2).unwrap().reshape((2, 4, 21, 16)).unwrap();
        let all = attention.forward(&q, &repeated(&k), &repeated(&v)).unwrap();
        assert_eq!(difference(&shared, &all), 0.0);
        let one = attention.forward(&q.get(1).unwrap(), &k.get(1).unwrap(), &v.get(1).unwrap()).unwrap();
        assert_eq!(difference(&one, &shared.get(1).unwrap()), 0.0);
        // The first token sees itself alone: its value, to seven bits.
        let first = |x: &Tensor| x.narrow(2, 0, 1).unwrap().contiguous().unwrap();
        assert!(difference(&first(&shared), &first(&repeated(&v))) < 0.02);
        assert_eq!(shared.dim(D::Minus1).unwrap(), 16);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let attention = FixedAttention::new(Attention::causal(0, 16), Arc::new(Scalar::new()));
        let says = |q: &Tensor, k: &Tensor, v: &Tensor| attention.forward(q, k, v).unwrap_err().to_string();
        assert!(says(&random(4), &random(2), &random(4)).contains("values"));
        assert!(says(&random(4), &random(3), &random(3)).contains("share"));
        let odd = random(2).narrow(3, 0, 15).unwrap();
        assert!(says(&odd, &odd, &odd).contains("odd"));
        let no_tokens = random(2).narrow(2, 0, 0).unwrap();
        assert!(attention.forward(&no_tokens, &no_tokens, &no_tokens).is_err());
        let no_heads = random(2).narrow(1, 0, 0).unwrap();
        assert!(attention.forward(&random(2), &no_heads, &no_heads).is_err());
        let flat = random(2).flatten_all().unwrap();
        assert!(says(&flat, &flat, &flat).contains("queries"));
        let nan = (random(2) * f64::NAN).unwrap();
        assert!(says(&random(2), &nan, &random(2)).contains("NaN"));
        let bidirectional = Attention { causal: false, window: Some(3), ..Attention::causal(0, 16) };
        let attention = FixedAttention::new(bidirectional, Arc::new(Scalar::new()));
        assert!(attention.forward(&random(2), &random(2), &random(2)).is_err());
    }
}
