//! `--device` and `selftest` with and without a driver. The driver is a library that computes with the kernels compiled for the host; the
//! program does not know.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::process::{Command, Output};

use serde_json::Value;

/// The program, with no driver but the one that is given.
fn metisvm(driver: &str, faults: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metisvm"));
    command.env("LD_LIBRARY_PATH", driver).envs(faults.iter().copied()).args(arguments);
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The folder with the driver, or a word why there is none.
fn driver() -> Option<&'static str> {
    if metis_gpu_shim::FAKE_DRIVER.is_none() {
        eprintln!("skipped: no C++ compiler, there is no driver to try");
    }
    metis_gpu_shim::FAKE_DRIVER
}

fn generate(driver: &str, faults: &[(&str, &str)], options: &[&str]) -> Output {
    let mut arguments = options.to_vec();
    arguments.extend(["--json", "model", "generate", "default", "--prompt", "Please send 3 ETH to bob"]);
    arguments.extend(["--max-new", "24"]);
    metisvm(driver, faults, &arguments)
}

fn line<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let lines = answer["backends"].as_array().unwrap();
    lines.iter().find(|line| line["name"].as_str().unwrap().starts_with(name)).unwrap()
}

#[test]
fn without_a_driver_everything_runs_on_the_cpu() {
    if metis_gpu::Cuda::count().is_ok() {
        return eprintln!("skipped: this machine has a CUDA device");
    }
    let output = metisvm("", &[], &["--json", "selftest"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(line(&json(&output), "cuda")["unavailable"], "not found");

    let text = metisvm("", &[], &["selftest"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("cuda: not found"));

    let refused = generate("", &[], &["--device", "cuda"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused)
            .contains("--device cuda:0 (--device cpu computes the same results without it): not found")
    );
}

#[test]
fn a_device_computes_the_cpus_answers() {
    let Some(driver) = driver() else { return };
    let cpu = generate("", &[], &["--device", "cpu"]);
    assert!(cpu.status.success(), "{}", stderr(&cpu));
    for device in ["auto", "cuda", "cuda:0"] {
        let output = generate(driver, &[("METIS_FAKE_REPORT", "1")], &["--device", device]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(json(&output)["tokens"], json(&cpu)["tokens"], "{device}");
        // Tokens after the first are one graph each, but for the step that makes it.
        let graphs = reported(&output, "graphs launched");
        assert!(graphs > 5, "{graphs} graphs");
        assert_eq!(reported(&output, "not given back"), 0);
    }
    let none = generate(driver, &[], &["--device", "cuda:1"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("there is no device 1, only 1"));
}

#[test]
fn selftest_lists_the_device_with_the_cpus_digest() {
    let Some(driver) = driver() else { return };
    let output = metisvm(driver, &[], &["--json", "selftest"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let answer = json(&output);
    assert_eq!(line(&answer, "cuda:0 (a shim)")["digest"], line(&answer, "scalar")["digest"]);

    let old = json(&metisvm(driver, &[("METIS_FAKE_CAPABILITY", "7")], &["--json", "selftest"]));
    let why = line(&old, "cuda:0")["unavailable"].as_str().unwrap();
    assert!(why.contains("compute capability 7.0, and 8.0 is needed"), "{why}");
}

#[test]
fn the_first_layer_and_kernel_that_differ_are_named() {
    let Some(driver) = driver() else { return };
    let same = json(&metisvm(driver, &[], &["--json", "selftest", "--locate"]));
    for name in ["scalar", "portable", "cuda:0"] {
        let located = line(&same, name)["located"].as_str().unwrap();
        assert!(located.starts_with("the same in all of"), "{located}");
    }
    for (skipped, expected) in [
        ("rope", "layer 0, kernel rope"),
        ("attention_near", "layer 0, kernel attention"),
        ("gate", "layer 0, kernel gate"),
        ("choose", "outside the layers, kernel sample"),
    ] {
        let output = metisvm(driver, &[("METIS_FAKE_SKIP", skipped)], &["--json", "selftest", "--locate"]);
        assert_eq!(output.status.code(), Some(1));
        let answer = json(&output);
        let located = line(&answer, "cuda:0")["located"].as_str().unwrap();
        assert!(located.starts_with(expected), "{located}");
        assert!(line(&answer, "scalar")["located"].as_str().unwrap().starts_with("the same"));
    }
}

#[test]
fn a_device_that_computes_wrongly_is_not_used() {
    let Some(driver) = driver() else { return };
    let wrong = [("METIS_FAKE_WRONG", "1")];
    let output = metisvm(driver, &wrong, &["--json", "selftest"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        line(&json(&output), "cuda:0")["error"].as_str().unwrap().contains("does not compute what it must")
    );

    let named = generate(driver, &wrong, &["--device", "cuda"]);
    assert_eq!(named.status.code(), Some(1));
    assert!(stderr(&named).contains("must not be used for consensus"));

    let auto = generate(driver, &wrong, &[]);
    assert!(auto.status.success(), "{}", stderr(&auto));
    assert!(stderr(&auto).contains("inference runs on the CPU"), "{}", stderr(&auto));
    assert_eq!(json(&auto)["tokens"], json(&generate("", &[], &["--device", "cpu"]))["tokens"]);
}

/// A number that the driver reports when a program has ended.
fn reported(output: &Output, what: &str) -> u32 {
    let number = |line: &str| line.strip_prefix(what)?.strip_prefix(": ")?.parse().ok();
    stderr(output).lines().find_map(number).unwrap()
}

#[test]
fn what_only_long_or_joined_calls_do_is_tested() {
    let Some(driver) = driver() else { return };
    for (skipped, expected) in [
        ("product_tiles_128", "linear, case rows_70_"),
        ("attention_values", "attention, case causal_true_window_None"),
        ("finish", "attention, case"),
    ] {
        let output = metisvm(driver, &[("METIS_FAKE_SKIP", skipped)], &["--json", "selftest"]);
        assert_eq!(output.status.code(), Some(1), "{skipped}");
        let answer = json(&output);
        let error = line(&answer, "cuda:0")["error"].as_str().unwrap();
        assert!(error.contains(expected), "{skipped}: {error}");
    }
}

#[test]
fn a_device_that_is_lost_or_too_small_changes_no_answer() {
    let Some(driver) = driver() else { return };
    let tokens = json(&generate("", &[], &["--device", "cpu"]))["tokens"].clone();
    let selftest = reported(&metisvm(driver, &[("METIS_FAKE_REPORT", "1")], &["selftest"]), "launches");
    let (in_selftest, after) = ((selftest - 1).to_string(), (selftest + 40).to_string());
    for (faults, options, said) in [
        (vec![], vec!["--device-memory-mib", "8"], "is done on the CPU"),
        (vec![("METIS_FAKE_FULL_AFTER", in_selftest.as_str())], vec![], "is loaded on the CPU"),
        (vec![("METIS_FAKE_LOST_AFTER", after.as_str())], vec![], "goes on on the CPU"),
    ] {
        let output = generate(driver, &faults, &options);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(json(&output)["tokens"], tokens);
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    let refused = generate(driver, &[], &["--device", "cuda", "--device-memory-mib", "7"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("the self-test alone needs 8 MiB"), "{}", stderr(&refused));
}

#[test]
fn a_driver_that_lacks_a_function_is_said_to_be_old() {
    let Some(old) = metis_gpu_shim::OLD_DRIVER else { return };
    let output = metisvm(old, &[], &["--json", "selftest"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let answer = json(&output);
    let why = line(&answer, "cuda")["unavailable"].as_str().unwrap();
    assert_eq!(why, "the driver has no cuCtxSetCurrent: it is older than CUDA 11.4");
    let output = generate(old, &[], &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let refused = generate(old, &[], &["--device", "cuda"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("older than CUDA 11.4"), "{}", stderr(&refused));
}

#[test]
fn a_device_without_memory_for_graphs_computes_without_them() {
    let Some(driver) = driver() else { return };
    let faults =
        [("METIS_FAKE_NO_GRAPHS", "1"), ("METIS_FAKE_REPORT", "1"), ("METIS_FAKE_MULTIPROCESSORS", "16")];
    let output = generate(driver, &faults, &["--device", "cuda"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(json(&output)["tokens"], json(&generate("", &[], &["--device", "cpu"]))["tokens"]);
    assert_eq!(reported(&output, "graphs launched"), 0);
    assert_eq!(reported(&output, "not given back"), 0);
    assert!(!stderr(&output).contains("CPU"), "{}", stderr(&output));
}

#[test]
fn a_device_that_is_not_opened_leaves_nothing_behind() {
    let Some(driver) = driver() else { return };
    let faults = [("METIS_FAKE_NO_PAGE_LOCKED", "1"), ("METIS_FAKE_REPORT", "1")];
    let output = generate(driver, &faults, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(reported(&output, "not given back"), 0);
    assert!(stderr(&output).contains("out of memory"), "{}", stderr(&output));
    assert!(stderr(&output).contains("inference runs on the CPU"), "{}", stderr(&output));
    let lost = generate(driver, &[("METIS_FAKE_LOST_AFTER", "1500"), ("METIS_FAKE_REPORT", "1")], &[]);
    assert!(lost.status.success(), "{}", stderr(&lost));
    assert_eq!(reported(&lost, "not given back"), 0);
}

#[test]
fn no_figure_of_a_device_is_the_cpus() {
    let Some(driver) = driver() else { return };
    let bench = ["--device", "cuda", "bench", "model", "default", "--no-peer", "--rounds", "1"];
    let selftest = reported(&metisvm(driver, &[("METIS_FAKE_REPORT", "1")], &["selftest"]), "launches");
    let (full, lost) = ((selftest - 1).to_string(), selftest.to_string());
    for (fault, said) in [
        (("METIS_FAKE_FULL_AFTER", full.as_str()), "out of memory"),
        (("METIS_FAKE_LOST_AFTER", lost.as_str()), "an illegal memory access"),
    ] {
        let output = metisvm(driver, &[fault], &bench);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    let output = metisvm(driver, &[], &["--device", "cuda:9", "bench", "model", "default"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there is no device 9, only 1"), "{}", stderr(&output));
}
