//! Running a text through the plain import and recording what its matrices read.

use std::sync::Arc;

use indicatif::ProgressBar;
use metis_kernels::{Backend, Row, TokenId};

use super::places::Place;
use super::recorder::{Recorder, Squares};
use super::{CalibrationError, WINDOW};
use crate::bundle::Bundle;
use crate::engine::{LoadError, Processor};
use crate::graph::{Graph, Workspace};

/// The squares of what the first reader of each place reads; its other readers read the same.
pub(super) fn observe(
    bundle: &Bundle,
    processor: &Processor,
    places: &[Place],
    tokens: &[TokenId],
    progress: &ProgressBar,
) -> Result<Squares, CalibrationError> {
    match processor {
        Processor::Scalar(backend) => on_backend(bundle, backend, places, tokens, progress),
        Processor::Cpu(backend) => on_backend(bundle, backend, places, tokens, progress),
    }
}

fn on_backend<B: Backend>(
    bundle: &Bundle,
    backend: &Arc<B>,
    places: &[Place],
    tokens: &[TokenId],
    progress: &ProgressBar,
) -> Result<Squares, CalibrationError> {
    let m = bundle.manifest();
    let address = |place: &Place| {
        let name = place.readers[0].trim_end_matches(".weight");
        Ok(bundle.linear(name)?.bytes.as_ptr().addr())
    };
    let addresses: Vec<usize> = places.iter().map(address).collect::<Result<_, CalibrationError>>()?;
    let recorder = Recorder::new(Arc::clone(backend), &addresses, m.layers);
    let graph = Graph::load(bundle, &recorder)?;
    progress.set_length(tokens.len() as u64);
    for window in windows(tokens, &m.bos, m.context) {
        let step = || {
            let mut cache = graph.kv_cache(&recorder, m, window.len())?;
            let mut ws = Workspace::new(&recorder, m, window.len(), 0)?;
            let rows: Vec<Row> = (0..window.len()).map(|position| Row { sequence: 0, position }).collect();
            recorder.enter(|| graph.forward(&recorder, &mut ws, &window, &rows, &mut [&mut cache], &[]))
        };
        step().map_err(LoadError::from)?;
        progress.inc((window.len() - m.bos.len()) as u64);
    }
    progress.finish_and_clear();
    Ok(recorder.into_squares())
}

/// The text in windows that each begin as a prompt does.
fn windows(tokens: &[TokenId], bos: &[u32], context: usize) -> impl Iterator<Item = Vec<TokenId>> {
    let body = WINDOW.min(context).saturating_sub(bos.len()).max(1);
    tokens
        .chunks(body)
        .map(move |chunk| bos.iter().map(|&id| TokenId(id)).chain(chunk.iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_as_prompts_do_and_fit() {
        let tokens: Vec<TokenId> = (0..1_200).map(TokenId).collect();
        let lengths = |bos: &[u32], context| {
            let windows: Vec<Vec<TokenId>> = windows(&tokens, bos, context).collect();
            let bodies: Vec<TokenId> =
                windows.iter().flat_map(|window| window[bos.len()..].to_vec()).collect();
            assert_eq!(bodies, tokens);
            windows.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[], 4_096), [512, 512, 176]);
        assert_eq!(lengths(&[1], 4_096), [512, 512, 179]);
        assert_eq!(lengths(&[1], 700 / 2)[..2], [350, 350]);
    }
}
