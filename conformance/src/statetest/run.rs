//! Many files on many threads.

use super::{
    files::{Found, unreadable},
    rules,
    subtest::Subtest,
    suite::{self, Entry, Post, SuiteError, Test},
    summary::{Failure, Skip, Summary},
    world::World,
};
use metis_vm::{FusionCache, SpecId};
use revm::context::{BlockEnv, CfgEnv};
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
    let made_before = options.cache.stats().made;
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
    // Programs are made in the background, too.
    options.cache.wait();
    all.programs_made = options.cache.stats().made.saturating_sub(made_before);
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
    let skip = |reason: String| Skip { file: file.to_path_buf(), reason, tests: 1 };
    let suite = match suite::parse(&text) {
        Ok(suite) => suite,
        Err(error @ SuiteError::NoObject) => {
            summary.skip(skip(error.to_string()));
            return summary;
        }
        Err(error @ SuiteError::Malformed(_)) => {
            summary.fail(fail(error.to_string()));
            return summary;
        }
    };
    if suite.is_empty() {
        summary.skip(skip("no subtests in it".to_owned()));
    }
    let selected = options.filter.as_deref().map(|filter| (filter, file.to_string_lossy().contains(filter)));
    let has_tests = suite.iter().any(|(_, entry)| matches!(entry, Entry::Test(_) | Entry::Unreadable(_)));
    for (name, entry) in suite {
        let selected = selected.is_none_or(|(filter, by_file)| by_file || name.contains(filter));
        match entry {
            Entry::Test(test) if test.post.0.iter().all(|(_, posts)| posts.is_empty()) => {
                summary.skip(skip("no subtests in it".to_owned()));
            }
            Entry::Test(test) if selected => run_test(file, &name, &test, &options.cache, &mut summary),
            Entry::Unreadable(error) if selected => {
                let reason = format!("not a readable state test ({error}): fill it again, or leave it out");
                summary.fail(Failure { test: Some(name), ..fail(reason) });
            }
            Entry::Unknown if has_tests && selected => {
                let reason = "not a state test, and nothing else that is known".to_owned();
                summary.fail(Failure { test: Some(name), ..fail(reason) });
            }
            Entry::AnotherKind(kind) => summary.skip(skip(format!("{kind}, not a state test"))),
            Entry::Unknown if !has_tests => {
                summary.skip(skip("something unknown, not a state test".to_owned()));
            }
            Entry::Test(_) | Entry::Unreadable(_) | Entry::Unknown => {}
        }
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
    let world = match unpanicked(|| World::new(&test.pre)) {
        Ok(world) => world,
        Err(problem) => return summary.fail(failure(None, None, problem)),
    };
    for (fork, posts) in &test.post.0 {
        let spec = match rules::fork_by_name(fork) {
            Ok(spec) => spec,
            Err(reason) => {
                summary.skip(Skip { file: file.to_path_buf(), reason, tests: posts.len() as u64 });
                continue;
            }
        };
        let (cfg, block) = match unpanicked(|| rules(fork, spec, test)) {
            Ok(rules) => rules,
            Err(problem) => {
                summary.fail(failure(Some(fork), None, problem));
                continue;
            }
        };
        summary.execute(fork, posts.len());
        for (index, post) in posts.iter().enumerate() {
            match unpanicked(|| check(&world, &cfg, &block, test, post, cache)) {
                Ok(()) => summary.passed += 1,
                Err(problem) => summary.fail(failure(Some(fork), Some(index), problem)),
            }
        }
    }
}

fn rules(fork: &str, spec: SpecId, test: &Test<'_>) -> Result<(CfgEnv, BlockEnv), String> {
    let cfg = rules::configuration(fork, spec, &test.env, &test.config)?;
    let block = rules::block(spec, &test.env, &cfg)?;
    Ok((cfg, block))
}

fn check(
    world: &World,
    cfg: &CfgEnv,
    block: &BlockEnv,
    test: &Test<'_>,
    post: &Post<'_>,
    cache: &FusionCache,
) -> Result<(), String> {
    let tx = test.transaction.choose(post.indexes, cfg.chain_id);
    Subtest { world, cfg, block, tx, post }.check(cache)
}

/// A panic is the failure of one test or subtest; what it leaves behind is not used again.
fn unpanicked<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(format!("panicked: {}", message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_with_its_message() {
        assert_eq!(unpanicked(|| Ok(1)), Ok(1));
        assert_eq!(unpanicked::<()>(|| panic!("lost")), Err("panicked: lost".to_owned()));
    }
}
