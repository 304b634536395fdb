//! State tests: those of `data`, whose results were worked out without an EVM (`data/make.py`), and Ethereum's own.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

mod fixtures;

use std::{
    fs,
    io::Write as _,
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
    assert!(!summary.is_success(Interpreter::Fused));
    let reason = |name: &str| {
        let failure = summary.failures.iter().find(|failure| failure.file == data(name)).unwrap();
        assert_eq!((&failure.fork, failure.index), (&None, None));
        (failure.test.clone(), failure.reason.clone())
    };
    let (test, nowhere) = reason("nowhere.json");
    assert!(test.is_none() && nowhere.contains("give the path of a state test"));
    let (test, malformed) = reason("malformed.json");
    assert!(test.is_none() && malformed.starts_with("not JSON (EOF while parsing a value at line 2"));
    let (test, incomplete) = reason("incomplete.json");
    assert_eq!(test.as_deref(), Some("no coinbase"));
    assert!(incomplete.contains("missing field `currentCoinbase`"));
}

/// Runs `transfer.json` after an edit of its text.
fn run_edited(options: &Options, edit: impl FnOnce(String) -> String) -> Summary {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edited.json");
    fs::write(&file, edit(fs::read_to_string(data("transfer.json")).unwrap())).unwrap();
    run(files::find(&[file]), options, &|| {})
}

#[test]
fn a_broken_test_fails_by_name_and_its_neighbours_are_executed() {
    for (broken, says) in [
        (r#"{"transactoin": {}, "env": {}, "pre": {}, "post": {}}"#, "transactoin"),
        (r#"{"posst": {}, "env": {}, "pre": {}, "transaction": {}}"#, "posst"),
        (r#"{"note": "nothing"}"#, "nothing else that is known"),
    ] {
        let summary = run_edited(&options(Interpreter::Fused), |text| {
            text.replacen('{', &format!("{{\"broken\": {broken},"), 1)
        });
        assert_eq!((summary.passed, summary.failed, summary.skipped), (28, 1, 0), "{broken}");
        let [failure] = &summary.failures[..] else { panic!("{:?}", summary.failures) };
        assert_eq!(failure.test.as_deref(), Some("broken"));
        assert!(failure.reason.contains(says), "{}", failure.reason);
        assert!(failure.file.ends_with("edited.json"));
    }
    // A file of another kind beside it stays a skip.
    let summary = run_edited(&options(Interpreter::Fused), |text| {
        text.replacen('{', r#"{"blocks": {"genesisBlockHeader": {}, "pre": {}, "network": ""},"#, 1)
    });
    assert_eq!((summary.passed, summary.failed, summary.skipped), (28, 0, 1));
}

#[test]
fn tests_and_forks_of_the_same_name_are_all_executed() {
    let summary = run_edited(&options(Interpreter::Fused), |text| {
        let body = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap();
        format!("{{{body}, {body}}}")
    });
    assert_eq!((summary.passed, summary.failed), (56, 0));
    let summary = run_edited(&options(Interpreter::Fused), |text| text.replace("\"Shanghai\"", "\"Cancun\""));
    assert_eq!((summary.passed, summary.forks["Cancun"]), (28, 4));
}

#[test]
fn blob_gas_without_a_usable_price_fails_at_once() {
    let price = |excess: &str, fraction: &str| {
        let summary = run_edited(&options(Interpreter::Revm), |text| {
            let blobs = format!(r#"{{"max": "0x6", "baseFeeUpdateFraction": "{fraction}"}}"#);
            text.replace(
                r#""currentExcessBlobGas": "0x00""#,
                &format!(r#""currentExcessBlobGas": "{excess}""#),
            )
            .replacen(
                r#""env""#,
                &format!(r#""config": {{"blobSchedule": {{"Cancun": {blobs}}}}}, "env""#),
                1,
            )
        });
        let failure = summary.failures.iter().find(|failure| failure.fork.as_deref() == Some("Cancun"));
        failure.unwrap().reason.clone()
    };
    assert!(price("0xffffffffffffffff", "0x32f0ed").contains("currentExcessBlobGas"));
    assert!(price("0x7fffffff", "0x1").contains("currentExcessBlobGas"));
    assert!(price("0x0", "0x0").contains("baseFeeUpdateFraction"));
    assert!(price("0x0", "0xffffffffffffffff").contains("baseFeeUpdateFraction"));
}

#[test]
fn an_exception_of_an_unknown_name_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("renamed.json");
    let text = fs::read_to_string(data("rejected.json")).unwrap();
    fs::write(&file, text.replace("INTRINSIC_GAS_TOO_LOW", "INTRINSIC_GAS_TO_LOW")).unwrap();
    let summary = run(files::find(&[file]), &options(Interpreter::Revm), &|| {});
    assert_eq!(summary.failed, 14);
    for failure in &summary.failures {
        let says = "unknown exception name TransactionException.INTRINSIC_GAS_TO_LOW";
        assert!(failure.reason.starts_with(says), "{}", failure.reason);
    }
}

#[test]
fn a_run_of_an_interpreter_that_made_no_program_is_no_success() {
    for interpreter in Interpreter::ALL {
        let always = matches!(interpreter, Interpreter::FusedAlways | Interpreter::Plain);
        // Nobody has code here.
        let transfers = run_data(&["transfer.json"], &options(interpreter));
        assert_eq!((transfers.failed, transfers.programs_made), (0, 0));
        assert_eq!(transfers.is_success(interpreter), !always, "{interpreter}");
        let problem = transfers.problem(interpreter).unwrap_or_default();
        assert_eq!(problem.contains("no program was made"), always, "{interpreter}: {problem}");

        let code = run_data(&["loop.json"], &options(interpreter));
        assert!(code.is_success(interpreter), "{interpreter}: {code:?}");
        assert!(code.programs_made > 0 || !always, "{interpreter}");
    }
}

#[test]
fn what_is_not_executed_is_named_with_its_reason() {
    let summary =
        run_data(&["skipped.json", "blockchain.json", "nothing.json"], &options(Interpreter::Fused));
    assert_eq!((summary.passed, summary.failed, summary.skipped), (0, 0, 8));
    assert!(summary.problem(Interpreter::Fused).unwrap().contains("nothing was executed"));
    assert!(!summary.is_success(Interpreter::Fused));
    let skips =
        |name: &str| -> Vec<&Skip> { summary.skips.iter().filter(|skip| skip.file == data(name)).collect() };
    let [blocks] = skips("blockchain.json")[..] else { panic!("{:?}", summary.skips) };
    assert_eq!((&*blocks.reason, blocks.tests), ("blockchain tests, not a state test", 1));
    assert_eq!(skips("nothing.json")[0].reason, "no subtests in it");
    let [constantinople, transition, unknown] = skips("skipped.json")[..] else {
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
        Summary { programs_made: 0, ..summary }
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

/// Files that make BLAKE2's precompile do all rounds that it allows and take minutes for it; they are executed by
/// `metisvm statetest`, which leaves out nothing.
const TOO_LONG: &str = "CALLBlake2f_MaxRounds.json";

#[test]
fn ethereums_own_tests_pass_fused_and_plain() {
    let Some(folder) = fixtures::unpack("ethereum-tests.tar.zst") else { return };
    let mut found = files::find(&[folder.path().join("metisvm-conf/state")]);
    let left_out: Vec<PathBuf> = found.files.extract_if(.., |file| file.ends_with(TOO_LONG)).collect();
    for file in &left_out {
        // Past the test runner's capture: what is left out must be seen.
        let file = file.strip_prefix(folder.path()).unwrap().display();
        let _ = writeln!(std::io::stderr(), "left out: {file} (minutes of BLAKE2 rounds in a precompile)");
    }
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    assert!(found.files.len() > 5_000);

    let mut forks = None;
    for (interpreter, hot_gas) in
        [(Interpreter::FusedAlways, None), (Interpreter::Plain, None), (Interpreter::Fused, Some(1))]
    {
        let default = FusionConfig { interpreter, ..FusionConfig::default() };
        let config = FusionConfig { hot_gas: hot_gas.unwrap_or(default.hot_gas), ..default };
        let options = Options { cache: FusionCache::new(config), ..options(interpreter) };
        let summary = run(found.clone(), &options, &|| {});
        assert_eq!(summary.failures, [], "{interpreter}");
        assert!(summary.skips.iter().all(|skip| skip.reason.starts_with("fork Constantinople")));
        assert_eq!(summary.forks.len(), 14, "{:?}", summary.forks);
        assert_eq!(forks.get_or_insert_with(|| summary.forks.clone()), &summary.forks);
        // Otherwise this would be a test of revm.
        assert!(summary.programs_made > 0, "{interpreter}");
        let _ = writeln!(std::io::stderr(), "{interpreter}: {} programs made", summary.programs_made);
    }
}
