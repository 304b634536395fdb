//! Whatever the code, the fork, the input and the gas: fused and plain programs do what unmodified revm does.
//!
//! The first byte says whether the rest is a recipe for a program, as the tests make them, or the code itself.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;

#[path = "../../vm/tests/differential/mod.rs"]
mod differential;

use differential::{Bench, Case, Choices};

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::default();
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let mut choices = Choices::new(rest);
    let case = if kind % 2 == 0 {
        Case::any(&mut choices)
    } else {
        let (surroundings, main) = rest.split_at(rest.len().min(64));
        choices = Choices::new(surroundings);
        let spec = Case::any_fork(&mut choices);
        Case::around(spec, main.to_vec(), main.to_vec(), &mut choices)
    };
    BENCH.with_borrow_mut(|bench| {
        let compared = bench.compare_one(&case).and_then(|executed| {
            let used = executed.gas_used.max(1);
            bench.compare(&case, [used, used - 1, choices.number() % used, choices.number() % used])
        });
        if let Err(difference) = compared {
            panic!("{difference}");
        }
    });
});
