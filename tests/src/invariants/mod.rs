//! Random histories of the system contracts against what must always hold.
//!
//! A run plays a random history of registry, shares and gateway on a fresh copy of one prepared chain, next to a ledger that knows of
//! each token what it has earned exactly. After each step and at the end:
//!
//! - **solvency**: no contract owes more than it has, in any asset;
//! - **conservation**: what was paid out and is owed is what came in, but for less than a unit for each claim and settlement;
//! - **each token** has earned what the ledger says, from its minting to its expiry, no unit more;
//! - **no double claim**: a second claim pays nothing;
//! - **shares**: the sum that counts is that of the tokens which have not expired, never above the cap;
//! - **authority**: what only an owner, controller or operator may do fails for everybody else;
//! - **nonces**: what was signed works once, and not at all when it was changed;
//! - **registry**: it holds exactly the bonds and the rent that was not collected, and counts exactly the models that are in.

mod ledger;
mod steps;

use alloy_primitives::{Address, U256};
use anyhow::Context;
use metis_precompiles::{GATEWAY_ADDRESS, MetisPrecompiles};
use metis_vm::{Account, BlockInfo, State, Transaction, Vm};
use metisvm::artifacts;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::economy::{AUTHOR, Economy, RICH, STRANGER, Unregistered, priced};
use crate::signer::Signer;
use ledger::Ledger;

/// People with keys.
const SIGNERS: u8 = 3;

/// A chain on which histories begin: an active model with a price, one that is not registered, and an ERC-20 that everybody has.
#[derive(Debug)]
pub struct Stage {
    economy: Economy,
    state: State,
    block: BlockInfo,
    active: Unregistered,
    other: Unregistered,
    token: Address,
    class: U256,
    signers: Vec<Signer>,
}

impl Stage {
    /// Sets it.
    pub fn new() -> anyhow::Result<Self> {
        let mut economy = Economy::new(|_| {})?;
        let (active, other) = (economy.model(1)?, economy.model(2)?);
        let class = economy.activate(&active, priced(1_000_003, 7))?;
        let code =
            artifacts::test_token()?.initcode(&alloy_sol_types::SolValue::abi_encode_params(&("T",)))?;
        let token = economy.vm.transact(&Transaction::create(STRANGER, code))?;
        let token = token.created_address.context("the token's address")?;
        let signers: Vec<Signer> = (1..=SIGNERS).map(Signer::new).collect();
        for signer in &signers {
            let rich = Account { balance: U256::from(RICH), ..Account::default() };
            economy.vm.set_account(signer.address, &rich);
        }
        let state = economy.vm.state();
        let block = economy.vm.config().block.clone();
        Ok(Self { economy, state, block, active, other, token, class, signers })
    }

    /// Plays the history of a seed.
    ///
    /// # Errors
    /// What does not hold, and the steps until then.
    pub fn run(&self, seed: u64, steps: usize) -> anyhow::Result<()> {
        let mut vm = self.economy.node.vm(self.state.clone());
        vm.set_block(self.block.clone());
        let mut history = History {
            stage: self,
            rng: ChaCha8Rng::seed_from_u64(seed),
            vm,
            ledger: Ledger::new(self),
            signed: Vec::new(),
            nonces: 0,
            deposits: [U256::ZERO; SIGNERS as usize],
            told: Vec::new(),
        };
        let played = (0..steps).try_for_each(|_| history.step()).and_then(|()| history.check_all());
        played.with_context(|| format!("seed {seed}: {}", history.told.join("; ")))
    }

    fn people(&self) -> Vec<Address> {
        self.signers.iter().map(|signer| signer.address).chain([AUTHOR, STRANGER]).collect()
    }
}

/// A history that is played.
struct History<'a> {
    stage: &'a Stage,
    rng: ChaCha8Rng,
    vm: Vm<MetisPrecompiles>,
    ledger: Ledger,
    /// Calls that were signed and went through.
    signed: Vec<(usize, Vec<u8>)>,
    nonces: u64,
    /// Deposits of the signers at the gateway.
    deposits: [U256; SIGNERS as usize],
    /// The steps so far.
    told: Vec<String>,
}

impl History<'_> {
    fn time(&self) -> u64 {
        self.vm.config().block.timestamp
    }

    fn below(&mut self, end: u64) -> u64 {
        self.rng.random_range(0..end)
    }

    fn person(&mut self) -> Address {
        let people = self.stage.people();
        people[self.rng.random_range(0..people.len())]
    }

    fn check_deposits(&self) -> anyhow::Result<()> {
        let held: U256 = self.deposits.iter().sum();
        let balance = self.vm.balance(GATEWAY_ADDRESS);
        anyhow::ensure!(balance == held, "the gateway has {balance} and owes {held}");
        Ok(())
    }
}
