//! The compiled contracts that are built in. `contracts/build.sh` makes them.

use alloy_primitives::{Bytes, hex};
use anyhow::Context;
use serde::Deserialize;

/// The compiler's output for one contract.
#[derive(Clone, Debug, Deserialize)]
pub struct Artifact {
    /// Creation code.
    pub bytecode: String,
    /// Runtime code.
    #[serde(rename = "deployedBytecode")]
    pub deployed_bytecode: String,
}

macro_rules! artifacts {
    ($($function:ident: $name:literal, $doc:literal;)*) => {$(
        #[doc = $doc]
        pub fn $function() -> anyhow::Result<Artifact> {
            let text = include_str!(concat!("../../contracts/artifacts/", $name, ".json"));
            serde_json::from_str(text).context(concat!("the artefact of ", $name))
        }
    )*};
}

artifacts! {
    model_registry: "ModelRegistry", "The registry of models.";
    inference_gateway: "InferenceGateway", "The way to models that have a price.";
    data_anchoring_token: "DataAnchoringToken", "Shares and quotas of models.";
    intent_wallet: "IntentWallet", "The wallet that is told what to do in plain words.";
    moderator: "Moderator", "The board that scores posts before it takes them.";
    test_token: "TestToken", "An ERC-20 that anybody may mint.";
    test_exchange: "TestExchange", "An exchange with fixed rates.";
    test_staking: "TestStaking", "A place to stake.";
    test_governor: "TestGovernor", "A place to vote.";
    assembly: "Assembly", "An assembly in which members speak instead of ticking boxes.";
    asker: "Asker", "The library's constrained answers as calls.";
    probe: "Probe", "Calls anything in any way and reports what happened.";
}

impl Artifact {
    /// Creation code followed by ABI-encoded constructor arguments.
    pub fn initcode(&self, arguments: &[u8]) -> anyhow::Result<Bytes> {
        let mut code = hex::decode(&self.bytecode).context("the artefact's bytecode")?;
        code.extend_from_slice(arguments);
        Ok(code.into())
    }
}
