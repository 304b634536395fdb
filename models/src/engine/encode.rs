//! Reading a text with an encoder: one vector, or the logits of its classes.

use metis_kernels::pooling::unit_vector_q16;
use metis_kernels::{Backend, Row, TokenId};

use super::{Engine, InferenceError};
use crate::bundle::Pooling;
use crate::graph::{Graph, Workspace};

/// The vector of length one that stands for the text, Q16.
pub(super) fn embed<B: Backend>(engine: &Engine<B>, tokens: &[TokenId]) -> Result<Vec<i32>, InferenceError> {
    let ws = read(engine, tokens, "embed")?;
    let pooled = match engine.manifest.variant.pooling {
        Pooling::Mean => tokens.len(),
        Pooling::Cls => 1,
    };
    let (mut sum, mut row) = (vec![0i64; engine.manifest.hidden], Vec::new());
    for i in 0..pooled {
        engine.backend.read_row(ws.hidden(), i, &mut row)?;
        sum.iter_mut().zip(&row).for_each(|(sum, &x)| *sum += i64::from(x));
    }
    Ok(unit_vector_q16(&sum))
}

/// The Q16 logits of the classes.
pub(super) fn classify<B: Backend>(
    engine: &Engine<B>,
    tokens: &[TokenId],
) -> Result<Vec<i32>, InferenceError> {
    let mut ws = read(engine, tokens, "classify")?;
    let logits = match &engine.graph {
        Graph::Bert(model) => engine.backend.enter(|| model.classify(&engine.backend, &mut ws))?,
        _ => None,
    };
    logits.ok_or_else(|| engine.unsupported("classify"))
}

/// The hidden states of a text.
fn read<B: Backend>(
    engine: &Engine<B>,
    tokens: &[TokenId],
    what: &'static str,
) -> Result<Workspace<B>, InferenceError> {
    let (backend, manifest) = (&*engine.backend, &engine.manifest);
    if manifest.architecture.is_decoder() {
        return Err(engine.unsupported(what));
    }
    if tokens.is_empty() {
        return Err(InferenceError::EmptyPrompt);
    }
    engine.check_tokens(tokens)?;
    engine.check_length(tokens.len())?;
    let mut cache = engine.graph.kv_cache(backend, manifest, tokens.len())?;
    let mut ws = Workspace::new(backend, manifest, tokens.len(), 0)?;
    let rows: Vec<Row> = (0..tokens.len()).map(|position| Row { sequence: 0, position }).collect();
    backend.enter(|| engine.graph.forward(backend, &mut ws, tokens, &rows, &mut [&mut cache], &[]))?;
    Ok(ws)
}
