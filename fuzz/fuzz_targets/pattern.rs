//! Foreign bytes as a pattern are read, or refused at the byte where no pattern goes on; what is built stays in its bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use metis_models::constraint::{ConstraintError, Draft};

/// As on a chain with default caps.
const MAX_BYTES: usize = 1_024;
const MAX_STATES: usize = 1_024;

fuzz_target!(|pattern: &[u8]| {
    let pattern = &pattern[..pattern.len().min(MAX_BYTES)];
    match Draft::pattern(pattern, MAX_STATES) {
        Ok(draft) => {
            assert!(draft.positions() <= MAX_STATES && (1..=256).contains(&draft.classes()));
            if let Ok(constraint) = draft.build() {
                assert!(constraint.states() <= MAX_STATES);
            }
        }
        Err(ConstraintError::Syntax { position }) => {
            let read = &pattern[..pattern.len().min(position + 1)];
            assert_eq!(Draft::pattern(read, MAX_STATES).unwrap_err(), ConstraintError::Syntax { position });
        }
        Err(error) => assert_eq!(error, ConstraintError::TooLarge { max: MAX_STATES }),
    }
});
