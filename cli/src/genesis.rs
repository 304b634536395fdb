//! The accounts that a chain begins with: its system contracts, as their constructors make them under the chain's rules.

use alloy_primitives::aliases::{U24, U40, U96};
use alloy_primitives::{Address, B256, Bytes};
use alloy_sol_types::SolValue;
use anyhow::{bail, ensure};
use metis_precompiles::{ChainConfig, GATEWAY_ADDRESS, REGISTRY_ADDRESS, RegistryConfig, SHARES_ADDRESS};
use metis_vm::{Account, EvmBuilder, SpecId, State, Transaction, fork};
use revm::handler::EthPrecompiles;

use crate::artifacts::{self, Artifact};
use crate::contracts::Registry::RegistryRules;

/// The state before the first block: nothing, or the system contracts of a chain with a registry.
pub fn genesis(config: &ChainConfig) -> anyhow::Result<State> {
    let Some(registry) = &config.registry else { return Ok(State::default()) };
    let fork = fork::parse(&config.fork)?;
    ensure!(
        fork >= SpecId::CANCUN,
        "fork {} has no transient storage, which the model registry's contracts use: set `fork` to Cancun or later, or leave [registry] out",
        config.fork
    );
    let configured: Vec<B256> = config.models.iter().map(|model| model.id).collect();
    let rules = (rules(registry), configured).abi_encode_params();
    let mut state = State::default();
    for (address, artifact, arguments) in [
        (REGISTRY_ADDRESS, artifacts::model_registry()?, rules.as_slice()),
        (GATEWAY_ADDRESS, artifacts::inference_gateway()?, &[]),
        (SHARES_ADDRESS, artifacts::data_anchoring_token()?, &[]),
    ] {
        state.accounts.insert(address, constructed(config, fork, address, &artifact, arguments)?);
    }
    Ok(state)
}

fn rules(registry: &RegistryConfig) -> RegistryRules {
    let wei = |gwei: u64| U96::from(gwei) * U96::from(1_000_000_000u64);
    RegistryRules {
        maturity: U40::from(registry.maturity_seconds),
        notice: U40::from(registry.notice_seconds),
        maxModelMebibytes: U24::from(registry.max_model_mebibytes),
        residentMebibytes: U24::from(registry.resident_mebibytes),
        maxRentDays: registry.max_rent_days,
        bondBase: wei(registry.bond_gwei),
        bondPerMebibyte: wei(registry.bond_gwei_per_mebibyte),
        rentPerMebibyteDay: wei(registry.rent_gwei_per_mebibyte_day),
        collector: registry.collector,
    }
}

/// The account that a constructor makes at an address of an empty chain.
fn constructed(
    config: &ChainConfig,
    fork: SpecId,
    address: Address,
    artifact: &Artifact,
    arguments: &[u8],
) -> anyhow::Result<Account> {
    // Creation code runs like any other, and answers with the contract's.
    let creation = Account { code: artifact.initcode(arguments)?, nonce: 1, ..Account::default() };
    let state = State::from_iter([(address, creation)]);
    let builder = EvmBuilder::new().fork(fork).chain_id(config.chain_id).state(state);
    let mut vm = builder.build(EthPrecompiles::new(fork));
    let outcome = vm.transact(&Transaction::call(Address::ZERO, address, Bytes::new()))?;
    match vm.state().accounts.remove(&address) {
        Some(account) if outcome.is_success() => Ok(Account { code: outcome.output, ..account }),
        _ => bail!("a system contract cannot be constructed: {}", outcome.status),
    }
}
