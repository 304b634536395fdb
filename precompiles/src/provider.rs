//! The precompile in revm: Ethereum's precompiled contracts and ours behind one provider.

use std::sync::Arc;

use alloy_primitives::{Address, Bytes, U256, address};
use metis_vm::{Meter, MeterTerms};
use revm::context::{Block, Cfg, ContextTr, JournalTr};
use revm::context_interface::journaled_state::JournalLoadError;
use revm::handler::{EthPrecompiles, PrecompileProvider, precompile_output_to_interpreter_result};
use revm::interpreter::{CallInputs, CallScheme, InterpreterResult};
use revm::precompile::{PrecompileHalt, PrecompileOutput};
use revm::primitives::AddressSet;
use revm::primitives::hardfork::SpecId;

use crate::abi::INFERENCE_ADDRESS;
use crate::gas::Gas;
use crate::inference::{Answered, FatalError, Inference, Outcome};
use crate::meter;
use crate::registration::REGISTRY_ADDRESS;
use crate::site::{RegistryStorage, Site, Unread};

/// Where the Metis SDK's precompile is, on chains that have it.
pub const LEGACY_ADDRESS: Address = address!("0x0000000000000000000000000000000000000999");

/// The precompiled contracts of a MetisVM chain.
///
/// The code address of a call decides, so CALL, STATICCALL, DELEGATECALL and CALLCODE all reach the inference precompile and get the same
/// answer; only models with a price look at who asks.
///
/// Prefixes that prompts share are computed once per block: with the first call of another block, what earlier ones left is dropped, so that the
/// time which a block takes does not depend on the blocks before it.
#[derive(Clone, Debug)]
pub struct MetisPrecompiles {
    ethereum: EthPrecompiles,
    inference: Arc<Inference>,
    warm: AddressSet,
    /// The number of the block whose calls were answered last.
    block: Option<U256>,
    /// What the transaction may use.
    terms: Option<MeterTerms>,
    /// What it has used.
    metered: u64,
}

impl MetisPrecompiles {
    /// Ethereum's precompiled contracts of `fork`, and `inference`.
    pub fn new(fork: SpecId, inference: Arc<Inference>) -> Self {
        let ethereum = EthPrecompiles::new(fork);
        let warm = warm_addresses(&ethereum, &inference);
        Self { ethereum, inference, warm, block: None, terms: None, metered: 0 }
    }

    /// The inference precompile.
    pub const fn inference(&self) -> &Arc<Inference> {
        &self.inference
    }

    fn answer<C: ContextTr>(
        &mut self,
        context: &mut C,
        inputs: &CallInputs,
    ) -> Result<Option<Answered>, FatalError> {
        let block = Some(context.block().number());
        if self.block != block {
            self.block = block;
            self.inference.models().forget_prefixes();
        }
        let input = inputs.input.bytes(context);
        let (limit, time) = (Gas(inputs.gas_limit), context.block().timestamp().saturating_to());
        let asker = match inputs.scheme {
            CallScheme::Call | CallScheme::StaticCall => inputs.caller,
            // The contract that runs, not who called it.
            CallScheme::DelegateCall | CallScheme::CallCode => inputs.target_address,
        };
        let terms =
            self.terms.map(|terms| MeterTerms { left: terms.left.saturating_sub(self.metered), ..terms });
        let mut storage = JournalStorage { context, account_paid: false };
        let mut site = Site { asker, time, registry: Some(&mut storage), terms };
        if inputs.bytecode_address == INFERENCE_ADDRESS {
            self.inference.call_at(&input, limit, &mut site).map(Some)
        } else {
            self.inference.call_legacy(&input, limit, &mut site)
        }
    }
}

fn warm_addresses(ethereum: &EthPrecompiles, inference: &Inference) -> AddressSet {
    let mut warm = ethereum.warm_addresses().clone();
    warm.insert(INFERENCE_ADDRESS);
    if inference.has_legacy() {
        warm.insert(LEGACY_ADDRESS);
    }
    warm
}

impl Meter for MetisPrecompiles {
    fn begin_transaction(&mut self, terms: Option<MeterTerms>) {
        self.terms = terms;
        self.metered = 0;
    }

    fn metered(&self) -> u64 {
        self.metered
    }
}

impl<C: ContextTr> PrecompileProvider<C> for MetisPrecompiles {
    type Output = InterpreterResult;

    fn set_spec(&mut self, spec: <C::Cfg as Cfg>::Spec) -> bool {
        let changed = <EthPrecompiles as PrecompileProvider<C>>::set_spec(&mut self.ethereum, spec);
        if changed {
            self.warm = warm_addresses(&self.ethereum, &self.inference);
        }
        changed
    }

    fn run(&mut self, context: &mut C, inputs: &CallInputs) -> Result<Option<InterpreterResult>, String> {
        if ![INFERENCE_ADDRESS, LEGACY_ADDRESS].contains(&inputs.bytecode_address) {
            return self.ethereum.run(context, inputs);
        }
        let answered = self.answer(context, inputs).map_err(|error| error.to_string())?;
        let Some(Answered { outcome, metered: Gas(metered) }) = answered else {
            return self.ethereum.run(context, inputs);
        };
        self.metered = self.metered.saturating_add(metered);
        let reservoir = inputs.reservoir;
        let output = match outcome {
            Outcome::Return { output, gas: Gas(gas) } => PrecompileOutput::new(gas, output, reservoir),
            Outcome::Revert { output, gas: Gas(gas) } => PrecompileOutput::revert(gas, output, reservoir),
            Outcome::OutOfGas => PrecompileOutput {
                bytes: Bytes::new(),
                ..PrecompileOutput::halt(PrecompileHalt::OutOfGas, reservoir)
            },
        };
        Ok(Some(precompile_output_to_interpreter_result(output, inputs.gas_limit)))
    }

    fn warm_addresses(&self) -> &AddressSet {
        &self.warm
    }

    fn contains(&self, address: &Address) -> bool {
        *address == INFERENCE_ADDRESS
            || (*address == LEGACY_ADDRESS && self.inference.has_legacy())
            || self.ethereum.contains(address)
    }
}

/// The registry's storage in the journal.
struct JournalStorage<'a, C> {
    context: &'a mut C,
    /// The first access is also one of the account.
    account_paid: bool,
}

impl<C: ContextTr> RegistryStorage for JournalStorage<'_, C> {
    fn load(&mut self, slot: U256, meter: &mut meter::Meter) -> Result<U256, Unread> {
        let prices = ReadPrices::of(self.context);
        let journal = self.context.journal_mut();
        if !self.account_paid {
            // What cannot be paid is not fetched, as in SLOAD.
            let skip = meter.left() < prices.cold_account;
            let account =
                journal.load_account_mut_skip_cold_load(REGISTRY_ADDRESS, skip).map(|found| found.is_cold);
            meter.charge(if is_cold(account)? { prices.cold_account } else { prices.warm })?;
            self.account_paid = true;
        }
        let skip = meter.left() < prices.cold_slot;
        let mut value = U256::ZERO;
        let found = journal.sload_skip_cold_load(REGISTRY_ADDRESS, slot, skip).map(|found| {
            value = found.data;
            found.is_cold
        });
        meter.charge(if is_cold(found)? { prices.cold_slot } else { prices.warm })?;
        Ok(value)
    }

    fn dearest(&self, slots: u32) -> Gas {
        let prices = ReadPrices::of(self.context);
        (0..slots).fold(prices.cold_account, |sum, _| sum.plus(prices.cold_slot))
    }
}

/// What reading costs at the transaction's fork.
struct ReadPrices {
    warm: Gas,
    cold_account: Gas,
    cold_slot: Gas,
}

impl ReadPrices {
    fn of(context: &impl ContextTr) -> Self {
        let params = context.cfg().gas_params();
        let warm = params.warm_storage_read_cost();
        Self {
            warm: Gas(warm),
            cold_account: Gas(warm + params.cold_account_additional_cost()),
            cold_slot: Gas(warm + params.cold_storage_additional_cost()),
        }
    }
}

/// Whether what was looked for is cold, be it fetched or not.
fn is_cold<E: core::fmt::Debug>(found: Result<bool, JournalLoadError<E>>) -> Result<bool, Unread> {
    match found {
        Ok(is_cold) => Ok(is_cold),
        Err(JournalLoadError::ColdLoadSkipped) => Ok(true),
        Err(JournalLoadError::DBError(error)) => Err(Unread::Fatal(FatalError::State(format!("{error:?}")))),
    }
}
