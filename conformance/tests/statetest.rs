//! State tests: those of `data`, whose results were worked out without an EVM (`data/make.py`), and Ethereum's own.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

mod fixtures;

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use metis_conformance::statetest::{Options, Skip, Summary, files, run};
use metis_vm::{FusionCache, FusionConfig, Interpreter};

fn options(interpreter: Interpreter) -> Options {
    let config = FusionConfig { interpreter, ..FusionConfig::default() };
    Options { cache: FusionCache::new(config), jobs: thread::available_parallelism().unwrap(), filter: None }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn run_data(names: &[&str], options: &Options) -> Summary {
    let paths: Vec<PathBuf> = names.iter().map(|name| data(name)).collect();
    run(files::find(&paths), options, &|| {})
}

#[test]
fn results_worked_out_by_hand_are_those_of_every_interpreter() {
    let names = ["transfer.json", "loop.json", "rejected.json", "collision.json"];
    for interpreter in Interpreter::ALL {
        let summary = run_data(&names, &options(interpreter));
        assert_eq!((&*summary.failures, &*summary.skips), (&[][..], &[][..]), "{interpreter}");
        assert_eq!((summary.passed, summary.executed()), (90, 90), "{interpreter}");
    }
}

#[test]
fn whatever_is_wrong_fails_by_name() {
    for interpreter in [Interpreter::Revm, Interpreter::FusedAlways] {
        let summary = run_data(&["wrong.json"], &options(interpreter));
        assert_eq!((summary.passed, summary.failed, summary.executed()), (0, 6, 6));
        let reason = |test: &str| {
            let failure =
                summary.failures.iter().find(|failure| failure.test.as_deref() == Some(test)).unwrap();
            assert_eq!((failure.file.clone(), failure.fork.as_deref()), (data("wrong.json"), Some("Cancun")));
            assert_eq!(failure.index, Some(0));
            failure.reason.clone()
        };
        let root = reason("wrong root");
        assert!(root.contains("state root 0x") && root.contains("gas used 21000"), "{root}");
        assert!(
            root.contains("account 0xa94f5374Fce5edBC8E2a8697C15331677e6EbF0B: nonce 1, should be 0"),
            "{root}"
        );
        assert_eq!(root.contains("revm's interpreter"), interpreter != Interpreter::Revm, "{root}");
        assert!(reason("wrong logs").starts_with("logs hash 0x"));
        assert!(reason("rejected").starts_with("rejected (call gas cost (21000) exceeds"));
        assert!(
            reason("not rejected").starts_with("executed, should be rejected (TransactionException.SENDER")
        );
        assert!(reason("rejected for another reason").starts_with("rejected for another reason (call gas"));
        assert!(reason("no such part").contains("no gasLimit with index 1"));
    }
}

#[test]
fn files_that_cannot_be_read_fail_and_the_others_are_executed() {
    let names = ["nowhere.json", "malformed.json", "transfer.json", "incomplete.json"];
    let summary = run_data(&names, &options(Interpreter::Fused));
    assert_eq!((summary.passed, summary.failed, summary.skipped), (28, 3, 0));
    assert!(!summary.is_success());
    let reason = |name: &str| {
        let failure = summary.failures.iter().find(|failure| failure.file == data(name)).unwrap();
        assert_eq!((&failure.test, &failure.fork, failure.index), (&None, &None, None));
        failure.reason.clone()
    };
    assert!(reason("nowhere.json").contains("give the path of a state test"));
    assert!(reason("malformed.json").starts_with("not JSON (EOF while parsing a value at line 2"));
    assert!(reason("incomplete.json").contains("missing field `currentCoinbase`"));
}

#[test]
fn what_is_not_executed_is_named_with_its_reason() {
    let summary =
        run_data(&["skipped.json", "blockchain.json", "nothing.json"], &options(Interpreter::Fused));
    assert_eq!((summary.passed, summary.failed, summary.skipped), (0, 0, 8));
    assert!(!summary.is_success(), "nothing was executed");
    let skips =
        |name: &str| -> Vec<&Skip> { summary.skips.iter().filter(|skip| skip.file == data(name)).collect() };
    let [blocks] = skips("blockchain.json")[..] else { panic!("{:?}", summary.skips) };
    assert_eq!((&*blocks.reason, blocks.tests), ("blockchain tests, not a state test", 1));
    assert_eq!(skips("nothing.json")[0].reason, "no subtests in it");
    let [constantinople, unknown, transition] = skips("skipped.json")[..] else {
        panic!("{:?}", summary.skips)
    };
    assert!(constantinople.reason.contains("EIP-1283") && constantinople.tests == 2);
    assert!(unknown.reason.contains("Ossaka") && unknown.tests == 2);
    assert!(transition.reason.contains("ShanghaiToCancunAtTime15k") && transition.tests == 2);
}

#[test]
fn the_summary_does_not_depend_on_the_number_of_threads() {
    let [one, four] = [1, 4].map(|jobs| {
        let options = Options { jobs: NonZero::new(jobs).unwrap(), ..options(Interpreter::Fused) };
        let done = AtomicUsize::new(0);
        let summary = run(files::find(&[data("")]), &options, &|| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 10);
        summary
    });
    assert_eq!((one.passed, one.failed, one.skipped), (90, 8, 9));
    assert_eq!(one, four);
}

#[test]
fn a_filter_selects_by_file_and_by_name() {
    let filtered = |filter: &str| {
        let options = Options { filter: Some(filter.to_owned()), ..options(Interpreter::Fused) };
        run_data(&["transfer.json", "rejected.json"], &options).executed()
    };
    assert_eq!(filtered("transfer.json"), 28);
    assert_eq!(filtered("set code"), 3);
    assert_eq!(filtered("no such name"), 0);
}

/// All but one file, which makes BLAKE2's precompile do all rounds that it allows and takes minutes for it; that one is
/// executed by `metisvm statetest`, which leaves out nothing.
#[test]
fn ethereums_own_tests_pass_fused_and_plain() {
    let Some(folder) = fixtures::unpack("ethereum-tests.tar.zst") else { return };
    let mut found = files::find(&[folder.path().join("metisvm-conf/state")]);
    found.files.retain(|file| !file.ends_with("CALLBlake2f_MaxRounds.json"));
    assert!(found.files.len() > 5_000);

    let mut forks = None;
    for interpreter in [Interpreter::FusedAlways, Interpreter::Plain] {
        let summary = run(found.clone(), &options(interpreter), &|| {});
        assert_eq!(summary.failures, [], "{interpreter}");
        assert!(summary.skips.iter().all(|skip| skip.reason.starts_with("fork Constantinople")));
        assert_eq!(summary.forks.len(), 14, "{:?}", summary.forks);
        assert_eq!(forks.get_or_insert_with(|| summary.forks.clone()), &summary.forks);
    }
}
