//! Claims about the fixed-point modules in candle models of somebody else: a module computes the engine's bits, and any layer of a model that
//! this repository has never seen can be one.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]
#![allow(clippy::float_arithmetic, reason = "tests compare with float models")]

use std::sync::Arc;

use candle_core::{D, Device, Tensor};
use candle_nn::{LayerNorm, Linear, Module, ops::softmax_last_dim};
use metis_kernels::{Attention, Backend, Cpu, CpuKind, LinearWeights, NormWeights, Scalar};
use metis_models::Bundle;
use metis_models::candle::{FixedAttention, FixedLinear, FixedNorm};
use metis_models::fixture::families;
use proptest::prelude::*;

/// A family's checkpoint as candle reads it, and its bundle.
fn checkpoint(family: &str) -> (impl Fn(&str) -> Tensor, Bundle) {
    let place = tempfile::tempdir().unwrap();
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == family).unwrap();
    let bundle = fixture.bundle(place.path()).unwrap().into_bundle().unwrap();
    let tensors =
        candle_core::safetensors::load(place.path().join("model.safetensors"), &Device::Cpu).unwrap();
    (move |name: &str| tensors[name].clone(), bundle)
}

/// Q16 numbers as floats.
fn floats(q16: &[i32]) -> Vec<f32> {
    q16.iter().map(|&x| x as f32 / 65_536.0).collect()
}

/// A norm and a linear layer with a bias, as the engine runs them: rows of Q16 numbers to rows of Q16 numbers, which are below 256.
fn by_kernels<B: Backend>(
    backend: &B,
    norm: NormWeights<'_>,
    linear: LinearWeights<'_>,
    bias: &[i32],
    x: &[i32],
) -> Vec<f32> {
    let count = x.len() / linear.inputs;
    let mut stream = backend.residual(count, linear.inputs).unwrap();
    backend.write_residual(x, &mut stream).unwrap();
    let mut normed = backend.activations(count, linear.inputs).unwrap();
    backend.norm(&stream, &backend.load_norm(norm).unwrap(), &mut normed).unwrap();
    let mut out = backend.residual(count, linear.outputs).unwrap();
    backend.linear(&normed, &backend.load_linear(linear).unwrap(), &mut out).unwrap();
    backend.add_bias(&mut out, &backend.load_bias(bias).unwrap()).unwrap();
    let (mut all, mut row) = (Vec::new(), Vec::new());
    for i in 0..count {
        backend.read_row(&out, i, &mut row).unwrap();
        all.extend(floats(&row));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// From a checkpoint's floats on one side, from the bundle that import made of them on the other.
    #[test]
    fn a_norm_and_a_linear_layer_as_modules_give_the_bits_of_the_engine_s_kernels(
        x in prop::collection::vec(-(1i32 << 22)..1 << 22, 5 * 64), layer in 0usize..2,
    ) {
        let (tensor, bundle) = checkpoint("qwen2");
        let name = |part: &str| format!("layers.{layer}.{part}");
        let gains = bundle.gains(&name("attention_norm")).unwrap();
        let epsilon_q32 = bundle.manifest().norm_epsilon_q32;
        let norm = NormWeights { gains_q20: &gains, biases_q20: None, epsilon_q32 };
        let (matrix, bias) = (bundle.linear(&name("value")).unwrap(), bundle.bias(&name("value")).unwrap());

        let expected = by_kernels(&Scalar::new(), norm, matrix.weights(), &bias, &x);
        let input = Tensor::from_vec(floats(&x), (5, 64), &Device::Cpu).unwrap();
        let of_layer = |part: &str| tensor(&format!("model.layers.{layer}.{part}"));
        let backend = Arc::new(Cpu::with_kind(CpuKind::Portable, 2).unwrap());
        let norm = FixedNorm::rms(&of_layer("input_layernorm.weight"), 1e-6, Arc::clone(&backend)).unwrap();
        let (weight, bias) = (of_layer("self_attn.v_proj.weight"), of_layer("self_attn.v_proj.bias"));
        let linear = FixedLinear::new(&weight, Some(&bias), backend).unwrap();
        let out = linear.forward(&norm.forward(&input).unwrap()).unwrap();
        prop_assert_eq!(out.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
    }
}

type AttentionLayer = Box<dyn Fn(&Tensor, &Tensor, &Tensor) -> candle_core::Result<Tensor>>;

/// A layer of a small transformer with a norm before each part, as somebody else could write it: each of its pieces is a module.
struct Block {
    norms: [Box<dyn Module>; 2],
    queries_keys_values: Box<dyn Module>,
    attention: AttentionLayer,
    output: Box<dyn Module>,
    up: Box<dyn Module>,
    down: Box<dyn Module>,
}

const HIDDEN: usize = 48;
const HEADS: usize = 3;
const HEAD_DIM: usize = HIDDEN / HEADS;

impl Module for Block {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, tokens, _) = x.dims3()?;
        let qkv = self.queries_keys_values.forward(&self.norms[0].forward(x)?)?;
        let heads = |i: usize| {
            let part = qkv.narrow(D::Minus1, i * HIDDEN, HIDDEN)?;
            part.reshape((batch, tokens, HEADS, HEAD_DIM))?.transpose(1, 2)?.contiguous()
        };
        let mixed = (self.attention)(&heads(0)?, &heads(1)?, &heads(2)?)?;
        let mixed = mixed.transpose(1, 2)?.reshape((batch, tokens, HIDDEN))?;
        let x = (x + self.output.forward(&mixed)?)?;
        let up = self.up.forward(&self.norms[1].forward(&x)?)?.gelu_erf()?;
        x + self.down.forward(&up)?
    }
}

/// Every token sees all others.
fn float_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> candle_core::Result<Tensor> {
    softmax_last_dim(&(q.matmul(&k.t()?)? / (HEAD_DIM as f64).sqrt())?)?.matmul(v)
}

/// The pieces of a block that can be replaced.
const PIECES: [&str; 7] = ["norm 0", "queries, keys, values", "attention", "output", "norm 1", "up", "down"];

/// Two blocks with the same weights every time, of which the pieces `fixed` are fixed point.
fn somebody_s_model(fixed: &[(usize, &str)]) -> impl Module {
    let backend = Arc::new(Cpu::new(1).unwrap());
    let mut seed = 1u64;
    let mut random = |shape: &[usize], mean: f32, spread: f32| {
        let number = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            mean + spread * ((seed >> 40) as f32 / (1 << 23) as f32 - 1.0)
        };
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(number).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let mut model = candle_nn::seq();
    for block in 0..2 {
        let is_fixed = |piece: &str| fixed.contains(&(block, piece));
        let mut norm = |piece: &str| -> Box<dyn Module> {
            let (gains, biases) = (random(&[HIDDEN], 1.0, 0.3), random(&[HIDDEN], 0.0, 0.3));
            if is_fixed(piece) {
                return Box::new(FixedNorm::layer(&gains, &biases, 1e-5, Arc::clone(&backend)).unwrap());
            }
            Box::new(LayerNorm::new(gains, biases, 1e-5))
        };
        let norms = [norm(PIECES[0]), norm(PIECES[4])];
        let mut linear = |piece: &str, outputs: usize, inputs: usize| -> Box<dyn Module> {
            let weight = random(&[outputs, inputs], 0.0, (3.0 / inputs as f32).sqrt());
            let float = Linear::new(weight, Some(random(&[outputs], 0.0, 0.3)));
            if is_fixed(piece) {
                return Box::new(FixedLinear::from_linear(&float, Arc::clone(&backend)).unwrap());
            }
            Box::new(float)
        };
        let see_all = Attention { causal: false, ..Attention::causal(0, HEAD_DIM) };
        let fixed_attention = FixedAttention::new(see_all, Arc::clone(&backend));
        model = model.add(Block {
            norms,
            queries_keys_values: linear(PIECES[1], 3 * HIDDEN, HIDDEN),
            attention: match is_fixed(PIECES[2]) {
                true => Box::new(move |q, k, v| fixed_attention.forward(q, k, v)),
                false => Box::new(float_attention),
            },
            output: linear(PIECES[3], HIDDEN, HIDDEN),
            up: linear(PIECES[5], 4 * HIDDEN, HIDDEN),
            down: linear(PIECES[6], HIDDEN, 4 * HIDDEN),
        });
    }
    model
}

#[test]
fn any_layer_of_somebody_s_model_can_be_replaced_and_all_of_them() {
    let x = Tensor::randn(0f32, 1.0, (2, 13, HIDDEN), &Device::Cpu).unwrap();
    let float = somebody_s_model(&[]).forward(&x).unwrap();
    let size = float.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let error = |fixed: &[(usize, &str)]| {
        let difference = (somebody_s_model(fixed).forward(&x).unwrap() - &float).unwrap();
        difference.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt() / size
    };
    assert_eq!(error(&[]), 0.0);
    let all: Vec<(usize, &str)> = (0..2).flat_map(|block| PIECES.map(|piece| (block, piece))).collect();
    let mut squares = 0.0;
    for piece in &all {
        let error = error(&[*piece]);
        println!("{piece:?}: {error:.1e}");
        assert!(error > 0.0 && error < 1e-2, "{piece:?}: {error}");
        squares += error * error;
    }
    // Errors that have nothing to do with each other add up as squares.
    let together = error(&all);
    println!("all: {together:.1e}, expected {:.1e}", squares.sqrt());
    assert!((0.5..2.0).contains(&(together / squares.sqrt())), "{together} {squares}");
}
