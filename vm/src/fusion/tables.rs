//! Which instructions are revm's own, and what they cost now.
//!
//! A user may replace instructions and costs. Programs are made for the tables in force: replaced instructions are executed
//! by the user's function, and costs come from the user's table.
#![allow(unsafe_code, reason = "compares function pointers that revm does not show")]

use alloy_primitives::{B256, Keccak256};
use metis_opcode_opt::{Op, Target};
use revm::{
    context::Host,
    handler::instructions::EthInstructions,
    interpreter::{
        Instruction, InstructionTable,
        instructions::{GasTable, gas_table_spec},
        interpreter::EthInterpreter,
    },
    primitives::hardfork::SpecId,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// The addresses of revm's own functions, as the crate that builds the machine has them.
///
/// A function may have another address in each crate that uses it. So they are taken in the crate that calls `with_fusion`.
#[derive(Clone, Debug)]
pub(super) struct Originals(Box<[usize; 256]>);

impl Originals {
    pub(super) fn new<H: Host>() -> Self {
        let mainnet = EthInstructions::<EthInterpreter, H>::new_mainnet_with_spec(SpecId::default());
        Self(Box::new(*addresses(mainnet.instruction_table())))
    }
}

/// Replaced instructions from which on something else than replacing is likely.
const MANY: usize = 64;

/// Whether that has been said once.
static WARNED: AtomicBool = AtomicBool::new(false);

/// revm's tables as they were last seen, and what programs depend on.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) spec: SpecId,
    gas: GasTable,
    instructions: [usize; 256],
    pub(super) target: Arc<Target>,
    pub(super) identity: B256,
    /// Most instructions are not revm's own as far as can be seen. revm's loop is faster then.
    pub(super) is_foreign: bool,
}

impl Tables {
    pub(super) fn new<H: Host>(
        originals: &Originals,
        spec: SpecId,
        gas: &GasTable,
        instructions: &InstructionTable<EthInterpreter, H>,
    ) -> Self {
        let addresses = *addresses(instructions);
        let mut target = Target { gas: *gas, native: [false; 256] };
        let mut replaced = 0;
        for &op in Op::ALL {
            let byte = usize::from(op.byte());
            let is_original = is_original(byte, &addresses, &originals.0);
            target.native[byte] = is_original && is_enabled(op, spec);
            replaced += usize::from(!is_original);
        }
        let is_foreign = replaced >= MANY;
        if is_foreign && !WARNED.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                replaced,
                "most instructions are not revm's own, and revm's loop executes; if you replaced none, call \
                 `with_fusion` in the crate that calls `build_mainnet`"
            );
        }
        Self {
            spec,
            gas: *gas,
            instructions: addresses,
            identity: identity(spec, &target),
            target: Arc::new(target),
            is_foreign,
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

/// What a program's key says of the tables. Mainnet's are known once they were needed once: a fresh machine's first
/// transaction may be its only one.
fn identity(spec: SpecId, target: &Target) -> B256 {
    static MAINNET: Mutex<BTreeMap<u8, (Target, B256)>> = Mutex::new(BTreeMap::new());
    let mut known = MAINNET.lock().unwrap_or_else(PoisonError::into_inner);
    let (mainnet, identity) = known.entry(spec as u8).or_insert_with(|| {
        let mainnet = mainnet(spec);
        let identity = digest(spec, &mainnet);
        (mainnet, identity)
    });
    if mainnet == target { *identity } else { digest(spec, target) }
}

fn digest(spec: SpecId, target: &Target) -> B256 {
    let mut digest = Keccak256::new();
    digest.update([spec as u8]);
    target.gas.iter().for_each(|cost| digest.update(cost.to_le_bytes()));
    target.native.iter().for_each(|&native| digest.update([native.into()]));
    digest.finalize()
}

/// Whether a table's function is revm's own.
///
/// STOP, JUMPDEST and INVALID only return a constant, of which the compiler makes a copy in each part of a crate. Copies lie at
/// the same distances from one another, and a user's function lies elsewhere.
fn is_original(byte: usize, table: &[usize; 256], original: &[usize; 256]) -> bool {
    let [stop, jumpdest, invalid] = [Op::STOP, Op::JUMPDEST, Op::INVALID].map(|op| usize::from(op.byte()));
    let distances =
        |table: &[usize; 256]| [jumpdest, invalid].map(|byte| table[byte].wrapping_sub(table[stop]));
    table[byte] == original[byte]
        || ([stop, jumpdest, invalid].contains(&byte) && distances(table) == distances(original))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EvmContext;
    use revm::interpreter::{Instruction, InstructionContext, InstructionExecResult};

    fn nothing(_: InstructionContext<'_, EvmContext, EthInterpreter>) -> InstructionExecResult {
        // Not what JUMPDEST does, so that the two are not one function.
        Err(revm::interpreter::InstructionResult::CallTooDeep)
    }

    #[test]
    fn revms_own_functions_are_recognised_and_a_users_are_not() {
        let originals = Originals::new::<EvmContext>();
        for spec in crate::fork::all() {
            let mut tables = EthInstructions::<EthInterpreter, EvmContext>::new_mainnet_with_spec(spec);
            let seen = Tables::new(&originals, spec, tables.gas_table(), tables.instruction_table());
            assert_eq!(seen.target.native, mainnet(spec).native, "{spec:?}");
            assert_eq!(seen.target.gas, mainnet(spec).gas, "{spec:?}");
            assert!(seen.are(spec, tables.gas_table(), tables.instruction_table()));

            for op in [Op::ADD, Op::JUMPDEST, Op::SLOAD] {
                tables.insert_instruction(op.byte(), Instruction::new(nothing), 7);
                assert!(!seen.are(spec, tables.gas_table(), tables.instruction_table()));
                let changed = Tables::new(&originals, spec, tables.gas_table(), tables.instruction_table());
                assert!(!changed.target.native[usize::from(op.byte())], "{op:?}");
                assert_eq!(changed.target.gas[usize::from(op.byte())], 7);
                assert_ne!(changed.identity, seen.identity);
            }
        }
    }
}
