//! The answers of this crate's functions and of a backend's kernels to golden cases.

use thiserror::Error;

use super::vectors::{Case, VectorError, parse};
use crate::activation::{Activation, SoftCap};
use crate::backend::{Attention, Backend, BackendError, KvShape, LinearWeights, NormWeights, Row};
use crate::bounds::AttentionShape;
use crate::formats::{GROUP_INPUTS, Scale, TokenId};
use crate::mask::TokenMask;
use crate::quantise::quantise;
use crate::sampling::Sampling;
use crate::softmax::{attention_scale, log_probability_q16};
use crate::tables::{cos_sin, exp2_neg, log2_q32, sigmoid};
use crate::weights::{gains_q20, quantise_grouped_row, quantise_row};

/// Answers: the `out` lines of a case.
pub(super) type Answers = Vec<(&'static str, Vec<i128>)>;

/// A case that could not be answered.
#[derive(Debug, Error)]
pub(super) enum AnswerError {
    #[error(transparent)]
    Vector(#[from] VectorError),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A function of this crate whose answer is not the golden one.
#[derive(Debug, Error)]
#[error("{file}, case {case}: {line} differs from the golden vector")]
pub struct FunctionMismatch {
    /// The golden file.
    pub file: &'static str,
    /// The case.
    pub case: String,
    /// The `out` line, or what prevented it.
    pub line: String,
}

/// Checks the functions that no backend implements (tables, weights, sampling on the host) against their golden vectors.
pub fn check_functions() -> Result<(), FunctionMismatch> {
    for (file, text) in super::FILES {
        let fail = |case: &str, line: String| FunctionMismatch { file, case: case.into(), line };
        for case in parse(text).map_err(|e| fail("", e.to_string()))? {
            let answers = match function(file, &case) {
                Some(answers) => answers.map_err(|e| fail(&case.name, e.to_string()))?,
                None => continue,
            };
            if let Some(line) = difference(&case, &answers) {
                return Err(fail(&case.name, line));
            }
        }
    }
    Ok(())
}

/// The first answer that is not the golden one.
pub(super) fn difference(case: &Case, answers: &Answers) -> Option<String> {
    let golden: Vec<_> = case.answers().collect();
    if golden.len() != answers.len() {
        return Some(format!("{} answers", answers.len()));
    }
    golden.iter().zip(answers).find_map(|((name, expected), (own, values))| {
        (name != own || expected != values).then(|| {
            let at = expected
                .iter()
                .zip(values)
                .position(|(a, b)| a != b)
                .unwrap_or(expected.len().min(values.len()));
            format!("{own}[{at}] ({:?}, golden {:?})", values.get(at), expected.get(at))
        })
    })
}

fn wide<T: Into<i128> + Copy>(values: &[T]) -> Vec<i128> {
    values.iter().map(|&v| v.into()).collect()
}

/// Answers a case of a file about functions; `None` for files about kernels.
pub(super) fn function(file: &str, case: &Case) -> Option<Result<Answers, VectorError>> {
    Some(match file {
        "tables" => tables(case),
        "quantise" => quantised(case),
        "sampling" => sampled(case),
        "log_probability" => log_probabilities(case),
        "weights" => weights(case),
        "grouped_weights" => grouped_weights(case),
        _ => return None,
    })
}

fn tables(case: &Case) -> Result<Answers, VectorError> {
    let rotations: Vec<_> = case.get::<u64>("turns")?.into_iter().map(cos_sin).collect();
    Ok(vec![
        ("out_exp2", case.get::<u64>("exp2_delta")?.into_iter().map(|d| exp2_neg(d).into()).collect()),
        ("out_sigmoid", case.get::<i32>("sigmoid_x")?.into_iter().map(|x| sigmoid(x).into()).collect()),
        ("out_cos", rotations.iter().map(|r| r.0.into()).collect()),
        ("out_sin", rotations.iter().map(|r| r.1.into()).collect()),
        ("out_log2", case.get::<u64>("log2_x")?.into_iter().map(|x| log2_q32(x.max(1)).into()).collect()),
    ])
}

fn quantised(case: &Case) -> Result<Answers, VectorError> {
    let x: Vec<i64> = case.get("x")?;
    let mut out = vec![0i16; x.len()];
    let exponent = quantise(&x, case.one("bits")?, &mut out);
    Ok(vec![("out_exponent", vec![exponent.into()]), ("out", wide(&out))])
}

fn sampled(case: &Case) -> Result<Answers, VectorError> {
    let sampling = Sampling {
        temperature_q16: case.one("temperature")?,
        top_p_q16: case.one("top_p")?,
        top_k: case.one("top_k")?,
        seed: case.one("seed")?,
    };
    let logits: Vec<i32> = case.get("logits")?;
    let positions: Vec<u64> = case.get("positions")?;
    let mask = case.has("allowed").then(|| mask(case, logits.len())).transpose()?;
    let choose = |position| match &mask {
        None => Some(sampling.choose(&logits, position)),
        Some(mask) => sampling.choose_among(&logits, mask, position),
    };
    let tokens: Option<Vec<i128>> =
        positions.into_iter().map(|position| Some(choose(position)?.0.into())).collect();
    let empty = || VectorError::Missing { case: case.name.clone(), name: "allowed" };
    Ok(vec![("out", tokens.ok_or_else(empty)?)])
}

fn mask(case: &Case, vocabulary: usize) -> Result<TokenMask, VectorError> {
    let mut mask = TokenMask::none(vocabulary);
    case.get::<u32>("allowed")?.into_iter().for_each(|id| mask.allow(TokenId(id)));
    Ok(mask)
}

fn log_probabilities(case: &Case) -> Result<Answers, VectorError> {
    let logits: Vec<i32> = case.get("logits")?;
    let all = (0..logits.len()).filter_map(|target| log_probability_q16(&logits, target)).map(i128::from);
    Ok(vec![("out", all.collect())])
}

fn weights(case: &Case) -> Result<Answers, VectorError> {
    let bad = |name| move |_| VectorError::Missing { case: case.name.clone(), name };
    let bits: Vec<u32> = case.get("float_bits")?;
    let mut bytes = vec![0u8; bits.len()];
    let scale = quantise_row(&bits, &mut bytes).map_err(bad("float_bits"))?;
    let gains = gains_q20(&case.get::<u32>("gain_bits")?, 0).map_err(bad("gain_bits"))?;
    Ok(vec![
        ("out_weights", bytes.iter().map(|b| i128::from((b ^ 0x80) as i8)).collect()),
        ("out_scale", vec![scale.mantissa().into(), scale.exponent().into()]),
        ("out_gains", wide(&gains)),
    ])
}

fn grouped_weights(case: &Case) -> Result<Answers, VectorError> {
    let bits: Vec<u32> = case.get("float_bits")?;
    let (mut bytes, mut groups) = (vec![0u8; bits.len()], vec![0u8; bits.len().div_ceil(GROUP_INPUTS)]);
    let scale =
        quantise_grouped_row(&bits, &mut bytes, &mut groups).map_err(|_| missing(case, "float_bits"))?;
    Ok(vec![
        ("out_weights", bytes.iter().map(|b| i128::from((b ^ 0x80) as i8)).collect()),
        ("out_multipliers", wide(&groups)),
        ("out_scale", vec![scale.mantissa().into(), scale.exponent().into()]),
    ])
}

/// Answers a case of a file about a kernel on a backend; `None` for files about functions.
pub(super) fn kernel<B: Backend>(
    backend: &B,
    file: &str,
    case: &Case,
) -> Option<Result<Answers, AnswerError>> {
    Some(match file {
        "embed" | "grouped_embed" => embed(backend, case),
        "rmsnorm" => norm(backend, case),
        "layernorm" => norm(backend, case),
        "normalise" => normalise(backend, case),
        "linear" | "grouped_linear" => linear(backend, case),
        "rope" => rope(backend, case),
        "attention" => attention(backend, case),
        "silu_gate" => gate(backend, case, Activation::Silu),
        "gelu_tanh" => gate(backend, case, Activation::GeluTanh),
        "gelu_erf" => gate(backend, case, Activation::GeluErf),
        "bias" => bias(backend, case),
        "soft_cap" => soft_cap(backend, case),
        _ => return None,
    })
}

fn scales(case: &Case, mantissas: &'static str, exponents: &'static str) -> Result<Vec<Scale>, VectorError> {
    case.get::<u32>(mantissas)?
        .into_iter()
        .zip(case.get::<i32>(exponents)?)
        .map(|(m, e)| {
            Scale::new(m, e).ok_or(VectorError::Missing { case: case.name.clone(), name: mantissas })
        })
        .collect()
}

fn weight_bytes(case: &Case) -> Result<Vec<u8>, VectorError> {
    Ok(case.get::<i8>("weights")?.into_iter().map(|w| w as u8 ^ 0x80).collect())
}

fn residual<B: Backend>(backend: &B, values: &[i32], width: usize) -> Result<B::Residual, BackendError> {
    let mut x = backend.residual(values.len() / width.max(1), width)?;
    backend.write_residual(values, &mut x)?;
    Ok(x)
}

fn activations<B: Backend>(backend: &B, x: &B::Activations, rows: usize) -> Result<Answers, BackendError> {
    let (mut exponents, mut values, mut row) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..rows {
        exponents.push(backend.read_activations(x, i, &mut row)?);
        values.extend_from_slice(&row);
    }
    let name = if rows == 1 { "out_exponent" } else { "out_exponents" };
    Ok(vec![(name, wide(&exponents)), ("out", wide(&values))])
}

fn embed<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let bytes = weight_bytes(case)?;
    let scales = scales(case, "mantissa", "exponent")?;
    let groups: Option<Vec<u8>> = case.optional("multipliers")?;
    let weights = LinearWeights {
        outputs: 1,
        inputs: bytes.len(),
        bytes: &bytes,
        scales: &scales,
        groups: groups.as_deref(),
    };
    let table = backend.load_linear(weights)?;
    let mut out = backend.residual(1, bytes.len())?;
    let factor = match case.optional::<i64>("factor")?.as_deref() {
        None => Some(Scale::ONE),
        Some(&[mantissa, exponent]) => Scale::new(mantissa as u32, exponent as i32),
        Some(_) => None,
    };
    let factor = factor.ok_or_else(|| missing(case, "factor"))?;
    backend.embed(&table, &[TokenId(0)], factor, &mut out)?;
    one_row(backend, &out)
}

fn load_norm<B: Backend>(backend: &B, case: &Case) -> Result<(B::Norm, usize), AnswerError> {
    let gains: Vec<i32> = case.get("gains")?;
    let biases: Option<Vec<i32>> = case.optional("biases")?;
    let norm = backend.load_norm(NormWeights {
        gains_q20: &gains,
        biases_q20: biases.as_deref(),
        epsilon_q32: case.one("epsilon")?,
    })?;
    Ok((norm, gains.len()))
}

fn norm<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let (norm, width) = load_norm(backend, case)?;
    let x = residual(backend, &case.get::<i32>("x")?, width)?;
    let mut out = backend.activations(1, width)?;
    backend.norm(&x, &norm, &mut out)?;
    Ok(activations(backend, &out, 1)?)
}

fn normalise<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let (norm, _) = load_norm(backend, case)?;
    let values: Vec<i32> = case.get("x")?;
    let mut x = residual(backend, &values, values.len())?;
    backend.normalise(&mut x, &norm)?;
    one_row(backend, &x)
}

fn bias<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let bias = backend.load_bias(&case.get::<i32>("bias")?)?;
    let values: Vec<i32> = case.get("x")?;
    let mut x = residual(backend, &values, values.len())?;
    backend.add_bias(&mut x, &bias)?;
    one_row(backend, &x)
}

fn soft_cap<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let values: Vec<i32> = case.get("x")?;
    let mut x = residual(backend, &values, values.len())?;
    backend.soft_cap(&mut x, cap(case, case.one("cap")?)?)?;
    one_row(backend, &x)
}

fn cap(case: &Case, cap_q16: i32) -> Result<SoftCap, VectorError> {
    SoftCap::new(cap_q16).ok_or_else(|| missing(case, "cap"))
}

fn missing(case: &Case, name: &'static str) -> VectorError {
    VectorError::Missing { case: case.name.clone(), name }
}

fn one_row<B: Backend>(backend: &B, x: &B::Residual) -> Result<Answers, AnswerError> {
    let mut row = Vec::new();
    backend.read_row(x, 0, &mut row)?;
    Ok(vec![("out", wide(&row))])
}

fn linear<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let bytes = weight_bytes(case)?;
    let scales = scales(case, "mantissas", "exponents")?;
    let groups: Option<Vec<u8>> = case.optional("multipliers")?;
    let (inputs, values) = (case.one("inputs")?, case.get::<i16>("activations")?);
    let weights = backend.load_linear(LinearWeights {
        outputs: scales.len(),
        inputs,
        bytes: &bytes,
        scales: &scales,
        groups: groups.as_deref(),
    })?;
    let mut x = backend.activations(1, inputs)?;
    backend.write_activations(&values, &[case.one("exponent")?], &mut x)?;
    let mut out = backend.residual(1, scales.len())?;
    backend.linear(&x, &weights, &mut out)?;
    one_row(backend, &out)
}

fn rope<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let frequencies: Vec<u64> = case.get("frequencies")?;
    let position: usize = case.one("position")?;
    let head: Vec<i32> = case.get("head")?;
    let rope = backend.load_rope(&frequencies, position + 1)?;
    let mut x = residual(backend, &head, head.len())?;
    backend.rope(&rope, &[Row { sequence: 0, position }], head.len(), &mut x)?;
    one_row(backend, &x)
}

fn attention<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let [heads, kv_heads, head_dim] =
        case.get::<usize>("shape")?.try_into().map_err(|_| missing(case, "shape"))?;
    let shape = AttentionShape { heads, kv_heads, head_dim };
    shape.check().map_err(BackendError::from)?;
    let q = residual(backend, &case.get::<i32>("q")?, shape.query_width())?;
    let k = residual(backend, &case.get::<i32>("k")?, shape.kv_width())?;
    let v = residual(backend, &case.get::<i32>("v")?, shape.kv_width())?;
    let positions = case.get::<i32>("q")?.len() / shape.query_width();
    let rows: Vec<Row> = (0..positions).map(|position| Row { sequence: 0, position }).collect();
    let mut cache = backend.kv_cache(KvShape { layers: 1, attention: shape, capacity: positions })?;
    let mut out = backend.activations(positions, shape.query_width())?;
    backend.attention(view(case, head_dim)?, &rows, &q, &k, &v, &mut [&mut cache], &mut out)?;
    let mut answers = activations(backend, &out, positions)?;
    answers[0].0 = "out_exponents";
    Ok(answers)
}

/// What a case's queries see: whether causal, the window and the cap (zero: none), and the divisor of scores.
fn view(case: &Case, head_dim: usize) -> Result<Attention, VectorError> {
    let Some(view) = case.optional::<i64>("view")? else { return Ok(Attention::causal(0, head_dim)) };
    let [causal, window, cap_q16, divisor] = view.try_into().map_err(|_| missing(case, "view"))?;
    Ok(Attention {
        layer: 0,
        scale: attention_scale(divisor.max(1) as usize),
        causal: causal == 1,
        window: (window > 0).then_some(window as usize),
        soft_cap: if cap_q16 == 0 { None } else { Some(cap(case, cap_q16 as i32)?.in_log2_units()) },
    })
}

fn gate<B: Backend>(backend: &B, case: &Case, activation: Activation) -> Result<Answers, AnswerError> {
    let (gate, up): (Vec<i32>, Vec<i32>) = (case.get("gate")?, case.get("up")?);
    let mut out = backend.activations(1, gate.len())?;
    let x = residual(backend, &gate, gate.len())?;
    let up = if up.is_empty() { None } else { Some(residual(backend, &up, gate.len())?) };
    backend.gate(activation, &x, up.as_ref(), &mut out)?;
    Ok(activations(backend, &out, 1)?)
}
