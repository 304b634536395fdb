//! Whole transactions, on a database that records what EIP-7928 asks for.

use super::case::{CALLEE, CALLER, Case};
use alloy_primitives::{Bytes, TxKind, U256};
use metis_vm::{FusedEvm, FusionCache, SpecId, StateDb, WithFusion};
use revm::{
    Context, ExecuteCommitEvm, MainBuilder, MainContext,
    context::{
        TxEnv,
        result::{ExecutionResult, HaltReason},
    },
    database::State,
    handler::{MainnetContext, MainnetEvm},
    state::{EvmState, bal::Bal},
};

/// In memory, with block access lists.
pub(crate) type Db = State<StateDb>;
pub(crate) type Plainly<I = ()> = MainnetEvm<MainnetContext<Db>, I>;
pub(crate) type Fusing<I = ()> = FusedEvm<Plainly<I>>;

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    Done(Box<(ExecutionResult<HaltReason>, EvmState)>),
    Refused(String),
}

/// revm with an inspector.
pub(crate) fn revm<I>(case: &Case, inspector: I) -> Plainly<I> {
    let database = State::builder()
        .with_database(case.database())
        .with_bundle_update()
        .with_bal_builder_if(case.spec.is_enabled_in(SpecId::AMSTERDAM))
        .build();
    Context::mainnet()
        .with_db(database)
        .modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(case.spec);
            cfg.disable_nonce_check = true;
        })
        .build_mainnet_with_inspector(inspector)
}

/// The same with the interpreter that `cache` says.
pub(crate) fn fused<I>(case: &Case, inspector: I, cache: FusionCache) -> Fusing<I> {
    revm(case, inspector).with_fusion(cache)
}

/// The call of the case's contract, or the creation of a contract by the case's code.
pub(crate) fn transaction(case: &Case, creates: bool) -> TxEnv {
    let (kind, data) = match creates {
        true => (TxKind::Create, &case.code),
        false => (TxKind::Call(CALLEE), &case.calldata),
    };
    TxEnv {
        caller: CALLER,
        gas_limit: case.gas,
        kind,
        data: Bytes::copy_from_slice(data),
        value: U256::from(case.value),
        ..TxEnv::default()
    }
}

/// Executes and commits.
pub(crate) fn execute<E>(evm: &mut E, transaction: TxEnv) -> Effect
where
    E: ExecuteCommitEvm<Tx = TxEnv, State = EvmState, ExecutionResult = ExecutionResult<HaltReason>>,
    E::Error: std::fmt::Debug,
{
    match evm.transact(transaction) {
        Ok(done) => {
            evm.commit(done.state.clone());
            Effect::Done(Box::new((done.result, done.state)))
        }
        Err(error) => Effect::Refused(format!("{error:?}")),
    }
}

/// The access list so far.
pub(crate) fn access_list(database: &mut Db) -> Option<Bal> {
    database.take_built_bal()
}
