//! One execution and its verdict.

use super::{
    exception::{Rejection, allows},
    suite::{Account, Post},
    transaction::NoTransaction,
    world::{State, World},
};
use alloy_primitives::{Address, B256, keccak256};
use metis_vm::{FusionCache, FusionConfig, Interpreter, SpecId, WithFusion};
use revm::{
    Context, ExecuteEvm, MainBuilder, MainContext,
    context::{
        BlockEnv, CfgEnv, TxEnv,
        result::{EVMError, ExecutionResult},
    },
    state::EvmState,
};
use std::collections::BTreeMap;

/// Everything that one subtest needs.
#[derive(Debug)]
pub(super) struct Subtest<'a> {
    pub(super) world: &'a World,
    pub(super) cfg: &'a CfgEnv,
    pub(super) block: &'a BlockEnv,
    pub(super) tx: Result<TxEnv, NoTransaction>,
    pub(super) post: &'a Post<'a>,
}

/// What came of a transaction.
struct Executed {
    /// What it did, or why it was rejected.
    result: Result<ExecutionResult, Rejection>,
    state: State,
}

impl Subtest<'_> {
    /// Executes it.
    ///
    /// # Errors
    /// What is not as it should be.
    pub(super) fn check(&self, cache: &FusionCache) -> Result<(), String> {
        let executed = self.execute(cache)?;
        self.judge(&executed).map_err(|problem| self.explain(problem, &executed, cache))
    }

    fn execute(&self, cache: &FusionCache) -> Result<Executed, String> {
        let tx = match &self.tx {
            Ok(tx) => tx.clone(),
            Err(NoTransaction::Broken(problem)) => return Err(format!("the test is broken: {problem}")),
            Err(NoTransaction::Undecodable(problem)) => {
                let result = Err(Rejection::Undecodable(problem.clone()));
                return Ok(Executed { result, state: self.without_transaction() });
            }
        };
        let mut evm = Context::mainnet()
            .with_db(self.world.reader())
            .with_block(self.block.clone())
            .with_cfg(self.cfg.clone())
            .build_mainnet()
            .with_fusion(cache.clone());
        let result = evm.transact_one(tx);
        let changes = evm.finalize();
        match result {
            Ok(result) => Ok(Executed { state: self.world.after(&changes), result: Ok(result) }),
            Err(EVMError::Transaction(invalid)) => {
                // The state below is the one before: it is true only if the EVM left that as it was.
                if let Some(change) = self.world.first_change(&changes) {
                    return Err(format!("rejected ({invalid}), but {change}"));
                }
                let result = Err(Rejection::Invalid(invalid));
                Ok(Executed { result, state: self.without_transaction() })
            }
            Err(error) => Err(format!("not executed: {error}")),
        }
    }

    /// The state when the transaction is rejected. The block is still made, with a reward of nothing for its
    /// beneficiary, which before EIP-161 is enough to bring an account into being.
    fn without_transaction(&self) -> State {
        let mut state = self.world.after(&EvmState::default());
        if !self.cfg.spec.is_enabled_in(SpecId::SPURIOUS_DRAGON) {
            state.touch(self.block.beneficiary);
        }
        state
    }

    fn judge(&self, executed: &Executed) -> Result<(), String> {
        match (&self.post.expect_exception, &executed.result) {
            (None, Err(rejection)) => return Err(format!("rejected ({rejection}), should be executed")),
            (Some(expected), Ok(_)) => return Err(format!("executed, should be rejected ({expected})")),
            (Some(expected), Err(rejection)) => match allows(expected, rejection) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(format!(
                        "rejected for another reason ({rejection}) than it should be ({expected})"
                    ));
                }
                Err(unknown) => return Err(format!("{unknown}; rejected ({rejection})")),
            },
            (None, Ok(_)) => {}
        }
        let logs = executed.logs_hash();
        if logs != self.post.logs {
            return Err(format!("logs hash {logs}, should be {}", self.post.logs));
        }
        let root = executed.state.root();
        if root != self.post.hash {
            return Err(format!("state root {root}, should be {}", self.post.hash));
        }
        Ok(())
    }

    /// The problem, with what helps to find its cause: the first account that differs from the state in the file, and
    /// what revm's own loop makes of the subtest.
    fn explain(&self, mut problem: String, executed: &Executed, cache: &FusionCache) -> String {
        if executed.result.is_ok() {
            problem += &format!("; {}", executed.describe());
        }
        let written = self.post.state.and_then(|state| {
            let accounts: BTreeMap<Address, Account> = serde_json::from_str(state.get()).ok()?;
            State::of(&accounts)
        });
        if let Some(difference) = written.and_then(|written| executed.state.first_difference(&written)) {
            problem += &format!("; {difference}");
        }
        if cache.config().interpreter == Interpreter::Revm {
            return problem;
        }
        let config = FusionConfig { interpreter: Interpreter::Revm, ..*cache.config() };
        if let Ok(by_revm) = self.execute(&FusionCache::new(config)) {
            let verdict = if self.judge(&by_revm).is_ok() { "passes" } else { "fails too" };
            problem += &format!("; by revm's interpreter it {verdict} ({})", by_revm.describe());
            if let Some(difference) = executed.state.first_difference(&by_revm.state) {
                problem += &format!("; against revm, {difference}");
            }
        }
        problem
    }
}

impl Executed {
    /// The hash of the logs' RLP, as the tests write it.
    fn logs_hash(&self) -> B256 {
        let logs = self.result.as_ref().map(ExecutionResult::logs).unwrap_or_default();
        let mut rlp = Vec::new();
        alloy_rlp::encode_list(logs, &mut rlp);
        keccak256(rlp)
    }

    fn describe(&self) -> String {
        match &self.result {
            Ok(ExecutionResult::Success { reason, .. }) => format!("success by {reason:?}, {}", self.gas()),
            Ok(ExecutionResult::Revert { .. }) => format!("revert, {}", self.gas()),
            Ok(ExecutionResult::Halt { reason, .. }) => format!("halt by {reason:?}, {}", self.gas()),
            Err(rejection) => format!("rejected: {rejection}"),
        }
    }

    fn gas(&self) -> String {
        let used = self.result.as_ref().map(ExecutionResult::tx_gas_used).unwrap_or_default();
        format!("gas used {used}")
    }
}
