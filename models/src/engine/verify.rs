//! Checking a whole answer in prefill-shaped passes.
//!
//! No scale spans two tokens, so the logits after a token are the same whether its successors were fed with it or later. So
//! prompt and answer can be fed together, many rows a pass, and every position must choose the token that was claimed for it:
//! each weight is read once per pass instead of once per token.

use metis_kernels::{Backend, Row, SampleRequest, TokenId};

use super::{Engine, Finish, Generation, InferenceError, Request, Step, allowed};
use crate::graph::Workspace;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The model gives this answer.
    Same,
    /// It does not.
    Differs(Difference),
}

impl Verdict {
    /// Compares a claim with the model's own answer.
    pub fn of(answer: &Generation, claimed: &Generation) -> Self {
        let differing = steps(answer).zip(steps(claimed)).enumerate().find(|(_, (a, b))| a != b);
        differing.map_or(Self::Same, |(position, (expected, claimed))| {
            Self::Differs(Difference { position, expected, claimed })
        })
    }
}

/// Where an answer stops being the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Index among the chosen tokens, from zero; the one that ends an answer counts.
    pub position: usize,
    /// What the model does there.
    pub expected: Step,
    /// What was claimed.
    pub claimed: Step,
}

/// The step at each position of an answer: its tokens, then its end.
fn steps(answer: &Generation) -> impl Iterator<Item = Step> + '_ {
    answer.tokens.iter().copied().map(Step::Token).chain(std::iter::once(Step::End(answer.finish)))
}

pub(super) fn verify<B: Backend>(
    engine: &Engine<B>,
    request: &Request,
    claimed: &Generation,
) -> Result<Verdict, InferenceError> {
    engine.check(request)?;
    let (backend, manifest) = (&*engine.backend, &engine.manifest);
    let differs = |position, expected, claimed| Verdict::Differs(Difference { position, expected, claimed });

    // Nothing past the length or outside the vocabulary can be fed; whatever comes first decides.
    let length = request.max_new;
    let known = claimed.tokens.iter().take_while(|token| token.index() < manifest.vocabulary).count();
    let fed = known.min(length.saturating_sub(1));
    let tokens: Vec<TokenId> = request.prompt.iter().chain(&claimed.tokens[..fed]).copied().collect();
    let first = request.prompt.len() - 1;
    // Choices are made after the last token of the prompt and after each that was fed.
    let choices = if length == 0 { 0 } else { fed + 1 };
    // Free greedy choices need no row of logits, which is most of the work of a large vocabulary.
    let greedy = request.sampling.temperature_q16 == 0 && request.constraint.is_none();
    let mut claims = steps(claimed);
    let mut position = 0;
    let mut guide = engine.guide(request);
    if choices > 0 {
        let rows = tokens.len().min(engine.chunk);
        let mut cache = engine.graph.kv_cache(backend, manifest, tokens.len())?;
        let mut workspace = Workspace::new(backend, manifest, rows, rows.min(choices))?;
        let (mut samples, mut chosen) = (Vec::new(), Vec::new());
        let restored = engine.restore(&request.prompt, 0, usize::MAX, &mut cache)?;
        for (chunk, fed) in tokens[restored..].chunks(engine.chunk).enumerate() {
            let start = restored + chunk * engine.chunk;
            let rows: Vec<Row> =
                (start..start + fed.len()).map(|position| Row { sequence: 0, position }).collect();
            let wanted: Vec<usize> = (first.saturating_sub(start).min(fed.len())..fed.len()).collect();
            if greedy {
                let (ws, cache) = (&mut workspace, &mut cache);
                let chosen = (&wanted[..], &mut chosen);
                backend.enter(|| engine.graph.choose(backend, ws, fed, &rows, &mut [cache], chosen))?;
            } else {
                backend.enter(|| {
                    engine.graph.forward(backend, &mut workspace, fed, &rows, &mut [&mut cache], &wanted)
                })?;
            }
            engine.remember(&request.prompt, start..start + fed.len(), &cache)?;
            samples.clear();
            let mut end = None;
            for (row, &at) in wanted.iter().enumerate() {
                let mask = match allowed(&mut guide) {
                    Ok(mask) => mask,
                    Err(finish) => {
                        end = Some(finish);
                        break;
                    }
                };
                samples.push(SampleRequest {
                    row,
                    sampling: request.sampling,
                    position: (start + at + 1) as u64,
                    mask,
                });
                // Past a token that could not come there is nothing to choose: it is not the model's.
                let next = claimed.tokens.get(start + at - first);
                if let (Some(guide), Some(&token)) = (&mut guide, next)
                    && !guide.advance(token)
                {
                    break;
                }
            }
            if !greedy && !samples.is_empty() {
                backend.sample(workspace.logits(), &samples, &mut chosen)?;
            }
            for &token in &chosen[..samples.len()] {
                let expected = Step::of(token, request, manifest);
                // An answer has one step more than tokens: there is always a claim to compare with.
                let Some(claim) = claims.next() else { return Ok(Verdict::Same) };
                if claim != expected {
                    return Ok(differs(position, expected, claim));
                }
                if matches!(expected, Step::End(_)) {
                    return Ok(Verdict::Same);
                }
                position += 1;
            }
            if let Some(finish) = end {
                return Ok(concluded(position, Step::End(finish), claims.next()));
            }
        }
    }
    // As many tokens as were asked for, each the model's: the answer must end here.
    let form = if length == 0 { None } else { allowed(&mut guide).err() };
    Ok(concluded(position, Step::End(form.unwrap_or(Finish::Length)), claims.next()))
}

/// An answer that is the model's up to `position`, where the model's ends.
fn concluded(position: usize, expected: Step, claimed: Option<Step>) -> Verdict {
    match claimed {
        Some(claimed) if claimed != expected => Verdict::Differs(Difference { position, expected, claimed }),
        _ => Verdict::Same,
    }
}
