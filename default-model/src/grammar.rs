//! The command grammar: what the model may answer, and its one canonical spelling.
//!
//! ```text
//! command := "transfer" amount token "to" name
//!          | "swap" amount token "for" token
//!          | "stake" amount token
//!          | "unstake" amount token
//!          | "vote" ("yes" | "no" | "abstain") "on" number
//!          | "none"
//! ```

use std::fmt;
use std::str::FromStr;

/// One answer of the model. `Display` writes the canonical line, `FromStr` reads only that line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `transfer <amount> <TOKEN> to <name>`
    Transfer {
        /// How much.
        amount: Amount,
        /// Of which token.
        token: Token,
        /// To whom: `[a-z0-9.-]+`.
        to: String,
    },
    /// `swap <amount> <TOKEN> for <TOKEN>`
    Swap {
        /// How much is given.
        amount: Amount,
        /// The token given.
        from: Token,
        /// The token received.
        to: Token,
    },
    /// `stake <amount> <TOKEN>`
    Stake {
        /// How much.
        amount: Amount,
        /// Of which token.
        token: Token,
    },
    /// `unstake <amount> <TOKEN>`
    Unstake {
        /// How much.
        amount: Amount,
        /// Of which token.
        token: Token,
    },
    /// `vote <yes|no|abstain> on <number>`
    Vote {
        /// The ballot.
        stance: Stance,
        /// The proposal's number.
        proposal: u32,
    },
    /// `none`: the text is not an instruction.
    Nothing,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transfer { amount, token, to } => write!(f, "transfer {amount} {token} to {to}"),
            Self::Swap { amount, from, to } => write!(f, "swap {amount} {from} for {to}"),
            Self::Stake { amount, token } => write!(f, "stake {amount} {token}"),
            Self::Unstake { amount, token } => write!(f, "unstake {amount} {token}"),
            Self::Vote { stance, proposal } => write!(f, "vote {stance} on {proposal}"),
            Self::Nothing => f.write_str("none"),
        }
    }
}

impl FromStr for Command {
    type Err = GrammarError;

    fn from_str(line: &str) -> Result<Self, GrammarError> {
        let error = || GrammarError(line.to_owned());
        let words: Vec<&str> = line.split(' ').collect();
        let command = match words.as_slice() {
            ["transfer", amount, token, "to", to] if is_name(to) => {
                Self::Transfer { amount: amount.parse()?, token: token.parse()?, to: (*to).to_owned() }
            }
            ["swap", amount, from, "for", to] => {
                Self::Swap { amount: amount.parse()?, from: from.parse()?, to: to.parse()? }
            }
            ["stake", amount, token] => Self::Stake { amount: amount.parse()?, token: token.parse()? },
            ["unstake", amount, token] => Self::Unstake { amount: amount.parse()?, token: token.parse()? },
            ["vote", stance, "on", proposal] => {
                Self::Vote { stance: stance.parse()?, proposal: proposal.parse().map_err(|_| error())? }
            }
            ["none"] => Self::Nothing,
            _ => return Err(error()),
        };
        // Canonical or nothing: "007", "+1" and "1.50" parse as numbers but are not how we write them.
        if command.to_string() == line { Ok(command) } else { Err(error()) }
    }
}

/// A decimal amount with at most six decimals, in millionths of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Amount {
    millionths: u64,
}

impl Amount {
    /// `units` whole tokens and `millionths` more.
    #[must_use]
    pub fn new(units: u64, millionths: u64) -> Self {
        Self { millionths: units * 1_000_000 + millionths }
    }

    /// The whole tokens.
    #[must_use]
    pub fn units(self) -> u64 {
        self.millionths / 1_000_000
    }

    /// What is left after the whole tokens, in millionths.
    #[must_use]
    pub fn fraction(self) -> u64 {
        self.millionths % 1_000_000
    }

    /// The decimals without trailing zeros: `"25"` for 12.25, empty for 12.
    #[must_use]
    pub fn decimals(self) -> String {
        format!("{:06}", self.fraction()).trim_end_matches('0').to_owned()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.units())?;
        match self.decimals().as_str() {
            "" => Ok(()),
            decimals => write!(f, ".{decimals}"),
        }
    }
}

impl FromStr for Amount {
    type Err = GrammarError;

    fn from_str(text: &str) -> Result<Self, GrammarError> {
        let error = || GrammarError(text.to_owned());
        let (units, decimals) = text.split_once('.').unwrap_or((text, ""));
        if decimals.len() > 6 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let units: u64 = units.parse().map_err(|_| error())?;
        let millionths: u64 = format!("{decimals:0<6}").parse().map_err(|_| error())?;
        let total = units.checked_mul(1_000_000).and_then(|u| u.checked_add(millionths)).ok_or_else(error)?;
        Ok(Self { millionths: total })
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$item_doc])* $item),* }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &[Self] = &[$(Self::$item),*];

            /// The canonical spelling.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$item => $text),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = GrammarError;

            fn from_str(text: &str) -> Result<Self, GrammarError> {
                match text { $($text => Ok(Self::$item),)* _ => Err(GrammarError(text.to_owned())) }
            }
        }
    };
}

words! {
    /// The tokens that a command can name.
    Token {
        /// METIS.
        Metis = "METIS",
        /// Ether.
        Eth = "ETH",
        /// USD Coin.
        Usdc = "USDC",
        /// Dai.
        Dai = "DAI",
        /// Wrapped bitcoin.
        Wbtc = "WBTC",
    }
}

words! {
    /// A ballot.
    Stance {
        /// In favour.
        Yes = "yes",
        /// Against.
        No = "no",
        /// Neither.
        Abstain = "abstain",
    }
}

/// The text is not a canonical command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical command: {0:?}")]
pub struct GrammarError(pub String);

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_lines_parse_to_themselves() {
        for line in [
            "transfer 12.5 METIS to bob",
            "transfer 0.25 ETH to carol-7.eth",
            "swap 1000 USDC for WBTC",
            "stake 3 METIS",
            "unstake 0.000001 DAI",
            "vote abstain on 42",
            "none",
        ] {
            let command: Command = line.parse().unwrap();
            assert_eq!(command.to_string(), line);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for line in [
            "",
            "None",
            " none",
            "transfer 12.50 METIS to bob",
            "transfer 012 METIS to bob",
            "transfer .5 METIS to bob",
            "transfer 5 metis to bob",
            "transfer 5 METIS to Bob",
            "transfer +5 METIS to bob",
            "stake 1. METIS",
            "stake 1.0000001 METIS",
            "vote maybe on 3",
            "vote yes on 03",
            "swap 5 ETH to DAI",
            "stake 99999999999999999999 METIS",
        ] {
            assert!(line.parse::<Command>().is_err(), "{line:?}");
        }
    }
}
