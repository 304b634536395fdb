//! The rules of a subtest: fork, configuration, block.

use super::suite::{Blobs, Config, Env};
use crate::blob_price;
use metis_vm::{SpecId, fork};
use revm::context::{BlockEnv, CfgEnv};

/// The most blobs of a transaction, by the fork that set it and where the file has no schedule: EIP-4844, EIP-7691 and
/// EIP-7594, of which only the last limits the transaction and not the block.
const MAX_BLOBS: [(SpecId, u64); 3] = [(SpecId::OSAKA, 6), (SpecId::PRAGUE, 9), (SpecId::CANCUN, 6)];

/// The fork with a name that state tests use.
///
/// # Errors
/// Why subtests of this fork are skipped.
pub(super) fn fork_by_name(name: &str) -> Result<SpecId, String> {
    if name.eq_ignore_ascii_case("Constantinople") {
        return Err(
            "fork Constantinople: its SSTORE gas (EIP-1283) was withdrawn before it went live; revm does not have it"
                .to_owned(),
        );
    }
    if name.contains("At") && name.contains("To") {
        return Err(format!("fork {name}: a change of forks, of which one transaction shows nothing"));
    }
    fork::parse(name).map_err(|_| format!("fork {name}: unknown to revm"))
}

/// What the fork and the file fix.
///
/// # Errors
/// Which number is too large.
pub(super) fn configuration(
    name: &str,
    spec: SpecId,
    env: &Env,
    config: &Config,
) -> Result<CfgEnv, &'static str> {
    let chain_id = match config.chain_id.or(env.chain_id) {
        Some(chain_id) => chain_id.to_u64().ok_or("the chain id needs more than 64 bits")?,
        None => 1,
    };
    let mut cfg = CfgEnv::new().with_spec_and_mainnet_gas_params(spec).with_chain_id(chain_id);
    cfg.max_blobs_per_tx = max_blobs(spec);
    if let Some(Blobs { max, base_fee_update_fraction, .. }) = config.blob_schedule.get(name) {
        let max = max.to_u64().ok_or("the most blobs need more than 64 bits")?;
        let of_tx = max_blobs(spec).filter(|_| spec.is_enabled_in(SpecId::OSAKA));
        cfg.max_blobs_per_tx = Some(of_tx.unwrap_or(max).min(max));
        let fraction = base_fee_update_fraction.to_u64().filter(|fraction| *fraction > 0);
        cfg.blob_base_fee_update_fraction = Some(fraction.ok_or("no usable baseFeeUpdateFraction")?);
    }
    Ok(cfg)
}

fn max_blobs(spec: SpecId) -> Option<u64> {
    MAX_BLOBS.iter().find(|(since, _)| spec.is_enabled_in(*since)).map(|(_, max)| *max)
}

/// The block, with the fields that its fork has.
///
/// # Errors
/// Which number is too large, or that blobs have no price.
pub(super) fn block(spec: SpecId, env: &Env, cfg: &CfgEnv) -> Result<BlockEnv, &'static str> {
    let mut block = BlockEnv {
        number: env.current_number.0,
        beneficiary: env.current_coinbase,
        timestamp: env.current_timestamp.0,
        // Some tests want a limit that nothing reaches: more than 64 bits of it make no difference.
        gas_limit: env.current_gas_limit.to_u64().unwrap_or(u64::MAX),
        basefee: 0,
        difficulty: env.current_difficulty.0,
        prevrandao: None,
        blob_excess_gas_and_price: None,
        slot_num: env.slot_number.to_u64().ok_or("slotNumber needs more than 64 bits")?,
    };
    // One env serves every fork of the test, so it holds fields that older forks do not know.
    if spec.is_enabled_in(SpecId::LONDON) {
        let fee = env.current_base_fee.unwrap_or_default();
        block.basefee = fee.to_u64().ok_or("currentBaseFee needs more than 64 bits")?;
    }
    if spec.is_enabled_in(SpecId::MERGE) {
        block.prevrandao = Some(env.current_random.unwrap_or_default().0.into());
    }
    if spec.is_enabled_in(SpecId::CANCUN) {
        let excess = env.current_excess_blob_gas.unwrap_or_default();
        let excess = excess.to_u64().ok_or("currentExcessBlobGas needs more than 64 bits")?;
        let price = blob_price::of(excess, cfg.blob_base_fee_update_fraction())
            .ok_or("currentExcessBlobGas and baseFeeUpdateFraction give no usable price of blob gas")?;
        block.blob_excess_gas_and_price = Some(price);
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fork_of_the_tests_is_known_or_its_absence_explained() {
        for (name, spec) in [
            ("Frontier", SpecId::FRONTIER),
            ("Homestead", SpecId::HOMESTEAD),
            ("EIP150", SpecId::TANGERINE),
            ("EIP158", SpecId::SPURIOUS_DRAGON),
            ("Byzantium", SpecId::BYZANTIUM),
            ("ConstantinopleFix", SpecId::PETERSBURG),
            ("Istanbul", SpecId::ISTANBUL),
            ("Berlin", SpecId::BERLIN),
            ("London", SpecId::LONDON),
            ("Paris", SpecId::MERGE),
            ("Merge", SpecId::MERGE),
            ("Shanghai", SpecId::SHANGHAI),
            ("Cancun", SpecId::CANCUN),
            ("Prague", SpecId::PRAGUE),
            ("Osaka", SpecId::OSAKA),
            ("Amsterdam", SpecId::AMSTERDAM),
        ] {
            assert_eq!(fork_by_name(name), Ok(spec));
        }
        assert!(fork_by_name("Constantinople").unwrap_err().contains("EIP-1283"));
        assert!(fork_by_name("PragueToOsakaAtTime15k").unwrap_err().contains("a change of forks"));
        assert!(fork_by_name("Ossaka").unwrap_err().contains("unknown"));
    }

    #[test]
    fn a_transaction_of_osaka_has_its_own_limit_of_blobs() {
        let env: Env = serde_json::from_str(
            r#"{"currentCoinbase": "0x0000000000000000000000000000000000000000", "currentGasLimit": "0x01",
                "currentNumber": "0x01", "currentTimestamp": "0x01", "currentExcessBlobGas": "0x240000"}"#,
        )
        .unwrap();
        let config: Config = serde_json::from_str(
            r#"{"chainid": "0x05", "blobSchedule": {
                "Prague": {"target": "0x06", "max": "0x09", "baseFeeUpdateFraction": "0x4c6964"},
                "Osaka": {"target": "0x06", "max": "0x09", "baseFeeUpdateFraction": "0x32f0ed"}}}"#,
        )
        .unwrap();
        let prague = configuration("Prague", SpecId::PRAGUE, &env, &config).unwrap();
        let osaka = configuration("Osaka", SpecId::OSAKA, &env, &config).unwrap();
        assert_eq!((prague.max_blobs_per_tx, osaka.max_blobs_per_tx), (Some(9), Some(6)));
        assert_eq!(prague.chain_id, 5);
        // EIP-7691 made the price of blobs rise more slowly; the file may say otherwise.
        let price =
            |spec, cfg| block(spec, &env, cfg).unwrap().blob_excess_gas_and_price.unwrap().blob_gasprice;
        assert_eq!((price(SpecId::PRAGUE, &prague), price(SpecId::OSAKA, &osaka)), (1, 2));
        assert!(block(SpecId::SHANGHAI, &env, &prague).unwrap().blob_excess_gas_and_price.is_none());
    }

    #[test]
    fn a_price_of_blobs_that_cannot_be_worked_out_is_an_error() {
        let problem = |excess: &str, fraction: &str| {
            let env = serde_json::json!({
                "currentCoinbase": "0x0000000000000000000000000000000000000000", "currentGasLimit": "0x01",
                "currentNumber": "0x01", "currentTimestamp": "0x01", "currentExcessBlobGas": excess,
            });
            let blobs = serde_json::json!({ "max": "0x06", "baseFeeUpdateFraction": fraction });
            let config = serde_json::json!({ "blobSchedule": { "Cancun": blobs } });
            let (env, config) =
                (serde_json::from_value(env).unwrap(), serde_json::from_value(config).unwrap());
            configuration("Cancun", SpecId::CANCUN, &env, &config)
                .and_then(|cfg| block(SpecId::CANCUN, &env, &cfg))
                .unwrap_err()
        };
        assert!(problem("0xffffffffffffffff", "0x32f0ed").contains("currentExcessBlobGas"));
        assert!(problem("0x7fffffff", "0x1").contains("currentExcessBlobGas"));
        assert!(problem("0x0", "0xffffffffffffffff").contains("baseFeeUpdateFraction"));
        assert!(problem("0x0", "0x0").contains("baseFeeUpdateFraction"));
    }
}
