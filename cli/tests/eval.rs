//! `model eval`: what a bundle differs in from its checkpoint, as a whole and part by part, and an encoder's vectors.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use metis_models::fixture::families;
use serde_json::Value;
use tempfile::TempDir;

fn metisvm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metisvm")).args(arguments).output().unwrap()
}

/// A family's checkpoint, its bundle and a text.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(family: &str, text: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let (_, fixture) = families().into_iter().find(|(name, _)| *name == family).unwrap();
        fixture.write(&place.path("checkpoint")).unwrap();
        fs::write(place.path("text.txt"), text).unwrap();
        let output = metisvm(&["model", "import", &place.text("checkpoint"), "-o", &place.text("bundle")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn eval(&self, options: &[&str]) -> Output {
        let (bundle, checkpoint, text) =
            (self.text("bundle"), self.text("checkpoint"), self.text("text.txt"));
        let mut arguments = vec!["model", "eval", &bundle, "--reference", &checkpoint, "--text", &text];
        arguments.extend(options);
        metisvm(&arguments)
    }

    fn json(&self, options: &[&str]) -> Value {
        let output = self.eval(&[options, &["--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn refused(&self, options: &[&str], says: &str) {
        let output = self.eval(options);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(says), "{message}");
    }
}

const TEXT: &str = "the hello world, and the hello world again; and once more the hello world";

#[test]
fn layers_names_every_part_and_what_it_costs() {
    let place = Place::new("qwen3", TEXT);
    let value = place.json(&["--layers", "--window", "16"]);
    let parts = value["parts"].as_array().unwrap();
    let names: Vec<(Option<u64>, &str)> =
        parts.iter().map(|part| (part["layer"].as_u64(), part["part"].as_str().unwrap())).collect();
    let layer = |i| [(Some(i), "attention"), (Some(i), "mlp")];
    let expected = [&[(None, "embedding")][..], &layer(0), &layer(1), &[(None, "head")]].concat();
    assert_eq!(names, expected);
    for part in parts {
        let figure = |name: &str| part[name].as_f64().unwrap();
        assert!(figure("kl") > 0.0 && figure("kl") < 1e-2, "{part}");
        assert!(
            (0.5..=1.0).contains(&figure("top1_agreement")) && figure("perplexity_ratio") > 0.9,
            "{part}"
        );
    }
    let ratio = value["sum_of_kl"].as_f64().unwrap() / value["kl"].as_f64().unwrap();
    assert!((0.2..5.0).contains(&ratio), "{value}");
    // The whole is what eval says without --layers.
    let plain = place.json(&["--window", "16"]);
    assert_eq!(plain["tokens"], value["tokens"]);
    assert_eq!(plain["perplexity"], value["perplexity"]);

    let output = place.eval(&["--layers"]);
    let table = String::from_utf8_lossy(&output.stdout);
    for line in ["layer  part", "embedding", "    1  mlp", "whole model", "perplexity"] {
        assert!(table.contains(line), "{table}");
    }
}

#[test]
fn layers_of_another_architecture_are_refused_by_its_name() {
    for architecture in ["gpt2", "bert"] {
        let place = Place::new(architecture, TEXT);
        place.refused(&["--layers"], &format!("architecture `{architecture}`"));
        place.refused(&["--layers"], "leave out --layers");
    }
}

#[test]
fn layers_of_a_bundle_of_another_checkpoint_are_refused_by_what_differs() {
    let place = Place::new("qwen3", TEXT);
    let (_, other) = families().into_iter().find(|(name, _)| *name == "llama3").unwrap();
    fs::remove_dir_all(place.path("checkpoint")).unwrap();
    other.write(&place.path("checkpoint")).unwrap();
    place.refused(&["--layers"], "head_dim is 32, the checkpoint's 16");
}

#[test]
fn an_encoder_is_compared_by_its_vectors_line_by_line() {
    for family in ["bert", "bert classifier"] {
        let place = Place::new(family, "the hello world\n\n  \nunknown!\r\nhello");
        let value = place.json(&[]);
        assert_eq!(value["texts"], 3);
        let [mean, worst] = ["mean_cosine", "worst_cosine"].map(|name| value[name].as_f64().unwrap());
        assert!(worst > 0.999 && mean >= worst && mean <= 1.0 + 1e-9, "{value}");
        assert!(String::from_utf8_lossy(&place.eval(&[]).stdout).contains("3 texts"));
        place.refused(&["--window", "8"], "--window");
        fs::write(place.path("text.txt"), format!("hello\n{}", "the ".repeat(200))).unwrap();
        place.refused(&[], "line 2 has 202 tokens");
        fs::write(place.path("text.txt"), "\n").unwrap();
        place.refused(&[], "no text");
    }
}

#[test]
fn inspect_shows_what_a_model_has_besides_its_shapes() {
    for (family, says) in [
        ("gemma2", "attention_cap_q16: 3276800"),
        ("qwen2", "qkv_bias: true"),
        ("bert", "activation: \"gelu_erf\""),
    ] {
        let place = Place::new(family, TEXT);
        let output = metisvm(&["model", "inspect", &place.text("bundle")]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.lines().any(|line| line.starts_with("variant") && line.ends_with(says)), "{text}");
    }
}
