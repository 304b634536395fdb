//! Whole transactions, on a database that records what EIP-7928 asks for.

use super::{
    bench::Difference,
    case::{CALLEE, CALLER, Case},
};
use alloy_primitives::{Bytes, TxKind, U256};
use metis_vm::{FusedEvm, FusionCache, FusionConfig, Interpreter, SpecId, StateDb, WithFusion};
use revm::{
    Context, ExecuteCommitEvm, MainBuilder, MainContext,
    context::{
        ContextTr, TxEnv,
        result::{ExecutionResult, HaltReason},
    },
    database::State,
    handler::{MainnetContext, MainnetEvm},
    state::EvmState,
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

/// Creates and calls in turn, by revm and by each interpreter: results, states and access lists (EIP-7928) are the same.
pub(crate) fn compare_transactions(case: &Case, creates: bool) -> Result<(), Box<Difference>> {
    let interpreters = [Interpreter::FusedAlways, Interpreter::Plain, Interpreter::Fused];
    let mut subjects = interpreters.map(|interpreter| {
        let cache = FusionCache::new(FusionConfig { interpreter, hot_gas: 1, ..FusionConfig::default() });
        (interpreter, fused(case, (), cache))
    });
    let mut expected = revm(case, ());
    let differs = |interpreter, what| Box::new(Difference { case: case.clone(), interpreter, what });
    for creates in [creates, false, true, false] {
        let transaction = transaction(case, creates);
        let effect = execute(&mut expected, transaction.clone());
        expected.ctx.db_mut().bump_bal_index();
        for (interpreter, subject) in &mut subjects {
            let found = execute(subject, transaction.clone());
            if found != effect {
                return Err(differs(*interpreter, format!("revm: {effect:?}\nthis: {found:?}")));
            }
            subject.ctx.db_mut().bump_bal_index();
            subject.cache().wait();
        }
    }
    let list = expected.ctx.db_mut().take_built_bal();
    let has_accounts = list.as_ref().is_some_and(|list| !list.accounts.is_empty());
    assert_eq!(has_accounts, case.spec.is_enabled_in(SpecId::AMSTERDAM), "{case}");
    for (interpreter, subject) in &mut subjects {
        let found = subject.ctx.db_mut().take_built_bal();
        if found != list {
            return Err(differs(*interpreter, format!("revm: {list:?}\nthis: {found:?}")));
        }
    }
    Ok(())
}
