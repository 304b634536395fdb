//! What the model registry says of a model: `contracts/src/ModelRegistry.sol` in the precompile's eyes. `docs/registry.md` is normative
//! for the layout.

use alloy_primitives::{Address, B256, U256, address, keccak256};
use metis_models::Manifest;
use metis_models::bundle::{TOKENIZER_FILE, WEIGHTS_FILE};

use crate::costs::ModelCosts;
use crate::meter::Meter;
use crate::site::{RegistryStorage, Unread};

/// Where the registry is.
pub const REGISTRY_ADDRESS: Address = address!("0x000000000000000000000000000000000000A200");
/// Where the gateway is: who may ask models that have a price.
pub const GATEWAY_ADDRESS: Address = address!("0x000000000000000000000000000000000000A201");
/// Where the shares are.
pub const SHARES_ADDRESS: Address = address!("0x000000000000000000000000000000000000A202");

/// Slots that looking a registered model up reads.
pub const LOOK_UP_SLOTS: u32 = 2;

/// The slot of the registry's mapping of models.
const MODELS_SLOT: u8 = 0;

/// A model's standing, from the first slot of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It can be called while the block's time is below this.
    pub active_until: u64,
    /// Whether calls cost money.
    pub priced: bool,
    /// Whether it was ever registered.
    pub registered: bool,
    /// Whether it is among those that all validators hold: active or in its notice, be its rent paid or not.
    pub resident: bool,
}

/// `ModelStatus` of the contract: callable while its rent is paid.
const ACTIVE: u64 = 2;
/// `ModelStatus` of the contract: deprecated, and callable until its notice is over.
const SUNSET: u64 = 3;

/// What an author claims of a bundle, and what a bundle has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Merkle root of the weights.
    pub weights_root: B256,
    /// Merkle root of the tokenizer.
    pub tokenizer_root: B256,
    /// Length of the weights.
    pub weights_bytes: u64,
    /// Length of the tokenizer.
    pub tokenizer_bytes: u64,
    /// What enters the price.
    pub counts: Counts,
}

/// The second slot of a record: what of a model enters its price, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// As in [`ModelCosts`], with the context.
    pub linear_macs: u64,
    /// As above.
    pub attention_macs: u64,
    /// As above.
    pub head_macs: u64,
    /// As above.
    pub layers: u32,
    /// As above.
    pub vocabulary: u32,
    /// Most tokens of a sequence.
    pub context: u32,
    /// As above.
    pub spelled_bytes: u64,
    /// Whether weights have groups.
    pub grouped: bool,
    /// Both files in MiB, rounded up.
    pub mebibytes: u32,
}

/// The storage slot of a model's record, and what lies after it.
fn slot(model: B256, offset: u64) -> U256 {
    let mapping = B256::from(U256::from(MODELS_SLOT));
    U256::from_be_bytes(keccak256([model, mapping].concat()).0).wrapping_add(U256::from(offset))
}

/// `width` bits of a word from bit `at` on.
fn bits(word: U256, at: usize, width: usize) -> u64 {
    debug_assert!(width <= 64);
    (word >> at).wrapping_to::<u64>() & (u64::MAX >> (64 - width))
}

impl Standing {
    /// Reads a model's standing and counts, and pays for that.
    pub fn load(
        storage: &mut dyn RegistryStorage,
        model: B256,
        meter: &mut Meter,
    ) -> Result<(Self, Counts), Unread> {
        let first = storage.load(slot(model, 0), meter)?;
        let second = storage.load(slot(model, 1), meter)?;
        let status = bits(first, 224, 8);
        let standing = Self {
            active_until: bits(first, 0, 64),
            priced: !((first >> 64usize) & ((U256::from(1) << 160usize) - U256::from(1))).is_zero(),
            registered: status != 0,
            resident: matches!(status, ACTIVE | SUNSET),
        };
        Ok((standing, Counts::from_word(second)))
    }
}

impl Counts {
    fn from_word(word: U256) -> Self {
        Self {
            linear_macs: bits(word, 0, 56),
            attention_macs: bits(word, 56, 32),
            head_macs: bits(word, 88, 40),
            layers: bits(word, 128, 16) as u32,
            vocabulary: bits(word, 144, 24) as u32,
            context: bits(word, 168, 24) as u32,
            spelled_bytes: bits(word, 192, 32),
            grouped: bits(word, 224, 8) != 0,
            mebibytes: bits(word, 232, 24) as u32,
        }
    }
}

impl Claims {
    /// What a bundle has.
    pub fn of(manifest: &Manifest, costs: &ModelCosts) -> Self {
        Self::of_manifest(manifest, costs.spelled_bytes)
    }

    /// What a bundle has by its manifest, and the bytes that its tokens stand for, which the manifest does not say.
    pub fn of_manifest(manifest: &Manifest, spelled_bytes: u64) -> Self {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let file = |name: &str| manifest.files.iter().find(|file| file.name == name);
        let length = |name| file(name).map_or(0, |file| file.length);
        let root = |name| file(name).map_or(B256::ZERO, |file| file.root);
        let (weights_bytes, tokenizer_bytes) = (length(WEIGHTS_FILE), length(TOKENIZER_FILE));
        let mebibytes = weights_bytes.saturating_add(tokenizer_bytes).div_ceil(1 << 20);
        Self {
            weights_root: root(WEIGHTS_FILE),
            tokenizer_root: root(TOKENIZER_FILE),
            weights_bytes,
            tokenizer_bytes,
            counts: Counts {
                linear_macs: manifest.work.linear_macs,
                attention_macs: manifest.work.attention_macs,
                head_macs: manifest.work.head_macs,
                layers: count(manifest.layers),
                vocabulary: count(manifest.vocabulary),
                context: count(manifest.context),
                spelled_bytes,
                grouped: manifest.formats.has_groups(),
                mebibytes: u32::try_from(mebibytes).unwrap_or(u32::MAX),
            },
        }
    }

    /// Reads what the registry says of a model, and pays for that. `None` if it is not registered, which the first two slots tell.
    pub fn load(
        storage: &mut dyn RegistryStorage,
        model: B256,
        meter: &mut Meter,
    ) -> Result<Option<Self>, Unread> {
        let (standing, counts) = Standing::load(storage, model, meter)?;
        if !standing.registered {
            return Ok(None);
        }
        let mut word = |offset| storage.load(slot(model, offset), meter);
        let (lengths, weights_root, tokenizer_root) = (word(4)?, word(5)?, word(6)?);
        let claims = Self {
            weights_root: weights_root.into(),
            tokenizer_root: tokenizer_root.into(),
            weights_bytes: bits(lengths, 0, 64),
            tokenizer_bytes: bits(lengths, 64, 64),
            counts,
        };
        Ok(Some(claims))
    }

    /// The first claim that is not what the bundle has, by its name in the contract.
    pub fn difference(&self, bundle: &Self) -> Option<&'static str> {
        let (ours, theirs) = (&self.counts, &bundle.counts);
        [
            ("weightsRoot", self.weights_root == bundle.weights_root),
            ("tokenizerRoot", self.tokenizer_root == bundle.tokenizer_root),
            ("weightsBytes", self.weights_bytes == bundle.weights_bytes),
            ("tokenizerBytes", self.tokenizer_bytes == bundle.tokenizer_bytes),
            ("linearMacs", ours.linear_macs == theirs.linear_macs),
            ("attentionMacs", ours.attention_macs == theirs.attention_macs),
            ("headMacs", ours.head_macs == theirs.head_macs),
            ("layers", ours.layers == theirs.layers),
            ("vocabulary", ours.vocabulary == theirs.vocabulary),
            ("context", ours.context == theirs.context),
            ("spelledBytes", ours.spelled_bytes == theirs.spelled_bytes),
            ("grouped", ours.grouped == theirs.grouped),
            ("mebibytes", ours.mebibytes == theirs.mebibytes),
        ]
        .into_iter()
        .find_map(|(field, same)| (!same).then_some(field))
    }
}
