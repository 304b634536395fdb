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
use crate::registration::{GATEWAY_ADDRESS, LOOK_UP_SLOTS, Standing};
use crate::registry::{ModelError, ModelSet};
use crate::site::{Site, Unread};

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
    /// Of a call that has a model look at something. Who offers less than the base fee gets no inference, so nothing of theirs counts as such.
    fn of(gas: Gas, site: &Site<'_>) -> Self {
        let block = site.terms.filter(|terms| terms.affordable).map(|terms| Gas(terms.left));
        Self { gas, block }
    }

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
        Some(Answered { outcome: Outcome::Revert { output, gas }, metered: gas })
    }

    /// What a call that is out of gas, or for which the block has no room, ends with. The meter's last step is the one that was too much.
    fn ended(self, paid: Gas, meter: Meter) -> Answered {
        let last = meter.into_steps().pop().and_then(|step| self.exceeded(paid, step));
        last.unwrap_or(Answered { outcome: Outcome::OutOfGas, metered: Gas(0) })
    }

    /// What there is to pay with, until a limit is exceeded.
    fn least(self) -> Gas {
        self.block.map_or(self.gas, |left| left.min(self.gas))
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
        let limits = if abi::is_metered(calldata) { Limits::of(limit, site) } else { free };
        let paid = self.gas.input(calldata.len());
        if let Some(end) = limits.exceeded(Gas(0), Step::first(paid)) {
            return Ok(end);
        }
        match Call::decode(calldata) {
            None => Ok(limits.apply(paid, Answer::error(&abi::BadCalldata {}))),
            Some(Call::InferenceBaseFee(_)) => Ok(free.apply(paid, calls::base_fee(site))),
            Some(Call::VerifyBundle(call)) => {
                let answer = calls::verify_bundle(self, call.model, limit.minus(paid), site)?;
                Ok(free.apply(paid, answer))
            }
            Some(call) => {
                let asked =
                    Asked { call: Prompted::Abi(call), subject: Subject::Calldata(calldata), limits, paid };
                self.prompted(asked, abi::is_metered(calldata), site, memo)
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
        let (limits, paid) = (Limits::of(limit, site), self.gas.input(prompt.len()));
        let mut answered = match limits.exceeded(Gas(0), Step::first(paid)) {
            Some(end) => end,
            None => {
                let call = Prompted::Legacy { prompt: Bytes::copy_from_slice(prompt), max_new };
                let asked = Asked { call, subject: Subject::Legacy(prompt), limits, paid };
                self.prompted(asked, true, site, &self.memo)?
            }
        };
        if let Outcome::Revert { output, .. } = &mut answered.outcome {
            // Contracts of that SDK read no typed errors.
            let reason = abi::describe(output).unwrap_or_else(|| output.to_string());
            tracing::info!("a call of the legacy precompile reverts: {reason}");
            *output = Bytes::new();
        }
        Ok(Some(answered))
    }

    /// Answers a call that has a model look at something, or that describes one.
    fn prompted(
        &self,
        asked: Asked<'_>,
        is_metered: bool,
        site: &mut Site<'_>,
        memo: &Memo,
    ) -> Result<Answered, FatalError> {
        let Asked { call, subject, limits, paid: input } = asked;
        if let Some(terms) = site.terms.filter(|terms| is_metered && !terms.affordable) {
            let error = abi::InferenceFeeTooLow { baseFee: alloy_primitives::U256::from(terms.base_fee) };
            return Ok(limits.apply(input, Answer::error(&error)));
        }
        let model = call.model();
        let mut meter = Meter::new(limits.least().minus(input));
        let place = match self.place(model, site, &mut meter) {
            Ok(place) => place,
            Err(Unread::OutOfGas) => return Ok(limits.ended(input, meter)),
            Err(Unread::Fatal(error)) => return Err(error),
        };
        let paid = input.plus(meter.charged());

        let key = (!memo.is_off()).then(|| subject.key(place.kind));
        if let Some(answer) = key.and_then(|key| memo.get(key)) {
            return Ok(limits.apply(paid, answer));
        }
        // No work that could not be paid, or that the block has no room for.
        let mut meter = Meter::new(limits.least().minus(paid));
        let ask = Ask::new(self, model, place.kind, place.look_up);
        let (reverted, output) = match call.answer(&ask, &mut meter) {
            Ok(output) => (false, output),
            Err(Interrupt::Revert(output)) => (true, output),
            Err(Interrupt::OutOfGas) => return Ok(limits.ended(paid, meter)),
            Err(Interrupt::Fatal(error)) => return Err(error),
        };
        let charged = meter.charged();
        let answer = Answer { reverted, output: output.into(), charged, steps: meter.into_steps() };
        if let Some(key) = key {
            memo.insert(key, &answer);
        }
        Ok(limits.apply(paid, answer))
    }

    /// Where a model stands. Looking it up is paid.
    fn place(&self, model: B256, site: &mut Site<'_>, meter: &mut Meter) -> Result<Place, Unread> {
        let configured = Place { kind: Kind::Configured, look_up: Gas(0) };
        if self.models.lists(model) || !self.has_registry {
            return Ok(configured);
        }
        let Some(storage) = site.registry.as_deref_mut() else { return Ok(configured) };
        let (standing, _) = Standing::load(storage, model, meter)?;
        let Standing { active_until, priced, registered, resident } = standing;
        if !resident {
            // One whose rent has run out may be paid for in the next block, or in another history of this one.
            self.models.release(model);
        }
        let active = site.time < active_until;
        let kind = match (registered, active, priced && site.asker != GATEWAY_ADDRESS) {
            (false, ..) => Kind::Unregistered,
            (_, false, _) => Kind::Inactive,
            (_, _, true) => Kind::Unpaid,
            (_, _, false) => Kind::Active,
        };
        Ok(Place { kind, look_up: storage.dearest(LOOK_UP_SLOTS) })
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
    limits: Limits,
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
struct Place {
    kind: Kind,
    /// What looking it up costs at most.
    look_up: Gas,
}
