//! A norm in fixed point.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Module, Shape, Tensor};
use metis_kernels::weights::gains_q20;
use metis_kernels::{Backend, Cpu, NormWeights};

use super::{FixedError, rows};
use crate::import::epsilon_q32;

/// RMSNorm or LayerNorm by the kernels of `docs/numerics.md`.
///
/// Takes floats `[.., channels]` on the CPU, rounds them to Q16, and gives floats of the same type and shape: what a linear layer reads, that is
/// int16 numbers with a power of two per row, or, after [`in_q16`](Self::in_q16), what stays in the residual stream. There is no gradient. An
/// input of another width, or with a number that is infinite or none, is an error.
#[derive(Debug)]
pub struct FixedNorm<B: Backend = Cpu> {
    backend: Arc<B>,
    weights: B::Norm,
    channels: usize,
    in_q16: bool,
}

impl<B: Backend> FixedNorm<B> {
    /// An RMSNorm with a gain per channel, within `+-1024`, and an epsilon in `0 ..= 1`. Other numbers are errors.
    pub fn rms(gains: &Tensor, epsilon: f64, backend: Arc<B>) -> Result<Self, FixedError> {
        Self::new(gains, None, epsilon, backend)
    }

    /// A LayerNorm, which also takes the mean away and adds biases, within `+-1024`.
    pub fn layer(gains: &Tensor, biases: &Tensor, epsilon: f64, backend: Arc<B>) -> Result<Self, FixedError> {
        Self::new(gains, Some(biases), epsilon, backend)
    }

    /// A norm from weights that are fixed point already, such as those of a [`Bundle`](crate::Bundle).
    pub fn from_weights(weights: NormWeights<'_>, backend: Arc<B>) -> Result<Self, FixedError> {
        let (channels, weights) = (weights.gains_q20.len(), backend.load_norm(weights)?);
        Ok(Self { weights, channels, in_q16: false, backend })
    }

    /// The same with results in Q16.
    pub fn in_q16(self) -> Self {
        Self { in_q16: true, ..self }
    }

    fn new(
        gains: &Tensor,
        biases: Option<&Tensor>,
        epsilon: f64,
        backend: Arc<B>,
    ) -> Result<Self, FixedError> {
        let numbers = |what: &'static str, tensor: &Tensor| {
            let numbers = gains_q20(&rows::bits(tensor)?, 0);
            numbers.map_err(|source| FixedError::Number { what, row: 0, source })
        };
        let (gains, biases) =
            (numbers("gains", gains)?, biases.map(|b| numbers("biases of a norm", b)).transpose()?);
        let weights = NormWeights {
            gains_q20: &gains,
            biases_q20: biases.as_deref(),
            epsilon_q32: epsilon_q32(epsilon).ok_or(FixedError::Epsilon(epsilon))?,
        };
        Self::from_weights(weights, backend)
    }

    fn run(&self, values: &[f32], count: usize) -> Result<Vec<f32>, FixedError> {
        let backend = &*self.backend;
        let mut x = rows::write_q16(backend, values, self.channels)?;
        if self.in_q16 {
            backend.normalise(&mut x, &self.weights)?;
            return rows::read_q16(backend, &x, count);
        }
        let mut out = backend.activations(count, self.channels)?;
        backend.norm(&x, &self.weights, &mut out)?;
        rows::read_activations(backend, &out, count)
    }
}

impl<B: Backend> Module for FixedNorm<B> {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.to_dtype(DType::F32)?.contiguous()?.apply_op1_no_bwd(self)?.to_dtype(x.dtype())
    }
}

impl<B: Backend> CustomOp1 for FixedNorm<B> {
    fn name(&self) -> &'static str {
        "fixed-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let count = rows::rows("input of a norm", layout, self.channels)?;
        let out = self.run(rows::elements(storage, layout)?, count)?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::{LayerNorm, RmsNorm};

    use super::*;

    #[test]
    fn norms_are_close_to_the_float_norms() {
        let random = |mean: f32, shape: &[usize]| Tensor::randn(mean, 0.3f32, shape, &Device::Cpu).unwrap();
        let (gains, biases, x) = (random(1.0, &[48]), random(0.0, &[48]), random(0.5, &[2, 5, 48]));
        let backend = Arc::new(Cpu::new(1).unwrap());
        let rms = FixedNorm::rms(&gains, 1e-5, Arc::clone(&backend)).unwrap();
        let layer = FixedNorm::layer(&gains, &biases, 1e-5, Arc::clone(&backend)).unwrap();
        let float_rms = RmsNorm::new(gains.clone(), 1e-5).forward(&x).unwrap();
        let float_layer = LayerNorm::new(gains.clone(), biases, 1e-5).forward(&x).unwrap();
        let stays = FixedNorm::rms(&gains, 1e-5, Arc::clone(&backend)).unwrap().in_q16();
        for (fixed, float) in [(&rms, float_rms.clone()), (&stays, float_rms), (&layer, float_layer)] {
            let error = (fixed.forward(&x).unwrap() - float).unwrap().abs().unwrap().max_all().unwrap();
            assert!(error.to_scalar::<f32>().unwrap() < 4e-4, "{error}");
        }
        let refused = FixedNorm::rms(&gains, 1.5, Arc::clone(&backend));
        assert!(matches!(refused, Err(FixedError::Epsilon(_))));
        let huge = Tensor::new(&[1f32, 2e3], &Device::Cpu).unwrap();
        assert!(matches!(FixedNorm::rms(&huge, 1e-5, backend), Err(FixedError::Number { .. })));
    }
}
