//! What the frame knows, and its storage.
#![allow(unsafe_code, reason = "writes stack words and reads the frame through raw pointers")]

use super::Body;
use crate::fusion::machine::{Cx, Exit, Flow, Limbs, Regs, load, store};
use alloy_primitives::{Address, U256};
use revm::{
    context::{Host, host::LoadError},
    interpreter::{
        InstructionResult, Interpreter,
        interpreter::EthInterpreter,
        interpreter_types::{MemoryTr, ReturnData},
    },
    primitives::hardfork::SpecId,
};
use std::marker::PhantomData;

/// A word that the frame knows.
pub(in crate::fusion) trait Known {
    /// # Safety
    /// `cx` is the frame's.
    unsafe fn word<H>(cx: *const Cx<H>, gas: u64) -> Limbs;
}

#[inline(always)]
fn address(address: &Address) -> Limbs {
    let [a @ .., b0, b1, b2, b3, b4, b5, b6, b7, c0, c1, c2, c3, c4, c5, c6, c7] = address.0.0;
    [
        u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
        u32::from_be_bytes(a).into(),
        0,
    ]
}

fn call_value(interpreter: &Interpreter<EthInterpreter>) -> Limbs {
    *interpreter.input.call_value.as_limbs()
}

macro_rules! known {
    ($($name:ident = |$cx:ident| $word:expr;)*) => {
        $(
            #[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
            pub(in crate::fusion) struct $name;

            impl Known for $name {
                #[inline(always)]
                unsafe fn word<H>($cx: *const Cx<H>, _gas: u64) -> Limbs {
                    // SAFETY: the interpreter outlives the frame's execution.
                    unsafe { $word }
                }
            }
        )*
    };
}

known! {
    CALLER = |cx| address(&(*(*cx).interpreter).input.caller_address);
    ADDRESS = |cx| address(&(*(*cx).interpreter).input.target_address);
    CALLVALUE = |cx| call_value(&*(*cx).interpreter);
    CALLDATASIZE = |cx| [(*cx).input_len as u64, 0, 0, 0];
    RETURNDATASIZE = |cx| [(&*(*cx).interpreter).return_data.buffer().len() as u64, 0, 0, 0];
    MSIZE = |cx| [(&*(*cx).interpreter).memory.size() as u64, 0, 0, 0];
}

/// GAS: what is left when the instruction itself is paid for.
#[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
pub(in crate::fusion) struct GAS;

impl Known for GAS {
    #[inline(always)]
    unsafe fn word<H>(_cx: *const Cx<H>, gas: u64) -> Limbs {
        [gas, 0, 0, 0]
    }
}

/// Pushes what `O` knows.
pub(in crate::fusion) struct Environment<O>(PhantomData<O>);

// SAFETY: one word more.
unsafe impl<H: Host, O: Known> Body<H> for Environment<O> {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`.
        unsafe {
            let Some(gas) = r.enter(cx, 0, 1) else { return Flow::Deopt };
            store(r.sp, O::word(cx, gas));
            Flow::Next(Regs { ip: r.cell(1), sp: r.sp.add(1), gas })
        }
    }
}

/// SLOAD.
pub(in crate::fusion) struct Sload;

// SAFETY: as many words as before.
unsafe impl<H: Host> Body<H> for Sload {
    #[inline(always)]
    unsafe fn run(r: Regs, cx: *mut Cx<H>) -> Flow {
        // SAFETY: by the contract of `Body::run`; interpreter and host outlive the frame's execution.
        unsafe {
            let Some(gas) = r.enter(cx, 1, 0) else { return Flow::Deopt };
            // Behind the static gas: what is left decides whether a cold slot is touched.
            (*(*cx).interpreter).gas.set_remaining(gas);
            match sload(r.sp, cx) {
                Loaded::Value => {
                    Flow::Next(Regs { ip: r.cell(1), sp: r.sp, gas: (*(*cx).interpreter).gas.remaining() })
                }
                Loaded::OutOfGas => halt(r.sp, cx, InstructionResult::OutOfGas),
                Loaded::Fatal => halt(r.sp, cx, InstructionResult::FatalExternalError),
            }
        }
    }
}

/// What came of an SLOAD.
enum Loaded {
    Value,
    OutOfGas,
    Fatal,
}

/// Loads the slot named by the top word over it, and charges for a cold one, apart: see `binary::long_way`.
///
/// # Safety
/// A word is below the stack pointer, and `cx` is the frame's.
#[inline(never)]
unsafe fn sload<H: Host>(sp: *mut U256, cx: *mut Cx<H>) -> Loaded {
    // SAFETY: interpreter and host outlive the frame's execution, and nothing else borrows them now.
    unsafe {
        let (interpreter, host) = (&mut *(*cx).interpreter, &mut *(*cx).host);
        let target = interpreter.input.target_address;
        let key = U256::from_limbs(load(sp.sub(1)));
        let value = if interpreter.runtime_flag.spec_id.is_enabled_in(SpecId::BERLIN) {
            // EIP-2929, and EIP-7928: what there is no gas for is not touched.
            let cold = host.gas_params().cold_storage_additional_cost();
            let skip_cold = interpreter.gas.remaining() < cold;
            match host.sload_skip_cold_load(target, key, skip_cold) {
                Ok(loaded) if loaded.is_cold && !interpreter.gas.record_regular_cost(cold) => {
                    return Loaded::OutOfGas;
                }
                Ok(loaded) => loaded.data,
                Err(LoadError::ColdLoadSkipped) => return Loaded::OutOfGas,
                Err(LoadError::DBError) => return Loaded::Fatal,
            }
        } else {
            match host.sload(target, key) {
                Some(loaded) => loaded.data,
                None => return Loaded::Fatal,
            }
        };
        store(sp.sub(1), *value.as_limbs());
        Loaded::Value
    }
}

/// Leaves the frame with an instruction's result; gas is up to date.
///
/// # Safety
/// `cx` is the frame's.
#[cold]
#[inline(never)]
unsafe fn halt<H>(sp: *mut U256, cx: *mut Cx<H>, result: InstructionResult) -> Flow {
    // SAFETY: by the contract of this function. Nobody asks for the offset of a halted frame.
    unsafe {
        let gas = (*(*cx).interpreter).gas.remaining();
        Cx::save(cx, sp, gas, 0);
        (*cx).exit = Exit::Halt(result);
    }
    Flow::Exit
}
