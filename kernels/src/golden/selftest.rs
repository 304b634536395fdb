//! The self-test of a backend: golden vectors first, then a digest over larger seeded cases, and calls of many rows next to the reference.

use alloy_primitives::{B256, Keccak256, b256};
use thiserror::Error;

use super::answers::{AnswerError, Answers, difference, kernel};
use super::cases::{KERNELS, synthetic};
use super::{FILES, batches, parse};
use crate::backend::Backend;

/// The digest of every correct backend.
const EXPECTED_DIGEST: B256 = b256!("1db70a66be7905b864cadd680efcb026094b252409ae331fcaf7470d6c86d1e6");

/// What a passing backend computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfTestReport {
    /// Golden and seeded cases that were compared.
    pub cases: usize,
    /// `keccak256` over the answers to the seeded cases.
    pub digest: B256,
}

/// A backend that must not be used for consensus.
#[derive(Debug, Error)]
pub enum SelfTestError {
    /// A kernel's answer is not the golden one.
    #[error(transparent)]
    Kernel(#[from] KernelMismatch),
    /// The seeded cases give another digest.
    #[error("digest {actual} over the seeded cases differs from {expected}")]
    Digest {
        /// What every correct backend computes.
        expected: B256,
        /// What this one did.
        actual: B256,
    },
}

/// A kernel's answer that is not the golden one, or that the device could not give.
#[derive(Debug, Error)]
#[error("{kernel}, case {case}: {line}")]
pub struct KernelMismatch {
    /// The kernel.
    pub kernel: &'static str,
    /// The golden case.
    pub case: String,
    /// The value that differs, or what prevented it.
    pub line: String,
}

/// Runs every kernel on known inputs and compares each answer; then kernels of many rows, long sequences and choices with the reference's.
pub fn selftest<B: Backend>(backend: &B) -> Result<SelfTestReport, SelfTestError> {
    let mut cases = 0;
    for (file, text) in FILES {
        let golden = parse(text).map_err(|e| KernelMismatch {
            kernel: file,
            case: String::new(),
            line: e.to_string(),
        })?;
        for case in golden {
            let fail = |line: String| KernelMismatch { kernel: file, case: case.name.clone(), line };
            let Some(answers) = kernel(backend, file, &case) else { continue };
            let answers = answers.map_err(|e: AnswerError| fail(e.to_string()))?;
            if let Some(line) = difference(&case, &answers) {
                return Err(fail(line).into());
            }
            cases += 1;
        }
    }
    let mut hasher = Keccak256::new();
    for file in KERNELS {
        for case in synthetic(file) {
            let fail = |e: AnswerError| KernelMismatch {
                kernel: file,
                case: case.name.clone(),
                line: e.to_string(),
            };
            let Some(answers) = kernel(backend, file, &case) else { continue };
            absorb(&mut hasher, &answers.map_err(fail)?);
            cases += 1;
        }
    }
    cases += batches::check(backend)?;
    let digest = hasher.finalize();
    if digest == EXPECTED_DIGEST {
        Ok(SelfTestReport { cases, digest })
    } else {
        Err(SelfTestError::Digest { expected: EXPECTED_DIGEST, actual: digest })
    }
}

fn absorb(hasher: &mut Keccak256, answers: &Answers) {
    for (name, values) in answers {
        hasher.update(name.as_bytes());
        for value in values {
            hasher.update(value.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scalar;
    use crate::golden::check_functions;

    #[test]
    fn scalar_gives_every_golden_answer() {
        for threads in [1, 2, 3] {
            selftest(&Scalar::with_threads(threads).unwrap()).unwrap();
        }
    }

    #[test]
    fn functions_give_every_golden_answer() {
        check_functions().unwrap();
    }
}
