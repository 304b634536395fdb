//! What came of it.

use metis_vm::Interpreter;
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf};

/// What came of a run: counts of subtests, and everything that did not pass by name.
///
/// It depends on the files alone, never on the threads, but for [`programs_made`](Self::programs_made).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Subtests that are as they should be.
    pub passed: u64,
    /// As many as [`failures`](Self::failures): subtests, and files that could not be read.
    pub failed: u64,
    /// Tests that were not executed: the sum of the [`skips`](Self::skips).
    pub skipped: u64,
    /// How many subtests of each fork were executed, by the fork's name in the files.
    pub forks: BTreeMap<String, u64>,
    /// How many programs the interpreter made of code. It depends on the threads: two may make the same one, and `fused`
    /// makes them in the background.
    pub programs_made: u64,
    /// What was not executed.
    pub skips: Vec<Skip>,
    /// What is not as it should be.
    pub failures: Vec<Failure>,
}

/// Tests of one file that were not executed, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skip {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub reason: String,
    /// How many subtests; in files of another kind, tests.
    pub tests: u64,
}

/// A subtest, or a whole file, that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The file.
    pub file: PathBuf,
    /// The test's name; none when the file could not be read, or is no JSON.
    pub test: Option<String>,
    /// The fork's name in the file; none when the test could not be set up.
    pub fork: Option<String>,
    /// The position of the subtest under its fork.
    pub index: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

impl Summary {
    /// How many subtests were executed.
    pub fn executed(&self) -> u64 {
        self.forks.values().sum()
    }

    /// Whether nothing failed, and something was executed as it should be.
    pub fn is_success(&self, interpreter: Interpreter) -> bool {
        self.failed == 0 && self.problem(interpreter).is_none()
    }

    /// Why the run tells nothing about this interpreter, which executed it, even if nothing failed.
    pub fn problem(&self, interpreter: Interpreter) -> Option<&'static str> {
        match interpreter {
            _ if self.executed() == 0 => {
                Some("nothing was executed: give the path of a state test that this build knows")
            }
            Interpreter::FusedAlways | Interpreter::Plain if self.programs_made == 0 => Some(
                "no program was made: either no subtest executes code, or this build's interpreter is not in use",
            ),
            _ => None,
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.failed += 1;
        self.failures.push(failure);
    }

    pub(super) fn execute(&mut self, fork: &str, subtests: usize) {
        if subtests > 0 {
            *self.forks.entry(fork.to_owned()).or_default() += subtests as u64;
        }
    }

    /// Skips of one file and one reason become one.
    pub(super) fn skip(&mut self, skip: Skip) {
        self.skipped += skip.tests;
        let same = |known: &&mut Skip| known.file == skip.file && known.reason == skip.reason;
        match self.skips.iter_mut().rev().find(same) {
            Some(known) => known.tests += skip.tests,
            None => self.skips.push(skip),
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        for (fork, subtests) in other.forks {
            *self.forks.entry(fork).or_default() += subtests;
        }
        self.skips.extend(other.skips);
        self.failures.extend(other.failures);
    }
}
