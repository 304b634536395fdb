//! Compares the interpreters with revm on random code, until the time is over or they differ.
//!
//! `cargo run --release -p metis-vm --example differential_soak -- --minutes 60 [--seed n] [--jobs n] [--corpus file]`
//!
//! In release builds handlers are threaded by sibling calls, in tests they are not: that is what this program is for.
//! `--corpus` names a JSON array of contracts with `code_hex`; mutations of their code are executed too. At the first
//! difference it prints what it takes to see it again, and exits with 1.

use alloy_primitives::hex;
use metis_opcode_opt::StreamOp;
use metis_vm::{Interpreter, fusion::analysis};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

#[path = "../tests/differential/mod.rs"]
mod differential;

use differential::{Bench, Case, Choices, Random, mutated};

struct Options {
    time: Duration,
    seed: u64,
    jobs: u64,
    corpus: Vec<Vec<u8>>,
}

impl Options {
    fn from_args() -> Result<Self, String> {
        let mut options = Self { time: Duration::from_secs(60), seed: 1, jobs: 1, corpus: Vec::new() };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
            match name.as_str() {
                "--minutes" => options.time = Duration::from_secs(60 * number()?),
                "--seed" => options.seed = number()?,
                "--jobs" => options.jobs = number()?.max(1),
                "--corpus" => options.corpus = corpus(&value)?,
                _ => return Err(format!("unknown argument `{name}`")),
            }
        }
        Ok(options)
    }
}

fn corpus(path: &str) -> Result<Vec<Vec<u8>>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    let code = |row: &serde_json::Value| hex::decode(row["code_hex"].as_str()?).ok();
    Ok(rows.iter().filter_map(code).collect())
}

/// What was executed.
#[derive(Default)]
struct Counters {
    programs: u64,
    executions: u64,
    /// Programs that contain an op.
    ops: BTreeMap<StreamOp, u64>,
    /// Executions that ended so.
    ends: BTreeMap<String, u64>,
}

impl Counters {
    fn add(&mut self, other: Self) {
        self.programs += other.programs;
        self.executions += other.executions;
        other.ops.into_iter().for_each(|(op, count)| *self.ops.entry(op).or_default() += count);
        other.ends.into_iter().for_each(|(end, count)| *self.ends.entry(end).or_default() += count);
    }

    fn print(&self) {
        println!("{} programs, {} executions", self.programs, self.executions);
        for (end, count) in &self.ends {
            println!("{count:12}  {end}");
        }
        for &op in StreamOp::ALL {
            println!("{:12}  {}", self.ops.get(&op).unwrap_or(&0), op.name());
        }
    }
}

fn main() -> ExitCode {
    let options = match Options::from_args() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let differs = AtomicBool::new(false);
    let mut total = Counters::default();
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..options.jobs)
            .map(|job| {
                let (options, differs) = (&options, &differs);
                scope.spawn(move || soak(options, job, differs))
            })
            .collect();
        for job in jobs {
            if let Ok(counters) = job.join() {
                total.add(counters);
            } else {
                differs.store(true, Ordering::Relaxed);
            }
        }
    });
    total.print();
    ExitCode::from(u8::from(differs.into_inner()))
}

fn soak(options: &Options, job: u64, differs: &AtomicBool) -> Counters {
    let mut counters = Counters::default();
    let mut bench = Bench::checked();
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed() < options.time && !differs.load(Ordering::Relaxed) {
        round += 1;
        let seed = Random(options.seed ^ job << 48).number().wrapping_add(round);
        let bytes = Random(seed).bytes(1500);
        let mut choices = Choices::new(&bytes);
        let mut case = Case::any(&mut choices);
        if !options.corpus.is_empty() && choices.chance(24) {
            case.code = mutated(&options.corpus[choices.below(options.corpus.len())], &mut choices);
        }
        // A panic is a difference too, and wants its reproducer.
        let execution = AssertUnwindSafe(|| execute(&mut bench, &case, &mut choices, &mut counters));
        let compared = catch_unwind(execution).unwrap_or_else(|_| Err(format!("panicked\n{case}")));
        if let Err(difference) = compared
            && !differs.swap(true, Ordering::Relaxed)
        {
            println!("round {round} of job {job}, seed {}\n{difference}", options.seed);
        }
    }
    counters
}

/// All interesting gas limits of one case.
fn execute(
    bench: &mut Bench,
    case: &Case,
    choices: &mut Choices<'_>,
    counters: &mut Counters,
) -> Result<(), String> {
    counters.programs += 1;
    // Every sixteenth, as this costs as much as an execution.
    if counters.programs.is_multiple_of(16)
        && let Some(program) = analysis::program(&case.code, case.spec, Interpreter::FusedAlways)
    {
        let mut ops: Vec<_> = program.ops_at().map(|(op, _)| op).collect();
        ops.sort();
        ops.dedup();
        ops.into_iter().for_each(|op| *counters.ops.entry(op).or_default() += 1);
    }
    let first = bench.compare_one(case).map_err(|difference| difference.to_string())?;
    let used = first.gas_used;
    let mut limits = vec![used, used.saturating_sub(1), used.saturating_sub(2), used.saturating_sub(3)];
    limits.extend((0..12).map(|_| choices.number() % used.max(1)));
    let mut executed = bench.compare(case, limits).map_err(|difference| difference.to_string())?;
    executed.push(first);
    counters.executions += executed.len() as u64;
    for one in executed {
        let end = match one.answer {
            Ok(result) => format!("{:?}", result.result),
            Err(error) => error,
        };
        *counters.ends.entry(end).or_default() += 1;
    }
    Ok(())
}
