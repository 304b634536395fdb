//! The contracts, from their compiled artefacts.

#![allow(missing_docs, reason = "the macro's items; what they mean is in contracts/src")]
#![allow(clippy::too_many_arguments, reason = "the macro makes constructors of all fields")]

use alloy_sol_types::sol;

sol!(
    #[derive(Debug, PartialEq, Eq)]
    Payer,
    "../contracts/artifacts/Payer.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    Leaves,
    "../contracts/artifacts/Leaves.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    ClassifierOracle,
    "../contracts/artifacts/ClassifierOracle.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    NpcDialogue,
    "../contracts/artifacts/NpcDialogue.json"
);
sol!(
    #[derive(Debug, PartialEq, Eq)]
    GovernanceSummariser,
    "../contracts/artifacts/GovernanceSummariser.json"
);
sol! {
    #[derive(Debug, PartialEq, Eq)]
    error Unfinished(bytes text);
    #[derive(Debug, PartialEq, Eq)]
    error MetisUnavailable();
}
