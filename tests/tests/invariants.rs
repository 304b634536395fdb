//! Random histories of registry, shares and gateway.

use metis_tests::invariants::Stage;

#[test]
fn what_must_hold_holds_in_random_histories() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    (0..300).try_for_each(|seed| stage.run(seed, 60))
}
