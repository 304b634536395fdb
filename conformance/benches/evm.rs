//! Small contracts on revm, on MetisVM's interpreter without fusion, and on fused programs.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say so at once")]

use criterion::{Criterion, criterion_group, criterion_main};
use metis_conformance::bench::{Case, Engine, GAS_LIMIT, Machine};
use metis_vm::{FusionCache, FusionConfig, Interpreter, SpecId};
use revm::{
    bytecode::opcode::{
        ADD, DUP1, DUP2, GT, JUMPDEST, JUMPI, KECCAK256, MLOAD, MSTORE, PUSH0, PUSH1, PUSH2, STOP, SUB, SWAP1,
    },
    interpreter::InstructionResult,
};
use std::time::Duration;

/// Counts down from 0x4000: nothing but the loop itself.
const COUNTDOWN: &[u8] = &[PUSH2, 0x40, 0x00, JUMPDEST, PUSH1, 1, SWAP1, SUB, DUP1, PUSH1, 3, JUMPI, STOP];

/// Copies 0x4000 bytes of memory to just behind themselves, word by word.
#[rustfmt::skip]
const COPY: &[u8] = &[
    PUSH0,
    JUMPDEST,
    DUP1, MLOAD, DUP2, PUSH2, 0x40, 0x00, ADD, MSTORE,
    PUSH1, 32, ADD,
    DUP1, PUSH2, 0x40, 0x00, GT, PUSH1, 1, JUMPI,
    STOP,
];

/// Hashes a word 0x400 times over.
#[rustfmt::skip]
const HASH: &[u8] = &[
    PUSH2, 0x04, 0x00,
    JUMPDEST,
    PUSH1, 32, PUSH0, KECCAK256, PUSH0, MSTORE,
    PUSH1, 1, SWAP1, SUB, DUP1, PUSH1, 3, JUMPI,
    STOP,
];

fn contracts(criterion: &mut Criterion) {
    for (name, code) in [("countdown", COUNTDOWN), ("copy", COPY), ("hash", HASH)] {
        let case = Case {
            name: name.to_owned(),
            group: "own".to_owned(),
            code: code.into(),
            calldata: Default::default(),
            storage: Vec::new(),
            spec: SpecId::PRAGUE,
            status: InstructionResult::Stop,
            output: Default::default(),
            gas_used: 0,
        };
        contract(criterion, &case);
    }
}

fn contract(criterion: &mut Criterion, case: &Case) {
    let metis = |interpreter| {
        Machine::metis(case, FusionCache::new(FusionConfig { interpreter, ..FusionConfig::default() }))
    };
    let (mut revm, mut plain, mut fused) =
        (Machine::revm(case), metis(Interpreter::Plain), metis(Interpreter::FusedAlways));
    let expected = revm.execute().unwrap();
    assert!(expected.status == InstructionResult::Stop && expected.gas_used < GAS_LIMIT, "{expected:?}");

    let mut group = criterion.benchmark_group(&case.name);
    let engines: [(&str, &mut dyn Engine); 3] =
        [("revm", &mut revm), ("plain", &mut plain), ("fused", &mut fused)];
    for (name, engine) in engines {
        let executed = engine.execute().unwrap();
        assert_eq!((executed.status, executed.gas_used), (expected.status, expected.gas_used), "{name}");
        group.bench_function(name, |bencher| {
            // Only the frame is timed, not the loading of accounts before it.
            bencher.iter_custom(|iterations| {
                (0..iterations).map(|_| engine.execute().unwrap().time).sum::<Duration>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, contracts);
criterion_main!(benches);
