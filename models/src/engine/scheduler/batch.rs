//! The lanes that share each step.

use metis_kernels::{Backend, BackendError, Row, SampleRequest, TokenId};
use smallvec::SmallVec;

use super::lane::{Job, Lane};
use super::shares::share_out;
use crate::engine::{Engine, EngineOptions, Step};
use crate::graph::Workspace;

/// Lanes and the buffers of their steps, which are kept from one to the next.
#[derive(Debug)]
pub(super) struct Batch<B: Backend> {
    /// Most lanes.
    capacity: usize,
    /// Most rows of a step: at least one for each lane.
    budget: usize,
    lanes: Vec<Lane<B::KvCache>>,
    workspace: Option<Workspace<B>>,
    order: Vec<usize>,
    tokens: Vec<TokenId>,
    rows: Vec<Row>,
    /// The rows whose logits are wanted, the lanes that want them, and what they ask.
    wanted: Vec<usize>,
    askers: Vec<usize>,
    samples: Vec<SampleRequest>,
    chosen: Vec<TokenId>,
}

impl<B: Backend> Batch<B> {
    pub(super) const fn new((capacity, budget): (usize, usize)) -> Self {
        Self {
            capacity,
            budget,
            lanes: Vec::new(),
            workspace: None,
            order: Vec::new(),
            tokens: Vec::new(),
            rows: Vec::new(),
            wanted: Vec::new(),
            askers: Vec::new(),
            samples: Vec::new(),
            chosen: Vec::new(),
        }
    }

    /// How many jobs can begin.
    pub(super) const fn free(&self) -> usize {
        self.capacity - self.lanes.len()
    }

    /// Begins `jobs` and feeds each lane its rows of one step. Returns how many those were.
    pub(super) fn step(
        &mut self,
        engine: &Engine<B>,
        jobs: Vec<Job>,
        now: u64,
    ) -> Result<usize, BackendError> {
        for job in jobs {
            let positions = job.request.positions();
            let cache = engine.graph.kv_cache(&engine.backend, &engine.manifest, positions)?;
            let guide = engine.guide(&job.request);
            self.lanes.push(Lane::new(job, cache, guide, now));
        }
        for lane in &mut self.lanes {
            lane.restore(engine)?;
        }
        share_out(&mut self.lanes, self.budget, !engine.prefixes.is_off(), &mut self.order);
        self.gather();
        if !self.rows.is_empty() {
            self.forward(engine)?;
        }
        Ok(self.rows.len())
    }

    fn gather(&mut self) {
        self.tokens.clear();
        self.rows.clear();
        self.wanted.clear();
        self.askers.clear();
        self.samples.clear();
        for (sequence, lane) in self.lanes.iter().enumerate() {
            if let Some(question) = lane.feed(sequence, &mut self.tokens, &mut self.rows) {
                let row = question.row;
                self.samples.push(SampleRequest { row: self.wanted.len(), ..question });
                self.wanted.push(row);
                self.askers.push(sequence);
            }
        }
    }

    fn forward(&mut self, engine: &Engine<B>) -> Result<(), BackendError> {
        let (backend, manifest) = (&*engine.backend, &engine.manifest);
        let workspace = match &mut self.workspace {
            Some(workspace) => workspace,
            none => none.insert(Workspace::new(backend, manifest, self.budget, self.capacity)?),
        };
        let mut caches: SmallVec<[&mut B::KvCache; EngineOptions::DEFAULT.lanes]> =
            self.lanes.iter_mut().map(|lane| &mut lane.cache).collect();
        let (tokens, rows, wanted) = (&self.tokens, &self.rows, &self.wanted);
        backend.enter(|| engine.graph.forward(backend, workspace, tokens, rows, &mut caches, wanted))?;
        drop(caches);
        for lane in &mut self.lanes {
            lane.advance(engine)?;
        }
        if self.samples.is_empty() {
            return Ok(());
        }
        backend.sample(workspace.logits(), &self.samples, &mut self.chosen)?;
        for (&lane, &token) in self.askers.iter().zip(&self.chosen) {
            let lane = &mut self.lanes[lane];
            lane.take(Step::of(token, &lane.job.request, manifest));
        }
        Ok(())
    }

    /// Takes the lanes out that have their answer, which frees their caches.
    pub(super) fn finished(&mut self) -> impl Iterator<Item = Lane<B::KvCache>> + '_ {
        self.lanes.extract_if(.., |lane| lane.is_finished())
    }
}
