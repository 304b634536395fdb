//! Prints nanoseconds per gas, for a bundle or for shapes of models that are hard to price:
//!
//! ```text
//! cargo run --release -p metis-precompiles --example gas_calibration -- BUNDLE [BACKEND]
//! cargo run --release -p metis-precompiles --example gas_calibration -- --shapes [BACKEND]
//! ```

use std::error::Error;

use metis_models::Bundle;
use metis_models::engine::{EngineOptions, Processor};
use metis_models::fixture::Fixture;
use metis_precompiles::calibration::{self, Options};
use metis_precompiles::{ChainConfig, Inference, ModelSet};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let argument = arguments.next().ok_or("usage: gas_calibration (BUNDLE | --shapes) [BACKEND]")?;
    let processor = Processor::new(arguments.next().as_deref().unwrap_or("auto").parse()?, 1)?;
    println!("backend {}\n", processor.name());
    let mut too_cheap = 0;
    if argument == "--shapes" {
        for (name, shape) in shapes() {
            println!("## {name}\n");
            let folder = tempfile::tempdir()?;
            too_cheap += calibrate(&processor, &shape.bundle(folder.path())?.into_bundle()?)?;
        }
    } else {
        too_cheap = calibrate(&processor, &Bundle::open(argument)?)?;
    }
    if too_cheap > 0 {
        return Err(format!("{too_cheap} inputs are too cheap on this machine").into());
    }
    Ok(())
}

/// Prints the table and returns how many inputs are too cheap.
fn calibrate(processor: &Processor, bundle: &Bundle) -> Result<usize, Box<dyn Error>> {
    // Equal prompts of repeated calls are to be computed each time.
    let model = processor.load(bundle, EngineOptions::UNCACHED)?;
    let config = ChainConfig::embedded(model.id());
    let mut models = ModelSet::new(&config);
    models.insert(model)?;
    let report = calibration::run(&Inference::new(&config, models), &Options::default())?;
    println!("{report}");
    report.too_cheap().for_each(|input| println!("too cheap: {}", input.name));
    Ok(report.too_cheap().count())
}

/// Random weights; the time depends on the shape alone.
fn shapes() -> Vec<(&'static str, Fixture)> {
    let smallest = Fixture {
        hidden: 64,
        intermediate: 64,
        layers: 4,
        heads: 8,
        kv_heads: 8,
        context: 2_048,
        ..Fixture::default()
    };
    vec![
        ("smallest width and heads that are priced", smallest),
        ("large vocabulary on the smallest width", Fixture { vocabulary: 49_152, layers: 1, ..smallest }),
        ("narrow layers in between", Fixture { intermediate: 1, layers: 8, context: 4_096, ..smallest }),
        ("little but attention", Fixture { intermediate: 1, layers: 64, context: 1_024, ..smallest }),
        (
            "four layers of a 135M-parameter model",
            Fixture {
                hidden: 576,
                intermediate: 1_536,
                layers: 4,
                heads: 9,
                kv_heads: 3,
                vocabulary: 4_096,
                context: 2_048,
                ..Fixture::default()
            },
        ),
    ]
}
