//! revm's `Evm` with another interpreter inside.

use super::{
    FusionCache,
    engine::watch,
    local::{Local, Way, forwarded},
};
use metis_opcode_opt::Profile;
use revm::{
    Database, DatabaseCommit, ExecuteCommitEvm, ExecuteEvm, InspectCommitEvm, InspectEvm,
    InspectSystemCallEvm, Inspector, SystemCallEvm,
    context::{ContextSetters, ContextTr, Evm, FrameStack, Host, JournalTr, result::*},
    handler::SystemCallTx,
    handler::{
        EthFrame, EvmTr, FrameInitOrResult, FrameResult, FrameTr, Handler, ItemOrResult, MainnetHandler,
        PrecompileProvider,
        evm::{ContextDbError, FrameInitResult},
        instructions::InstructionProvider,
    },
    inspector::{InspectorEvmTr, InspectorHandler, JournalExt},
    interpreter::{
        InterpreterAction, InterpreterResult, interpreter::EthInterpreter, interpreter_action::FrameInit,
    },
    primitives::{Address, Bytes},
    state::EvmState,
};
use std::ops::{Deref, DerefMut};

/// Gives any revm `Evm` the fused interpreter.
///
/// Call it in the crate that builds the machine (`build_mainnet`): revm's own instructions are known by the addresses of
/// their functions, which may be others in another crate. If they are not recognised, revm's loop executes and a warning says so.
/// The same holds for a crate that is compiled without optimisation in a release build.
///
/// Builders of `Evm` that take it by value (`with_inspector`, `with_precompiles`) come before.
pub trait WithFusion: Sized {
    /// The same machine, executing fused programs from `cache`.
    fn with_fusion(self, cache: FusionCache) -> FusedEvm<Self>;
}

impl<CTX: Host, INSP, I, P> WithFusion for Evm<CTX, INSP, I, P, EthFrame<EthInterpreter>> {
    fn with_fusion(self, cache: FusionCache) -> FusedEvm<Self> {
        FusedEvm { evm: self, cache, local: Local::new::<CTX>() }
    }
}

/// A revm `Evm` that executes frames by fused programs. It dereferences to the `Evm` inside.
///
/// With an inspector attached (`inspect_*`), frames run in revm's own step loop, so traces never see a fused op.
///
/// Instructions and costs may be replaced between transactions. They are read when a transaction's first frame begins; a handler of
/// one's own must begin at depth 0 as revm's does.
#[derive(Clone, Debug)]
pub struct FusedEvm<E> {
    evm: E,
    cache: FusionCache,
    local: Local,
}

impl<E> FusedEvm<E> {
    /// The cache.
    pub fn cache(&self) -> &FusionCache {
        &self.cache
    }

    /// The machine without fusion.
    pub fn into_inner(self) -> E {
        self.evm
    }
}

impl<E> Deref for FusedEvm<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.evm
    }
}

impl<E> DerefMut for FusedEvm<E> {
    fn deref_mut(&mut self) -> &mut E {
        &mut self.evm
    }
}

type Eth<CTX, INSP, I, P> = Evm<CTX, INSP, I, P, EthFrame<EthInterpreter>>;

impl<CTX, INSP, I, P> EvmTr for FusedEvm<Eth<CTX, INSP, I, P>>
where
    CTX: ContextTr,
    I: InstructionProvider<Context = CTX, InterpreterTypes = EthInterpreter>,
    P: PrecompileProvider<CTX, Output = InterpreterResult>,
{
    type Context = CTX;
    type Instructions = I;
    type Precompiles = P;
    type Frame = EthFrame<EthInterpreter>;

    #[inline]
    fn all(&self) -> (&CTX, &I, &P, &FrameStack<Self::Frame>) {
        self.evm.all()
    }

    #[inline]
    fn all_mut(&mut self) -> (&mut CTX, &mut I, &mut P, &mut FrameStack<Self::Frame>) {
        self.evm.all_mut()
    }

    #[inline]
    fn frame_init(
        &mut self,
        frame_input: FrameInit,
    ) -> Result<FrameInitResult<'_, Self::Frame>, ContextDbError<CTX>> {
        self.evm.frame_init(frame_input)
    }

    #[inline]
    fn frame_run(&mut self) -> Result<FrameInitOrResult<Self::Frame>, ContextDbError<CTX>> {
        let Self { evm, cache, local } = self;
        let frame = evm.frame_stack.get();
        let (instructions, gas) = (evm.instruction.instruction_table(), evm.instruction.gas_table());
        let before = frame.interpreter.gas.remaining();
        let mut profile = None;
        let (hash, next) = match local.way(cache, &mut frame.interpreter, instructions, gas) {
            Way::Program(place) => {
                let action = local.execute(place, &mut frame.interpreter, instructions, gas, &mut evm.ctx);
                return finish(frame, &mut evm.ctx, action);
            }
            Way::Revm => return evm.frame_run(),
            // Exactly as fast as without fusion: by revm's own code.
            Way::Warm(hash) => (hash, evm.frame_run()?),
            Way::Watch(hash) => {
                let profile = profile.insert(Profile::default());
                let action = watch(&mut frame.interpreter, instructions, gas, &mut evm.ctx, profile);
                (hash, finish(frame, &mut evm.ctx, action)?)
            }
        };
        let frame = &evm.frame_stack.get().interpreter;
        let forwarded = match &next {
            ItemOrResult::Item(init) => forwarded(&init.frame_input),
            ItemOrResult::Result(_) => 0,
        };
        let burnt = before.saturating_sub(frame.gas.remaining()).saturating_sub(forwarded);
        local.burnt::<CTX>(cache, frame, hash, burnt, profile);
        Ok(next)
    }

    #[inline]
    fn frame_return_result(
        &mut self,
        result: <Self::Frame as FrameTr>::FrameResult,
    ) -> Result<Option<FrameResult>, ContextDbError<CTX>> {
        self.evm.frame_return_result(result)
    }
}

/// What revm's own `frame_run` does with a frame's action.
fn finish<CTX: ContextTr>(
    frame: &mut EthFrame<EthInterpreter>,
    context: &mut CTX,
    action: InterpreterAction,
) -> Result<FrameInitOrResult<EthFrame<EthInterpreter>>, ContextDbError<CTX>> {
    let next = frame.process_next_action::<_, ContextDbError<CTX>>(context, action)?;
    if next.is_result() {
        frame.set_finished(true);
    }
    Ok(next)
}

impl<CTX, INSP, I, P> InspectorEvmTr for FusedEvm<Eth<CTX, INSP, I, P>>
where
    CTX: ContextTr<Journal: JournalExt> + ContextSetters,
    I: InstructionProvider<Context = CTX, InterpreterTypes = EthInterpreter>,
    P: PrecompileProvider<CTX, Output = InterpreterResult>,
    INSP: Inspector<CTX, EthInterpreter>,
{
    type Inspector = INSP;

    fn all_inspector(&self) -> (&CTX, &I, &P, &FrameStack<Self::Frame>, &INSP) {
        self.evm.all_inspector()
    }

    fn all_mut_inspector(&mut self) -> (&mut CTX, &mut I, &mut P, &mut FrameStack<Self::Frame>, &mut INSP) {
        self.evm.all_mut_inspector()
    }
}

impl<CTX, INSP, I, P> ExecuteEvm for FusedEvm<Eth<CTX, INSP, I, P>>
where
    CTX: ContextTr<Journal: JournalTr<State = EvmState>> + ContextSetters,
    I: InstructionProvider<Context = CTX, InterpreterTypes = EthInterpreter>,
    P: PrecompileProvider<CTX, Output = InterpreterResult>,
{
    type ExecutionResult = ExecutionResult<HaltReason>;
    type State = EvmState;
    type Error = EVMError<<CTX::Db as Database>::Error, InvalidTransaction>;
    type Tx = <CTX as ContextTr>::Tx;
    type Block = <CTX as ContextTr>::Block;

    fn set_block(&mut self, block: Self::Block) {
        self.evm.ctx.set_block(block);
    }

    fn transact_one(&mut self, tx: Self::Tx) -> Result<Self::ExecutionResult, Self::Error> {
        self.evm.ctx.set_tx(tx);
        MainnetHandler::default().run(self)
    }

    fn finalize(&mut self) -> Self::State {
        self.evm.ctx.journal_mut().finalize()
    }

    fn replay(&mut self) -> Result<ResultAndState<HaltReason>, Self::Error> {
        let result = MainnetHandler::default().run(self);
        let state = self.finalize();
        result.map(|result| ResultAndState::new(result, state))
    }
}

impl<CTX, INSP, I, P> ExecuteCommitEvm for FusedEvm<Eth<CTX, INSP, I, P>>
where
    CTX: ContextTr<Journal: JournalTr<State = EvmState>, Db: DatabaseCommit> + ContextSetters,
    I: InstructionProvider<Context = CTX, InterpreterTypes = EthInterpreter>,
    P: PrecompileProvider<CTX, Output = InterpreterResult>,
{
    fn commit(&mut self, state: Self::State) {
        self.evm.ctx.db_mut().commit(state);
    }
}

impl<CTX, INSP, I, P> SystemCallEvm for FusedEvm<Eth<CTX, INSP, I, P>>
where
    CTX: ContextTr<Journal: JournalTr<State = EvmState>, Tx: SystemCallTx> + ContextSetters,
    I: InstructionProvider<Context = CTX, InterpreterTypes = EthInterpreter>,
    P: PrecompileProvider<CTX, Output = InterpreterResult>,
{
    fn system_call_one_with_caller(
        &mut self,
        caller: Address,
        system_contract_address: Address,
        data: Bytes,
    ) -> Result<Self::ExecutionResult, Self::Error> {
        let tx = CTX::Tx::new_system_tx_with_caller(caller, system_contract_address, data);
        self.evm.ctx.set_tx(tx);
        MainnetHandler::default().run_system_call(self)
    }
}

impl<CTX, INSP, I, P> InspectEvm for FusedEvm<Eth<CTX, INSP, I, P>>
where
    CTX: ContextTr<Journal: JournalTr<State = EvmState> + JournalExt> + ContextSetters,
    I: InstructionProvider<Context = CTX, InterpreterTypes = EthInterpreter>,
    P: PrecompileProvider<CTX, Output = InterpreterResult>,
    INSP: Inspector<CTX, EthInterpreter>,
{
    type Inspector = INSP;

    fn set_inspector(&mut self, inspector: Self::Inspector) {
        self.evm.inspector = inspector;
    }

    fn inspect_one_tx(&mut self, tx: Self::Tx) -> Result<Self::ExecutionResult, Self::Error> {
        self.evm.ctx.set_tx(tx);
        MainnetHandler::default().inspect_run(self)
    }
}

impl<CTX, INSP, I, P> InspectCommitEvm for FusedEvm<Eth<CTX, INSP, I, P>>
where
    CTX: ContextTr<Journal: JournalTr<State = EvmState> + JournalExt, Db: DatabaseCommit> + ContextSetters,
    I: InstructionProvider<Context = CTX, InterpreterTypes = EthInterpreter>,
    P: PrecompileProvider<CTX, Output = InterpreterResult>,
    INSP: Inspector<CTX, EthInterpreter>,
{
}

impl<CTX, INSP, I, P> InspectSystemCallEvm for FusedEvm<Eth<CTX, INSP, I, P>>
where
    CTX: ContextTr<Journal: JournalTr<State = EvmState> + JournalExt, Tx: SystemCallTx> + ContextSetters,
    I: InstructionProvider<Context = CTX, InterpreterTypes = EthInterpreter>,
    P: PrecompileProvider<CTX, Output = InterpreterResult>,
    INSP: Inspector<CTX, EthInterpreter>,
{
    fn inspect_one_system_call_with_caller(
        &mut self,
        caller: Address,
        system_contract_address: Address,
        data: Bytes,
    ) -> Result<Self::ExecutionResult, Self::Error> {
        let tx = CTX::Tx::new_system_tx_with_caller(caller, system_contract_address, data);
        self.evm.ctx.set_tx(tx);
        MainnetHandler::default().inspect_run_system_call(self)
    }
}
