//! One engine with one contract.

use super::case::Case;
use alloy_primitives::{Address, Bytes, U256};
use metis_vm::{EvmContext, FusedEvm, FusionCache, StateDb, WithFusion};
use revm::{
    Context, MainBuilder, MainContext,
    context::{ContextTr, JournalTr, LocalContextTr, result::EVMError},
    handler::{EthFrame, EvmTr, FrameResult, Handler, MainnetEvm, MainnetHandler, pre_execution},
    interpreter::{
        CallInput, CallInputs, CallScheme, CallValue, FrameInput, InstructionResult, SharedMemory,
        interpreter::EthInterpreter, interpreter_action::FrameInit,
    },
    state::AccountInfo,
};
use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

/// The contract's address.
pub const CALLEE: Address = Address::repeat_byte(0xcc);

/// Who calls it.
pub const CALLER: Address = Address::repeat_byte(0x11);

/// The gas of the frame: more than any contract here uses, so that gas never ends a measurement.
pub const GAS_LIMIT: u64 = 1_000_000_000;

/// revm, untouched.
pub type Revm = MainnetEvm<EvmContext>;

/// revm with MetisVM's interpreters.
pub type Metis = FusedEvm<Revm>;

/// Why a frame has no result. The database is in memory, so only a bug leads here.
pub type ExecutionError = EVMError<Infallible>;

/// Anything that executes one contract again and again.
pub trait Engine {
    /// Executes the frame once, on the state that the case begins with.
    ///
    /// # Errors
    /// [`ExecutionError`].
    fn execute(&mut self) -> Result<Executed, ExecutionError>;
}

/// What one execution did.
#[derive(Clone, Debug)]
pub struct Executed {
    /// How the frame ended.
    pub status: InstructionResult,
    /// What it returned.
    pub output: Bytes,
    /// The gas that it used, before refunds.
    pub gas_used: u64,
    /// From the frame's creation to its result.
    pub time: Duration,
}

/// One engine with one contract installed.
#[derive(Debug)]
pub struct Machine<E> {
    evm: E,
    calldata: Bytes,
}

impl Machine<Revm> {
    /// revm, untouched.
    pub fn revm(case: &Case) -> Self {
        Self::new(context(case).build_mainnet(), case)
    }
}

impl Machine<Metis> {
    /// The interpreter that the cache's configuration names.
    pub fn metis(case: &Case, cache: FusionCache) -> Self {
        Self::new(context(case).build_mainnet().with_fusion(cache), case)
    }
}

impl<E: EvmTr<Context = EvmContext, Frame = EthFrame<EthInterpreter>>> Machine<E> {
    pub(super) fn new(evm: E, case: &Case) -> Self {
        Self { evm, calldata: case.calldata.clone() }
    }

    /// The machine inside.
    pub fn evm(&self) -> &E {
        &self.evm
    }

    /// Executes the frame by `run`, the only part that is timed.
    pub(super) fn execute_with(
        &mut self,
        run: impl FnOnce(&mut E, FrameInit) -> Result<FrameResult, ExecutionError>,
    ) -> Result<Executed, ExecutionError> {
        let frame = self.first_frame()?;
        let start = Instant::now();
        let result = run(&mut self.evm, frame);
        let time = start.elapsed();

        // The next execution begins on the same state with every slot cold.
        let context = self.evm.ctx_mut();
        context.journal_mut().finalize();
        context.local_mut().clear();
        self.evm.frame_stack().clear();

        let result = result?.into_interpreter_result();
        let gas_used = result.gas.limit() - result.gas.remaining();
        Ok(Executed { status: result.result, output: result.output, gas_used, time })
    }

    /// What the handler does before the first frame of a transaction, without the transaction's costs.
    fn first_frame(&mut self) -> Result<FrameInit, ExecutionError> {
        pre_execution::load_accounts::<E, ExecutionError>(&mut self.evm)?;
        let context = self.evm.ctx_mut();
        context.journal_mut().load_account(CALLER)?;
        let callee = context.journal_mut().load_account_with_code(CALLEE)?;
        let known_bytecode = (callee.info.code_hash, callee.info.code.clone().unwrap_or_default());
        let call = CallInputs {
            input: CallInput::Bytes(self.calldata.clone()),
            return_memory_offset: 0..0,
            gas_limit: GAS_LIMIT,
            reservoir: 0,
            bytecode_address: CALLEE,
            known_bytecode,
            target_address: CALLEE,
            caller: CALLER,
            value: CallValue::Transfer(U256::ZERO),
            scheme: CallScheme::Call,
            is_static: false,
            charged_new_account_state_gas: false,
        };
        Ok(FrameInit {
            depth: 0,
            memory: SharedMemory::new_with_buffer(context.local().shared_memory_buffer().clone()),
            frame_input: FrameInput::Call(Box::new(call)),
        })
    }
}

impl<E: EvmTr<Context = EvmContext, Frame = EthFrame<EthInterpreter>>> Engine for Machine<E> {
    fn execute(&mut self) -> Result<Executed, ExecutionError> {
        type Mainnet<E> = MainnetHandler<E, ExecutionError, EthFrame<EthInterpreter>>;
        self.execute_with(|evm, frame| Mainnet::<E>::default().run_exec_loop(evm, frame))
    }
}

/// The context with the contract installed: the same for every engine, sharing no memory with another.
pub(super) fn context(case: &Case) -> EvmContext {
    let code = case.bytecode();
    let mut database = StateDb::default();
    database.insert_account_info(
        CALLEE,
        AccountInfo { nonce: 1, code_hash: code.hash_slow(), code: Some(code), ..AccountInfo::default() },
    );
    let Ok(account) = database.load_account(CALLEE);
    account.storage.extend(case.storage.iter().copied());
    Context::mainnet()
        .with_db(database)
        .modify_cfg_chained(|cfg| cfg.set_spec_and_mainnet_gas_params(case.spec))
        .modify_tx_chained(|tx| tx.caller = CALLER)
}
