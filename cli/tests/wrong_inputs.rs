//! Wrong inputs get an answer that says what is wrong and where, and exit code 1; nothing panics, nothing is left half done.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use metis_models::fixture::{Fixture, GgmlDType};

fn metisvm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metisvm")).args(arguments).output().unwrap()
}

/// Runs a command that must fail, and checks that its message contains all of `says`.
fn refused(arguments: &[&str], says: &[&str]) {
    let output = metisvm(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert!(!message.contains("panicked"), "{message}");
    for part in says {
        assert!(message.contains(part), "{arguments:?}: {message:?} does not say {part:?}");
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, contents: &str) -> String {
        fs::write(self.path(name), contents).unwrap();
        self.text(name)
    }

    /// A tiny checkpoint and the bundle that the command makes of it.
    fn bundle(&self) -> String {
        Fixture::default().write(&self.path("checkpoint")).unwrap();
        let output = metisvm(&["model", "import", &self.text("checkpoint"), "-o", &self.text("bundle")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.text("bundle")
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn missing_files_are_named() {
    refused(&["model", "inspect", "/nowhere/bundle"], &["/nowhere/bundle"]);
    refused(&["model", "import", "/nowhere/model.bin", "-o", "/tmp/never"], &["/nowhere/model.bin"]);
    refused(&["verify", "/nowhere/out.json"], &["/nowhere/out.json"]);
    refused(&["run", "--code", "/nowhere/code.hex"], &["/nowhere/code.hex"]);
    refused(&["run", "--code", "0x00", "--state", "/nowhere/state.json"], &["/nowhere/state.json"]);
    refused(&["demo", "--chain", "/nowhere/chain.toml"], &["/nowhere/chain.toml"]);
}

#[test]
fn damaged_bundles_are_refused_and_the_leaf_is_named() {
    let folder = Folder::new();
    let bundle = folder.bundle();
    assert!(metisvm(&["model", "verify", &bundle]).status.success());
    let weights = folder.path("bundle/weights.safetensors");
    flip(&weights, 5_000);
    refused(&["model", "verify", &bundle], &["weights.safetensors", "leaf 4"]);
    refused(&["model", "generate", &bundle, "--prompt", "x"], &["weights.safetensors"]);
    flip(&weights, 5_000);
    let length = fs::metadata(&weights).unwrap().len();
    fs::OpenOptions::new().write(true).open(&weights).unwrap().set_len(length - 1).unwrap();
    refused(&["model", "verify", &bundle], &["weights.safetensors", "bytes"]);
}

#[test]
fn a_bundle_that_is_another_model_is_named() {
    let folder = Folder::new();
    let bundle = folder.bundle();
    let id = format!("0x{}", "ab".repeat(32));
    refused(&["model", "verify", &bundle, "--id", &id], &["is model", &id]);
    let chain = folder
        .write("chain.toml", &format!("[[models]]\nid = \"{id}\"\npath = \"bundle\"\nstatus = \"active\"\n"));
    refused(&["demo", "--chain", &chain], &[&id]);
}

#[test]
fn generation_limits_are_explained() {
    let folder = Folder::new();
    let bundle = folder.bundle();
    let generate = |more: &[&str], says: &[&str]| {
        refused(&[&["model", "generate", &bundle], more].concat(), says);
    };
    generate(&["--prompt", &"long ".repeat(200)], &["the prompt has", "context is 128"]);
    generate(&["--prompt", "x", "--max-new", "1000"], &["--max-new 1000 does not fit", "128"]);
    generate(&["--prompt", "x", "--temperature", "1000"], &["temperature"]);
    generate(&["--prompt", "x", "--temperature", "hot"], &["not a decimal"]);
    generate(&["--prompt", "x", "--temperature", "1", "--top-p", "0"], &["top-p"]);
}

#[test]
fn unsupported_architectures_are_named_with_those_that_are_supported() {
    let folder = Folder::new();
    let fixture = Fixture::default();
    fixture.write(&folder.path("checkpoint")).unwrap();
    let mut config = fixture.config();
    config["architectures"] = serde_json::json!(["GPTNeoXForCausalLM"]);
    config["model_type"] = serde_json::json!("gpt_neox");
    folder.write("checkpoint/config.json", &config.to_string());
    let (from, to) = (folder.text("checkpoint"), folder.text("bundle"));
    refused(&["model", "import", &from, "-o", &to], &["GPTNeoXForCausalLM", "llama, mistral, qwen2", "GGUF"]);
    assert!(!folder.path("bundle").exists(), "nothing is left behind");
}

#[test]
fn an_existing_target_is_not_overwritten() {
    let folder = Folder::new();
    let bundle = folder.bundle();
    refused(&["model", "import", &folder.text("checkpoint"), "-o", &bundle], &["bundle", "exist"]);
    assert!(metisvm(&["model", "verify", &bundle]).status.success());
}

#[test]
fn inputs_of_run_are_explained() {
    refused(&["run", "--code", "0x6"], &["odd number"]);
    refused(&["run", "--code", "0x00", "--input", "xyz"], &["--input is not hex"]);
    refused(&["run", "--code", "0x00", "--sol-call", "f("], &["not a signature"]);
    refused(&["run", "--code", "0x00", "--sol-call", "f(uint256)", "many"], &["many", "uint256"]);
    refused(&["run", "--code", "0x00", "--gas", "100"], &["rejected"]);
    let after = metisvm(&["run", "--code", "0x00", "--sol-call", "f(int256)", "-5", "--json"]);
    assert!(
        serde_json::from_slice::<serde_json::Value>(&after.stdout).is_ok(),
        "options may follow the call"
    );
    // No machine has so many.
    refused(&["run", "--code", "0x00", "--device", "cuda:4096"], &["--device cuda:4096", "--device cpu"]);
    let folder = Folder::new();
    let state = folder.write("state.json", "{\"0x01\": {}}");
    refused(&["run", "--code", "0x00", "--state", &state], &["state.json", "0x01"]);
    let chain = folder.write("chain.toml", "fork = \"Tokyo\"");
    refused(&["run", "--code", "0x00", "--chain", &chain], &["Tokyo", "Osaka"]);
    let chain = folder.write("chain2.toml", "gaz = 1");
    refused(&["run", "--code", "0x00", "--chain", &chain], &["chain2.toml", "gaz"]);
}

#[test]
fn groups_of_weights_are_asked_for_and_shown() {
    let folder = Folder::new();
    let plain = folder.bundle();
    let (from, to) = (folder.text("checkpoint"), folder.text("grouped"));
    let output = metisvm(&["model", "import", &from, "-o", &to, "--group-scales"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(metisvm(&["model", "verify", &to]).status.success());
    for (bundle, weights) in [(plain, "int8-per-channel"), (to, "int8-per-group-of-32")] {
        let output = metisvm(&["model", "inspect", &bundle]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.lines().any(|line| line.starts_with("weights") && line.ends_with(weights)), "{text}");
    }
}

#[test]
fn gguf_files_are_imported_or_refused_by_name() {
    let folder = Folder::new();
    let file = Fixture::default().gguf(GgmlDType::Q8_0).unwrap();
    let from = folder.text("fixture.gguf");
    fs::write(&from, &file).unwrap();
    let output = metisvm(&["model", "import", &from, "--out", &folder.text("bundle")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(metisvm(&["model", "verify", &folder.text("bundle")]).status.success());
    let text = folder.write("text.txt", "the hello world, and the hello world again");
    let output = metisvm(&["model", "eval", &folder.text("bundle"), "--reference", &from, "--text", &text]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let at = file.windows(5).position(|window| window == b"llama").unwrap();
    let other = [&file[..at], b"mamba", &file[at + 5..]].concat();
    fs::write(&from, other).unwrap();
    refused(&["model", "import", &from, "-o", &folder.text("other")], &["GGUF architecture mamba"]);
    fs::write(&from, &file[..at]).unwrap();
    refused(
        &["model", "import", &from, "-o", &folder.text("other")],
        &["fixture.gguf", "ends inside its header"],
    );
}

#[test]
fn code_files_without_code_are_explained() {
    let folder = Folder::new();
    for (name, contents) in [
        ("empty.hex", ""),
        ("blank.hex", "\n"),
        ("prefix.hex", "0x\n"),
        ("interface.json", r#"{"deployedBytecode": "0x"}"#),
    ] {
        let file = folder.write(name, contents);
        refused(&["fuse", "--code", &file], &[name, "is empty"]);
    }
    let expected = "is neither hex text nor a compiler artefact in JSON";
    let text = folder.write("text.hex", "PUSH1 7");
    refused(&["fuse", "--code", &text], &["text.hex", expected]);
    fs::write(folder.path("code.bin"), [0x60, 0xff, 0x00]).unwrap();
    refused(&["fuse", "--code", &folder.text("code.bin")], &["code.bin", expected]);
    let output = metisvm(&["fuse", "--code", &folder.text("")]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(message.matches("--code").count(), 1, "{message}");
}

#[test]
fn commands_that_execute_on_no_chain_refuse_one() {
    for command in
        [&["replay", "x"][..], &["fuse", "--code", "0x00"], &["statetest", "x"], &["bench", "evm", "x"]]
    {
        let arguments = [command, &["--chain", "/nowhere/chain.toml"]].concat();
        refused(&arguments, &[command[0], "executes without a chain configuration: leave out --chain"]);
    }
}

#[test]
fn a_recording_that_is_none_is_explained_before_a_table_is_begun() {
    let folder = Folder::new();
    refused(
        &["replay", &folder.text("nowhere")],
        &["nowhere", "is no folder with recorded blocks", "bytecodes.json"],
    );
    folder.write("bytecodes.json", "{}");
    folder.write("block_hashes.json", "{}");
    let output = metisvm(&["replay", &folder.text(""), "--block", "7"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stderr).contains("block.json"));
    fs::create_dir_all(folder.path("blocks/latest")).unwrap();
    refused(&["replay", &folder.text("")], &["latest", "no block number"]);
}

#[test]
fn a_call_of_an_unknown_model_and_one_with_too_little_gas_say_so() {
    let precompile = "0x000000000000000000000000000000000000A100";
    let model = format!("0x{}", "07".repeat(32));
    let call = |gas: &str, signature: &str, arguments: &[&str]| {
        let start = ["run", "--to", precompile, "--gas", gas, "--sol-call", signature];
        metisvm(&[&start, arguments].concat())
    };
    let output = call("1000000", "quote(bytes32,uint32,uint32)(uint64)", &[&model, "1", "1"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("UnknownModel({model})")));
    let zero = format!("0x{}", "00".repeat(32));
    let output = call("60000", "tokenize(bytes32,bytes)(uint32[])", &[&zero, "0x6869"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let greedy = "(0,0,0,0)";
    let generate = "generate(bytes32,bytes,uint32,(uint32,uint32,uint16,uint64),uint32[])";
    let output = call("60000", generate, &[&zero, "0x6869", "100", greedy, "[]"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).to_lowercase().contains("out of gas"));
    let output = call("16000000", generate, &[&zero, "0x6869", "1", "(1,0,0,0)", "[]"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("BadSampling()"));
}

#[test]
fn forged_and_malformed_records_are_told_apart() {
    let folder = Folder::new();
    let record = folder.text("out.json");
    // PUSH1 7 PUSH1 0 SSTORE PUSH1 1 PUSH1 0 RETURN
    let output = metisvm(&["run", "--code", "0x600760005560016000f3", "--record", &record]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(metisvm(&["verify", &record]).status.success());

    let text = fs::read_to_string(&record).unwrap();
    let gas = text.split("\"gasUsed\": ").nth(1).unwrap().split(',').next().unwrap();
    let forged = folder.write("forged.json", &text.replace(&format!("\"gasUsed\": {gas}"), "\"gasUsed\": 1"));
    let output = metisvm(&["verify", &forged]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(message.contains("NOT identical") && message.contains(gas), "{message}");

    // Inputs that were changed to fit a changed outcome: the record contradicts its own chain.
    let other = folder.write("other.json", &text.replace("\"chainId\": 1", "\"chainId\": 5"));
    refused(&["verify", &other], &["other.json", "chain id 5"]);
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["block"]["gasLimit"] = serde_json::json!(1u64 << 62);
    let huge = folder.write("huge.json", &value.to_string());
    refused(&["verify", &huge], &["block gas limit"]);
    value = serde_json::from_str(&text).unwrap();
    value["chain"] = serde_json::json!({});
    let vague = folder.write("vague.json", &value.to_string());
    refused(&["verify", &vague], &["vague.json", "incomplete"]);

    let half = folder.write("half.json", &text[..text.len() / 2]);
    refused(&["verify", &half], &["half.json", "malformed"]);
    let later = folder.write("later.json", "{\"version\": 99}");
    refused(&["verify", &later], &["version 99"]);
}

#[test]
fn errors_are_json_when_asked_for() {
    let output = metisvm(&["--json", "model", "inspect", "/nowhere/bundle"]);
    assert_eq!(output.status.code(), Some(1));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["error"].as_str().unwrap().contains("/nowhere/bundle"));
}
