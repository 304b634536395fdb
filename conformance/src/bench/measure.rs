//! Rounds over the engines, and what came of them.

use super::{
    case::Case,
    dispatch,
    machine::{Engine, Executed, ExecutionError, Machine},
    statistics::{geomean, median},
};
use metis_vm::{FusionCache, FusionConfig, Interpreter, fusion::analysis};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    hint::black_box,
    time::{Duration, Instant},
};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rounds, each of which takes one sample of every engine; at least one is taken.
    pub rounds: u32,
    /// How long one sample of revm lasts, at least; the other engines execute as often.
    pub sample: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 15, sample: Duration::from_millis(8) }
    }
}

impl Options {
    /// Executions in one sample of a contract that takes `once`.
    fn iterations(&self, once: Duration) -> u32 {
        const FEWEST: u128 = 3;
        const MOST: u128 = 100_000;
        let wanted = self.sample.as_nanos().div_ceil(once.as_nanos().max(1)).clamp(FEWEST, MOST);
        u32::try_from(wanted).unwrap_or(u32::MAX)
    }
}

/// What was measured of one contract. Ratios are times: below 1 is faster than revm.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The contract.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Fused programs in the production configuration, warm: the median over the rounds.
    pub fused_vs_revm: f64,
    /// The interpreter without fusion: the median over the rounds.
    pub plain_vs_revm: f64,
    /// The first execution of all, with an empty cache and the production configuration: the median over many pairs.
    pub cold_vs_revm: f64,
    /// Operations dispatched by fused programs, per opcode that revm executes.
    pub dispatch_fraction: f64,
    /// Whether every execution used the expected gas.
    pub gas_equal: bool,
    /// Whether every execution ended as expected and returned what was expected.
    pub output_equal: bool,
    /// Microseconds of one execution by revm: the median over the rounds.
    pub revm_us: f64,
    /// Microseconds that building the fused program takes, on the thread that builds it.
    pub analysis_us: f64,
    /// The fastest sample of fused programs over the fastest of revm.
    pub min_fused_vs_revm: f64,
    /// What was not as expected, in words.
    #[serde(skip)]
    pub differences: Vec<String>,
}

impl Row {
    /// Whether all engines did what was expected.
    pub const fn is_correct(&self) -> bool {
        self.gas_equal && self.output_equal
    }
}

/// All rows and their geometric means.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The rows.
    pub rows: Vec<Row>,
    /// Over the groups `evm-bench*` that are not micro-benchmarks; where no row is in one of them, over all that are not
    /// micro-benchmarks.
    pub geomean_fused_vs_revm: Option<f64>,
    /// Over the same rows.
    pub geomean_plain_vs_revm: Option<f64>,
    /// Over all rows.
    pub geomean_all_fused_vs_revm: Option<f64>,
}

impl Summary {
    /// Forms the means.
    pub fn new(rows: Vec<Row>) -> Self {
        let whole = |row: &&Row| !row.group.contains("micro");
        let known = |row: &&Row| whole(row) && row.group.starts_with("evm-bench");
        let mut chosen: Vec<&Row> = rows.iter().filter(known).collect();
        if chosen.is_empty() {
            chosen = rows.iter().filter(whole).collect();
        }
        Self {
            geomean_fused_vs_revm: geomean(chosen.iter().map(|row| row.fused_vs_revm)),
            geomean_plain_vs_revm: geomean(chosen.iter().map(|row| row.plain_vs_revm)),
            geomean_all_fused_vs_revm: geomean(rows.iter().map(|row| row.fused_vs_revm)),
            rows,
        }
    }

    /// Whether all engines did what was expected, everywhere.
    pub fn is_correct(&self) -> bool {
        self.rows.iter().all(Row::is_correct)
    }
}

/// Measures one contract on all engines.
///
/// # Errors
/// [`ExecutionError`].
pub fn measure(case: &Case, options: &Options) -> Result<Row, ExecutionError> {
    let rounds = options.rounds.max(1);
    let mut check = Check::new(case);
    let iterations = options.iterations(Contender::Revm.warm(case, &mut check)?.execute()?.time);

    let mut samples: Vec<Sample> = Vec::new();
    for round in 0..rounds as usize {
        let mut sample = Sample::default();
        for turn in 0..Contender::ALL.len() {
            let contender = Contender::ALL[(round + turn) % Contender::ALL.len()];
            // A new machine each time: where its memory happens to lie is worth some percent, for one engine or another.
            let mut engine = contender.warm(case, &mut check)?;
            let mut times = Vec::new();
            for _ in 0..iterations {
                let executed = engine.execute()?;
                check.executed(contender.name(), &executed);
                times.push(positive(executed.time));
            }
            // Other work that interrupts an execution falls out; in a sum it would weigh most on the slowest engine.
            sample.seconds[contender as usize] = median(times).unwrap_or(f64::NAN);
        }
        samples.push(sample);
    }

    let ratio = |contender| {
        median(samples.iter().map(|sample| sample.of(contender) / sample.of(Contender::Revm)))
            .unwrap_or(f64::NAN)
    };
    let fastest = |contender| samples.iter().map(|sample| sample.of(contender)).fold(f64::INFINITY, f64::min);
    // Long contracts are given fewer first executions: they vary less, and all else would take too long.
    let pairs = rounds * iterations.min(10);
    Ok(Row {
        name: case.name.clone(),
        group: case.group.clone(),
        fused_vs_revm: ratio(Contender::Fused),
        plain_vs_revm: ratio(Contender::Plain),
        cold_vs_revm: cold(case, pairs, &mut check)?,
        dispatch_fraction: dispatch::count(case)?.fraction(),
        revm_us: median(samples.iter().map(|sample| sample.of(Contender::Revm) * 1e6)).unwrap_or(f64::NAN),
        analysis_us: analysis(case, rounds),
        min_fused_vs_revm: fastest(Contender::Fused) / fastest(Contender::Revm),
        gas_equal: check.gas_equal,
        output_equal: check.output_equal,
        differences: check.differences.into_iter().collect(),
    })
}

/// Who takes part in a round.
#[derive(Clone, Copy, Debug)]
enum Contender {
    Revm,
    Fused,
    Plain,
}

impl Contender {
    const ALL: [Self; 3] = [Self::Revm, Self::Fused, Self::Plain];

    const fn name(self) -> &'static str {
        match self {
            Self::Revm => "revm",
            Self::Fused => "fused",
            Self::Plain => "plain",
        }
    }

    /// A new machine that has executed the contract a few times: its program is built, its memory grown.
    fn warm(self, case: &Case, check: &mut Check<'_>) -> Result<Box<dyn Engine>, ExecutionError> {
        // As in production, except that code is hot at once: the second execution is watched, and the third finds the program.
        const EXECUTIONS: usize = 3;
        let metis = |interpreter| {
            let config = FusionConfig { interpreter, hot_gas: 0, ..FusionConfig::default() };
            let cache = FusionCache::new(config);
            (Box::new(Machine::metis(case, cache.clone())) as Box<dyn Engine>, Some(cache))
        };
        let (mut engine, cache) = match self {
            Self::Revm => (Box::new(Machine::revm(case)) as Box<dyn Engine>, None),
            Self::Fused => metis(Interpreter::Fused),
            Self::Plain => metis(Interpreter::Plain),
        };
        for _ in 0..EXECUTIONS {
            check.executed(self.name(), &engine.execute()?);
            if let Some(cache) = &cache {
                cache.wait();
            }
        }
        match cache {
            Some(cache) if cache.stats().made == 0 => Err(ExecutionError::Custom(format!(
                "{}: no program was made, nothing would be measured",
                self.name()
            ))),
            _ => Ok(engine),
        }
    }
}

/// Seconds of one execution by every contender, within one round.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    seconds: [f64; Contender::ALL.len()],
}

impl Sample {
    const fn of(&self, contender: Contender) -> f64 {
        self.seconds[contender as usize]
    }
}

/// The first execution in a new machine, over revm's.
fn cold(case: &Case, pairs: u32, check: &mut Check<'_>) -> Result<f64, ExecutionError> {
    let mut ratios = Vec::new();
    for pair in 0..pairs {
        let mut seconds = [0.0; 2];
        for turn in 0..2 {
            let engine = (pair as usize + turn) % 2;
            let executed = if engine == 0 {
                Machine::revm(case).execute()?
            } else {
                let cache = FusionCache::new(FusionConfig::default());
                let executed = Machine::metis(case, cache.clone()).execute()?;
                // The background fuser must not take time from the next sample.
                cache.wait();
                executed
            };
            check.executed(["revm, cold", "fused, cold"][engine], &executed);
            seconds[engine] = positive(executed.time);
        }
        ratios.push(seconds[1] / seconds[0]);
    }
    Ok(median(ratios).unwrap_or(f64::NAN))
}

/// Microseconds that building the fused program takes.
fn analysis(case: &Case, samples: u32) -> f64 {
    let build = || {
        let start = Instant::now();
        black_box(analysis::program(&case.code, case.spec, Interpreter::FusedAlways));
        start.elapsed().as_secs_f64() * 1e6
    };
    median((0..samples).map(|_| build())).unwrap_or(f64::NAN)
}

/// Seconds, at least the clock's smallest step: ratios and their logarithms stay finite.
fn positive(time: Duration) -> f64 {
    time.max(Duration::from_nanos(1)).as_secs_f64()
}

/// Compares every execution with what is expected.
struct Check<'a> {
    case: &'a Case,
    gas_equal: bool,
    output_equal: bool,
    differences: BTreeSet<String>,
}

impl<'a> Check<'a> {
    fn new(case: &'a Case) -> Self {
        Self { case, gas_equal: true, output_equal: true, differences: BTreeSet::new() }
    }

    fn executed(&mut self, engine: &str, executed: &Executed) {
        let Case { status, output, gas_used, .. } = self.case;
        if executed.gas_used != *gas_used {
            self.gas_equal = false;
            self.difference(format!("{engine}: gas {}, expected {gas_used}", executed.gas_used));
        }
        if executed.status != *status {
            self.output_equal = false;
            self.difference(format!("{engine}: status {:?}, expected {status:?}", executed.status));
        }
        if executed.output != *output {
            self.output_equal = false;
            self.difference(format!("{engine}: output {}, expected {output}", executed.output));
        }
    }

    /// Keeps the first few: a machine that is wrong differently every time must not fill memory.
    fn difference(&mut self, difference: String) {
        const MOST: usize = 16;
        if self.differences.len() < MOST {
            self.differences.insert(difference);
        }
    }
}

#[cfg(test)]
mod tests;
