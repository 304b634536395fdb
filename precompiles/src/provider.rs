//! The precompile in revm: Ethereum's precompiled contracts and ours behind one provider.

use std::sync::Arc;

use alloy_primitives::{Address, Bytes, U256};
use revm::context::{Block, Cfg, ContextTr};
use revm::handler::{EthPrecompiles, PrecompileProvider, precompile_output_to_interpreter_result};
use revm::interpreter::{CallInputs, InterpreterResult};
use revm::precompile::{PrecompileHalt, PrecompileOutput};
use revm::primitives::AddressSet;
use revm::primitives::hardfork::SpecId;

use crate::abi::INFERENCE_ADDRESS;
use crate::gas::Gas;
use crate::inference::{Inference, Outcome};

/// The precompiled contracts of a MetisVM chain.
///
/// The code address of a call decides, so CALL, STATICCALL, DELEGATECALL and CALLCODE all reach the inference precompile and get the same
/// answer.
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
}

impl MetisPrecompiles {
    /// Ethereum's precompiled contracts of `fork`, and `inference`.
    pub fn new(fork: SpecId, inference: Arc<Inference>) -> Self {
        let ethereum = EthPrecompiles::new(fork);
        let warm = warm_addresses(&ethereum);
        Self { ethereum, inference, warm, block: None }
    }

    /// The inference precompile.
    pub const fn inference(&self) -> &Arc<Inference> {
        &self.inference
    }
}

fn warm_addresses(ethereum: &EthPrecompiles) -> AddressSet {
    let mut warm = ethereum.warm_addresses().clone();
    warm.insert(INFERENCE_ADDRESS);
    warm
}

impl<C: ContextTr> PrecompileProvider<C> for MetisPrecompiles {
    type Output = InterpreterResult;

    fn set_spec(&mut self, spec: <C::Cfg as Cfg>::Spec) -> bool {
        let changed = <EthPrecompiles as PrecompileProvider<C>>::set_spec(&mut self.ethereum, spec);
        if changed {
            self.warm = warm_addresses(&self.ethereum);
        }
        changed
    }

    fn run(&mut self, context: &mut C, inputs: &CallInputs) -> Result<Option<InterpreterResult>, String> {
        if inputs.bytecode_address != INFERENCE_ADDRESS {
            return self.ethereum.run(context, inputs);
        }
        let block = Some(context.block().number());
        if self.block != block {
            self.block = block;
            self.inference.models().forget_prefixes();
        }
        let outcome = self
            .inference
            .call(&inputs.input.as_bytes(context), Gas(inputs.gas_limit))
            .map_err(|error| error.to_string())?;
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
        *address == INFERENCE_ADDRESS || self.ethereum.contains(address)
    }
}
