//! A chain with a model registry, people with money, and a small random model in a folder.

use std::path::Path;

use alloy_primitives::{Address, B256, Bytes, U256, address};
use alloy_sol_types::{SolCall, SolError};
use anyhow::{Context, bail, ensure};
use metis_models::Bundle;
use metis_models::bundle::BundleParts;
use metis_models::engine::{BackendChoice, Processor};
use metis_models::fixture::Fixture;
use metis_precompiles::abi::{Sampling, generateCall};
use metis_precompiles::costs::ModelCosts;
use metis_precompiles::{ChainConfig, Claims, MetisPrecompiles, REGISTRY_ADDRESS, RegistryConfig};
use metis_vm::{Account, BlockInfo, Outcome, State, Status, Transaction, Vm};
use metisvm::contracts::Registry;
use metisvm::node::{Node, embedded_bundle};
use tempfile::TempDir;

/// Who makes models.
pub const AUTHOR: Address = address!("0x00000000000000000000000000000000000a0704");
/// Who uses them.
pub const USER: Address = address!("0x0000000000000000000000000000000000005E25");
/// Somebody else.
pub const STRANGER: Address = address!("0x0000000000000000000000000000000000005777");
/// Everybody's money.
pub const RICH: u128 = 1_000_000_000_000_000_000_000_000;
/// A day in seconds.
pub const DAY: u64 = 86_400;

/// The rules of the test chain: short, cheap, and tight.
pub fn rules() -> RegistryConfig {
    RegistryConfig {
        maturity_seconds: 100,
        notice_seconds: 50,
        max_model_mebibytes: 4,
        resident_mebibytes: 2,
        max_rent_days: 30,
        bond_gwei: 1_000,
        bond_gwei_per_mebibyte: 10,
        rent_gwei_per_mebibyte_day: 3,
        collector: address!("0x000000000000000000000000000000000000C011"),
        ..RegistryConfig::default()
    }
}

/// The chain.
#[derive(Debug)]
pub struct Economy {
    /// The node.
    pub node: Node,
    /// The machine.
    pub vm: Vm<MetisPrecompiles>,
    /// Where bundles are, each in a folder named after its id.
    pub folder: TempDir,
}

/// A model that is not registered yet.
#[derive(Clone, Debug)]
pub struct Unregistered {
    /// Its id.
    pub id: B256,
    /// What is true of it.
    pub claims: Registry::ModelClaims,
}

/// A question that any model can answer.
pub fn generate(model: B256) -> generateCall {
    generateCall {
        model,
        prompt: Bytes::from_static(b"once"),
        maxNew: 4,
        s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
        stopIds: Vec::new(),
    }
}

/// Terms of a model without a price.
pub fn free() -> Registry::ModelTerms {
    Registry::ModelTerms {
        parent: B256::ZERO,
        perCall: Default::default(),
        perGas: 0,
        founderShare: 6_000,
        licence: "Apache-2.0".into(),
        uri: "https://models.example".into(),
    }
}

/// Terms with a price, in wei.
pub fn priced(per_call: u64, per_gas: u64) -> Registry::ModelTerms {
    Registry::ModelTerms {
        perCall: alloy_primitives::aliases::U96::from(per_call),
        perGas: per_gas,
        ..free()
    }
}

/// Makes the bundle of a small random model in `folder`, under its id.
pub fn small_model(folder: &Path, seed: u64) -> anyhow::Result<B256> {
    let parts = small_bundle(Fixture { seed, ..Fixture::default() })?;
    let id = parts.id();
    parts.write(&folder.join(id.to_string()))?;
    Ok(id)
}

/// The bundle of a small random model.
pub fn small_bundle(fixture: Fixture) -> anyhow::Result<BundleParts> {
    Ok(fixture.bundle(tempfile::tempdir()?.path())?)
}

impl Economy {
    /// A chain with [`rules`] at time 1, and what else `adjust` gives it.
    pub fn new(adjust: impl FnOnce(&mut ChainConfig)) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut config = ChainConfig::embedded(embedded_bundle()?.id());
        config.registry = Some(RegistryConfig { bundles: folder.path().into(), ..rules() });
        adjust(&mut config);
        let node = Node::with_config(config, &Processor::new(BackendChoice::Auto, 1)?.into())?;
        let rich = Account { balance: U256::from(RICH), ..Account::default() };
        let people = [AUTHOR, USER, STRANGER].map(|address| (address, rich.clone()));
        let vm = node.vm(State::from_iter(people));
        Ok(Self { node, vm, folder })
    }

    /// A small random model in the chain's folder.
    pub fn model(&self, seed: u64) -> anyhow::Result<Unregistered> {
        self.publish(&small_bundle(Fixture { seed, ..Fixture::default() })?)
    }

    /// A model in the chain's folder.
    pub fn publish(&self, parts: &BundleParts) -> anyhow::Result<Unregistered> {
        let id = parts.id();
        parts.write(&self.folder.path().join(id.to_string()))?;
        let bundle = Bundle::open(self.folder.path().join(id.to_string()))?;
        let costs = ModelCosts::of(bundle.manifest(), &bundle.tokenizer()?)?;
        Ok(Unregistered { id, claims: (&Claims::of(bundle.manifest(), &costs)).into() })
    }

    /// The block's time.
    pub fn time(&self) -> u64 {
        self.vm.config().block.timestamp
    }

    /// Begins a block so many seconds later.
    pub fn wait(&mut self, seconds: u64) {
        let block = self.vm.config().block.clone();
        let (number, timestamp) = (block.number + 1, block.timestamp + seconds);
        self.vm.set_block(BlockInfo { number, timestamp, ..block });
    }

    /// Deploys a contract with constructor arguments that are encoded.
    pub fn deploy(
        &mut self,
        from: Address,
        value: U256,
        code: &[u8],
        arguments: &[u8],
    ) -> anyhow::Result<Outcome> {
        let create = Transaction::create(from, [code, arguments].concat()).with_value(value);
        Ok(self.vm.transact(&create)?)
    }

    /// Sends a transaction.
    pub fn send(
        &mut self,
        from: Address,
        to: Address,
        value: U256,
        input: impl Into<Bytes>,
    ) -> anyhow::Result<Outcome> {
        Ok(self.vm.transact(&Transaction::call(from, to, input).with_value(value))?)
    }

    /// A call that must succeed; returns the transaction's outcome with what the call returned.
    pub fn ok<C: SolCall>(
        &mut self,
        from: Address,
        to: Address,
        value: U256,
        call: &C,
    ) -> anyhow::Result<(Outcome, C::Return)> {
        let outcome = self.send(from, to, value, call.abi_encode())?;
        ensure!(outcome.is_success(), "{}: {} {}", C::SIGNATURE, outcome.status, outcome.output);
        let returned = C::abi_decode_returns(&outcome.output).context(C::SIGNATURE)?;
        Ok((outcome, returned))
    }

    /// A view.
    pub fn view<C: SolCall>(&mut self, to: Address, call: &C) -> anyhow::Result<C::Return> {
        let outcome = self.vm.simulate(&Transaction::call(USER, to, call.abi_encode()))?;
        ensure!(outcome.is_success(), "{}: {} {}", C::SIGNATURE, outcome.status, outcome.output);
        C::abi_decode_returns(&outcome.output).context(C::SIGNATURE)
    }

    /// A call that must revert with an error.
    pub fn reverts<C: SolCall, E: SolError + std::fmt::Debug + PartialEq>(
        &mut self,
        from: Address,
        to: Address,
        value: U256,
        call: &C,
        error: &E,
    ) -> anyhow::Result<()> {
        let outcome = self.send(from, to, value, call.abi_encode())?;
        if outcome.status != Status::Revert || outcome.output != error.abi_encode() {
            let found = E::abi_decode(&outcome.output);
            bail!("{}: {} {} {found:?}, not {error:?}", C::SIGNATURE, outcome.status, outcome.output);
        }
        Ok(())
    }

    /// Money of an account.
    pub fn balance(&self, address: Address) -> U256 {
        self.vm.balance(address)
    }

    /// The bond of a small model: one MiB.
    pub fn bond() -> U256 {
        U256::from(1_010) * U256::from(1_000_000_000u64)
    }

    /// Rent of a small model for so many days.
    pub fn rent(days: u16) -> U256 {
        U256::from(3 * u64::from(days)) * U256::from(1_000_000_000u64)
    }

    /// Announces and registers a model as its author.
    pub fn register(&mut self, model: &Unregistered, terms: Registry::ModelTerms) -> anyhow::Result<U256> {
        let salt = B256::repeat_byte(7);
        let commitment = Registry::commitmentOfCall { model: model.id, author: AUTHOR, salt };
        let commitment = self.view(REGISTRY_ADDRESS, &commitment)?;
        self.ok(AUTHOR, REGISTRY_ADDRESS, U256::ZERO, &Registry::commitCall { commitment })?;
        self.wait(1);
        let claims = model.claims.clone();
        let register = Registry::registerCall { model: model.id, claims, terms, salt };
        Ok(self.ok(AUTHOR, REGISTRY_ADDRESS, Self::bond(), &register)?.1)
    }

    /// Registers a model, waits, and activates it for ten days.
    pub fn activate(&mut self, model: &Unregistered, terms: Registry::ModelTerms) -> anyhow::Result<U256> {
        let class = self.register(model, terms)?;
        self.wait(100);
        let activate = Registry::activateCall { model: model.id, daysPaid: 10 };
        self.ok(AUTHOR, REGISTRY_ADDRESS, Self::rent(10), &activate)?;
        Ok(class)
    }
}
