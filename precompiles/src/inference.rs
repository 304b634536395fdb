//! The precompile as a function: calldata, a gas limit and a site in, an outcome out.

use alloy_primitives::{B256, Bytes, keccak256};
use alloy_sol_types::SolError;
use thiserror::Error;

use crate::abi::{self, Call};
use crate::calls::{self, Ask, Interrupt, Prompted};
use crate::config::{Caps, ChainConfig};
use crate::gas::{Gas, GasSchedule};
use crate::memo::Memo;
use crate::meter::{Meter, Step};
use crate::registration::{GATEWAY_ADDRESS, Standing};
use crate::registry::{ModelError, ModelSet};
use crate::site::Site;

/// The inference precompile of one chain: a pure function of its configuration, the calldata and the site.
#[derive(Debug)]
pub struct Inference {
    gas: GasSchedule,
    caps: Caps,
    models: ModelSet,
    memo: Memo,
    has_registry: bool,
    legacy_max_new: Option<u32>,
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

/// An outcome, and what of it counts as inference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The outcome.
    pub outcome: Outcome,
    /// Gas that the block's limit for inference counts. It never exceeds what the block had left.
    pub metered: Gas,
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
    /// The state cannot be read.
    #[error("the model registry cannot be read: {0}")]
    State(String),
}

/// An outcome before limits are applied to it. It depends on nothing but configuration, calldata and where the model stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) reverted: bool,
    pub(crate) output: Bytes,
    /// What the call costs.
    pub(crate) charged: Gas,
    /// Where it needs more than before: the last is the smallest gas limit that is not out of gas.
    pub(crate) steps: Vec<Step>,
}

/// What a call has to go by.
#[derive(Clone, Copy)]
struct Limits {
    gas: Gas,
    /// What the block has left for inference; none if this call does not count.
    block: Option<Gas>,
}

impl Limits {
    /// The first limit that a need exceeds decides.
    fn exceeded(self, paid: Gas, step: Step) -> Option<Answered> {
        let needed = paid.plus(step.needed);
        if needed > self.gas {
            // What was paid was done.
            let metered = if self.block.is_some() { paid.plus(step.charged) } else { Gas(0) };
            return Some(Answered { outcome: Outcome::OutOfGas, metered });
        }
        let left = self.block.filter(|&left| needed > left)?;
        let gas = paid.plus(step.charged);
        let output = abi::BlockInferenceLimit { left: left.0 }.abi_encode().into();
        // What is paid before anything is done may be more than what is left.
        let metered = if gas > left { Gas(0) } else { gas };
        Some(Answered { outcome: Outcome::Revert { output, gas }, metered })
    }

    fn apply(self, paid: Gas, answer: Answer) -> Answered {
        let Answer { reverted, output, charged, steps } = answer;
        if let Some(end) = steps.into_iter().find_map(|step| self.exceeded(paid, step)) {
            return end;
        }
        let gas = paid.plus(charged);
        let metered = if self.block.is_some() { gas } else { Gas(0) };
        let outcome =
            if reverted { Outcome::Revert { output, gas } } else { Outcome::Return { output, gas } };
        Answered { outcome, metered }
    }
}

impl Inference {
    /// The precompile of a chain, without a memo.
    pub fn new(config: &ChainConfig, models: ModelSet) -> Self {
        Self {
            gas: config.gas,
            caps: config.caps,
            models,
            memo: Memo::new(0),
            has_registry: config.registry.is_some(),
            legacy_max_new: config.legacy.enabled.then_some(config.legacy.max_new_tokens),
        }
    }

    /// Remembers the last `answers` answers. A matter of this node: it changes no outcome.
    #[must_use]
    pub fn with_memo(mut self, answers: usize) -> Self {
        self.memo = Memo::new(answers);
        self
    }

    /// Answers a call outside a block, where there are only the models of the configuration.
    ///
    /// # Errors
    /// [`FatalError`], after which this node must not go on: there is an answer and it does not have it.
    pub fn call(&self, calldata: &[u8], limit: Gas) -> Result<Outcome, FatalError> {
        Ok(self.call_at(calldata, limit, &mut Site::nowhere())?.outcome)
    }

    /// Answers a call.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_at(&self, calldata: &[u8], limit: Gas, site: &mut Site<'_>) -> Result<Answered, FatalError> {
        self.answer(calldata, limit, site, &self.memo)
    }

    /// The same outside a block and without the memo.
    pub(crate) fn execute(&self, calldata: &[u8], limit: Gas) -> Result<Outcome, FatalError> {
        Ok(self.answer(calldata, limit, &mut Site::nowhere(), &Memo::new(0))?.outcome)
    }

    fn answer(
        &self,
        calldata: &[u8],
        limit: Gas,
        site: &mut Site<'_>,
        memo: &Memo,
    ) -> Result<Answered, FatalError> {
        let free = Limits { gas: limit, block: None };
        let paid = self.gas.input(calldata.len());
        if paid > limit {
            return Ok(Answered { outcome: Outcome::OutOfGas, metered: Gas(0) });
        }
        match Call::decode(calldata) {
            None => Ok(free.apply(paid, Answer::error(&abi::BadCalldata {}))),
            Some(Call::InferenceBaseFee(_)) => Ok(free.apply(paid, calls::base_fee(site))),
            Some(Call::VerifyBundle(call)) => {
                let answer = calls::verify_bundle(self, call.model, limit.minus(paid), site)?;
                Ok(free.apply(paid, answer))
            }
            Some(call) => {
                let asked =
                    Asked { call: Prompted::Abi(call), subject: Subject::Calldata(calldata), limit, paid };
                self.prompted(asked, site, memo)
            }
        }
    }

    /// Answers a call of the Metis SDK's precompile: a prompt in, text out, by the default model. `None` if the chain does not have it.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_legacy(
        &self,
        prompt: &[u8],
        limit: Gas,
        site: &mut Site<'_>,
    ) -> Result<Option<Answered>, FatalError> {
        let Some(max_new) = self.legacy_max_new else { return Ok(None) };
        let paid = self.gas.input(prompt.len());
        if paid > limit {
            return Ok(Some(Answered { outcome: Outcome::OutOfGas, metered: Gas(0) }));
        }
        let call = Prompted::Legacy { prompt: Bytes::copy_from_slice(prompt), max_new };
        let asked = Asked { call, subject: Subject::Legacy(prompt), limit, paid };
        let mut answered = self.prompted(asked, site, &self.memo)?;
        if let Outcome::Revert { output, .. } = &mut answered.outcome {
            // Contracts of that SDK read no typed errors.
            let reason = abi::describe(output).unwrap_or_else(|| output.to_string());
            tracing::info!("a call of the legacy precompile reverts: {reason}");
            *output = Bytes::new();
        }
        Ok(Some(answered))
    }

    /// Answers a call that has a model look at something.
    fn prompted(&self, asked: Asked<'_>, site: &mut Site<'_>, memo: &Memo) -> Result<Answered, FatalError> {
        let Asked { call, subject, limit, mut paid } = asked;
        let is_metered = call.is_metered();
        let mut limits = Limits { gas: limit, block: None };
        if let Some(terms) = site.terms.filter(|_| is_metered) {
            if !terms.affordable {
                let error = abi::InferenceFeeTooLow { baseFee: alloy_primitives::U256::from(terms.base_fee) };
                return Ok(limits.apply(paid, Answer::error(&error)));
            }
            limits.block = Some(Gas(terms.left));
        }
        let model = call.model();
        let place = self.place(model, site)?;
        if let Place::Registered { look_up, .. } = place {
            paid = paid.plus(look_up);
        }
        let start = Step { charged: Gas(0), needed: Gas(0) };
        if let Some(end) = limits.exceeded(paid, start) {
            // Nothing has been done.
            return Ok(Answered { metered: Gas(0), ..end });
        }

        let key = (!memo.is_off()).then(|| subject.key(place.kind()));
        if let Some(answer) = key.and_then(|key| memo.get(key)) {
            return Ok(limits.apply(paid, answer));
        }
        // No work that could not be paid, or that the block has no room for.
        let most = limits.block.map_or(limit, |left| left.min(limit));
        let mut meter = Meter::new(most.minus(paid));
        let ask = Ask::new(self, model, place.kind());
        let (reverted, output) = match call.answer(&ask, &mut meter) {
            Ok(output) => (false, output),
            Err(Interrupt::Revert(output)) => (true, output),
            Err(Interrupt::OutOfGas) => {
                let last = meter.into_steps().pop().unwrap_or(start);
                let end = limits.exceeded(paid, last);
                return Ok(end.unwrap_or(Answered { outcome: Outcome::OutOfGas, metered: Gas(0) }));
            }
            Err(Interrupt::Fatal(error)) => return Err(error),
        };
        let charged = meter.charged();
        let answer = Answer { reverted, output: output.into(), charged, steps: meter.into_steps() };
        if let Some(key) = key {
            memo.insert(key, &answer);
        }
        Ok(limits.apply(paid, answer))
    }

    /// Where a model stands.
    fn place(&self, model: B256, site: &mut Site<'_>) -> Result<Place, FatalError> {
        if self.models.lists(model) || !self.has_registry {
            return Ok(Place::Configured);
        }
        let Some(storage) = site.registry.as_deref_mut() else { return Ok(Place::Configured) };
        let (standing, _, look_up) = Standing::load(storage, model)?;
        let Standing { active_until, priced, registered } = standing;
        let active = site.time < active_until;
        if registered && active_until > 0 && !active {
            self.models.release(model);
        }
        let kind = match (registered, active, priced && site.asker != GATEWAY_ADDRESS) {
            (false, ..) => Kind::Unregistered,
            (_, false, _) => Kind::Inactive,
            (_, _, true) => Kind::Unpaid,
            (_, _, false) => Kind::Active,
        };
        Ok(Place::Registered { kind, look_up })
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

    /// Whether the chain has the Metis SDK's precompile.
    pub const fn has_legacy(&self) -> bool {
        self.legacy_max_new.is_some()
    }
}

impl Answer {
    /// An error, at no price of its own.
    pub(crate) fn error(error: &impl SolError) -> Self {
        Self { reverted: true, output: error.abi_encode().into(), charged: Gas(0), steps: Vec::new() }
    }
}

/// A call that has been read.
struct Asked<'a> {
    call: Prompted,
    subject: Subject<'a>,
    limit: Gas,
    /// What reading it cost.
    paid: Gas,
}

/// What was asked, as a memo tells it apart.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Calldata(&'a [u8]),
    Legacy(&'a [u8]),
}

impl Subject<'_> {
    fn key(self, kind: Kind) -> B256 {
        let (tag, bytes) = match self {
            Self::Calldata(bytes) => (0, bytes),
            Self::Legacy(bytes) => (1, bytes),
        };
        keccak256([&[tag, kind as u8], bytes].concat())
    }
}

/// Where a model stands, for a call at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The configuration decides.
    Configured,
    /// The registry does not know it.
    Unregistered,
    /// The registry does not let it be called now.
    Inactive,
    /// It can be called, but not by who asks.
    Unpaid,
    /// It can be called.
    Active,
}

#[derive(Clone, Copy)]
enum Place {
    Configured,
    Registered { kind: Kind, look_up: Gas },
}

impl Place {
    const fn kind(self) -> Kind {
        match self {
            Self::Configured => Kind::Configured,
            Self::Registered { kind, .. } => kind,
        }
    }
}
