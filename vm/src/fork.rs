//! Hard forks by name.

use std::fmt;

pub use revm::primitives::hardfork::SpecId;

/// The fork that is used when none is named.
pub const DEFAULT: SpecId = SpecId::OSAKA;

/// Other names under which a fork is known. [`name`] never returns one of them.
const ALIASES: [(&str, SpecId); 6] = [
    ("TangerineWhistle", SpecId::TANGERINE),
    ("SpuriousDragon", SpecId::SPURIOUS_DRAGON),
    ("Paris", SpecId::MERGE),
    ("EIP150", SpecId::TANGERINE),
    ("EIP158", SpecId::SPURIOUS_DRAGON),
    ("ConstantinopleFix", SpecId::PETERSBURG),
];

/// Every fork that this build executes, oldest first.
pub fn all() -> impl Iterator<Item = SpecId> {
    (0..=u8::MAX).map_while(SpecId::try_from_u8)
}

/// The canonical name of a fork, as records write it.
pub fn name(fork: SpecId) -> &'static str {
    fork.into()
}

/// The fork with this name. Letter case is ignored; the names in the execution specs are also understood
/// (`Paris`, `SpuriousDragon`, ...).
///
/// # Errors
/// [`UnknownFork`], which lists the names.
pub fn parse(text: &str) -> Result<SpecId, UnknownFork> {
    all()
        .map(|fork| (name(fork), fork))
        .chain(ALIASES)
        .find(|(known, _)| known.eq_ignore_ascii_case(text))
        .map(|(_, fork)| fork)
        .ok_or_else(|| UnknownFork { name: text.to_owned() })
}

/// A fork name that this build does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFork {
    /// The name as it was given.
    pub name: String,
}

impl fmt::Display for UnknownFork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = all().map(name).collect();
        write!(f, "unknown fork `{}`; known: {}", self.name, known.join(", "))
    }
}

impl std::error::Error for UnknownFork {}

/// For `#[serde(with = "fork::serde_name")]`: a fork as its canonical name.
pub(crate) mod serde_name {
    use super::{SpecId, name, parse};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(fork: &SpecId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name(*fork))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SpecId, D::Error> {
        parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fork_parses_from_its_own_name_in_any_case() {
        let forks: Vec<_> = all().collect();
        assert_eq!(forks.first(), Some(&SpecId::FRONTIER));
        assert_eq!(forks.last(), Some(&SpecId::NEXT));
        for fork in forks {
            assert_eq!(parse(name(fork)), Ok(fork));
            assert_eq!(parse(&name(fork).to_uppercase()), Ok(fork));
        }
        assert_eq!(parse("paris"), Ok(SpecId::MERGE));
    }

    #[test]
    fn an_unknown_fork_is_told_the_names() {
        let error = parse("Ossaka").unwrap_err().to_string();
        assert!(
            error.contains("`Ossaka`") && error.contains("Frontier") && error.contains("Osaka"),
            "{error}"
        );
    }
}
