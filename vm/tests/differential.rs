//! Whatever the code, the fork, the gas: every interpreter does what unmodified revm does.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

#[path = "differential/mod.rs"]
mod differential;

use alloy_primitives::{Bytes, U256};
use differential::{
    Bench, CALLEE, Case, Choices, Executed, mutated,
    tables::{Change, Replacement},
    trace::Recorder,
    transaction::{Effect, compare_transactions, execute, fused, revm, transaction},
};
use metis_opcode_opt::Op;
use metis_vm::{FusionCache, FusionConfig, Interpreter, SpecId, fork};
use proptest::prelude::*;
use revm::{ExecuteCommitEvm, InspectCommitEvm, InspectEvm, InspectSystemCallEvm};
use std::{cell::RefCell, io::Write as _, path::Path};

thread_local! {
    /// Machines, kept from case to case.
    static BENCH: RefCell<Bench> = RefCell::new(Bench::checked());
}

/// Executes with ample gas and with every kind of too little.
fn compare(case: &Case, choices: &mut Choices<'_>) -> Result<(), TestCaseError> {
    let compared = BENCH.with_borrow_mut(|bench| {
        let Executed { gas_used: used, .. } = bench.compare_one(case)?;
        let edges = [used, used.saturating_sub(1), used.saturating_sub(2), used.saturating_sub(3)];
        let random: Vec<_> = (0..8).map(|_| choices.number() % used.max(1)).collect();
        bench.compare(case, edges.into_iter().chain(random))
    });
    compared.map(drop).map_err(|difference| TestCaseError::fail(difference.to_string()))
}

fn any_choices() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..1200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn random_programs_do_the_same_at_every_gas_limit(bytes in any_choices()) {
        let mut choices = Choices::new(&bytes);
        let case = Case::any(&mut choices);
        compare(&case, &mut choices)?;
    }

    #[test]
    fn random_bytes_do_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..200), seed in any::<[u8; 64]>()) {
        let mut choices = Choices::new(&seed);
        let spec = Case::any_fork(&mut choices);
        let case = Case::around(spec, bytes, vec![0x5b], &mut choices);
        compare(&case, &mut choices)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn transactions_have_the_same_results_states_and_access_lists(bytes in any_choices(), creates in any::<bool>()) {
        let mut choices = Choices::new(&bytes);
        let case = Case { gas: 400_000, ..Case::any(&mut choices) };
        compare_transactions(&case, creates).map_err(|difference| TestCaseError::fail(difference.to_string()))?;
    }

    /// Code that is being warmed, watched, fused, found, and evicted again.
    #[test]
    fn results_do_not_depend_on_when_a_program_lands(bytes in any_choices(), waits in any::<[bool; 8]>()) {
        let mut choices = Choices::new(&bytes);
        let case = Case { gas: 400_000, ..Case::any(&mut choices) };
        let cache = FusionCache::new(FusionConfig {
            interpreter: Interpreter::Fused,
            max_bytes: choices.pick(&[0, 1000, 4000, 10_000, 1 << 20]),
            hot_gas: choices.pick(&[0, 1, 100, 1000, 40_000]),
        });
        let mut expected = revm(&case, ());
        let mut subject = fused(&case, (), cache.clone());
        let mut sharing = fused(&case, (), cache.clone());
        for wait in waits {
            let transaction = transaction(&case, false);
            let effect = execute(&mut expected, transaction.clone());
            prop_assert_eq!(&execute(&mut subject, transaction.clone()), &effect, "{}", case);
            prop_assert_eq!(&execute(&mut sharing, transaction), &effect, "{}", case);
            if wait {
                cache.wait();
            }
        }
        prop_assert!(cache.stats().bytes <= cache.stats().max_bytes);
    }

    #[test]
    fn an_inspector_is_told_the_same(bytes in any_choices(), gas in 21_000u64..200_000) {
        let mut choices = Choices::new(&bytes);
        let case = Case { gas, ..Case::any(&mut choices) };
        let cache = FusionCache::new(FusionConfig { interpreter: Interpreter::FusedAlways, ..FusionConfig::default() });
        let mut expected = revm(&case, Recorder::default());
        let mut subject = fused(&case, Recorder::default(), cache);
        // The second time with programs at hand, which the inspector must not see.
        for _ in 0..2 {
            let transaction = transaction(&case, false);
            let (theirs, ours) = (expected.inspect_tx(transaction.clone()), subject.inspect_tx(transaction.clone()));
            prop_assert_eq!(format!("{:?}", ours.map(|done| done.result)), format!("{:?}", theirs.map(|done| done.result)));
            prop_assert!(expected.inspector.events == subject.inspector.events, "{}", case);
            prop_assert_eq!(execute(&mut subject, transaction.clone()), execute(&mut expected, transaction), "{}", case);
        }
    }

    /// A user's own instructions and costs, which may do anything.
    #[test]
    fn changed_tables_do_what_revm_does_with_them(bytes in any_choices()) {
        let mut choices = Choices::new(&bytes);
        let changes: Vec<_> = (0..choices.within(1, 3)).map(|_| Change::any(&mut choices)).collect();
        let case = Case::any(&mut choices);
        changed(&case, &changes)?;
    }
}

/// System calls and committed transactions, with an inspector and programs at hand.
#[test]
fn inspected_commits_and_system_calls_do_the_same() {
    // SLOAD of slot 0, plus 1, SSTORE into slot 0; returns it.
    let code = vec![0x5f, 0x54, 0x60, 1, 0x01, 0x80, 0x5f, 0x55, 0x5f, 0x52, 0x60, 32, 0x5f, 0xf3];
    let case = Case::of_code(SpecId::OSAKA, code, 200_000);
    let cache =
        FusionCache::new(FusionConfig { interpreter: Interpreter::FusedAlways, ..FusionConfig::default() });
    let mut expected = revm(&case, Recorder::default());
    let mut subject = fused(&case, Recorder::default(), cache);
    for round in 1..4 {
        let call = || transaction(&case, false);
        let ours = subject.inspect_tx_commit(call()).unwrap();
        assert_eq!(ours, expected.inspect_tx_commit(call()).unwrap());
        assert_eq!(ours.output().map(|word| U256::from_be_slice(word)), Some(U256::from(2 * round - 1)));
        let ours = subject.inspect_system_call(CALLEE, Bytes::new()).unwrap();
        assert_eq!(ours, expected.inspect_system_call(CALLEE, Bytes::new()).unwrap());
        subject.commit(ours.state.clone());
        expected.commit(ours.state);
        assert!(
            !subject.inspector.events.is_empty() && subject.inspector.events == expected.inspector.events
        );
    }
    assert_eq!(subject.cache().stats().made, 0);
}

/// One case with changed tables, by all interpreters.
fn changed(case: &Case, changes: &[Change]) -> Result<(), TestCaseError> {
    let mut bench = Bench::with_tables(case.spec, changes);
    let executed = bench.compare(case, [case.gas, case.gas / 2, 5000, 200]);
    executed.map(drop).map_err(|difference| TestCaseError::fail(format!("{changes:?}: {difference}")))
}

/// An instruction of a user's own goes on behind itself, whatever its byte meant before.
#[test]
fn a_replaced_halting_or_undefined_instruction_may_go_on() {
    let bytes = [0x0c, 0x21, 0xef, 0xfe, 0x00, 0xf3, 0xfd, 0xff, 0x56];
    for byte in bytes {
        // PUSH1 1 <byte> PUSH1 0 MSTORE PUSH1 32 PUSH1 0 RETURN, and a JUMPDEST that must not be reached.
        let code = vec![0x60, 1, byte, 0x60, 0, 0x52, 0x60, 32, 0x60, 0, 0xf3, 0x5b, 0x60, 0, 0x60, 0, 0xfd];
        let ends = vec![0x60, 1, byte];
        for replacement in [Replacement::Nothing, Replacement::PushSeven, Replacement::Skip] {
            let change = Change { byte, replacement: Some(replacement), gas: 3 };
            for code in [&code, &ends] {
                // revm itself runs off the end of code whose STOP does not stop.
                if byte == 0x00 && code == &ends {
                    continue;
                }
                changed(&Case::of_code(SpecId::OSAKA, code.clone(), 100_000), &[change]).unwrap();
            }
        }
    }
}

/// A transaction that creates has no code hash at first; the tables may have changed since the one before.
#[test]
fn a_creation_after_a_change_of_fork_calls_by_the_new_forks_rules() {
    // The contract: SLOAD of slot 1, whose cost differs from fork to fork; the gas left is returned.
    let code = vec![0x60, 1, 0x54, 0x50, 0x5a, 0x60, 0, 0x52, 0x60, 32, 0x60, 0, 0xf3];
    // Initcode: calls the contract with 50,000 gas and stores what it returned.
    let mut init = vec![0x60, 32, 0x60, 0, 0x60, 0, 0x60, 0, 0x60, 0, 0x73];
    init.extend(CALLEE);
    init.extend([0x61, 0xc3, 0x50, 0xf1, 0x60, 0, 0x51, 0x60, 0, 0x55]);
    for interpreter in [Interpreter::FusedAlways, Interpreter::Plain, Interpreter::Fused] {
        for (old, new) in [(SpecId::FRONTIER, SpecId::OSAKA), (SpecId::OSAKA, SpecId::ISTANBUL)] {
            let case = Case::of_code(old, code.clone(), 1_000_000);
            let cache = FusionCache::new(FusionConfig { interpreter, hot_gas: 1, ..FusionConfig::default() });
            let (mut expected, mut subject) = (revm(&case, ()), fused(&case, (), cache.clone()));
            for _ in 0..3 {
                let call = transaction(&case, false);
                assert_eq!(execute(&mut subject, call.clone()), execute(&mut expected, call));
                cache.wait();
            }
            for evm in [&mut expected, &mut *subject] {
                evm.ctx.cfg.set_spec_and_mainnet_gas_params(new);
                evm.instruction = revm::handler::instructions::EthInstructions::new_mainnet_with_spec(new);
            }
            let create = transaction(&Case { spec: new, code: init.clone(), ..case }, true);
            let effect = execute(&mut expected, create.clone());
            assert!(matches!(&effect, Effect::Done(done) if done.0.is_success()));
            assert_eq!(execute(&mut subject, create), effect, "{interpreter}, {old:?} to {new:?}");
        }
    }
}

/// Real contracts: those of this repository, and the benchmark's where they are.
fn contracts() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for name in ["TestToken", "TestExchange", "TestStaking", "TestGovernor", "IntentWallet"] {
        let text = std::fs::read_to_string(root.join(format!("contracts/artifacts/{name}.json"))).unwrap();
        let artefact: serde_json::Value = serde_json::from_str(&text).unwrap();
        found.push(alloy_primitives::hex::decode(artefact["deployedBytecode"].as_str().unwrap()).unwrap());
    }
    let fixtures = std::env::var_os("METISVM_FIXTURES").map(|dir| root.join(dir).join("evm-bench.json"));
    match fixtures.and_then(|path| std::fs::read_to_string(path).ok()) {
        Some(text) => {
            let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            found.extend(
                rows.iter()
                    .map(|row| alloy_primitives::hex::decode(row["code_hex"].as_str().unwrap()).unwrap()),
            );
        }
        // Past the test runner's capture: a skipped test must not look like one that ran.
        None => {
            let _ = writeln!(std::io::stderr(), "skipped: fixtures not found (set METISVM_FIXTURES)");
        }
    }
    found
}

#[test]
fn mutations_of_real_contracts_do_the_same() {
    let contracts = contracts();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let input = (0..contracts.len(), proptest::collection::vec(any::<u8>(), 40..200));
    runner
        .run(&input, |(contract, bytes)| {
            let mut choices = Choices::new(&bytes);
            let main = mutated(&contracts[contract], &mut choices);
            let spec = Case::any_fork(&mut choices);
            let case = Case::around(spec, main, contracts[0].clone(), &mut choices);
            compare(&case, &mut choices)
        })
        .unwrap();
}

#[test]
fn every_fork_is_among_those_compared() {
    for spec in fork::all() {
        // Fused on every fork: DUP1 DUP1 ADD, PUSH1 PUSH1 JUMPI.
        let code = vec![0x60, 2, Op::DUP1.byte(), Op::DUP1.byte(), 0x01, 0x60, 9, 0x57, 0x00, 0x5b, 0x54];
        let mut choices = Choices::new(&[]);
        compare(&Case::of_code(spec, code, 100_000), &mut choices).unwrap();
    }
}
