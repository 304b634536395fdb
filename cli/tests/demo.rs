//! The main job as a program sees it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::process::Command;

use serde_json::Value;

fn demo(threads: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_metisvm"))
        .args(["demo", "--json", "--threads", threads])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_demo_is_identical_with_one_and_two_threads_and_when_reexecuted() {
    let [one, two] = ["1", "2"].map(demo);
    for demo in [&one, &two] {
        assert_eq!(demo["reexecution"], "identical");
        assert_eq!(demo["calls"].as_array().unwrap().len(), 3);
        for call in demo["calls"].as_array().unwrap() {
            assert!(call["gas_used"].as_u64().unwrap() <= call["gas_quote"].as_u64().unwrap());
            assert_eq!(call["status"], "success");
            assert!(!call["moved"].as_array().unwrap().is_empty());
        }
    }
    let digests = |demo: &Value| -> Vec<Value> {
        demo["calls"].as_array().unwrap().iter().map(|call| call["digest"].clone()).collect()
    };
    assert_eq!(digests(&one), digests(&two));
    assert_eq!(one["state_digest"], two["state_digest"]);
    assert_eq!(one["calls"][0]["answer"], "transfer 12.5 METIS to alice");
}

#[test]
fn the_selftest_passes_on_every_backend() {
    let output = Command::new(env!("CARGO_BIN_EXE_metisvm")).args(["selftest", "--json"]).output().unwrap();
    assert!(output.status.success());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let backends = value["backends"].as_array().unwrap();
    let digests: Vec<&Value> = backends.iter().filter_map(|backend| backend.get("digest")).collect();
    assert!(digests.len() >= 2 && digests.iter().all(|digest| *digest == digests[0]));
    assert!(backends.iter().any(|backend| backend.get("unavailable").is_some()));
}
