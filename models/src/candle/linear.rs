//! A linear layer in fixed point.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Module, Shape, Tensor};
use metis_kernels::weights::{biases_q16, quantise_row};
use metis_kernels::{Backend, Cpu, LinearWeights, Scale, TokenId};

use super::{FixedError, rows};

/// `x * weight^T + bias` by the kernels `linear` and `bias` of `docs/numerics.md`.
///
/// Takes floats `[.., inputs]` on the CPU and gives floats of the same type `[.., outputs]`; there is no gradient. Each row becomes int16 with a
/// power of two of its own; the result is Q16 within `+-32768`, and saturates there. An input of another width, or with a number that is infinite or
/// none, is an error.
///
/// ```
/// use std::sync::Arc;
///
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use metis_kernels::Cpu;
/// use metis_models::candle::FixedLinear;
///
/// // A layer of a model of your own.
/// let weight = Tensor::randn(0f32, 0.1, (96, 64), &Device::Cpu)?;
/// let bias = Tensor::randn(0f32, 1.0, 96, &Device::Cpu)?;
/// let float = Linear::new(weight, Some(bias));
///
/// let fixed = FixedLinear::new(float.weight(), float.bias(), Arc::new(Cpu::new(1)?))?;
/// let x = Tensor::randn(0f32, 1.0, (2, 5, 64), &Device::Cpu)?;
/// let (exact, rounded) = (float.forward(&x)?, fixed.forward(&x)?);
/// assert_eq!(rounded.dims(), [2, 5, 96]);
/// assert!((exact - rounded)?.abs()?.max_all()?.to_scalar::<f32>()? < 0.05);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FixedLinear<B: Backend = Cpu> {
    backend: Arc<B>,
    weights: B::Linear,
    bias: Option<B::Bias>,
    outputs: usize,
    inputs: usize,
}

impl<B: Backend> FixedLinear<B> {
    /// A layer from a float weight `[outputs, inputs]` and perhaps a bias `[outputs]`, rounded as import rounds them: each output channel of the
    /// weight is int8 with a scale, the bias Q16.
    ///
    /// Shapes that do not fit together, numbers that the formats cannot hold and shapes that the backend refuses are errors.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, backend: Arc<B>) -> Result<Self, FixedError> {
        let (outputs, inputs) = weight.dims2()?;
        let bits = rows::bits(weight)?;
        let mut bytes = vec![0; bits.len()];
        let quantise = |(row, (bits, out)): (usize, (&[u32], &mut [u8]))| {
            quantise_row(bits, out).map_err(|source| FixedError::Number { what: "weight", row, source })
        };
        let pairs = bits.chunks_exact(inputs.max(1)).zip(bytes.chunks_exact_mut(inputs.max(1)));
        let scales: Vec<Scale> = pairs.enumerate().map(quantise).collect::<Result<_, _>>()?;
        let bias_q16 = bias.map(|bias| {
            check_bias(bias.dims(), outputs)?;
            let number = |source| FixedError::Number { what: "bias", row: 0, source };
            biases_q16(&rows::bits(bias)?).map_err(number)
        });
        let weights = LinearWeights { outputs, inputs, bytes: &bytes, scales: &scales, groups: None };
        Self::from_weights(weights, bias_q16.transpose()?.as_deref(), backend)
    }

    /// A layer from weights and perhaps a bias that are fixed point already, such as those of a [`Bundle`](crate::Bundle).
    pub fn from_weights(
        weights: LinearWeights<'_>,
        bias_q16: Option<&[i32]>,
        backend: Arc<B>,
    ) -> Result<Self, FixedError> {
        let LinearWeights { outputs, inputs, .. } = weights;
        let bias = bias_q16.map(|bias| {
            check_bias(&[bias.len()], outputs)?;
            Ok::<_, FixedError>(backend.load_bias(bias)?)
        });
        let (weights, bias) = (backend.load_linear(weights)?, bias.transpose()?);
        Ok(Self { weights, bias, outputs, inputs, backend })
    }

    /// The fixed-point version of a float layer.
    pub fn from_linear(linear: &candle_nn::Linear, backend: Arc<B>) -> Result<Self, FixedError> {
        Self::new(linear.weight(), linear.bias(), backend)
    }

    /// The rows of the weight that belong to tokens, times `factor`: `[tokens, inputs]` by the kernel `embed`.
    pub(super) fn embed(&self, tokens: &[TokenId], factor: Scale) -> Result<Tensor, FixedError> {
        let mut out = self.backend.residual(tokens.len(), self.inputs)?;
        self.backend.embed(&self.weights, tokens, factor, &mut out)?;
        let values = rows::read_q16(&*self.backend, &out, tokens.len())?;
        Ok(Tensor::from_vec(values, (tokens.len(), self.inputs), &candle_core::Device::Cpu)?)
    }

    fn run(&self, values: &[f32], count: usize) -> Result<Vec<f32>, FixedError> {
        let backend = &*self.backend;
        let x = rows::write_activations(backend, values, self.inputs)?;
        let mut out = backend.residual(count, self.outputs)?;
        backend.enter(|| {
            backend.linear(&x, &self.weights, &mut out)?;
            self.bias.as_ref().map_or(Ok(()), |bias| backend.add_bias(&mut out, bias))
        })?;
        rows::read_q16(backend, &out, count)
    }
}

fn check_bias(actual: &[usize], outputs: usize) -> Result<(), FixedError> {
    if actual == [outputs] {
        return Ok(());
    }
    Err(FixedError::Shape { what: "bias", expected: format!("[{outputs}]"), actual: actual.to_vec() })
}

impl<B: Backend> Module for FixedLinear<B> {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.to_dtype(DType::F32)?.contiguous()?.apply_op1_no_bwd(self)?.to_dtype(x.dtype())
    }
}

impl<B: Backend> CustomOp1 for FixedLinear<B> {
    fn name(&self) -> &'static str {
        "fixed-linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let count = rows::rows("input of a linear layer", layout, self.inputs)?;
        let out = self.run(rows::elements(storage, layout)?, count)?;
        let mut shape = layout.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = self.outputs;
        }
        Ok((CpuStorage::F32(out), shape.into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::Linear;
    use metis_kernels::{CpuKind, Scalar};
    use proptest::prelude::*;

    use super::*;

    fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
    }

    fn random(shape: (usize, usize)) -> Tensor {
        Tensor::randn(0f32, 0.3, shape, &Device::Cpu).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Weights of a scale each, activations with a power of two each and Q16 biases: there is nothing left to round on the way in.
        #[test]
        fn exact_numbers_give_the_bits_of_the_kernel(
            activations in prop::collection::vec(-32_512i16..=32_512, 3 * 24), exponent in -20i32..-8,
            weights in prop::collection::vec(-127i8..=127, 7 * 24), bias in prop::collection::vec(-(1i32 << 20)..1 << 20, 7),
            step in -10i32..-4,
        ) {
            // The largest weight of a row makes its scale: 127 * 2^step over 127.
            let mut weights = weights;
            weights.iter_mut().step_by(24).for_each(|w| *w = 127);
            let scales = vec![Scale::new(1 << 22, step - 22).unwrap(); 7];
            let bytes: Vec<u8> = weights.iter().map(|&w| (w as u8) ^ 0x80).collect();

            let scalar = Scalar::new();
            let kernel = scalar.load_linear(LinearWeights { outputs: 7, inputs: 24, bytes: &bytes, scales: &scales, groups: None }).unwrap();
            let mut x = scalar.activations(3, 24).unwrap();
            scalar.write_activations(&activations, &[exponent; 3], &mut x).unwrap();
            let mut expected = scalar.residual(3, 7).unwrap();
            scalar.linear(&x, &kernel, &mut expected).unwrap();
            scalar.add_bias(&mut expected, &scalar.load_bias(&bias).unwrap()).unwrap();
            let expected: Vec<f32> = (0..3).flat_map(|i| expected.row(i)).map(|&x| rows::real(x)).collect();

            let real = |unit: i32| move |v: f32| v * 2f32.powi(unit);
            let x: Vec<f32> = activations.iter().map(|&a| f32::from(a)).map(real(exponent)).collect();
            let weight: Vec<f32> = weights.iter().map(|&w| f32::from(w)).map(real(step)).collect();
            let bias: Vec<f32> = bias.iter().map(|&b| rows::real(b)).collect();
            let (x, weight, bias) = (tensor(&x, &[3, 24]), tensor(&weight, &[7, 24]), tensor(&bias, &[7]));
            let on_scalar = FixedLinear::new(&weight, Some(&bias), Arc::new(Scalar::new())).unwrap();
            let cpu = Cpu::with_kind(CpuKind::Portable, 1).unwrap();
            let on_cpu = FixedLinear::new(&weight, Some(&bias), Arc::new(cpu)).unwrap();
            for y in [on_scalar.forward(&x).unwrap(), on_cpu.forward(&x).unwrap()] {
                prop_assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected.clone());
            }
        }
    }

    #[test]
    fn a_layer_is_close_to_the_float_layer_whatever_the_shape_of_its_input() {
        let bias = Tensor::randn(0f32, 1.0, 40, &Device::Cpu).unwrap();
        let float = Linear::new(random((40, 64)), Some(bias));
        let fixed = FixedLinear::from_linear(&float, Arc::new(Cpu::new(1).unwrap())).unwrap();
        for shape in [&[64][..], &[3, 64], &[2, 5, 64], &[2, 1, 3, 64], &[0, 64]] {
            let x = Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
            let fixed = fixed.forward(&x).unwrap();
            assert_eq!(fixed.dims(), [&shape[..shape.len() - 1], &[40]].concat());
            if shape[0] == 0 {
                continue;
            }
            // Half a step of the coarsest weight row for each input, and a hundredth of that for all other roundings.
            let number = |x: Tensor| x.max_all().unwrap().to_scalar::<f32>().unwrap();
            let rows = x.reshape(((), 64)).unwrap();
            let half_step = number(float.weight().abs().unwrap()) / 254.0;
            let bound = 1.01 * half_step * number(rows.abs().unwrap().sum(1).unwrap());
            let float = float.forward(&rows).unwrap().flatten_all().unwrap();
            let error = number((float - fixed.flatten_all().unwrap()).unwrap().abs().unwrap());
            assert!(error < bound, "{shape:?}: {error}, at most {bound}");
        }
        // A view with other strides.
        let x = random((64, 3));
        let (view, copy) = (x.t().unwrap(), x.t().unwrap().contiguous().unwrap());
        let [a, b] = [view, copy].map(|x| fixed.forward(&x).unwrap().to_vec2::<f32>().unwrap());
        assert_eq!(a, b);
        let half = fixed.forward(&x.t().unwrap().to_dtype(DType::BF16).unwrap()).unwrap();
        assert_eq!(half.dtype(), DType::BF16);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let backend = Arc::new(Scalar::new());
        let layer = FixedLinear::new(&random((4, 8)), None, Arc::clone(&backend)).unwrap();
        let says = |x: Tensor| layer.forward(&x).unwrap_err().to_string();
        assert!(says(random((2, 7))).contains("[.., 8]"));
        assert!(says(tensor(&[1.0; 0], &[0])).contains("[.., 8]"));
        assert!(says(tensor(&[f32::NAN; 8], &[8])).contains("NaN"));
        assert!(says(Tensor::zeros((), DType::F32, &Device::Cpu).unwrap()).contains("[.., 8]"));
        let wrong = |weight: &Tensor, bias: Option<&Tensor>| {
            FixedLinear::new(weight, bias, Arc::clone(&backend)).unwrap_err()
        };
        let nan = tensor(&[0.0, 0.0, 0.0, f32::INFINITY], &[2, 2]);
        assert!(matches!(wrong(&nan, None), FixedError::Number { row: 1, .. }));
        let bias = tensor(&[0.0; 3], &[3]);
        assert!(matches!(wrong(&random((4, 8)), Some(&bias)), FixedError::Shape { .. }));
        let weights = LinearWeights {
            outputs: 1,
            inputs: 2,
            bytes: &[0x80; 2],
            scales: &[Scale::new(1 << 22, 0).unwrap()],
            groups: None,
        };
        let short = FixedLinear::from_weights(weights, Some(&[]), Arc::clone(&backend));
        assert!(matches!(short, Err(FixedError::Shape { what: "bias", .. })));
        let bias = tensor(&[0.0, 0.0, 0.0, 40_000.0], &[4]);
        assert!(matches!(wrong(&random((4, 8)), Some(&bias)), FixedError::Number { what: "bias", .. }));
        assert!(matches!(wrong(&random((4, 0)), None), FixedError::Backend(_)));
        assert!(matches!(wrong(&tensor(&[0.0; 3], &[3]), None), FixedError::Candle(_)));
    }
}
