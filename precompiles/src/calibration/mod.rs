//! Nanoseconds per gas: is the gas schedule honest on this machine?
//!
//! Every function of the inference precompile is timed on the inputs that are worst for it, next to Ethereum's own operations. The
//! schedule is honest when no inference input takes more than [`ALLOWED_RATIO`] times the nanoseconds per gas of the worst of those. The
//! clock is here and nowhere else in this crate: nothing of it reaches an outcome.
#![allow(clippy::float_arithmetic, reason = "a measurement, not an answer")]

mod ethereum;
mod worst_forms;
mod worst_inputs;

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use crate::gas::Gas;
use crate::inference::{FatalError, Inference, Outcome};

/// How much more time for its gas an inference input may take than the worst of Ethereum's operations.
pub const ALLOWED_RATIO: f64 = 2.0;
/// Each input runs at least so often, however long it takes.
const LEAST_RUNS: u64 = 3;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Each input is repeated for at least this long, and at least three times; the fastest run counts.
    pub time_per_input: Duration,
    /// Prompts and answers are as long as the context, or as this many (weighted) multiply-accumulates allow.
    pub macs_per_input: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { time_per_input: Duration::from_millis(300), macs_per_input: 500_000_000 }
    }
}

/// Whose operation was timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Ethereum's.
    Ethereum,
    /// The inference precompile's.
    Inference,
}

/// One input.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Whose operation.
    pub origin: Origin,
    /// The operation and its input.
    pub name: String,
    /// What it costs.
    pub gas: Gas,
    /// The fastest run.
    pub nanoseconds: f64,
}

impl Measurement {
    /// The time that one gas buys.
    pub fn nanoseconds_per_gas(&self) -> f64 {
        self.nanoseconds / self.gas.0.max(1) as f64
    }
}

/// All inputs, measured on one machine.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order in which they were measured.
    pub measurements: Vec<Measurement>,
}

impl Report {
    /// The most nanoseconds per gas of Ethereum's operations, or of the inference precompile's.
    pub fn worst(&self, origin: Origin) -> f64 {
        let of = self.measurements.iter().filter(|m| m.origin == origin);
        of.map(Measurement::nanoseconds_per_gas).fold(0.0, f64::max)
    }

    /// The inference inputs that are too cheap on this machine.
    pub fn too_cheap(&self) -> impl Iterator<Item = &Measurement> {
        let allowed = ALLOWED_RATIO * self.worst(Origin::Ethereum);
        self.measurements
            .iter()
            .filter(move |m| m.origin == Origin::Inference && m.nanoseconds_per_gas() > allowed)
    }
}

/// A table in Markdown.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reference = self.worst(Origin::Ethereum);
        writeln!(f, "| input | gas | time | ns/gas | of Ethereum's worst |")?;
        writeln!(f, "|---|--:|--:|--:|--:|")?;
        for m in &self.measurements {
            let (gas, micros, per_gas) = (m.gas.0, m.nanoseconds / 1e3, m.nanoseconds_per_gas());
            writeln!(
                f,
                "| {} | {gas} | {micros:.1} µs | {per_gas:.2} | {:.2} |",
                m.name,
                per_gas / reference
            )?;
        }
        Ok(())
    }
}

/// Why a calibration could not be run.
#[derive(Debug, Error)]
pub enum CalibrationError {
    /// A call failed on this node.
    #[error(transparent)]
    Fatal(#[from] FatalError),
    /// An input did not end as it should, so its time would mean nothing.
    #[error("{name}: {reason}")]
    Input {
        /// The input.
        name: String,
        /// What happened.
        reason: String,
    },
}

/// Times everything on the chain's default model. A memo is not consulted, and no prefix is known from an earlier run: a price pays for all of
/// the work.
pub fn run(inference: &Inference, options: &Options) -> Result<Report, CalibrationError> {
    let mut measurements = ethereum::measure(options)?;
    for input in worst_inputs::of_default_model(inference, options)? {
        measurements.push(measure(inference, options, &input)?);
    }
    Ok(Report { measurements })
}

fn measure(
    inference: &Inference,
    options: &Options,
    input: &worst_inputs::Input,
) -> Result<Measurement, CalibrationError> {
    let mut best: Option<Measurement> = None;
    let start = Instant::now();
    let mut runs = 0;
    while runs < LEAST_RUNS || start.elapsed() < options.time_per_input {
        let calldata = (input.calldata)(runs);
        inference.models().forget_prefixes();
        let before = Instant::now();
        let outcome = inference.execute(&calldata, Gas(u64::MAX));
        let nanoseconds = before.elapsed().as_nanos() as f64;
        let gas = match outcome? {
            Outcome::Return { gas, .. } if !input.reverts => gas,
            Outcome::Revert { gas, .. } if input.reverts => gas,
            other => {
                let reason = format!("it ended in {other:?}");
                return Err(CalibrationError::Input { name: input.name.clone(), reason });
            }
        };
        let run = Measurement { origin: Origin::Inference, name: input.name.clone(), gas, nanoseconds };
        if best.as_ref().is_none_or(|best| run.nanoseconds_per_gas() < best.nanoseconds_per_gas()) {
            best = Some(run);
        }
        runs += 1;
    }
    best.ok_or_else(|| CalibrationError::Input { name: input.name.clone(), reason: "it never ran".into() })
}

fn fastest(options: &Options, mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < LEAST_RUNS || start.elapsed() < options.time_per_input {
        let before = Instant::now();
        run();
        best = best.min(before.elapsed());
        runs += 1;
    }
    best.as_nanos() as f64
}
