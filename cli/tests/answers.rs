//! Records hold the answers of models; `verify` checks them in one pass and says where a forged one differs. No backend and no number
//! of threads changes a bit.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};

const GENERATE: &str =
    "generate(bytes32,bytes,uint32,(uint32,uint32,uint16,uint64),uint32[])(bytes,uint32[],uint8)";
const PROMPT: &str = "0x73656e6420332074686520626f62"; // "send 3 the bob"

fn metisvm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metisvm")).args(arguments).output().unwrap()
}

/// Asks the embedded model something and writes the record to `path`.
fn ask(path: &str, options: &[&str]) -> Value {
    let zero = format!("0x{}", "00".repeat(32));
    let mut arguments = options.to_vec();
    arguments.extend(["--json", "run", "--to", "0x000000000000000000000000000000000000A100"]);
    arguments.extend([
        "--record",
        path,
        "--sol-call",
        GENERATE,
        &zero,
        PROMPT,
        "12",
        "(65536,65536,0,7)",
        "[]",
    ]);
    let output = metisvm(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn verify_checks_recorded_answers_and_says_where_a_forged_one_differs() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    ask(&path("out.json"), &[]);
    let record: Value = serde_json::from_str(&fs::read_to_string(path("out.json")).unwrap()).unwrap();
    let answers = record["answers"].as_object().unwrap();
    assert_eq!(answers.len(), 1);
    let (question, answer) = answers.iter().next().unwrap();
    let tokens = answer["tokens"].as_array().unwrap();
    assert!(tokens.len() > 2, "{answer}");
    assert!(metisvm(&["verify", &path("out.json")]).status.success());

    let verify = |answers: Value| {
        let mut changed = record.clone();
        changed["answers"] = answers;
        fs::write(path("changed.json"), changed.to_string()).unwrap();
        metisvm(&["verify", &path("changed.json")])
    };
    let says = |output: &Output| {
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    // A record without answers, or with those to other questions, is generated again.
    assert!(verify(Value::Null).status.success());
    assert!(verify(json!({ format!("0x{}", "11".repeat(32)): answer })).status.success());

    let mut forged = answer.clone();
    forged["tokens"][2] = json!(tokens[2].as_u64().unwrap() ^ 1);
    let output = verify(json!({ question.as_str(): forged }));
    assert_eq!(output.status.code(), Some(1));
    let message = says(&output);
    assert!(message.contains("NOT identical") && message.contains("at position 2"), "{message}");
    let output = verify(json!({ question.as_str(): { "tokens": [], "finish": "eos" } }));
    assert!(says(&output).contains("at position 0"), "{}", says(&output));

    for malformed in [json!(7), json!({ "0x12": answer }), json!({ question.as_str(): { "tokens": [-1] } })] {
        let output = verify(malformed);
        assert_eq!(output.status.code(), Some(1));
        assert!(says(&output).contains("`answers`"), "{}", says(&output));
    }
}

#[test]
fn no_backend_and_no_thread_count_changes_a_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.json").to_string_lossy().into_owned();
    let record = |options: &[&str]| {
        let answer = ask(&path, options);
        (answer["state_digest"].clone(), answer["outcome"].clone(), fs::read_to_string(&path).unwrap())
    };
    let reference = record(&["--backend", "scalar"]);
    let mut others = 0;
    for backend in ["auto", "avx512", "avxvnni", "avx512vl", "avx2", "neon", "portable"] {
        if !metisvm(&[
            "--backend",
            backend,
            "model",
            "generate",
            "default",
            "--prompt",
            "hi",
            "--max-new",
            "1",
        ])
        .status
        .success()
        {
            println!("skipped: this processor has no {backend}");
            continue;
        }
        for threads in ["1", "2"] {
            assert_eq!(
                record(&["--backend", backend, "--threads", threads]),
                reference,
                "{backend} {threads}"
            );
        }
        others += 1;
    }
    assert!(others >= 2, "auto and portable are everywhere");
}

#[test]
fn a_backend_that_is_unknown_or_missing_is_named() {
    let says = |arguments: &[&str]| {
        let output = metisvm(arguments);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let unknown = says(&["--backend", "sse2", "model", "generate", "default", "--prompt", "hi"]);
    assert!(unknown.contains("sse2") && unknown.contains("auto, scalar"), "{unknown}");
    let elsewhere = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    let missing = says(&["--backend", elsewhere, "model", "generate", "default", "--prompt", "hi"]);
    assert!(missing.contains(elsewhere) && missing.contains("does not have the instructions"), "{missing}");
    let shape = says(&["bench", "model", "--shape", "gpt5"]);
    assert!(shape.contains("smollm2-135m"), "{shape}");
}

#[test]
fn bench_model_measures_a_bundle() {
    let arguments = ["--json", "bench", "model", "default", "--rounds", "1"];
    let output = metisvm(&arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    for field in [
        "decode_tok_s",
        "prefill_tok_s",
        "batch8_tok_s",
        "verify_speedup",
        "bandwidth_fraction",
        "decode_vs_candle",
        "prefill_vs_candle",
        "threads",
    ] {
        assert!(value[field].as_f64().is_some_and(|figure| figure > 0.0), "{field}: {value}");
    }
    assert!(value["backend"].is_string() && value["shape"].is_string());
}
