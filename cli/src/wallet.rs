//! IntentWallet on a fresh chain, as the demo and the tests use it.

use alloy_primitives::{Address, B256, Bytes, U256, address, keccak256};
use alloy_sol_types::{SolCall, SolEvent, SolValue, sol};
use anyhow::{Context, bail};
use metis_precompiles::MetisPrecompiles;
use metis_vm::{Outcome, Recorder, Transaction};

use crate::artifacts::{self, Artifact};

sol! {
    #[allow(missing_docs, reason = "the contract's own interface")]
    interface IWallet {
        function ask(string instruction) external returns (string command);
        function preview(string instruction) external view returns (string command);
        function setToken(string symbol, address token) external;
        function setContact(string name, address account) external;
        function setServices(address exchange, address staking, address governor) external;
        event Executed(string instruction, string command, uint32[] tokens);
    }
    #[allow(missing_docs, reason = "the contract's own interface")]
    interface IToken {
        function mint(address to, uint256 amount) external;
        function balanceOf(address account) external view returns (uint256);
        event Transfer(address indexed from, address indexed to, uint256 value);
    }
    #[allow(missing_docs, reason = "the contract's own interface")]
    interface IExchange {
        function setRate(address tokenIn, address tokenOut, uint256 rate) external;
    }
}

/// Who owns the wallet.
pub const OWNER: Address = address!("0x00000000000000000000000000000000000A11CE");
/// The address book.
pub const CONTACTS: [(&str, Address); 3] = [
    ("alice", address!("0x00000000000000000000000000000000000000A1")),
    ("bob", address!("0x00000000000000000000000000000000000000B0")),
    ("carol", address!("0x00000000000000000000000000000000000000CA")),
];
/// The tokens.
pub const SYMBOLS: [&str; 5] = ["METIS", "ETH", "USDC", "DAI", "WBTC"];
/// What the exchange takes a token to be worth.
const PRICES: [u64; 5] = [20, 2_500, 1, 1, 80_000];
/// One token, in its smallest unit.
pub const UNIT: u64 = 1_000_000_000_000_000_000;
/// What the wallet and the exchange hold of each token at the start, in whole tokens.
pub const FUNDS: u64 = 10_000;

/// A wallet with tokens, contacts and services.
#[derive(Debug)]
pub struct Wallet {
    /// The machine, with everything recorded from genesis on.
    pub recorder: Recorder<MetisPrecompiles>,
    /// The wallet.
    pub address: Address,
    /// The tokens, in the order of [`SYMBOLS`].
    pub tokens: [Address; 5],
    /// Exchange, staking place and governor.
    pub services: [(&'static str, Address); 3],
}

/// A token that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The token's symbol.
    pub symbol: &'static str,
    /// From whom.
    pub from: Address,
    /// To whom.
    pub to: Address,
    /// How much, in its smallest unit.
    pub value: U256,
}

impl Wallet {
    /// Deploys everything. Each step is a transaction of the record.
    pub fn deploy(mut recorder: Recorder<MetisPrecompiles>) -> anyhow::Result<Self> {
        let address = create(&mut recorder, artifacts::intent_wallet()?, &[])?;
        let exchange = create(&mut recorder, artifacts::test_exchange()?, &[])?;
        let staking = create(&mut recorder, artifacts::test_staking()?, &[])?;
        let governor = create(&mut recorder, artifacts::test_governor()?, &[])?;
        let mut tokens = [Address::ZERO; 5];
        for (slot, symbol) in tokens.iter_mut().zip(SYMBOLS) {
            let arguments = (symbol.to_owned(),).abi_encode_params();
            *slot = create(&mut recorder, artifacts::test_token()?, &arguments)?;
            for to in [address, exchange] {
                let amount = U256::from(FUNDS) * U256::from(UNIT);
                call(&mut recorder, *slot, IToken::mintCall { to, amount }.abi_encode())?;
            }
            let set = IWallet::setTokenCall { symbol: symbol.to_owned(), token: *slot };
            call(&mut recorder, address, set.abi_encode())?;
        }
        for (&token_in, price_in) in tokens.iter().zip(PRICES) {
            for (&token_out, price_out) in tokens.iter().zip(PRICES).filter(|&(&token, _)| token != token_in)
            {
                let rate = U256::from(price_in) * U256::from(UNIT) / U256::from(price_out);
                let set = IExchange::setRateCall { tokenIn: token_in, tokenOut: token_out, rate };
                call(&mut recorder, exchange, set.abi_encode())?;
            }
        }
        for (name, account) in CONTACTS {
            let set = IWallet::setContactCall { name: name.to_owned(), account };
            call(&mut recorder, address, set.abi_encode())?;
        }
        let services = IWallet::setServicesCall { exchange, staking, governor };
        call(&mut recorder, address, services.abi_encode())?;
        let services =
            [("the exchange", exchange), ("the staking contract", staking), ("the governor", governor)];
        Ok(Self { recorder, address, tokens, services })
    }

    /// Tells the wallet something, as its owner.
    pub fn ask(&mut self, instruction: &str) -> anyhow::Result<Outcome> {
        let input = IWallet::askCall { instruction: instruction.to_owned() }.abi_encode();
        Ok(self.recorder.transact(&Transaction::call(OWNER, self.address, input))?)
    }

    /// The command that an `ask` executed.
    pub fn command(outcome: &Outcome) -> anyhow::Result<String> {
        IWallet::askCall::abi_decode_returns(&outcome.output).context("the wallet's answer")
    }

    /// The tokens that moved in a transaction.
    pub fn movements(&self, outcome: &Outcome) -> Vec<Movement> {
        let movement = |log: &metis_vm::Log| {
            let index = self.tokens.iter().position(|&token| token == log.address)?;
            let event = IToken::Transfer::decode_raw_log(log.topics.iter().copied(), &log.data).ok()?;
            Some(Movement { symbol: SYMBOLS[index], from: event.from, to: event.to, value: event.value })
        };
        outcome.logs.iter().filter_map(movement).collect()
    }

    /// What people call an address.
    pub fn name(&self, address: Address) -> String {
        let known = CONTACTS.iter().copied().chain(self.services).chain([("the wallet", self.address)]);
        known
            .into_iter()
            .find(|&(_, a)| a == address)
            .map_or_else(|| address.to_string(), |(name, _)| name.to_owned())
    }
}

/// `keccak256` over everything that a receipt and a caller see of an outcome, as JSON.
pub fn digest(outcome: &Outcome) -> anyhow::Result<B256> {
    Ok(keccak256(serde_json::to_vec(outcome)?))
}

/// An amount in its smallest unit as a decimal.
pub fn decimal(value: U256) -> String {
    let unit = U256::from(UNIT);
    let (whole, rest) = (value / unit, value % unit);
    let fraction = format!("{rest:0>18}");
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
}

fn create(
    recorder: &mut Recorder<MetisPrecompiles>,
    artifact: Artifact,
    arguments: &[u8],
) -> anyhow::Result<Address> {
    let outcome = recorder.transact(&Transaction::create(OWNER, artifact.initcode(arguments)?))?;
    match outcome.created_address {
        Some(address) if outcome.is_success() => Ok(address),
        _ => bail!("a contract could not be deployed: {} {}", outcome.status, outcome.output),
    }
}

fn call(
    recorder: &mut Recorder<MetisPrecompiles>,
    to: Address,
    input: impl Into<Bytes>,
) -> anyhow::Result<()> {
    let outcome = recorder.transact(&Transaction::call(OWNER, to, input))?;
    if !outcome.is_success() {
        bail!("setting up {to} failed: {} {}", outcome.status, outcome.output);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_without_needless_zeros() {
        assert_eq!(decimal(U256::from(UNIT) * U256::from(12) + U256::from(UNIT / 2)), "12.5");
        assert_eq!(decimal(U256::from(UNIT)), "1");
        assert_eq!(decimal(U256::from(1)), "0.000000000000000001");
    }
}
