//! Claims about callers on several threads that share one batch, each brought about and not waited for: something happens in the middle
//! of a step, while others queue.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

#[path = "support/interrupted.rs"]
mod interrupted;

use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};

use interrupted::Interrupted;
use metis_kernels::{BackendError, Sampling, TokenId};
use metis_models::InferenceError;
use metis_models::engine::{Engine, EngineOptions, Generation, InferenceModel, Request, Served};
use metis_models::fixture::Fixture;

type Shared = Arc<Engine<Interrupted>>;

fn engine() -> Shared {
    let fixture = Fixture { hidden: 32, intermediate: 40, layers: 1, ..Fixture::default() };
    let folder = tempfile::tempdir().unwrap();
    let bundle = fixture.bundle(&folder.path().join("checkpoint")).unwrap().into_bundle().unwrap();
    let options = EngineOptions { lanes: 4, rows: 8, prefix_cache_bytes: 0 };
    Arc::new(Engine::load_with(&bundle, Arc::new(Interrupted::default()), options).unwrap())
}

fn request(token: u32, max_new: usize) -> Request {
    Request {
        prompt: vec![TokenId(token)],
        max_new,
        sampling: Sampling::GREEDY,
        stop: Vec::new(),
        constraint: None,
    }
}

fn lost() -> BackendError {
    BackendError::Device { device: "interrupted".into(), reason: "it is lost".into() }
}

/// A caller on a thread of its own.
fn call(engine: &Shared, request: Request) -> JoinHandle<Served> {
    let engine = Arc::clone(engine);
    thread::spawn(move || engine.serve(&[request]).pop().unwrap())
}

/// One caller executes its first step, the other queues meanwhile; then `event` happens in that step and in those after it.
fn while_another_waits(
    engine: &Shared,
    [leads, waits]: [Request; 2],
    mut event: impl FnMut(u64) -> Result<(), BackendError> + Send + 'static,
) -> [JoinHandle<Served>; 2] {
    let (begun, queued) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (in_step, go_on) = (Arc::clone(&begun), Arc::clone(&queued));
    engine.backend().interrupt(move |step| {
        if step == 1 {
            in_step.wait();
            go_on.wait();
        }
        event(step)
    });
    let leader = call(engine, leads);
    begun.wait();
    let follower = call(engine, waits);
    while engine.statistics().waiting == 0 {
        thread::yield_now();
    }
    queued.wait();
    [leader, follower]
}

/// The answer of a request that has the engine to itself.
fn chosen(engine: &Shared, request: &Request) -> Generation {
    engine.generate(request).unwrap()
}

#[test]
fn a_caller_joins_the_batch_that_runs_and_takes_it_over() {
    let engine = engine();
    let requests = [request(20, 4), request(21, 9)];
    let expected = requests.each_ref().map(|request| chosen(&engine, request));
    let [short, long] = expected.each_ref().map(|answer| answer.sampled() as u64);
    assert!(1 < short && short < long, "the fixture does not stop here");
    let before = engine.statistics().steps;

    let [leader, follower] =
        while_another_waits(&engine, requests, |_| Ok(())).map(|caller| caller.join().unwrap());
    let now = |served: &Served| (served.admitted - before, served.finished - before);
    assert_eq!(now(&leader), (0, short));
    // It shares all steps but the first, and goes on when the leader has left.
    assert_eq!(now(&follower), (1, 1 + long));
    assert_eq!(engine.statistics().steps - before, 1 + long);
    assert_eq!([leader.answer.unwrap(), follower.answer.unwrap()], expected);
}

#[test]
fn an_answer_does_not_wait_for_its_leader() {
    let engine = engine();
    let requests = [request(20, 40), request(21, 2)];
    let gone = Arc::new(Barrier::new(2));
    let follower_gone = Arc::clone(&gone);
    // The follower's second token is chosen in the third step; its leader stops in the sixth until the follower is gone.
    let [leader, follower] = while_another_waits(&engine, requests, move |step| {
        if step == 6 {
            follower_gone.wait();
        }
        Ok(())
    });
    follower.join().unwrap().answer.unwrap();
    gone.wait();
    leader.join().unwrap().answer.unwrap();
}

#[test]
fn a_device_that_fails_fails_everybody_and_no_later_caller() {
    let engine = engine();
    let requests = [request(20, 9), request(21, 9)];
    let fails_in = |failing: u64| move |step| if step == failing { Err(lost()) } else { Ok(()) };
    for failing in [1, 3] {
        for caller in while_another_waits(&engine, requests.clone(), fails_in(failing)) {
            let error = caller.join().unwrap().answer.unwrap_err();
            assert!(matches!(error, InferenceError::Backend(BackendError::Device { .. })), "{error}");
        }
        assert_eq!(engine.statistics().waiting, 0);
        chosen(&engine, &requests[0]);
    }
}

#[test]
fn a_leader_that_panics_leaves_nobody_waiting() {
    let engine = engine();
    let requests = [request(20, 9), request(21, 9)];
    for panicking in [1, 3] {
        let event = move |step| if step == panicking { panic!("on purpose") } else { Ok(()) };
        let [leader, follower] = while_another_waits(&engine, requests.clone(), event);
        leader.join().unwrap_err();
        let error = follower.join().unwrap().answer.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        chosen(&engine, &requests[0]);
    }
}

#[test]
fn a_thread_that_executes_a_step_may_ask_again() {
    let engine = engine();
    let (outer, inner) = (request(20, 3), request(21, 5));
    let expected = [chosen(&engine, &outer), chosen(&engine, &inner)];
    let (again, answered) = std::sync::mpsc::channel();
    let asked = Arc::clone(&engine);
    engine.backend().interrupt(move |_| {
        // What a thread pool does that takes up other work while it waits for a step's.
        again.send(asked.generate(&inner).unwrap()).unwrap();
        Ok(())
    });
    assert_eq!(engine.generate(&outer).unwrap(), expected[0]);
    assert_eq!(answered.recv().unwrap(), expected[1]);
}
