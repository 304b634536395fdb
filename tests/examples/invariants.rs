//! Many random histories of the system contracts, on all cores:
//!
//! ```sh
//! cargo run --release -p metis-tests --example invariants -- 100000 [first seed]
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use metis_tests::invariants::Stage;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |name: &str, default: u64| match arguments.next() {
        None => Ok(default),
        Some(text) => text.parse().with_context(|| format!("{name} is {text:?}, and must be a number")),
    };
    let (runs, first) = (number("the number of runs", 1_000)?, number("the first seed", 0)?);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism()?.get();
    let play = || -> anyhow::Result<()> {
        let stage = Stage::new()?;
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs {
                return Ok(());
            }
            if let Err(violation) = stage.run(first + run, 60) {
                // Nobody begins another.
                next.store(runs, Ordering::Relaxed);
                return Err(violation);
            }
            if (run + 1).is_multiple_of(10_000) {
                eprintln!("{} runs", run + 1);
            }
        }
    };
    std::thread::scope(|scope| {
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
        players.into_iter().try_for_each(|player| player.join().expect("a player panicked"))
    })?;
    println!("{runs} runs of 60 steps from seed {first}, no violation");
    Ok(())
}
