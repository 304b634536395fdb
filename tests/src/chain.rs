//! A chain with the embedded model, and contracts on it.

use alloy_primitives::{Address, B256, Bytes, address};
use alloy_sol_types::{SolCall, SolValue, sol};
use anyhow::{Context, bail};
use metis_models::engine::{BackendChoice, Processor};
use metis_precompiles::abi::{Sampling, generateCall, scoreCall, tokenizeCall};
use metis_precompiles::{ChainConfig, MetisPrecompiles};
use metis_vm::{Outcome, State, Transaction, Vm};
use metisvm::artifacts;
use metisvm::node::{Node, embedded_bundle};

sol! {
    #[allow(missing_docs, reason = "the contract's own interface")]
    enum Kind { Call, StaticCall, DelegateCall }

    #[allow(missing_docs, reason = "the contract's own interface")]
    interface IProbe {
        function probe(Kind kind, address target, uint256 gasLimit, bytes data)
            external returns (bool success, bytes output, uint256 gasUsed);
        function nested(Kind[] path, address target, uint256 gasLimit, bytes data)
            external returns (bool success, bytes output, uint256 gasUsed);
        function bubble(Kind kind, address target, bytes data) external returns (bytes output);
        function constructedSuccess() external view returns (bool);
        function constructedData() external view returns (bytes);
    }
}

/// Who sends.
pub const SENDER: Address = address!("0x1111111111111111111111111111111111111111");

/// A machine with a deployed `Probe`.
#[derive(Debug)]
pub struct Probed {
    /// The machine.
    pub vm: Vm<MetisPrecompiles>,
    /// The contract.
    pub probe: Address,
}

/// The default chain at a fork.
pub fn node(fork: &str) -> anyhow::Result<Node> {
    let mut config = ChainConfig::embedded(embedded_bundle()?.id());
    config.fork = fork.to_owned();
    let processor = Processor::new(BackendChoice::Auto, 1)?;
    Node::with_config(config, &processor.into())
}

impl Probed {
    /// Deploys `Probe`, whose constructor STATICCALLs `target` unless that is zero.
    pub fn deploy(node: &Node, target: Address, data: &[u8]) -> anyhow::Result<Self> {
        let mut vm = node.vm(State::default());
        let arguments = (target, Bytes::copy_from_slice(data)).abi_encode_params();
        let outcome = vm.transact(&Transaction::create(SENDER, artifacts::probe()?.initcode(&arguments)?))?;
        match outcome.created_address {
            Some(probe) if outcome.is_success() => Ok(Self { vm, probe }),
            _ => bail!("Probe was not deployed: {}", outcome.status),
        }
    }

    /// Sends a call to `Probe`.
    pub fn send(&mut self, input: Vec<u8>) -> anyhow::Result<Outcome> {
        Ok(self.vm.transact(&Transaction::call(SENDER, self.probe, input))?)
    }

    /// Calls `target` in one way with a gas limit (0: all) and returns what came of it.
    pub fn probe(
        &mut self,
        kind: Kind,
        target: Address,
        gas: u64,
        data: &[u8],
    ) -> anyhow::Result<(bool, Bytes, u64)> {
        let gas_limit = alloy_primitives::U256::from(gas);
        let call =
            IProbe::probeCall { kind, target, gasLimit: gas_limit, data: Bytes::copy_from_slice(data) };
        let outcome = self.send(call.abi_encode())?;
        if !outcome.is_success() {
            bail!("the probe itself failed: {} {}", outcome.status, outcome.output);
        }
        let answer = IProbe::probeCall::abi_decode_returns(&outcome.output).context("the probe's answer")?;
        Ok((answer.success, answer.output, answer.gasUsed.saturating_to()))
    }
}

/// Calldata of a greedy `generate` on the default model.
pub fn generate(prompt: &str, max_new: u32) -> Vec<u8> {
    generateCall {
        model: B256::ZERO,
        prompt: Bytes::copy_from_slice(prompt.as_bytes()),
        maxNew: max_new,
        s: Sampling { temperatureQ16: 0, topPQ16: 0, topK: 0, seed: 0 },
        stopIds: Vec::new(),
    }
    .abi_encode()
}

/// Calldata of a `score` on the default model.
pub fn score(prompt: &str, labels: &[&str]) -> Vec<u8> {
    let labels = labels.iter().map(|label| Bytes::copy_from_slice(label.as_bytes())).collect();
    scoreCall { model: B256::ZERO, prompt: Bytes::copy_from_slice(prompt.as_bytes()), labels }.abi_encode()
}

/// Calldata of a `tokenize` on the default model.
pub fn tokenize(text: &str) -> Vec<u8> {
    tokenizeCall { model: B256::ZERO, text: Bytes::copy_from_slice(text.as_bytes()) }.abi_encode()
}
