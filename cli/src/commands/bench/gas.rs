//! `metisvm bench gas`.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use metis_precompiles::calibration::{self, Options, Origin};
use serde_json::json;

use crate::cli::Global;
use crate::node::Node;
use crate::report::Report;

/// Times the chain's default model. Figures of a machine that does other work at the same time mean little.
#[derive(Debug, Args)]
pub struct Gas {}

impl Gas {
    pub(super) fn run(self, global: &Global, report: Report) -> anyhow::Result<ExitCode> {
        let node = Node::new(global)?;
        let measured = calibration::run(node.inference(), &Options::default())?;
        let (ethereum, inference) = (measured.worst(Origin::Ethereum), measured.worst(Origin::Inference));
        let too_cheap: Vec<&str> = measured.too_cheap().map(|m| m.name.as_str()).collect();
        let rows: Vec<_> = measured
            .measurements
            .iter()
            .map(|m| {
                json!({
                    "origin": m.origin, "name": m.name, "gas": m.gas, "nanoseconds": m.nanoseconds,
                    "nanoseconds_per_gas": m.nanoseconds_per_gas(),
                })
            })
            .collect();
        let value = json!({
            "rows": rows, "worst_ethereum": ethereum, "worst_inference": inference,
            "ratio": inference / ethereum, "allowed_ratio": calibration::ALLOWED_RATIO, "too_cheap": too_cheap,
        });
        report.finish(&value, || {
            let mut text = measured.to_string();
            let _ = writeln!(
                text,
                "\nworst of inference {inference:.2} ns/gas, worst of Ethereum {ethereum:.2} ns/gas: {:.2} times (allowed {})",
                inference / ethereum,
                calibration::ALLOWED_RATIO
            );
            for name in &too_cheap {
                let _ = writeln!(text, "too cheap on this machine: {name}");
            }
            text
        })?;
        Ok(if too_cheap.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
