//! Which instructions are revm's own, and what they cost now.
//!
//! A user may replace instructions and costs. Programs are made for the tables in force: replaced instructions are executed
//! by the user's function, and costs come from the user's table.
#![allow(unsafe_code, reason = "compares function pointers that revm does not show")]

use alloy_primitives::{B256, Keccak256};
use metis_opcode_opt::{Op, Target};
use revm::{
    context::Host,
    interpreter::{
        Instruction, InstructionTable,
        instructions::{GasTable, gas_table_spec, instruction_table},
        interpreter::EthInterpreter,
    },
    primitives::hardfork::SpecId,
};
use std::sync::Arc;

/// revm's tables as they were last seen, and what programs depend on.
#[derive(Debug)]
pub(super) struct Tables {
    spec: SpecId,
    gas: GasTable,
    instructions: [usize; 256],
    pub(super) target: Arc<Target>,
    pub(super) identity: B256,
}

impl Tables {
    pub(super) fn new<H: Host>(
        spec: SpecId,
        gas: &GasTable,
        instructions: &InstructionTable<EthInterpreter, H>,
    ) -> Self {
        let addresses = *addresses(instructions);
        let original = instruction_table::<EthInterpreter, H>();
        let original = self::addresses(&original);
        let mut target = Target { gas: *gas, native: [false; 256] };
        for &op in Op::ALL {
            let byte = usize::from(op.byte());
            target.native[byte] = addresses[byte] == original[byte] && is_enabled(op, spec);
        }
        let mut identity = Keccak256::new();
        identity.update([spec as u8]);
        gas.iter().for_each(|cost| identity.update(cost.to_le_bytes()));
        target.native.iter().for_each(|&native| identity.update([native.into()]));
        Self {
            spec,
            gas: *gas,
            instructions: addresses,
            target: Arc::new(target),
            identity: identity.finalize(),
        }
    }

    /// Whether these are still the tables in force.
    pub(super) fn are<H: Host>(
        &self,
        spec: SpecId,
        gas: &GasTable,
        instructions: &InstructionTable<EthInterpreter, H>,
    ) -> bool {
        self.spec == spec && self.gas == *gas && self.instructions == *addresses(instructions)
    }
}

/// Mainnet's own tables, as a program sees them.
pub(super) fn mainnet(spec: SpecId) -> Target {
    let mut target = Target { gas: gas_table_spec(spec), native: [false; 256] };
    for &op in Op::ALL {
        target.native[usize::from(op.byte())] = is_enabled(op, spec);
    }
    target
}

/// The functions of a table, to compare. Equal addresses are equal code; unequal ones may be too, which costs speed only.
fn addresses<H: Host>(table: &InstructionTable<EthInterpreter, H>) -> &[usize; 256] {
    const { assert!(size_of::<Instruction<EthInterpreter, ()>>() == size_of::<usize>()) };
    // SAFETY: an instruction is one function pointer, which has the size of an address (checked above) and no padding.
    unsafe { &*(&raw const *table).cast::<[usize; 256]>() }
}

/// Whether the fork has the instruction.
fn is_enabled(op: Op, spec: SpecId) -> bool {
    let since = match op {
        Op::RETURNDATASIZE => SpecId::BYZANTIUM,
        // revm's own condition; no test or chain stands between Constantinople and Petersburg.
        Op::SHL | Op::SHR | Op::SAR => SpecId::PETERSBURG,
        Op::PUSH0 => SpecId::SHANGHAI,
        _ => SpecId::FRONTIER,
    };
    spec.is_enabled_in(since)
}
