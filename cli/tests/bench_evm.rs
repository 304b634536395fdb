//! `metisvm bench evm`: what it prints, and what it refuses. Nothing here depends on how fast anything is.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Counts down from 256 and returns nothing: `PUSH2 256, JUMPDEST, PUSH1 1, SWAP1, SUB, DUP1, PUSH1 3, JUMPI, STOP`.
fn countdown() -> Value {
    json!({
        "name": "countdown", "group": "evm-bench", "code_hex": "6101005b600190038060035700",
        "calldata_hex": "", "storage": {}, "expected_status": "Stop", "expected_return_hex": "",
        "gas_used": 3 + 256 * 26, "spec": "PRAGUE",
    })
}

/// Returns the hash of its input: `CALLDATASIZE, PUSH0, PUSH0, CALLDATACOPY, CALLDATASIZE, PUSH0, KECCAK256, ...`.
fn hash() -> Value {
    json!({
        "name": "hash", "group": "own/micro", "code_hex": "0x365f5f37365f205f5260205ff3", "calldata_hex": "0x",
        "expected_status": "Return",
        "expected_return_hex": "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
        "gas_used": 2 + 2 + 2 + 3 + 2 + 2 + 30 + 2 + 6 + 3 + 2, "spec": "Cancun",
    })
}

fn bench(rows: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("contracts.json");
    fs::write(&file, rows).unwrap();
    Command::new(env!("CARGO_BIN_EXE_metisvm"))
        .args(["bench", "evm", file.to_str().unwrap(), "--rounds", "1"])
        .args(arguments)
        .output()
        .unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn json_has_every_figure_of_every_contract() {
    let output = bench(&json!([countdown(), hash()]).to_string(), &["--json"]);
    let document = document(&output);
    assert!(output.status.success(), "{document}");
    assert_eq!(document["rows"].as_array().unwrap().len(), 2);
    for (row, name) in document["rows"].as_array().unwrap().iter().zip(["countdown", "hash"]) {
        assert_eq!(row["name"], name);
        assert_eq!((&row["gas_equal"], &row["output_equal"]), (&json!(true), &json!(true)));
        for figure in [
            "fused_vs_revm",
            "plain_vs_revm",
            "cold_vs_revm",
            "min_fused_vs_revm",
            "dispatch_fraction",
            "revm_us",
            "analysis_us",
        ] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{figure} in {row}");
        }
    }
    for mean in ["geomean_fused_vs_revm", "geomean_plain_vs_revm", "geomean_all_fused_vs_revm"] {
        assert!(document[mean].as_f64().unwrap() > 0.0, "{mean} in {document}");
    }
    // One contract only is in an evm-bench group and no micro-benchmark: the mean is its own figure.
    let (mean, row) = (&document["geomean_fused_vs_revm"], &document["rows"][0]["fused_vs_revm"]);
    assert!((mean.as_f64().unwrap() / row.as_f64().unwrap() - 1.0).abs() < 1e-9, "{mean} {row}");
}

#[test]
fn text_has_a_line_for_every_contract_and_the_means() {
    let output = bench(&json!([countdown(), hash()]).to_string(), &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.lines().any(|line| line.starts_with("countdown  evm-bench")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("hash       own/micro")), "{text}");
    assert!(text.contains("geometric means"), "{text}");
}

#[test]
fn the_filter_selects_by_name_or_group() {
    let rows = json!([countdown(), hash()]).to_string();
    for (filter, name) in [("count", "countdown"), ("micro", "hash")] {
        let document = document(&bench(&rows, &["--json", "--filter", filter]));
        assert_eq!(document["rows"].as_array().unwrap().len(), 1);
        assert_eq!(document["rows"][0]["name"], name);
    }
}

#[test]
fn a_result_that_is_not_as_expected_is_exit_code_1() {
    let mut wrong_gas = countdown();
    wrong_gas["gas_used"] = json!(1);
    let output = bench(&json!([wrong_gas]).to_string(), &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let row = &document(&output)["rows"][0];
    assert_eq!((&row["gas_equal"], &row["output_equal"]), (&json!(false), &json!(true)));

    let mut wrong_output = hash();
    wrong_output["expected_return_hex"] = json!("00");
    let output = bench(&json!([wrong_output]).to_string(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("hash: fused: output 0xc5d2") && text.contains("expected 0x00"), "{text}");
}

#[test]
fn wrong_inputs_are_named() {
    let refused = |rows: &str, arguments: &[&str], says: &[&str]| {
        let output = bench(rows, arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{rows} succeeded");
        assert!(!message.contains("panicked"), "{message}");
        for part in says {
            assert!(message.contains(part), "{message:?} does not say {part:?}");
        }
    };
    let with = |field: &str, value: Value| {
        let mut row = hash();
        row[field] = value;
        json!([countdown(), row]).to_string()
    };
    refused("[{]", &[], &["contracts.json", "not JSON", "line 1"]);
    refused("{}", &[], &["contracts.json", "not a JSON array"]);
    refused("[]", &[], &["no contracts"]);
    refused(&with("code_hex", json!("60 00")), &[], &["row 2 (`hash`)", "`code_hex`"]);
    refused(&with("spec", json!("Plague")), &[], &["row 2 (`hash`)", "`spec`", "Prague"]);
    refused(&with("expected_status", json!("Done")), &[], &["row 2 (`hash`)", "`expected_status`", "Return"]);
    refused(&json!([hash()]).to_string(), &["--filter", "nothing"], &["`nothing`"]);
    refused("[]", &["--rounds", "0"], &["--rounds"]);

    let output =
        Command::new(env!("CARGO_BIN_EXE_metisvm")).args(["bench", "evm", "absent.json"]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("absent.json"));
}
