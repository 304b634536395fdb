//! What a call sees of the chain besides its calldata.

use core::fmt;

use alloy_primitives::{Address, U256};
use metis_vm::MeterTerms;

use crate::gas::Gas;
use crate::inference::FatalError;
use crate::meter::{Meter, OutOfGas};

/// Where and when a call happens. Everything here is the same on all validators.
pub struct Site<'a> {
    /// The contract or account that asks. In a DELEGATECALL that is the contract whose code makes it, whoever called that.
    pub asker: Address,
    /// The block's time, in seconds since 1970.
    pub time: u64,
    /// The model registry's storage, where the chain has a registry.
    pub registry: Option<&'a mut dyn RegistryStorage>,
    /// What the transaction may use of metered gas, where the block meters.
    pub terms: Option<MeterTerms>,
}

/// The model registry's storage, read as of this point of the transaction.
pub trait RegistryStorage {
    /// The value of a slot, paid before it is read: warm or cold, as for any contract (EIP-2929). The first is also a reading of the account,
    /// which is paid before.
    fn load(&mut self, slot: U256, meter: &mut Meter) -> Result<U256, Unread>;

    /// The most that reading the account and so many slots costs.
    fn dearest(&self, slots: u32) -> Gas;
}

/// Why a slot was not read.
#[derive(Debug)]
pub enum Unread {
    /// What is left does not pay for it. Nothing was fetched.
    OutOfGas,
    /// This node cannot.
    Fatal(FatalError),
}

impl From<OutOfGas> for Unread {
    fn from(_: OutOfGas) -> Self {
        Self::OutOfGas
    }
}

impl Site<'_> {
    /// Outside a block: no registry, nothing metered.
    pub const fn nowhere() -> Self {
        Self { asker: Address::ZERO, time: 0, registry: None, terms: None }
    }
}

impl fmt::Debug for Site<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("asker", &self.asker)
            .field("time", &self.time)
            .field("registry", &self.registry.is_some())
            .field("terms", &self.terms)
            .finish()
    }
}
