//! The programs of a dozen contracts, as committed text. `METISVM_BLESS=1 cargo test -p metis-vm --test listings` writes
//! them again; the difference is for review.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{Bytes, hex};
use metis_opcode_opt::Listing;
use metis_vm::{Interpreter, SpecId, fusion::analysis};
use std::{fs, path::Path};

/// Small code by hand, each for one thing that the encoder does.
const BY_HAND: [(&str, &str); 8] = [
    // PUSH4 n; JUMPDEST PUSH1 1 SWAP1 SUB DUP1 PUSH1 5 JUMPI STOP
    ("loop", "63000f42405b600190038060055700"),
    // Four selectors, then a revert.
    (
        "selectors",
        "5f3560e01c8063aaaaaaaa14603b578063bbbbbbbb14603d578063cccccccc14603f578063dddddddd1460415700\
         000000000000000000000000005b005b005b005b00",
    ),
    // The slot of a mapping: MSTORE MSTORE KECCAK256 SLOAD.
    ("mapping", "335f52600260205260405f205460016040525400"),
    // An address mask made of constants, (1 << 160) - 1.
    ("mask", "6001600160a01b033316"),
    // A comparison whose ISZERO and branch become one op.
    ("compare", "5f3560203581811015601357505f5260205ff35b60015f5260205ff3"),
    // JUMPDESTs in a row, each a destination of its own.
    ("jumpdests", "60065600005b5b5b5b600456"),
    // Data behind the code, with what looks like instructions.
    ("data", "6003565b00fe5b60605b"),
    // A function that is called twice and returns by a jump from the stack.
    ("function", "60076003600e565b5f5260205ff35b80029056"),
];

/// Compiled contracts of this repository.
const COMPILED: [&str; 4] = ["TestToken", "TestExchange", "TestStaking", "TestGovernor"];

fn contracts() -> Vec<(String, Bytes)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let by_hand = BY_HAND.iter().map(|(name, code)| {
        let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        ((*name).to_owned(), hex::decode(digits).unwrap().into())
    });
    let compiled = COMPILED.iter().map(|name| {
        let text = fs::read_to_string(root.join(format!("contracts/artifacts/{name}.json"))).unwrap();
        let artefact: serde_json::Value = serde_json::from_str(&text).unwrap();
        ((*name).to_owned(), artefact["deployedBytecode"].as_str().unwrap().parse().unwrap())
    });
    by_hand.chain(compiled).collect()
}

#[test]
fn the_programs_of_a_dozen_contracts_are_the_committed_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/listings");
    let contracts = contracts();
    assert_eq!(contracts.len(), 12);
    for (name, code) in contracts {
        let program = analysis::program(&code, SpecId::OSAKA, Interpreter::FusedAlways).unwrap();
        let listing = Listing { program: &program, code: &code }.to_string();
        let path = folder.join(format!("{name}.txt"));
        if std::env::var_os("METISVM_BLESS").is_some() {
            fs::write(&path, &listing).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), listing, "{}", path.display());
    }
}

#[test]
fn gas_and_instructions_are_conserved() {
    for (name, code) in contracts() {
        let fused = analysis::program(&code, SpecId::OSAKA, Interpreter::FusedAlways).unwrap();
        let plain = analysis::program(&code, SpecId::OSAKA, Interpreter::Plain).unwrap();
        assert_eq!(fused.instructions(), plain.instructions(), "{name}");
        assert!(fused.ops() < plain.ops(), "{name}: {} of {}", fused.ops(), plain.ops());
        for (op, pc) in fused.ops_at() {
            assert!(pc <= code.len(), "{name}: {op:?} at {pc}");
        }
    }
}

/// What a cache holds for code of the largest size that Ethereum allows.
#[test]
fn a_program_takes_at_most_twenty_times_its_code() {
    const LARGEST: usize = 24 * 1024;
    let worst = [
        vec![0x5b; LARGEST],
        vec![0xf1; LARGEST],
        [0x5b, 0xf1].repeat(LARGEST / 2),
        [0x33, 0x50].repeat(LARGEST / 2),
        [0x5b, 0x00].repeat(LARGEST / 2),
        [0x5f, 0x5f, 0x55].repeat(LARGEST / 3),
        [0x5b, 0x00, 0xfe].repeat(LARGEST / 3),
        (0..LARGEST).map(|i| (i * 7 % 251) as u8).collect(),
        [&[0x7f][..], &[0xff; 32]].concat().repeat(LARGEST / 33),
        [&[0x73][..], &[0xff; 20], &[0x16]].concat().repeat(LARGEST / 22),
    ];
    for (i, code) in worst.iter().enumerate() {
        for interpreter in [Interpreter::FusedAlways, Interpreter::Plain] {
            let program = analysis::program(code, SpecId::OSAKA, interpreter).unwrap();
            let factor = program.bytes() as f64 / code.len() as f64;
            assert!(factor <= 20.0, "{i}, {interpreter}: {factor:.1} times");
        }
    }
}
