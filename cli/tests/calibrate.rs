//! `model import --calibrate`: what it writes, what it reports, what it refuses.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use metis_models::fixture::families;
use serde_json::Value;

const TEXT: &str =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the sun.";

fn metisvm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metisvm")).args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A family's checkpoint and a text in a folder.
fn folder(family: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let (_, fixture) = families().into_iter().find(|(name, _)| *name == family).unwrap();
    fixture.write(&place.path().join("checkpoint")).unwrap();
    fs::write(place.path().join("text.txt"), TEXT).unwrap();
    place
}

fn import(place: &Path, target: &str, more: &[&str]) -> Output {
    let (from, to) = (place.join("checkpoint"), place.join(target));
    metisvm(&[&["model", "import", text(&from), "-o", text(&to)], more].concat())
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_report_says_what_was_scaled_and_what_was_measured() {
    let place = folder("gpt2");
    let calibrate = place.path().join("text.txt");
    let calibrate = ["--calibrate", text(&calibrate), "--json"];
    let report = json(&import(place.path(), "bundle", &calibrate));
    let calibration = &report["calibration"];
    assert!(calibration["tokens"].as_u64().unwrap() >= 32, "{report}");
    // Attention, output and MLP of two layers.
    assert_eq!(calibration["places"].as_array().unwrap().len(), 6);
    let first = &calibration["places"][0];
    assert_eq!((first["layer"].as_u64(), first["inputs"].as_str()), (Some(0), Some("attention")));
    assert!(first["alpha_quarters"].as_u64().unwrap() <= 4);
    assert!(first["error_ppm"].as_u64().unwrap() <= 1_000_000);
    assert_eq!(calibration["not_smoothed"][0]["inputs"], "down");
    for import in ["plain", "smoothed"] {
        let figures = &calibration["measured"][import];
        assert!(figures["kl"].as_f64().unwrap() < 1e-2, "{report}");
        assert!(figures["perplexity"].is_number() && figures["top1_agreement"].is_number(), "{report}");
    }
    assert!(calibration["measured"]["worse"].is_boolean());

    // The plain import that it compares with is the one without the option.
    let plain = json(&import(place.path(), "plain", &["--json"]));
    assert_eq!(plain["id"], calibration["plain_id"]);
    assert!(plain.get("calibration").is_none());
    let verified = metisvm(&["model", "verify", text(&place.path().join("bundle"))]);
    assert!(verified.status.success());
}

#[test]
fn people_read_the_same() {
    for (family, says) in [
        (
            "bert",
            ["inputs of output", "not smoothed: the norm before it also feeds", "smoothed  mean cosine 0.99"],
        ),
        ("qwen2", ["inputs of down", "alpha by layer", "top-1 agreement"]),
    ] {
        let place = folder(family);
        let calibrate = place.path().join("text.txt");
        let output = import(place.path(), "bundle", &["--calibrate", text(&calibrate)]);
        let message = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for part in says {
            assert!(message.contains(part), "{family}: {message:?} does not say {part:?}");
        }
    }
}

#[test]
fn wrong_texts_are_explained_and_nothing_is_written() {
    let place = folder("llama3");
    let (short, missing) = (place.path().join("short.txt"), place.path().join("nowhere.txt"));
    fs::write(&short, "Once").unwrap();
    for (calibrate, says) in [(&short, "at least 32 are needed"), (&missing, "nowhere.txt")] {
        let output = import(place.path(), "bundle", &["--calibrate", text(calibrate)]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(says), "{message}");
        assert!(!place.path().join("bundle").exists());
    }
    // An existing target is refused before the work.
    fs::create_dir(place.path().join("taken")).unwrap();
    let calibrate = place.path().join("text.txt");
    let output = import(place.path(), "taken", &["--calibrate", text(&calibrate)]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("taken"));
}
