//! One running batch for all callers of an engine.
//!
//! A caller queues its requests. If nobody executes the batch, the caller does, step by step, for everybody, until its own answers are there;
//! the others are parked and are woken when an answer arrives or the batch is free. What a request shares its steps with cannot change its
//! answer, as no kernel's row depends on another row, and cannot fail it: requests are checked before they queue, and what fails after that is
//! the device.

mod batch;
mod lane;
mod shares;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use metis_kernels::{Backend, BackendError};

use super::{Engine, EngineOptions, Finish, Generation, InferenceError, Request};
use batch::Batch;
use lane::Job;

/// An answer, and when it was worked on, in steps of the engine since it was loaded.
#[derive(Debug)]
pub struct Served {
    /// The answer.
    pub answer: Result<Generation, InferenceError>,
    /// Steps that had been executed when the request began.
    pub admitted: u64,
    /// Steps that had been executed when the answer was there.
    pub finished: u64,
}

/// What an engine has done since it was loaded, and what it has yet to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Steps of generation.
    pub steps: u64,
    /// Rows that those steps fed.
    pub rows: u64,
    /// Positions of prompts that were copied instead of computed, whatever asked for them.
    pub restored: u64,
    /// Requests that wait to begin.
    pub waiting: usize,
}

/// The batch of an engine and the queue before it.
#[derive(Debug)]
pub(super) struct Scheduler<B: Backend> {
    options: EngineOptions,
    queue: Mutex<Queue<B>>,
    /// An answer has arrived, or the batch is free.
    changed: Condvar,
}

#[derive(Debug)]
struct Queue<B: Backend> {
    waiting: VecDeque<Job>,
    /// The callers that have not left, by number.
    calls: BTreeMap<u64, Call>,
    last_call: u64,
    /// Nothing while a caller has it and executes a step.
    batch: Option<Batch<B>>,
    steps: u64,
    rows: u64,
}

/// The answers of one caller.
#[derive(Debug)]
struct Call {
    answers: Vec<Option<Served>>,
    missing: usize,
}

thread_local! {
    /// Whether this thread executes a step.
    static LEADING: Cell<bool> = const { Cell::new(false) };
}

impl<B: Backend> Scheduler<B> {
    pub(super) fn new(options: EngineOptions) -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            calls: BTreeMap::new(),
            last_call: 0,
            batch: Some(Batch::new(options.limits())),
            steps: 0,
            rows: 0,
        };
        Self { options, queue: Mutex::new(queue), changed: Condvar::new() }
    }

    /// What it has done and has to do; the prefix cache counts for itself.
    pub(super) fn statistics(&self, restored: u64) -> Statistics {
        let queue = self.lock();
        Statistics { steps: queue.steps, rows: queue.rows, restored, waiting: queue.waiting.len() }
    }

    /// Answers requests, together with those of other callers.
    pub(super) fn serve(&self, engine: &Engine<B>, requests: &[Request]) -> Vec<Served> {
        if LEADING.get() {
            // The thread executes a step, and the pool that it came from has given it this call in the meantime: it cannot wait for itself.
            return Self::new(self.options).join(engine, requests);
        }
        self.join(engine, requests)
    }

    fn join(&self, engine: &Engine<B>, requests: &[Request]) -> Vec<Served> {
        let checked: Vec<_> = requests.iter().map(|request| engine.check(request)).collect();
        let mut queue = self.lock();
        let call = queue.enter(requests, checked);
        loop {
            if let Some(answers) = queue.collect(call) {
                return answers;
            }
            queue = match queue.batch.take() {
                Some(batch) => self.step(engine, call, batch, queue),
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Executes a step for everybody and puts the batch back.
    fn step<'a>(
        &'a self,
        engine: &Engine<B>,
        call: u64,
        mut batch: Batch<B>,
        mut queue: MutexGuard<'a, Queue<B>>,
    ) -> MutexGuard<'a, Queue<B>> {
        let beginning = batch.free().min(queue.waiting.len());
        let jobs: Vec<Job> = queue.waiting.drain(..beginning).collect();
        let now = queue.steps;
        drop(queue);
        let outcome = leading(|| batch.step(engine, jobs, now));

        let mut queue = self.lock();
        queue.steps += 1;
        let mut panic = None;
        match outcome {
            Ok(Ok(rows)) => {
                queue.rows += rows as u64;
                if queue.deliver(&mut batch) {
                    self.changed.notify_all();
                }
            }
            Ok(Err(error)) => batch = self.give_up(engine, &mut queue, &error),
            Err(payload) => {
                queue.calls.remove(&call);
                let reason = "a thread panicked in the middle of a step".to_owned();
                let error = BackendError::Device { device: engine.backend.name(), reason };
                batch = self.give_up(engine, &mut queue, &error);
                panic = Some(payload);
            }
        }
        queue.batch = Some(batch);
        if let Some(payload) = panic {
            drop(queue);
            resume_unwind(payload);
        }
        queue
    }

    /// The device has failed: nobody who waits gets another answer than that. Returns a batch for whoever comes next.
    fn give_up(&self, engine: &Engine<B>, queue: &mut Queue<B>, error: &BackendError) -> Batch<B> {
        engine.prefixes.clear();
        queue.waiting.clear();
        self.changed.notify_all();
        let now = queue.steps;
        for call in queue.calls.values_mut() {
            call.missing = 0;
            for answer in call.answers.iter_mut().filter(|answer| answer.is_none()) {
                *answer = Some(Served { answer: Err(error.clone().into()), admitted: now, finished: now });
            }
        }
        Batch::new(self.options.limits())
    }

    fn lock(&self) -> MutexGuard<'_, Queue<B>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `f` as the thread that executes a step.
fn leading<R>(f: impl FnOnce() -> R) -> thread::Result<R> {
    let outer = LEADING.replace(true);
    // What a panic leaves behind is thrown away.
    let result = catch_unwind(AssertUnwindSafe(f));
    LEADING.set(outer);
    result
}

impl<B: Backend> Queue<B> {
    /// Registers a caller: what can be answered at once is, the rest queues.
    fn enter(&mut self, requests: &[Request], checked: Vec<Result<(), InferenceError>>) -> u64 {
        self.last_call += 1;
        let (call, now) = (self.last_call, self.steps);
        let mut answers = Vec::with_capacity(requests.len());
        for (index, (request, checked)) in requests.iter().zip(checked).enumerate() {
            let answer = match checked {
                Err(error) => Some(Err(error)),
                Ok(()) if request.max_new == 0 => {
                    Some(Ok(Generation { tokens: Vec::new(), finish: Finish::Length }))
                }
                Ok(()) => {
                    self.waiting.push_back(Job { call, index, request: request.clone() });
                    None
                }
            };
            answers.push(answer.map(|answer| Served { answer, admitted: now, finished: now }));
        }
        let missing = answers.iter().filter(|answer| answer.is_none()).count();
        self.calls.insert(call, Call { answers, missing });
        call
    }

    /// A caller's answers, if they are all there.
    fn collect(&mut self, call: u64) -> Option<Vec<Served>> {
        if self.calls.get(&call).is_some_and(|call| call.missing > 0) {
            return None;
        }
        let answers = self.calls.remove(&call).map(|call| call.answers).unwrap_or_default();
        Some(answers.into_iter().flatten().collect())
    }

    /// Brings the answers of a step to their callers; whether there are any.
    fn deliver(&mut self, batch: &mut Batch<B>) -> bool {
        let mut any = false;
        for lane in batch.finished() {
            let admitted = lane.admitted;
            let (job, answer) = lane.answer();
            if let Some(call) = self.calls.get_mut(&job.call) {
                call.missing -= 1;
                call.answers[job.index] = Some(Served { answer: Ok(answer), admitted, finished: self.steps });
            }
            any = true;
        }
        any
    }
}
