//! The answers of this crate's functions and of a backend's kernels to golden cases.

use thiserror::Error;

use super::vectors::{Case, VectorError, parse};
use crate::backend::{Backend, BackendError, KvShape, LinearWeights, NormWeights, Row};
use crate::bounds::AttentionShape;
use crate::formats::{Scale, TokenId};
use crate::mask::TokenMask;
use crate::quantise::quantise;
use crate::sampling::Sampling;
use crate::softmax::log_probability_q16;
use crate::tables::{cos_sin, exp2_neg, log2_q32, sigmoid};
use crate::weights::{gains_q20, quantise_row};

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
    let gains = gains_q20(&case.get::<u32>("gain_bits")?).map_err(bad("gain_bits"))?;
    Ok(vec![
        ("out_weights", bytes.iter().map(|b| i128::from((b ^ 0x80) as i8)).collect()),
        ("out_scale", vec![scale.mantissa().into(), scale.exponent().into()]),
        ("out_gains", wide(&gains)),
    ])
}

/// Answers a case of a file about a kernel on a backend; `None` for files about functions.
pub(super) fn kernel<B: Backend>(
    backend: &B,
    file: &str,
    case: &Case,
) -> Option<Result<Answers, AnswerError>> {
    Some(match file {
        "embed" => embed(backend, case),
        "rmsnorm" => rmsnorm(backend, case),
        "linear" => linear(backend, case),
        "rope" => rope(backend, case),
        "attention" => attention(backend, case),
        "silu_gate" => silu_gate(backend, case),
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
    let weights = LinearWeights { outputs: 1, inputs: bytes.len(), bytes: &bytes, scales: &scales };
    let table = backend.load_linear(weights)?;
    let mut out = backend.residual(1, bytes.len())?;
    backend.embed(&table, &[TokenId(0)], &mut out)?;
    let mut row = Vec::new();
    backend.read_row(&out, 0, &mut row)?;
    Ok(vec![("out", wide(&row))])
}

fn rmsnorm<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let gains: Vec<i32> = case.get("gains")?;
    let norm = backend.load_norm(NormWeights { gains_q20: &gains, epsilon_q32: case.one("epsilon")? })?;
    let x = residual(backend, &case.get::<i32>("x")?, gains.len())?;
    let mut out = backend.activations(1, gains.len())?;
    backend.rmsnorm(&x, &norm, &mut out)?;
    Ok(activations(backend, &out, 1)?)
}

fn linear<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let bytes = weight_bytes(case)?;
    let scales = scales(case, "mantissas", "exponents")?;
    let (inputs, values) = (case.one("inputs")?, case.get::<i16>("activations")?);
    let weights = backend.load_linear(LinearWeights {
        outputs: scales.len(),
        inputs,
        bytes: &bytes,
        scales: &scales,
    })?;
    let mut x = backend.activations(1, inputs)?;
    backend.write_activations(&values, &[case.one("exponent")?], &mut x)?;
    let mut out = backend.residual(1, scales.len())?;
    backend.linear(&x, &weights, &mut out)?;
    let mut row = Vec::new();
    backend.read_row(&out, 0, &mut row)?;
    Ok(vec![("out", wide(&row))])
}

fn rope<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let frequencies: Vec<u64> = case.get("frequencies")?;
    let position: usize = case.one("position")?;
    let head: Vec<i32> = case.get("head")?;
    let rope = backend.load_rope(&frequencies, position + 1)?;
    let mut x = residual(backend, &head, head.len())?;
    backend.rope(&rope, &[Row { sequence: 0, position }], head.len(), &mut x)?;
    let mut row = Vec::new();
    backend.read_row(&x, 0, &mut row)?;
    Ok(vec![("out", wide(&row))])
}

fn attention<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let missing = |name| VectorError::Missing { case: case.name.clone(), name };
    let [heads, kv_heads, head_dim] = case.get::<usize>("shape")?.try_into().map_err(|_| missing("shape"))?;
    let shape = AttentionShape { heads, kv_heads, head_dim };
    shape.check().map_err(BackendError::from)?;
    let q = residual(backend, &case.get::<i32>("q")?, shape.query_width())?;
    let k = residual(backend, &case.get::<i32>("k")?, shape.kv_width())?;
    let v = residual(backend, &case.get::<i32>("v")?, shape.kv_width())?;
    let positions = case.get::<i32>("q")?.len() / shape.query_width();
    let rows: Vec<Row> = (0..positions).map(|position| Row { sequence: 0, position }).collect();
    let mut cache = backend.kv_cache(KvShape { layers: 1, attention: shape, capacity: positions })?;
    let mut out = backend.activations(positions, shape.query_width())?;
    backend.attention(0, &rows, &q, &k, &v, &mut [&mut cache], &mut out)?;
    let mut answers = activations(backend, &out, positions)?;
    answers[0].0 = "out_exponents";
    Ok(answers)
}

fn silu_gate<B: Backend>(backend: &B, case: &Case) -> Result<Answers, AnswerError> {
    let gate: Vec<i32> = case.get("gate")?;
    let (g, u) =
        (residual(backend, &gate, gate.len())?, residual(backend, &case.get::<i32>("up")?, gate.len())?);
    let mut out = backend.activations(1, gate.len())?;
    backend.silu_gate(&g, &u, &mut out)?;
    Ok(activations(backend, &out, 1)?)
}
