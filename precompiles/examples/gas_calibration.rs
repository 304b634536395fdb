//! Prints nanoseconds per gas, for a bundle or for shapes of models that are hard to price:
//!
//! ```text
//! cargo run --release -p metis-precompiles --example gas_calibration -- BUNDLE
//! cargo run --release -p metis-precompiles --example gas_calibration -- --shapes
//! ```

use std::error::Error;
use std::sync::Arc;

use metis_kernels::Scalar;
use metis_models::fixture::Fixture;
use metis_models::{Bundle, Engine, InferenceModel};
use metis_precompiles::calibration::{self, Options};
use metis_precompiles::{ChainConfig, Inference, ModelSet};

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1).ok_or("usage: gas_calibration BUNDLE | --shapes")?;
    let mut too_cheap = 0;
    if argument == "--shapes" {
        for (name, shape) in shapes() {
            println!("## {name}\n");
            let folder = tempfile::tempdir()?;
            too_cheap += calibrate(&shape.bundle(folder.path())?.into_bundle()?)?;
        }
    } else {
        too_cheap = calibrate(&Bundle::open(argument)?)?;
    }
    if too_cheap > 0 {
        return Err(format!("{too_cheap} inputs are too cheap on this machine").into());
    }
    Ok(())
}

/// Prints the table and returns how many inputs are too cheap.
fn calibrate(bundle: &Bundle) -> Result<usize, Box<dyn Error>> {
    let model: Arc<dyn InferenceModel> = Arc::new(Engine::load(bundle, Arc::new(Scalar::new()))?);
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
