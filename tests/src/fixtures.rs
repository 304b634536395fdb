//! Test data that does not ship with the repository.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The folder that `METISVM_FIXTURES` names, when it has `path`; otherwise says that the test is skipped.
pub fn find(path: &str) -> Option<PathBuf> {
    // Cargo runs tests in their crate's folder; a relative path means relative to the workspace.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let found = std::env::var_os("METISVM_FIXTURES").map(|root| workspace.join(root).join(path));
    let found = found.filter(|path| path.exists());
    if found.is_none() {
        skipped(&format!("fixtures not found ({path}; set METISVM_FIXTURES)"));
    }
    found
}

/// Says that a test is skipped, past the test runner's capture: a skipped test must not look like one that ran.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
