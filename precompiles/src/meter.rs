//! Gas of one call.

use crate::gas::Gas;

/// Gas of one call: what it has paid, and what it had to be able to pay.
#[derive(Clone, Debug)]
pub struct Meter {
    limit: Gas,
    charged: Gas,
    required: Gas,
    steps: Vec<Step>,
}

/// A point at which a call needed more than ever before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it had paid.
    pub charged: Gas,
    /// What it had to be able to pay.
    pub needed: Gas,
}

impl Step {
    /// The first thing that a call pays.
    pub(crate) const fn first(price: Gas) -> Self {
        Self { charged: Gas(0), needed: price }
    }
}

/// The gas limit does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfGas;

impl Meter {
    /// A call with this much gas.
    pub const fn new(limit: Gas) -> Self {
        Self { limit, charged: Gas(0), required: Gas(0), steps: Vec::new() }
    }

    /// Pays.
    pub fn charge(&mut self, gas: Gas) -> Result<(), OutOfGas> {
        self.reserve(gas)?;
        self.charged = self.charged.plus(gas);
        Ok(())
    }

    /// Makes sure that so much could be paid on top of what has been.
    pub fn reserve(&mut self, gas: Gas) -> Result<(), OutOfGas> {
        let needed = self.charged.plus(gas);
        if needed > self.required {
            self.required = needed;
            self.steps.push(Step { charged: self.charged, needed });
        }
        if needed > self.limit { Err(OutOfGas) } else { Ok(()) }
    }

    /// What could still be paid.
    pub const fn left(&self) -> Gas {
        self.limit.minus(self.charged)
    }

    /// What has been paid.
    pub const fn charged(&self) -> Gas {
        self.charged
    }

    /// The smallest limit with which the call gets as far as it has.
    pub const fn required(&self) -> Gas {
        self.required
    }

    /// Where it needed more than before, in order.
    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_meter_requires_the_most_it_ever_asked_for(steps: Vec<(bool, u32)>, limit: u32) {
            let run = |limit: u64| {
                let mut meter = Meter::new(Gas(limit));
                let done = steps.iter().try_for_each(|&(pay, gas)| {
                    let gas = Gas(gas.into());
                    if pay { meter.charge(gas) } else { meter.reserve(gas) }
                });
                (done, meter)
            };
            let (_, free) = run(u64::MAX);
            let (done, meter) = run(limit.into());
            prop_assert_eq!(done.is_ok(), free.required() <= Gas(limit.into()));
            prop_assert!(meter.charged() <= Gas(limit.into()));
        }
    }
}
