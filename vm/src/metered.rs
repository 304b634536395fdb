//! Gas that precompiled contracts meter: a second resource within a transaction's one gas limit.
//!
//! A chain may bound and price what its precompiled contracts do apart from the rest, as EIP-4844 does with blobs. Metered gas is part of a
//! transaction's gas, so that senders give one limit; it has a base fee of its own and a limit for each block. The sender pays for it
//! what EIP-1559 says with that base fee in place of the block's, never more than the price that they offered.
//!
//! Work that is done is not undone: metered gas counts whatever becomes of the frame in which it was used, and storage refunds (EIP-3529)
//! take nothing off it.

use alloy_primitives::U256;
use revm::{
    context::{
        Block, Cfg, ContextTr, JournalTr, Transaction,
        journaled_state::account::JournaledAccountTr,
        result::{EVMError, HaltReason},
    },
    handler::{EvmTr, FrameResult, Handler, post_execution, pre_execution},
    interpreter::{Gas, InitialAndFloorGas},
    primitives::hardfork::SpecId,
};
use serde::{Deserialize, Serialize};
use std::{convert::Infallible, marker::PhantomData};

use crate::{
    evm::{MainnetWith, Precompiles},
    fusion::FusedEvm,
};

/// A block's rules for metered gas, from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeteredBlock {
    /// Wei per metered gas. Burnt.
    pub base_fee: u64,
    /// The most that all transactions of the block may use together.
    pub gas_limit: u64,
}

/// What a transaction may use of metered gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterTerms {
    /// Wei per metered gas.
    pub base_fee: u64,
    /// Whether the sender offers as much.
    pub affordable: bool,
    /// What the block has left of it.
    pub left: u64,
}

/// A provider of precompiled contracts that may meter gas. The default meters none.
pub trait Meter {
    /// A transaction begins. Without terms the block does not meter, and nothing counts.
    fn begin_transaction(&mut self, _terms: Option<MeterTerms>) {}

    /// Gas that was metered since the transaction began.
    fn metered(&self) -> u64 {
        0
    }
}

impl Meter for revm::handler::EthPrecompiles {}

/// Wei per gas, with and without metering.
#[derive(Clone, Copy)]
struct Prices {
    execution: u128,
    metered: u128,
    metered_base_fee: u128,
}

impl Prices {
    /// What metered gas costs on top.
    fn more(self) -> u128 {
        self.metered.saturating_sub(self.execution)
    }
}

/// revm's mainnet handler with a second price.
pub(crate) struct MeteredHandler<P> {
    block: Option<MeteredBlock>,
    precompiles: PhantomData<P>,
}

impl<P> MeteredHandler<P> {
    pub(crate) const fn new(block: Option<MeteredBlock>) -> Self {
        Self { block, precompiles: PhantomData }
    }
}

impl<P: Precompiles> MeteredHandler<P> {
    /// The prices, where metered gas may cost something else than the rest.
    fn prices(&self, evm: &FusedEvm<MainnetWith<P>>) -> Option<Prices> {
        let ctx = evm.ctx_ref();
        let metered_base_fee = u128::from(self.block?.base_fee);
        if ctx.cfg().is_fee_charge_disabled() {
            return None;
        }
        Some(Prices {
            execution: ctx.tx().effective_gas_price(ctx.block().basefee().into()),
            metered: ctx.tx().effective_gas_price(metered_base_fee),
            metered_base_fee,
        })
    }
}

fn product(gas: u64, price: u128) -> U256 {
    U256::from(gas) * U256::from(price)
}

impl<P: Precompiles> Handler for MeteredHandler<P> {
    type Evm = FusedEvm<MainnetWith<P>>;
    type Error = EVMError<Infallible>;
    type HaltReason = HaltReason;

    fn validate_against_state_and_deduct_caller(
        &self,
        evm: &mut Self::Evm,
        _gas: &mut InitialAndFloorGas,
    ) -> Result<(), Self::Error> {
        pre_execution::validate_against_state_and_deduct_caller::<_, Self::Error>(evm.ctx())?;
        let Some(prices) = self.prices(evm) else { return Ok(()) };
        // All gas might be metered. That the balance covers the offered price for all of it has been checked.
        let ctx = evm.ctx();
        let (caller, more) = (ctx.tx().caller(), product(ctx.tx().gas_limit(), prices.more()));
        let mut account = ctx.journal_mut().load_account_mut(caller)?.data;
        let balance = account.balance().saturating_sub(more);
        account.set_balance(balance);
        Ok(())
    }

    fn refund(
        &self,
        evm: &mut Self::Evm,
        result: &mut FrameResult,
        eip7702_refund: i64,
    ) -> Result<(), Self::Error> {
        let metered = evm.precompiles.metered();
        let ctx = evm.ctx_ref();
        let params = ctx.cfg().gas_params();
        let gas = result.gas_mut();
        post_execution::refund(params, gas, eip7702_refund);
        let most = execution_gas(gas, metered) / params.max_refund_quotient();
        if gas.refunded() as u64 > most {
            gas.set_refund(most as i64);
        }
        Ok(())
    }

    fn reimburse_caller(&self, evm: &mut Self::Evm, result: &mut FrameResult) -> Result<(), Self::Error> {
        let metered = evm.precompiles.metered();
        let back = self.prices(evm).map_or(U256::ZERO, |prices| {
            let limit = evm.ctx_ref().tx().gas_limit();
            let cheaper = prices.execution.saturating_sub(prices.metered);
            product(limit.saturating_sub(metered), prices.more()) + product(metered, cheaper)
        });
        Ok(post_execution::reimburse_caller(evm.ctx(), result.gas(), back)?)
    }

    fn reward_beneficiary(&self, evm: &mut Self::Evm, result: &mut FrameResult) -> Result<(), Self::Error> {
        let metered = evm.precompiles.metered();
        let Some(prices) = self.prices(evm).filter(|_| metered > 0) else {
            return Ok(post_execution::reward_beneficiary(evm.ctx(), result.gas())?);
        };
        let ctx = evm.ctx();
        let burns = ctx.cfg().spec().is_enabled_in(SpecId::LONDON);
        let tip = |price: u128, base_fee: u128| if burns { price.saturating_sub(base_fee) } else { price };
        let gas = result.gas();
        let used = gas.used().saturating_sub(gas.reservoir());
        let base_fee = ctx.block().basefee().into();
        let reward = product(used.saturating_sub(metered), tip(prices.execution, base_fee))
            + product(metered, tip(prices.metered, prices.metered_base_fee));
        let beneficiary = ctx.block().beneficiary();
        ctx.journal_mut().load_account_mut(beneficiary)?.data.incr_balance(reward);
        Ok(())
    }
}

/// Gas that was spent on something else than what is metered.
fn execution_gas(gas: &Gas, metered: u64) -> u64 {
    gas.total_gas_spent().saturating_sub(gas.reservoir()).saturating_sub(metered)
}
