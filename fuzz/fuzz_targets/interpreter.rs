//! Whatever the code, the fork, the input and the gas: fused and plain programs do what unmodified revm does.
//!
//! The first byte says what the rest is: a recipe for a program, as the tests make them; a recipe for transactions; code;
//! or changes to a compiled contract.
#![no_main]

use std::{cell::RefCell, sync::LazyLock};

use libfuzzer_sys::fuzz_target;

#[path = "../../vm/tests/differential/mod.rs"]
mod differential;

use differential::{Bench, Case, Choices, Difference, mutated, transaction::compare_transactions};

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::checked());
}

/// Compiled contracts of this repository.
static CONTRACTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let artefacts = [
        include_str!("../../contracts/artifacts/TestToken.json"),
        include_str!("../../contracts/artifacts/TestExchange.json"),
        include_str!("../../contracts/artifacts/TestStaking.json"),
        include_str!("../../contracts/artifacts/TestGovernor.json"),
        include_str!("../../contracts/artifacts/IntentWallet.json"),
    ];
    let code = |text: &str| {
        let artefact: serde_json::Value = serde_json::from_str(text).expect("JSON");
        alloy_primitives::hex::decode(artefact["deployedBytecode"].as_str().expect("code")).expect("hex")
    };
    artefacts.map(code).into()
});

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let mut choices = Choices::new(rest);
    let case = match kind % 4 {
        0 => Case::any(&mut choices),
        1 => {
            let case = Case { gas: 400_000, ..Case::any(&mut choices) };
            return report(compare_transactions(&case, choices.chance(128)));
        }
        2 => {
            let (surroundings, main) = rest.split_at(rest.len().min(64));
            choices = Choices::new(surroundings);
            let spec = Case::any_fork(&mut choices);
            Case::around(spec, main.to_vec(), main.to_vec(), &mut choices)
        }
        _ => {
            let main = mutated(&CONTRACTS[choices.below(CONTRACTS.len())], &mut choices);
            let spec = Case::any_fork(&mut choices);
            Case::around(spec, main, CONTRACTS[0].clone(), &mut choices)
        }
    };
    report(BENCH.with_borrow_mut(|bench| {
        let used = bench.compare_one(&case)?.gas_used.max(1);
        let edges = [used, used - 1, used.saturating_sub(2), used.saturating_sub(3)];
        let random: Vec<_> = (0..8).map(|_| choices.number() % used).collect();
        bench.compare(&case, edges.into_iter().chain(random)).map(drop)
    }));
});

fn report(compared: Result<(), Box<Difference>>) {
    if let Err(difference) = compared {
        panic!("{difference}");
    }
}
