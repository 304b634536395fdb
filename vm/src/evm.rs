//! The machine.

use crate::{
    config::{BlockInfo, EvmConfig},
    error::VmError,
    fork::SpecId,
    fusion::{FusedEvm, FusionCache, WithFusion},
    metered::{Meter, MeterTerms, MeteredBlock, MeteredHandler},
    outcome::Outcome,
    state::{self, Account, State},
    transaction::{CompleteTransaction, Transaction},
};
use alloy_primitives::{Address, U256};
use revm::{
    Context, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext,
    context::{Cfg, ContextTr, Evm, Transaction as _, TxEnv, result::ExecutionResult},
    context_interface::ContextSetters,
    database::{CacheDB, EmptyDB},
    handler::{EthFrame, Handler, MainnetContext, PrecompileProvider, instructions::EthInstructions},
    interpreter::{InterpreterResult, interpreter::EthInterpreter},
};
use std::fmt;

/// The database behind a [`Vm`]: everything in memory.
pub type StateDb = CacheDB<EmptyDB>;

/// The revm context that precompile providers see.
pub type EvmContext = MainnetContext<StateDb>;

/// A provider of precompiled contracts for [`Vm`]: revm's `PrecompileProvider` over [`EvmContext`].
///
/// The handler tells it the fork before every transaction (`set_spec`). What it answers must be a pure function of
/// the call and the state that it reads through the journal.
pub trait Precompiles: PrecompileProvider<EvmContext, Output = InterpreterResult> + Meter {}

impl<P: PrecompileProvider<EvmContext, Output = InterpreterResult> + Meter> Precompiles for P {}

/// Puts a [`Vm`] together.
#[derive(Clone, Debug, Default)]
pub struct EvmBuilder {
    config: EvmConfig,
    state: State,
    metered: u64,
    fusion: FusionCache,
}

impl EvmBuilder {
    /// The defaults of [`EvmConfig`], on an empty state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the whole configuration.
    #[must_use]
    pub fn config(mut self, config: EvmConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the fork.
    #[must_use]
    pub fn fork(mut self, fork: SpecId) -> Self {
        self.config.fork = fork;
        self
    }

    /// Sets the chain id.
    #[must_use]
    pub fn chain_id(mut self, chain_id: u64) -> Self {
        self.config.chain_id = chain_id;
        self
    }

    /// Sets the block.
    #[must_use]
    pub fn block(mut self, block: BlockInfo) -> Self {
        self.config.block = block;
        self
    }

    /// Sets the most gas that one transaction may ask for; see [`EvmConfig::tx_gas_limit_cap`].
    #[must_use]
    pub fn tx_gas_limit_cap(mut self, cap: u64) -> Self {
        self.config.tx_gas_limit_cap = Some(cap);
        self
    }

    /// Sets the state to start from.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    /// Sets what transactions before the first have used of the block's metered gas.
    #[must_use]
    pub fn metered_gas_used(mut self, gas: u64) -> Self {
        self.metered = gas;
        self
    }

    /// Sets the cache of fused programs, to share one between machines or to choose the interpreter. By default each machine
    /// has its own.
    #[must_use]
    pub fn fusion(mut self, fusion: FusionCache) -> Self {
        self.fusion = fusion;
        self
    }

    /// The machine, with `precompiles` as the only precompiled contracts.
    pub fn build<P: Precompiles>(self, precompiles: P) -> Vm<P> {
        let context: EvmContext = Context::mainnet()
            .with_db(self.state.to_database())
            .with_block(self.config.block.block_env())
            .with_cfg(self.config.cfg_env());
        let evm = context.build_mainnet().with_precompiles(precompiles).with_fusion(self.fusion);
        Vm { evm, config: self.config, metered: self.metered }
    }
}

/// revm's mainnet machine with other precompiled contracts.
pub(crate) type MainnetWith<P> =
    Evm<EvmContext, (), EthInstructions<EthInterpreter, EvmContext>, P, EthFrame<EthInterpreter>>;

/// An EVM with its state.
pub struct Vm<P> {
    evm: FusedEvm<MainnetWith<P>>,
    config: EvmConfig,
    /// Metered gas that the block's transactions have used.
    metered: u64,
}

impl<P: Precompiles> Vm<P> {
    /// Executes a transaction and keeps what it did.
    ///
    /// # Errors
    /// [`VmError`]; the state is then unchanged.
    pub fn transact(&mut self, tx: &Transaction) -> Result<Outcome, VmError> {
        let complete = self.complete(tx);
        tracing::debug!(from = %complete.from, to = ?complete.to, gas = complete.gas, "transaction");
        let outcome = self.execute(self.tx_env(&complete), self.config.block.metered)?;
        let state = self.evm.finalize();
        self.evm.commit(state);
        self.metered = self.metered.saturating_add(outcome.metered_gas_used);
        tracing::debug!(status = %outcome.status, gas_used = outcome.gas_used, "executed");
        Ok(outcome)
    }

    /// Executes a transaction on the present state and forgets what it did, like `eth_call`.
    ///
    /// As there, the sender needs no key: it may be a contract, its nonce does not matter, and with no gas price (the
    /// default here) gas is free and `BASEFEE` reads 0. The value must still be covered.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn simulate(&mut self, tx: &Transaction) -> Result<Outcome, VmError> {
        let mut complete = self.complete(tx);
        complete.gas_price = tx.gas_price.unwrap_or(0);
        let tx_env = self.tx_env(&complete);

        let rules = self.evm.ctx.cfg.clone();
        self.evm.ctx.cfg.disable_nonce_check = true;
        self.evm.ctx.cfg.disable_eip3607 = true;
        let mut metered = self.config.block.metered;
        if complete.gas_price == 0 {
            self.evm.ctx.block.basefee = 0;
            metered.iter_mut().for_each(|block| block.base_fee = 0);
        }
        let result = self.execute(tx_env, metered);
        self.evm.finalize();
        self.evm.ctx.cfg = rules;
        self.evm.ctx.block.basefee = self.config.block.base_fee;
        result
    }

    /// Executes a transaction; what it did is in the journal.
    fn execute(&mut self, tx: TxEnv, block: Option<MeteredBlock>) -> Result<Outcome, VmError> {
        let terms = block.map(|block| MeterTerms {
            base_fee: block.base_fee,
            affordable: tx.max_fee_per_gas() >= block.base_fee.into(),
            left: block.gas_limit.saturating_sub(self.metered),
        });
        self.evm.precompiles.begin_transaction(terms);
        self.evm.ctx.set_tx(tx);
        let result: ExecutionResult = MeteredHandler::new(block).run(&mut self.evm)?;
        Ok(Outcome { metered_gas_used: self.evm.precompiles.metered(), ..Outcome::from(result) })
    }

    /// The transaction with every open field filled in, exactly as [`transact`](Self::transact) would execute it now.
    pub fn complete(&self, tx: &Transaction) -> CompleteTransaction {
        let most_gas = self.config.block.gas_limit.min(self.evm.ctx.cfg.tx_gas_limit_cap());
        CompleteTransaction {
            from: tx.from,
            to: tx.to,
            value: tx.value,
            input: tx.input.clone(),
            gas: tx.gas.unwrap_or(most_gas),
            gas_price: tx.gas_price.unwrap_or_else(|| self.config.block.base_fee.into()),
            max_priority_fee: tx.max_priority_fee,
            nonce: tx.nonce.unwrap_or_else(|| self.nonce(tx.from)),
        }
    }

    fn tx_env(&self, tx: &CompleteTransaction) -> TxEnv {
        TxEnv {
            tx_type: if tx.max_priority_fee.is_some() { 2 } else { 0 },
            caller: tx.from,
            gas_limit: tx.gas,
            gas_price: tx.gas_price,
            kind: tx.kind(),
            value: tx.value,
            data: tx.input.clone(),
            nonce: tx.nonce,
            chain_id: Some(self.config.chain_id),
            access_list: Default::default(),
            gas_priority_fee: tx.max_priority_fee,
            blob_hashes: Vec::new(),
            max_fee_per_blob_gas: 0,
            authorization_list: Vec::new(),
        }
    }

    /// The nonce of an account; 0 where there is none.
    pub fn nonce(&self, address: Address) -> u64 {
        self.database().cache.accounts.get(&address).map_or(0, |account| account.info.nonce)
    }

    /// The balance of an account in wei; 0 where there is none.
    pub fn balance(&self, address: Address) -> U256 {
        self.database().cache.accounts.get(&address).map_or(U256::ZERO, |account| account.info.balance)
    }

    /// An account; an empty one where there is none.
    pub fn account(&self, address: Address) -> Account {
        state::account(self.database(), address)
    }

    /// The whole state.
    pub fn state(&self) -> State {
        State::from_database(self.database(), self.config.fork)
    }

    /// Replaces one account as a whole, for genesis contracts and overlays.
    pub fn set_account(&mut self, address: Address, account: &Account) {
        state::insert(&mut self.evm.ctx.journaled_state.database, address, account);
    }

    /// Lays `top` over the state: its accounts replace accounts with the same address.
    pub fn overlay(&mut self, top: &State) {
        for (address, account) in &top.accounts {
            self.set_account(*address, account);
        }
    }

    /// Begins another block under the same rules.
    pub fn set_block(&mut self, block: BlockInfo) {
        self.evm.ctx.block = block.block_env();
        self.config.block = block;
        self.metered = 0;
    }

    /// Metered gas that the block's transactions have used so far.
    pub const fn metered(&self) -> u64 {
        self.metered
    }

    /// The rules and the present block.
    pub fn config(&self) -> &EvmConfig {
        &self.config
    }

    /// The provider of precompiled contracts.
    pub fn precompiles(&self) -> &P {
        &self.evm.precompiles
    }

    /// The provider of precompiled contracts, to change.
    pub fn precompiles_mut(&mut self) -> &mut P {
        &mut self.evm.precompiles
    }

    fn database(&self) -> &StateDb {
        self.evm.ctx.db()
    }
}

impl<P> fmt::Debug for Vm<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm").field("config", &self.config).finish_non_exhaustive()
    }
}
