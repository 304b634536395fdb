//! What every program must be, whatever the code: complete, with its parts' gas, and with jumps that land on ops.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use metis_opcode_opt::{
    Kind, Op, Profile, Program, StreamOp, Target,
    decode::{instructions, jump_destinations},
    fuse,
    program::CELL,
};
use proptest::{collection, prelude::*};
use revm::{interpreter::instructions::gas_table_spec, primitives::hardfork::SpecId};
use std::collections::{BTreeMap, BTreeSet};

/// What rules look for, more often than chance has it.
fn any_code() -> impl Strategy<Value = Vec<u8>> {
    let operands = prop_oneof![
        (0x80u8..0x90).prop_map(|dup| vec![dup]),
        (0x90u8..0xa0).prop_map(|swap| vec![swap]),
        any::<u8>().prop_map(|value| vec![0x60, value]),
        any::<[u8; 2]>().prop_map(|[a, b]| vec![0x61, a, b]),
        any::<[u8; 4]>().prop_map(|value| [&[0x63][..], &value].concat()),
        any::<[u8; 32]>().prop_map(|value| [&[0x7f][..], &value].concat()),
    ];
    let other = prop_oneof![
        (0u8..0x20).prop_map(|op| vec![op]),
        Just(vec![0x50]),
        Just(vec![0x5b]),
        (0u8..250).prop_map(|pc| vec![0x60, pc, 0x57]),
        (0u8..250).prop_map(|pc| vec![0x60, pc, 0x56]),
        (0u8..250).prop_map(|pc| vec![0x80, 0x63, 0, 0, 0, 7, 0x14, 0x60, pc, 0x57]),
        Just(vec![0x56]),
        Just(vec![0x51]),
        Just(vec![0x52]),
        Just(vec![0x54]),
        Just(vec![0xf1]),
        any::<u8>().prop_map(|byte| vec![byte]),
    ];
    collection::vec(prop_oneof![2 => operands, 3 => other], 0..80).prop_map(|parts| parts.concat())
}

/// Costs that are all different, so that no sum is right by chance; some instructions are the user's.
fn any_target() -> impl Strategy<Value = Target> {
    (collection::vec(0u16..300, 256), collection::vec(0u8..20, 256)).prop_map(|(gas, natives)| Target {
        gas: gas.try_into().unwrap(),
        native: std::array::from_fn(|byte| Op::from_byte(byte as u8).is_some() && natives[byte] > 0),
    })
}

fn mainnet() -> Target {
    Target {
        gas: gas_table_spec(SpecId::OSAKA),
        native: std::array::from_fn(|byte| Op::from_byte(byte as u8).is_some()),
    }
}

fn programs(code: &[u8], target: &Target, profile: &Profile) -> [Program; 3] {
    [
        fuse::fuse(code, target).unwrap(),
        fuse::translate(code, target).unwrap(),
        fuse::fuse_profiled(code, target, profile).unwrap(),
    ]
}

fn header(program: &Program, cell: usize) -> (u64, usize, i64) {
    let header = program.cells()[cell][1];
    (header & 0xffff, (header >> 16 & 0xff) as usize, i64::from((header >> 32) as u32 as i32))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_op_costs_what_its_instructions_cost(code in any_code(), target in any_target(), entries in collection::vec(0u32..300, 0..20)) {
        let mut profile = Profile::default();
        entries.into_iter().for_each(|pc| profile.enter(pc));
        let at: BTreeMap<_, _> = instructions(&code).map(|i| (i.pc, i)).collect();
        for program in programs(&code, &target, &profile) {
            let mut counted = 0;
            for ((op, pc), (cell, _, len)) in program.ops_at().zip(program.starts()) {
                let parts: Vec<_> = at.range(pc..pc + len).map(|(_, instruction)| instruction).collect();
                // Behind the code the EVM stops.
                let stops = pc + len > code.len();
                counted += parts.len() + usize::from(stops);
                let (gas, count, _) = header(&program, cell);
                let sum: u64 = parts.iter().map(|i| u64::from(target.gas[usize::from(i.byte)])).sum();
                let sum = sum + if stops { u64::from(target.gas[0]) } else { 0 };
                match op.kind() {
                    // The whole run, from here to its end.
                    Kind::fall => prop_assert!(gas >= sum),
                    Kind::select => prop_assert_eq!(gas * count as u64, sum),
                    _ => prop_assert_eq!(gas, sum, "{:?} at {}", op, pc),
                }
                if let (Some(last), false) = (parts.last(), stops) {
                    prop_assert_eq!(last.end(), pc + len, "{:?} ends inside of an instruction", op);
                }
            }
            prop_assert_eq!(counted, program.instructions());
        }
    }

    #[test]
    fn every_destination_is_an_op_and_every_jump_goes_to_one(code in any_code(), target in any_target()) {
        for program in programs(&code, &target, &Profile::default()) {
            let starts: BTreeMap<_, _> = program.starts().map(|(cell, pc, _)| (cell, pc)).collect();
            let mut destinations = BTreeSet::new();
            for pc in jump_destinations(&code) {
                let cell = usize::from(program.jumps()[pc]);
                prop_assert!(cell > 0, "no op at {}", pc);
                prop_assert_eq!(starts.get(&(cell - 1)), Some(&pc));
                destinations.insert(cell - 1);
            }
            prop_assert_eq!(program.jumps().iter().filter(|&&cell| cell != 0).count(), destinations.len());
            prop_assert_eq!(program.jumps().len(), code.len());

            for ((op, _), &cell) in program.ops_at().zip(starts.keys()) {
                let (_, count, distance) = header(&program, cell);
                let there = |distance: i64| usize::try_from(cell as i64 + distance / CELL as i64).unwrap();
                match op.kind() {
                    Kind::compare_branch | Kind::branch | Kind::jump_to => {
                        prop_assert!(destinations.contains(&there(distance)));
                    }
                    Kind::fall => prop_assert!(destinations.contains(&there(distance))),
                    Kind::select => {
                        for entry in 0..count {
                            let value = program.cells()[cell + 1 + entry / 2][entry % 2];
                            let distance = i64::from((value >> 32) as u32 as i32);
                            prop_assert!(destinations.contains(&there(distance)));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Execution may begin where an op does, and nowhere else; what is behind a call is such a place.
    #[test]
    fn execution_resumes_behind_whatever_leaves_the_frame(code in any_code()) {
        for program in programs(&code, &mainnet(), &Profile::default()) {
            let starts: BTreeMap<_, _> = program.starts().map(|(cell, pc, _)| (pc, cell)).collect();
            for pc in 0..code.len() + 2 {
                prop_assert_eq!(program.entry(pc), starts.get(&pc).copied(), "at {}", pc);
            }
            for (&pc, &cell) in &starts {
                prop_assert_eq!(program.pc(cell), pc);
            }
            for (op, pc) in program.ops_at().filter(|&(op, _)| op == StreamOp::Plain) {
                let byte = code.get(pc..).and_then(|rest| rest.iter().find(|&&byte| byte != 0x5b));
                if byte.and_then(|&byte| Op::from_byte(byte)).is_some_and(|op| op.flow() == metis_opcode_opt::Flow::Frame) {
                    let end = pc + code[pc..].iter().position(|&byte| byte != 0x5b).unwrap() + 1;
                    prop_assert!(program.entry(end).is_some(), "{:?} at {}", op, pc);
                }
            }
        }
    }

    /// Whatever is executed next is the next op: nothing reachable is left out.
    #[test]
    fn an_op_that_goes_on_is_followed_by_the_op_behind_it(code in any_code(), target in any_target()) {
        for program in programs(&code, &target, &Profile::default()) {
            let ops: Vec<_> = program.starts().collect();
            for pair in ops.windows(2) {
                let [(_, pc, len), (_, next, _)] = [pair[0], pair[1]];
                let last = instructions(&code).filter(|i| (pc..pc + len).contains(&i.pc)).last();
                let goes_on = last.is_some_and(|i| {
                    let flow = i.op.map(|op| op.flow());
                    !i.bad_immediate && flow.is_some_and(|flow| !matches!(flow, metis_opcode_opt::Flow::Halt | metis_opcode_opt::Flow::Jump))
                });
                prop_assert!(!goes_on || next == pc + len, "{} and then {}", pc + len, next);
            }
        }
    }
}
