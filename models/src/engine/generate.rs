//! Generation of several requests at a time: prefill chunks and decode rows share each step.

use std::sync::Arc;

use metis_kernels::{Backend, Row, SampleRequest, TokenId, TokenMask};

use super::session::CHUNK;
use super::{Engine, Finish, Generation, InferenceError, Request, Step, allowed};
use crate::constraint::Guide;
use crate::graph::Workspace;

/// A request on its way.
struct Lane<'a> {
    request: &'a Request,
    /// Tokens of the prompt that have been fed.
    fed: usize,
    tokens: Vec<TokenId>,
    finish: Option<Finish>,
    guide: Option<Guide>,
    /// What the guide allows next.
    mask: Option<Arc<TokenMask>>,
}

impl Lane<'_> {
    /// Asks the guide what may come next. It may end the answer, before the next token is computed.
    fn look_ahead(&mut self) {
        match allowed(&mut self.guide) {
            Ok(mask) => self.mask = mask,
            Err(finish) => self.finish = Some(finish),
        }
    }

    /// Position of the next token to be chosen.
    fn next_position(&self) -> usize {
        self.request.prompt.len() + self.tokens.len()
    }

    /// The tokens that this lane wants to feed next, and the position of the first.
    fn pending(&self) -> (&[TokenId], usize) {
        let prompt = &self.request.prompt;
        match self.tokens.split_last() {
            _ if self.fed < prompt.len() => (&prompt[self.fed..], self.fed),
            Some((last, _)) => (std::slice::from_ref(last), self.next_position() - 1),
            None => (&[], 0),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::End(finish) => self.finish = Some(finish),
            Step::Token(token) => {
                self.tokens.push(token);
                if let Some(guide) = &mut self.guide {
                    guide.advance(token);
                }
                self.look_ahead();
                if self.tokens.len() >= self.request.max_new {
                    self.finish.get_or_insert(Finish::Length);
                }
            }
        }
    }
}

pub(super) fn generate_batch<B: Backend>(
    engine: &Engine<B>,
    requests: &[Request],
) -> Result<Vec<Generation>, InferenceError> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    for request in requests {
        check(engine, request)?;
    }
    let (backend, manifest) = (&*engine.backend, &engine.manifest);
    let mut lanes: Vec<Lane<'_>> = requests
        .iter()
        .map(|request| Lane {
            request,
            fed: 0,
            tokens: Vec::with_capacity(request.max_new.min(manifest.context)),
            finish: (request.max_new == 0).then_some(Finish::Length),
            guide: engine.guide(request),
            mask: None,
        })
        .collect();
    lanes.iter_mut().filter(|lane| lane.finish.is_none()).for_each(Lane::look_ahead);
    let mut caches = requests
        .iter()
        .map(|r| engine.graph.kv_cache(backend, manifest, positions(r)))
        .collect::<Result<Vec<B::KvCache>, _>>()?;
    let mut caches: Vec<&mut B::KvCache> = caches.iter_mut().collect();
    let budget = CHUNK.max(requests.len());
    let mut workspace = Workspace::new(backend, manifest, budget, requests.len())?;

    let (mut tokens, mut rows) = (Vec::new(), Vec::new());
    let (mut wanted, mut askers, mut samples, mut chosen) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    while lanes.iter().any(|lane| lane.finish.is_none()) {
        tokens.clear();
        rows.clear();
        wanted.clear();
        askers.clear();
        samples.clear();
        for (sequence, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| lane.finish.is_none()) {
            let (pending, position) = lane.pending();
            let count = pending.len().min(budget - tokens.len());
            tokens.extend_from_slice(&pending[..count]);
            rows.extend((0..count).map(|i| Row { sequence, position: position + i }));
            lane.fed = lane.request.prompt.len().min(lane.fed + count);
            if position + count == lane.next_position() {
                samples.push(SampleRequest {
                    row: wanted.len(),
                    sampling: lane.request.sampling,
                    position: lane.next_position() as u64,
                    mask: lane.mask.clone(),
                });
                wanted.push(rows.len() - 1);
                askers.push(sequence);
            }
        }
        backend
            .enter(|| engine.graph.forward(backend, &mut workspace, &tokens, &rows, &mut caches, &wanted))?;
        if samples.is_empty() {
            continue;
        }
        backend.sample(workspace.logits(), &samples, &mut chosen)?;
        for (&lane, &token) in askers.iter().zip(&chosen) {
            let step = Step::of(token, lanes[lane].request, manifest);
            lanes[lane].take(step);
        }
    }
    Ok(lanes
        .into_iter()
        .map(|lane| Generation { tokens: lane.tokens, finish: lane.finish.unwrap_or(Finish::Length) })
        .collect())
}

/// Positions that a request may feed: the last new token is chosen, not fed.
fn positions(request: &Request) -> usize {
    request.prompt.len().saturating_add(request.max_new).saturating_sub(1).max(1)
}

pub(super) fn check<B: Backend>(engine: &Engine<B>, request: &Request) -> Result<(), InferenceError> {
    engine.check_decoder()?;
    request.sampling.check()?;
    if request.prompt.is_empty() {
        return Err(InferenceError::EmptyPrompt);
    }
    engine.check_tokens(&request.prompt)?;
    engine.check_length(positions(request))
}
