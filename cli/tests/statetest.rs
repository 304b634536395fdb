//! `metisvm statetest`: what it prints, and what it answers to wrong inputs.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::process::{Command, Output};

use serde_json::Value;

fn statetest(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metisvm"));
    // The tests of the library, which explains them.
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/tests/data"));
    command.arg("statetest").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!message.contains("panicked"), "{message}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&text(output)).unwrap()
}

#[test]
fn every_interpreter_passes() {
    for interpreter in ["fused", "fused-always", "plain", "revm"] {
        let output = statetest(&["transfer.json", "loop.json", "--interpreter", interpreter, "--json"]);
        assert!(output.status.success());
        let answer = json(&output);
        assert_eq!(answer["interpreter"], interpreter);
        assert_eq!((&answer["passed"], &answer["failed"]), (&Value::from(43), &Value::from(0)));
        assert_eq!(answer["forks"]["London"], 5);
        assert_eq!(answer["problem"], Value::Null);
        let made = answer["programs_made"].as_u64().unwrap();
        assert!(made > 0 || ["fused", "revm"].contains(&interpreter), "{interpreter}");
    }
}

#[test]
fn failures_and_skips_are_told_in_json_and_in_text() {
    let paths = ["wrong.json", "skipped.json", "malformed.json", "nowhere.json", "transfer.json"];
    let output = statetest(&[&paths[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let answer = json(&output);
    assert_eq!(
        [&answer["passed"], &answer["failed"], &answer["skipped"]],
        [&Value::from(28), &Value::from(8), &Value::from(6)]
    );
    let failures = answer["failures"].as_array().unwrap();
    let root = failures.iter().find(|failure| failure["test"] == "wrong root").unwrap();
    assert_eq!(
        (&root["file"], &root["fork"], &root["index"]),
        (&"wrong.json".into(), &"Cancun".into(), &0.into())
    );
    let malformed = failures.iter().find(|failure| failure["file"] == "malformed.json").unwrap();
    assert_eq!(malformed["test"], Value::Null);
    assert_eq!(answer["skips"][0]["file"], "skipped.json");

    let output = statetest(&paths);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    for part in [
        "FAILED wrong.json\n    test wrong root\n    fork Cancun, subtest 0\n    state root 0x",
        "FAILED malformed.json\n    not JSON (EOF",
        "FAILED nowhere.json\n    cannot be read (",
        "skipped 2: fork Ossaka: unknown to revm\n    skipped.json (2)\n",
        "28 passed, 8 failed, 6 skipped (interpreter fused)\n0 programs made\n",
    ] {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[test]
fn a_run_that_executes_nothing_is_no_success() {
    for arguments in [&["blockchain.json"][..], &["transfer.json", "--filter", "no such name"]] {
        let output = statetest(arguments);
        assert_eq!(output.status.code(), Some(1));
        let text = text(&output);
        assert!(text.contains("0 passed, 0 failed") && text.contains("nothing was executed"), "{text}");
    }
}

#[test]
fn a_run_that_makes_no_program_is_no_success() {
    let output = statetest(&["transfer.json", "--interpreter", "plain"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("28 passed, 0 failed") && said.contains("FAILED: no program was made"), "{said}");
    let output = statetest(&["transfer.json", "--interpreter", "fused-always", "--json"]);
    let answer = json(&output);
    assert_eq!(answer["programs_made"], 0);
    assert!(answer["problem"].as_str().unwrap().contains("no program was made"));
}

#[test]
fn a_broken_file_is_no_success() {
    let output = statetest(&["incomplete.json", "transfer.json"]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(text.contains("FAILED incomplete.json\n    test no coinbase\n    not a readable"), "{text}");
    assert!(text.contains("28 passed, 1 failed, 0 skipped"), "{text}");
}

#[test]
fn wrong_options_are_refused_with_what_is_right() {
    let refused = |arguments: &[&str], says: &str| {
        let output = statetest(arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(says), "{message:?} does not say {says:?}");
    };
    refused(&[], "<PATH>");
    refused(&["transfer.json", "--interpreter", "fast"], "known: fused, fused-always, plain, revm");
    refused(&["transfer.json", "--jobs", "0"], "1..=1024");
    refused(&["transfer.json", "--chain", "chain.toml"], "statetest executes without a chain configuration");
}
