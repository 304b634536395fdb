//! The precompile as a function: calldata and a gas limit in, an outcome out.

use alloy_primitives::{Bytes, keccak256};
use thiserror::Error;

use crate::calls;
use crate::config::{Caps, ChainConfig};
use crate::gas::{Gas, GasSchedule, Meter};
use crate::memo::Memo;
use crate::registry::{ModelError, ModelSet};

/// The inference precompile of one chain: a pure function of its configuration and the calldata.
#[derive(Debug)]
pub struct Inference {
    gas: GasSchedule,
    caps: Caps,
    models: ModelSet,
    memo: Memo,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Return {
        /// The ABI-encoded answer.
        output: Bytes,
        /// What it cost.
        gas: Gas,
    },
    /// With a typed error; the rest of the gas goes back.
    Revert {
        /// The ABI-encoded error.
        output: Bytes,
        /// What was done until then.
        gas: Gas,
    },
    /// The gas limit does not cover the worst case of the arguments. All of it is gone.
    OutOfGas,
}

/// A failure of this node, not of the call: the node stops.
#[derive(Debug, Error)]
pub enum FatalError {
    /// An active model without weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The device failed, or an engine refused what the precompile has checked.
    #[error("inference failed: {0}; the block cannot be executed on this node")]
    Engine(String),
}

/// An outcome before a gas limit is applied to it. Every call has one, and it depends on nothing but configuration and calldata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) reverted: bool,
    pub(crate) output: Bytes,
    /// What the call costs.
    pub(crate) charged: Gas,
    /// The smallest gas limit that is not out of gas: at least `charged`.
    pub(crate) required: Gas,
}

impl Answer {
    fn within(self, limit: Gas) -> Outcome {
        match self {
            Self { required, .. } if required > limit => Outcome::OutOfGas,
            Self { reverted: true, output, charged: gas, .. } => Outcome::Revert { output, gas },
            Self { output, charged: gas, .. } => Outcome::Return { output, gas },
        }
    }
}

impl Inference {
    /// The precompile of a chain, without a memo.
    pub fn new(config: &ChainConfig, models: ModelSet) -> Self {
        Self { gas: config.gas, caps: config.caps, models, memo: Memo::new(0) }
    }

    /// Remembers the last `answers` answers. A matter of this node: it changes no outcome.
    #[must_use]
    pub fn with_memo(mut self, answers: usize) -> Self {
        self.memo = Memo::new(answers);
        self
    }

    /// Answers a call.
    ///
    /// # Errors
    /// [`FatalError`], after which this node must not go on: there is an answer and it does not have it.
    pub fn call(&self, calldata: &[u8], limit: Gas) -> Result<Outcome, FatalError> {
        if self.memo.is_off() {
            return self.execute(calldata, limit);
        }
        // Not even the memo's hash is computed before the calldata is paid.
        if self.gas.input(calldata.len()) > limit {
            return Ok(Outcome::OutOfGas);
        }
        let key = keccak256(calldata);
        if let Some(answer) = self.memo.get(key) {
            return Ok(answer.within(limit));
        }
        let Some(answer) = self.answer(calldata, limit)? else { return Ok(Outcome::OutOfGas) };
        self.memo.insert(key, &answer);
        Ok(answer.within(limit))
    }

    /// The same without the memo.
    pub(crate) fn execute(&self, calldata: &[u8], limit: Gas) -> Result<Outcome, FatalError> {
        let answer = self.answer(calldata, limit)?;
        Ok(answer.map_or(Outcome::OutOfGas, |answer| answer.within(limit)))
    }

    /// The answer, or `None` when the limit does not suffice.
    fn answer(&self, calldata: &[u8], limit: Gas) -> Result<Option<Answer>, FatalError> {
        let mut meter = Meter::new(limit);
        let (reverted, output) = match calls::answer(self, calldata, &mut meter) {
            Ok(output) => (false, output),
            Err(calls::Interrupt::Revert(output)) => (true, output),
            Err(calls::Interrupt::OutOfGas) => return Ok(None),
            Err(calls::Interrupt::Fatal(error)) => return Err(error),
        };
        let (charged, required) = (meter.charged(), meter.required());
        Ok(Some(Answer { reverted, output: output.into(), charged, required }))
    }

    /// The chain's prices.
    pub const fn gas(&self) -> &GasSchedule {
        &self.gas
    }

    /// The chain's limits.
    pub const fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The chain's models.
    pub const fn models(&self) -> &ModelSet {
        &self.models
    }
}
