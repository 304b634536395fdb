//! One bare frame, without a transaction around it: the gas limit is the frame's own.

use super::case::{CALLEE, CALLER, Case};
use alloy_primitives::{Bytes, U256};
use metis_vm::{EvmContext, FusedEvm, FusionCache, SpecId, WithFusion};
use revm::{
    Context, MainBuilder, MainContext,
    context::journal::JournalEntry,
    context::{ContextTr, JournalTr, LocalContextTr, journal::JournalInner, result::EVMError},
    handler::{EthFrame, EvmTr, Handler, MainnetEvm, MainnetHandler, pre_execution},
    interpreter::{
        CallInput, CallInputs, CallScheme, CallValue, FrameInput, InterpreterResult, SharedMemory,
        interpreter::EthInterpreter, interpreter_action::FrameInit,
    },
    state::Bytecode,
};
use std::convert::Infallible;

/// revm, untouched.
pub(crate) type Revm = MainnetEvm<EvmContext>;

/// revm with the interpreter under test.
pub(crate) type Fused = FusedEvm<Revm>;

type Failure = EVMError<Infallible>;

/// What a frame answers; the rest of what it did is in the journal.
pub(crate) type Answer = Result<InterpreterResult, String>;

/// One machine for one fork, used again and again.
pub(crate) struct Machine<E> {
    pub(crate) evm: E,
}

impl Machine<Revm> {
    pub(crate) fn revm(spec: SpecId) -> Self {
        Self { evm: context(spec).build_mainnet() }
    }
}

impl Machine<Fused> {
    pub(crate) fn fused(spec: SpecId, cache: FusionCache) -> Self {
        Self { evm: context(spec).build_mainnet().with_fusion(cache) }
    }
}

fn context(spec: SpecId) -> EvmContext {
    Context::mainnet()
        .with_db(metis_vm::StateDb::default())
        .modify_cfg_chained(|cfg| cfg.set_spec_and_mainnet_gas_params(spec))
        .modify_tx_chained(|tx| tx.caller = CALLER)
}

impl<E: EvmTr<Context = EvmContext, Frame = EthFrame<EthInterpreter>>> Machine<E> {
    /// Puts a case's accounts in place of those before.
    pub(crate) fn install(&mut self, database: metis_vm::StateDb) {
        *self.evm.ctx_mut().db_mut() = database;
    }

    /// Executes a frame. What it did stays in the journal until [`Self::reset`].
    pub(crate) fn execute(&mut self, case: &Case, gas: u64) -> Answer {
        type Mainnet<E> = MainnetHandler<E, Failure, EthFrame<EthInterpreter>>;
        let frame = self.first_frame(case, gas).map_err(|error| error.to_string())?;
        let result = Mainnet::<E>::default().run_exec_loop(&mut self.evm, frame);
        result.map(|result| result.into_interpreter_result()).map_err(|error| error.to_string())
    }

    /// All that was done: state, logs, warm addresses, transient storage, the entries that would undo it.
    pub(crate) fn journal(&mut self) -> &JournalInner<JournalEntry> {
        &self.evm.ctx_mut().journal_mut().inner
    }

    /// Back to the beginning.
    pub(crate) fn reset(&mut self) {
        let context = self.evm.ctx_mut();
        context.journal_mut().finalize();
        context.local_mut().clear();
        self.evm.frame_stack().clear();
    }

    /// What the handler does before the first frame of a transaction, without the transaction's costs.
    fn first_frame(&mut self, case: &Case, gas: u64) -> Result<FrameInit, Failure> {
        pre_execution::load_accounts::<E, Failure>(&mut self.evm)?;
        let context = self.evm.ctx_mut();
        context.journal_mut().load_account(CALLER)?;
        let callee = context.journal_mut().load_account_with_code(CALLEE)?;
        let code: Bytecode = callee.info.code.clone().unwrap_or_default();
        let known_bytecode = (callee.info.code_hash, code);
        let call = CallInputs {
            input: CallInput::Bytes(Bytes::copy_from_slice(&case.calldata)),
            return_memory_offset: 0..0,
            gas_limit: gas,
            reservoir: case.reservoir,
            bytecode_address: CALLEE,
            known_bytecode,
            target_address: CALLEE,
            caller: CALLER,
            value: CallValue::Transfer(U256::from(case.value)),
            scheme: CallScheme::Call,
            is_static: case.is_static,
            charged_new_account_state_gas: false,
        };
        Ok(FrameInit {
            depth: 0,
            memory: SharedMemory::new_with_buffer(context.local().shared_memory_buffer().clone()),
            frame_input: FrameInput::Call(Box::new(call)),
        })
    }
}
