//! Many files on many threads.

use super::{
    files::{Found, unreadable},
    rules,
    subtest::Subtest,
    suite::{self, SuiteError, Test},
    summary::{Failure, Skip, Summary},
    world::World,
};
use metis_vm::FusionCache;
use std::{
    any::Any,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The programs, shared by all threads; it also names the interpreter.
    pub cache: FusionCache,
    /// How many threads.
    pub jobs: NonZero<usize>,
    /// Only tests whose file or name contains this.
    pub filter: Option<String>,
}

/// Executes all tests in the files. `done` is called after each file, from any thread.
///
/// A file is read when a thread turns to it and dropped after that, so that memory does not grow with the number of
/// files.
pub fn run(found: Found, options: &Options, done: &(dyn Fn() + Sync)) -> Summary {
    let next = AtomicUsize::new(0);
    let finished = Mutex::new(Vec::new());
    let work = || {
        while let Some((place, file)) = {
            let place = next.fetch_add(1, Ordering::Relaxed);
            found.files.get(place).map(|file| (place, file))
        } {
            let summary = run_file(file, options);
            finished.lock().unwrap_or_else(PoisonError::into_inner).push((place, summary));
            done();
        }
    };
    thread::scope(|scope| {
        for _ in 0..options.jobs.get().min(found.files.len()) {
            scope.spawn(work);
        }
    });

    let mut finished = finished.into_inner().unwrap_or_else(PoisonError::into_inner);
    finished.sort_by_key(|(place, _)| *place);
    let mut all = found.problems;
    for (_, summary) in finished {
        all.append(summary);
    }
    all
}

fn run_file(file: &Path, options: &Options) -> Summary {
    let mut summary = Summary::default();
    let fail = |reason| Failure { file: file.to_path_buf(), test: None, fork: None, index: None, reason };
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            summary.fail(fail(unreadable(&error)));
            return summary;
        }
    };
    let selected = options.filter.as_deref().map(|filter| (filter, file.to_string_lossy().contains(filter)));
    match suite::parse(&text) {
        Ok(suite) => {
            if suite.values().all(|test| test.post.values().all(Vec::is_empty)) {
                let reason = "no subtests in it".to_owned();
                summary.skip(Skip { file: file.to_path_buf(), reason, tests: 1 });
            }
            for (name, test) in suite {
                if selected.is_none_or(|(filter, by_file)| by_file || name.contains(filter)) {
                    run_test(file, &name, &test, &options.cache, &mut summary);
                }
            }
        }
        Err(SuiteError::AnotherKind { kind, tests }) => {
            let reason = SuiteError::AnotherKind { kind, tests }.to_string();
            summary.skip(Skip { file: file.to_path_buf(), reason, tests });
        }
        Err(error) => summary.fail(fail(error.to_string())),
    }
    summary
}

fn run_test(file: &Path, name: &str, test: &Test<'_>, cache: &FusionCache, summary: &mut Summary) {
    let failure = |fork: Option<&str>, index, reason| Failure {
        file: file.to_path_buf(),
        test: Some(name.to_owned()),
        fork: fork.map(str::to_owned),
        index,
        reason,
    };
    let world = match World::new(&test.pre) {
        Ok(world) => world,
        Err(problem) => return summary.fail(failure(None, None, problem)),
    };
    for (fork, posts) in &test.post {
        let spec = match rules::fork_by_name(fork) {
            Ok(spec) => spec,
            Err(reason) => {
                summary.skip(Skip { file: file.to_path_buf(), reason, tests: posts.len() as u64 });
                continue;
            }
        };
        let rules = rules::configuration(fork, spec, &test.env, &test.config)
            .and_then(|cfg| rules::block(spec, &test.env, &cfg).map(|block| (cfg, block)));
        let (cfg, block) = match rules {
            Ok(rules) => rules,
            Err(problem) => {
                summary.fail(failure(Some(fork), None, problem.to_owned()));
                continue;
            }
        };
        summary.execute(fork, posts.len());
        for (index, post) in posts.iter().enumerate() {
            let subtest = Subtest {
                world: &world,
                cfg: &cfg,
                block: &block,
                tx: test.transaction.choose(post.indexes, cfg.chain_id),
                post,
            };
            // A panic is the failure of one subtest; what it leaves behind is not used again.
            let verdict = catch_unwind(AssertUnwindSafe(|| subtest.check(cache)))
                .unwrap_or_else(|panic| Err(format!("panicked: {}", message(&*panic))));
            match verdict {
                Ok(()) => summary.passed += 1,
                Err(problem) => summary.fail(failure(Some(fork), Some(index), problem)),
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
