//! House rules as a test: what review would otherwise have to repeat.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Files of the repository below `dir` with one of the extensions, without build products.
fn files(dir: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "node_modules", ".git", "__pycache__", "corpus"].contains(&name.as_str()) {
                    pending.push(path);
                }
            } else if extensions.iter().any(|e| name.ends_with(e)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<(PathBuf, String)> {
    files(&root(), &[".rs"])
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// Source lines that are neither comments nor in this file, with their numbers.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim_start().starts_with("//"))
}

fn report(failures: Vec<String>) {
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn files_stay_small() {
    report(
        rust_files()
            .iter()
            .filter(|(_, text)| text.lines().count() > 800)
            .map(|(path, text)| format!("{}: {} lines (at most 800)", path.display(), text.lines().count()))
            .collect(),
    );
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [["todo", "!("].concat(), ["unimplemented", "!("].concat(), ["dbg", "!("].concat()];
    let mut failures = Vec::new();
    for (path, text) in rust_files() {
        for (number, line) in code_lines(&text) {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                failures.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    report(failures);
}

#[test]
fn unsafe_code_says_why_and_lives_where_it_may() {
    /// The modules that may hold unsafe code.
    const ROOMS: [&str; 16] = [
        "models/src/bundle/mapping.rs",
        // Kernels: instructions of particular processors, columns that threads write side by side, memory.
        "kernels/src/cpu/simd",
        "kernels/src/cpu/shared.rs",
        "kernels/src/cpu/pages.rs",
        // The GPU: NVIDIA's driver, and launches of kernels that use memory by address; the same for the kernels compiled for the host.
        "gpu/src/cuda.rs",
        "gpu/src/driver.rs",
        "gpu/src/queue.rs",
        "gpu/shim/src/machine.rs",
        "gpu/shim/tests/faults.rs",
        // The interpreter: registers, handlers, and the ways in and out.
        "vm/src/fusion/machine.rs",
        "vm/src/fusion/dispatch.rs",
        "vm/src/fusion/engine.rs",
        "vm/src/fusion/intrinsics.rs",
        "vm/src/fusion/tables.rs",
        "vm/src/fusion/handlers.rs",
        "vm/src/fusion/handlers",
    ];
    let keyword = ["unsafe", " "].concat();
    let mut failures = Vec::new();
    for (path, text) in rust_files() {
        let relative = path.strip_prefix(root()).unwrap().to_path_buf();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in code_lines(&text) {
            let block = [format!("{keyword}{{"), format!("{keyword}impl"), format!("{keyword}fn")];
            if !block.iter().any(|b| line.contains(b.as_str())) {
                continue;
            }
            if !ROOMS.iter().any(|room| relative.starts_with(room)) {
                failures.push(format!("{}:{number}: unsafe code outside its rooms", relative.display()));
            }
            // What a function needs is in its documentation, or in the trait's.
            if line.contains(block[2].as_str()) && !line.contains(block[0].as_str()) {
                continue;
            }
            let above = &lines[number.saturating_sub(6)..number - 1];
            if !above.iter().any(|l| l.contains("// SAFETY:")) {
                failures.push(format!("{}:{number}: unsafe code without a SAFETY line", relative.display()));
            }
        }
    }
    report(failures);
}

#[test]
fn consensus_crates_have_no_floats() {
    /// Tests, evaluation and measurement may use floats; nothing else may.
    const ALLOWED: [&str; 6] = [
        // Reads checkpoints, whose numbers are floats: only their bits, no arithmetic (which the crate denies).
        "models/src/import",
        "models/src/reference",
        "models/src/candle",
        "models/src/eval",
        "models/src/fixture",
        "precompiles/src/calibration",
    ];
    let types = [["f", "32"].concat(), ["f", "64"].concat()];
    let mut failures = Vec::new();
    for dir in ["kernels/src", "models/src", "precompiles/src", "gpu/src", "vm/src", "opcode-opt/src"] {
        for path in files(&root().join(dir), &[".rs"]) {
            let relative = path.strip_prefix(root()).unwrap().to_path_buf();
            let is_test = relative.file_name().is_some_and(|name| name == "tests.rs");
            if is_test || ALLOWED.iter().any(|allowed| relative.to_string_lossy().starts_with(allowed)) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for (number, line) in code_lines(code) {
                let line = line.split("//").next().unwrap();
                let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let is_float = |word: &str| {
                    let digits = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
                    types.iter().any(|t| digits == t)
                };
                if words.into_iter().any(is_float) && !line.contains('"') && !line.contains("DType::") {
                    failures.push(format!("{}:{number}: {}", relative.display(), line.trim()));
                }
            }
        }
    }
    report(failures);
}

#[test]
fn consensus_crates_deny_float_arithmetic() {
    for lib in ["kernels", "models", "precompiles"] {
        let text = fs::read_to_string(root().join(lib).join("src/lib.rs")).unwrap();
        assert!(text.contains("#![deny(clippy::float_arithmetic)]"), "{lib} does not deny float arithmetic");
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut failures = Vec::new();
    for path in files(&root(), &[".md"]) {
        let text = fs::read_to_string(&path).unwrap();
        // Every other part is code, where `](` means something else.
        let prose: String = text.split('`').step_by(2).collect();
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap().trim();
            if target.is_empty() || target.contains("://") || target.contains(' ') {
                continue;
            }
            if !path.parent().unwrap().join(target).exists() {
                failures.push(format!("{}: {target} does not exist", path.display()));
            }
        }
    }
    report(failures);
}

#[test]
fn rooms_are_named_after_what_they_are() {
    let vague = ["utils", "util", "common", "helpers", "misc"];
    report(
        files(&root(), &[".rs"])
            .iter()
            .filter(|path| vague.contains(&path.file_stem().unwrap().to_string_lossy().as_ref()))
            .map(|path| format!("{}: name it after what it is", path.display()))
            .collect(),
    );
}
