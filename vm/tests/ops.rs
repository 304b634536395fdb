//! Every op of fused programs next to the instructions that it stands for: at every stack depth that matters, at every
//! gas limit around its parts' costs, on operands at every edge.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

#[path = "differential/mod.rs"]
mod differential;
#[path = "ops/snippet.rs"]
mod snippet;

use differential::{Bench, Case, Difference, INTERESTING, Random};
use metis_opcode_opt::{Kind, StreamOp};
use metis_vm::{Interpreter, SpecId, fork, fusion::analysis};
use revm::primitives::U256;
use snippet::{Barrier, Program, Snippet, snippets};

/// Runs `test` on all ops, on as many threads as there are.
fn for_every_op(test: impl Fn(&mut Bench, StreamOp) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let test = &test;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut bench = Bench::checked();
                StreamOp::ALL.iter().skip(thread).step_by(threads).for_each(|&op| test(&mut bench, op));
            });
        }
    });
}

fn report(op: StreamOp, snippet: &Snippet, difference: &Difference) -> ! {
    panic!("{op:?} from {:02x?}:\n{difference}", snippet.code(0));
}

fn case(spec: SpecId, program: &Program, operands: &[U256]) -> Case {
    let calldata = operands.iter().flat_map(|word| word.to_be_bytes::<32>()).collect();
    let storage = vec![(U256::from(1), U256::from(77)), (U256::ZERO, U256::MAX)];
    Case { calldata, storage, ..Case::of_code(spec, program.code.clone(), 1_000_000) }
}

/// Words that leave offsets and lengths small.
fn small(seed: u64) -> Vec<U256> {
    let mut random = Random(seed);
    (0..snippet::DISTINCT).map(|_| U256::from(random.number() % 100)).collect()
}

/// Every gas limit from just below the snippet's first instruction to just above its last.
fn limits(bench: &mut Bench, case: &Case, program: &Program) -> Result<Vec<u64>, Box<Difference>> {
    // A program that ends where the snippet begins.
    let before = Case { code: program.code[..program.snippet].to_vec(), ..case.clone() };
    let start = bench.compare_one(&before)?.gas_used;
    let until = Case { code: program.code[..program.behind].to_vec(), ..case.clone() };
    let end = bench.compare_one(&until)?.gas_used.min(start + 3000);
    let parts = program.static_gas;
    let dense = start.saturating_sub(1)..=start + parts + 2;
    // What the operands cost: memory, cold slots, exponents.
    let tail = (start..end).step_by(37).chain(end.saturating_sub(4)..=end + 2);
    let tail = tail.filter(|gas| !dense.contains(gas)).collect::<Vec<_>>();
    Ok(dense.chain(tail).collect())
}

#[test]
fn every_op_is_made_from_its_instructions() {
    for &op in StreamOp::ALL {
        let snippets = snippets(op);
        assert!(!snippets.is_empty(), "{op:?}");
        for snippet in &snippets {
            for barrier in [Barrier::Jumpdest, Barrier::Branch] {
                let program = snippet.at_height(snippet.needs() + 1, barrier);
                // What follows a copy would take it in.
                let end = if op.kind() == Kind::dup { program.behind } else { program.code.len() };
                let made =
                    analysis::program(&program.code[..end], SpecId::OSAKA, Interpreter::FusedAlways).unwrap();
                let found = made
                    .ops_at()
                    .any(|(made, pc)| made == op && (program.barrier..program.behind).contains(&pc));
                assert!(found, "{op:?} is not in {:?}", made.ops_at().collect::<Vec<_>>());
                assert!(
                    Bench::executes_fused(&program.code, SpecId::OSAKA).unwrap(),
                    "{op:?} is not executed"
                );
            }
        }
    }
}

#[test]
fn every_op_has_its_parts_gas_and_stack_bounds() {
    for_every_op(|bench, op| {
        for snippet in snippets(op).into_iter().filter(|snippet| snippet.is_particular) {
            let needs = snippet.needs();
            // Where too few words are there, where they are just enough, and where the stack is full.
            let heights = (0..=needs + 2).filter(|&h| h < 3 || h + 3 >= needs).chain(1021..=1024);
            for height in heights {
                let barriers = [Barrier::Jumpdest, Barrier::Branch];
                // The second needs room, and differs in nothing that has to do with depth.
                let count = if height < 1021 && snippet.depth <= 2 { 2 } else { 1 };
                for barrier in barriers.into_iter().take(count) {
                    let program = snippet.at_height(height, barrier);
                    let case = case(SpecId::OSAKA, &program, &small(height as u64));
                    let compared = limits(bench, &case, &program)
                        .and_then(|limits| bench.compare(&case, limits.into_iter().chain([1_000_000])));
                    if let Err(difference) = compared {
                        report(op, &snippet, &difference);
                    }
                }
            }
        }
    });
}

#[test]
fn every_op_has_its_parts_gas_on_every_fork() {
    for_every_op(|bench, op| {
        let all = snippets(op);
        for snippet in all.iter().take(2) {
            for spec in fork::all() {
                let program = snippet.at_height(snippet.needs(), Barrier::Jumpdest);
                let case = case(spec, &program, &small(1));
                let compared = limits(bench, &case, &program)
                    .and_then(|limits| bench.compare(&case, limits.into_iter().chain([1_000_000])));
                if let Err(difference) = compared {
                    report(op, snippet, &difference);
                }
            }
        }
    });
}

#[test]
fn every_op_computes_what_its_parts_compute() {
    for_every_op(|bench, op| {
        let all = snippets(op);
        // The constants and the first depths; other depths differ in nothing but where words are.
        for snippet in all.iter().filter(|snippet| snippet.depth <= 2) {
            let program = snippet.at_height(snippet.needs().max(3), Barrier::Jumpdest);
            for (i, &a) in INTERESTING.iter().enumerate() {
                let seconds = if snippet.reads >= 2 { &INTERESTING[..] } else { &INTERESTING[i..=i] };
                for &b in seconds {
                    let mut operands = small(a.wrapping_add(b).as_limbs()[0]);
                    operands[..2].copy_from_slice(&[a, b]);
                    let case = case(SpecId::OSAKA, &program, &operands);
                    if let Err(difference) = bench.compare_one(&case) {
                        report(op, snippet, &difference);
                    }
                }
            }
        }
    });
}

#[test]
fn every_op_computes_on_random_words_what_its_parts_compute() {
    for_every_op(|bench, op| {
        let mut random = Random(op as u64);
        for snippet in snippets(op) {
            let program = snippet.at_height(snippet.needs() + 1, Barrier::Branch);
            for _ in 0..16 {
                let operands: Vec<_> = (0..snippet::DISTINCT)
                    .map(|_| {
                        let word = U256::from_limbs(std::array::from_fn(|_| random.number()));
                        // As often narrow as wide.
                        word >> (random.number() % 256) as usize
                    })
                    .collect();
                let case = case(SpecId::OSAKA, &program, &operands);
                if let Err(difference) = bench.compare_one(&case) {
                    report(op, &snippet, &difference);
                }
            }
        }
    });
}
