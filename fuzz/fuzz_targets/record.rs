//! Foreign bytes as a record or as a state are refused with an error, never with a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use metis_vm::{Record, State};

fuzz_target!(|text: &str| {
    if let Ok(record) = Record::from_json(text) {
        let again = Record::from_json(&record.to_json().expect("a record that was read can be written"));
        assert_eq!(again.expect("what was written can be read"), record);
    }
    if let Ok(state) = State::from_json(text) {
        let again = State::from_json(&state.to_json()).expect("what was written can be read");
        assert_eq!(again.digest(), state.digest());
    }
});
