//! A folder of recorded blocks.

use super::{
    BlocksError, PreState,
    json::{self, Block},
    schedule,
};
use alloy_primitives::{
    B256, Bytes, keccak256,
    map::{AddressMap, B256Map},
};
use metis_vm::SpecId;
use revm::state::{AccountInfo, Bytecode};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A folder of recorded blocks: `blocks/N/block.json` and `blocks/N/pre_state.json` for each, and for all of them
/// `bytecodes.json` (codes by hash) and `block_hashes.json` (hashes by decimal number).
#[derive(Clone, Debug)]
pub struct Recording {
    root: PathBuf,
    codes: Arc<B256Map<Bytecode>>,
    block_hashes: Arc<BTreeMap<u64, B256>>,
}

/// A block, its fork, and the state that it begins with.
#[derive(Clone, Debug)]
pub struct RecordedBlock {
    pub(super) block: Block,
    pub(super) fork: SpecId,
    pub(super) state: Arc<PreState>,
}

impl Recording {
    /// Reads what the blocks share, and checks every code against its hash.
    ///
    /// # Errors
    /// No folder; a missing or malformed file; a code with another hash.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, BlocksError> {
        let root = root.into();
        if !root.is_dir() {
            return Err(BlocksError::NoRecording { path: root });
        }
        let codes = read::<B256Map<Bytes>>(&root.join("bytecodes.json"))?
            .into_iter()
            .map(|(hash, code)| match Bytecode::new_raw_checked(code.clone()) {
                Ok(bytecode) if keccak256(&code) == hash => Ok((hash, bytecode)),
                _ => Err(BlocksError::WrongCode { hash }),
            })
            .collect::<Result<_, _>>()?;
        let block_hashes = read(&root.join("block_hashes.json"))?;
        Ok(Self { root, codes: Arc::new(codes), block_hashes: Arc::new(block_hashes) })
    }

    /// The numbers of the recorded blocks, lowest first. Files beside their folders are left alone.
    ///
    /// # Errors
    /// A folder that cannot be read, or whose name is no number.
    pub fn numbers(&self) -> Result<Vec<u64>, BlocksError> {
        let path = self.root.join("blocks");
        let error = |source| BlocksError::Read { path: path.clone(), source };
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&path).map_err(error)? {
            let folder = entry.map_err(error)?.path();
            if !folder.is_dir() {
                continue;
            }
            let name = folder.file_name().and_then(|name| name.to_str());
            // Only as `block` would write it: no sign, no zeros in front.
            let number =
                name.and_then(|name| name.parse::<u64>().ok().filter(|number| number.to_string() == name));
            numbers.push(number.ok_or(BlocksError::NoBlock { path: folder })?);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// One block.
    ///
    /// # Errors
    /// A missing or malformed file, a block of an unknown fork, an account whose code is not recorded.
    pub fn block(&self, number: u64) -> Result<RecordedBlock, BlocksError> {
        let folder = self.root.join("blocks").join(number.to_string());
        let block: Block = read(&folder.join("block.json"))?;
        let found = block.number.to();
        if found != number {
            return Err(BlocksError::WrongBlock { expected: number, found });
        }
        let fork =
            schedule::fork(number, block.timestamp.to()).ok_or(BlocksError::UnknownFork { block: number })?;

        let mut accounts = AddressMap::default();
        for (address, account) in read::<json::PreState>(&folder.join("pre_state.json"))? {
            let mut info =
                AccountInfo { balance: account.balance, nonce: account.nonce, ..AccountInfo::default() };
            if let Some(hash) = account.code_hash {
                let code = self.codes.get(&hash).ok_or(BlocksError::MissingCode { block: number, hash })?;
                info.code_hash = hash;
                info.code = Some(code.clone());
            }
            accounts.insert(address, (info, account.storage));
        }
        let state = PreState { accounts, codes: self.codes.clone(), block_hashes: self.block_hashes.clone() };
        Ok(RecordedBlock { block, fork, state: Arc::new(state) })
    }
}

impl RecordedBlock {
    /// The block as it was recorded.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Its fork.
    pub fn fork(&self) -> SpecId {
        self.fork
    }

    pub(super) fn number(&self) -> u64 {
        self.block.number.to()
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, BlocksError> {
    let bytes = fs::read(path).map_err(|source| BlocksError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| BlocksError::Json { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{U256, hex};
    use metis_vm::FusionCache;
    use serde_json::{Value, json};

    /// Reads slot 0.
    const CODE: [u8; 4] = hex!("6000545a");
    const CONTRACT: &str = "0x00000000000000000000000000000000000000cc";

    fn block() -> Value {
        json!({
            "number": "0x900000", "timestamp": "0x1", "miner": "0x00000000000000000000000000000000000000aa",
            "gasLimit": "0x989680", "gasUsed": "0x5208", "difficulty": "0x1", "parentHash": B256::ZERO,
            "receiptsRoot": "0x056b23fbba480696b65fe5a59b8f2148a1299103c4f57df839233af2cf4ca2d2",
            "logsBloom": alloy_primitives::Bloom::ZERO,
            "transactions": [{
                "from": "0x00000000000000000000000000000000000000f0", "to": "0x00000000000000000000000000000000000000f1",
                "value": "0x1", "gasPrice": "0x1", "gas": "0x186a0", "input": "0x", "nonce": "0x7", "type": "0x0",
            }],
        })
    }

    fn state() -> Value {
        json!({
            "0x00000000000000000000000000000000000000f0": { "balance": "0xf4240", "nonce": 7, "storage": {} },
            CONTRACT: { "balance": "0x0", "nonce": 1, "storage": {}, "code_hash": keccak256(CODE) },
        })
    }

    fn replay(block: &Value, state: &Value) -> Result<crate::blocks::BlockReport, BlocksError> {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, value: &Value| fs::write(folder.path().join(name), value.to_string()).unwrap();
        fs::create_dir_all(folder.path().join("blocks/9437184")).unwrap();
        write("bytecodes.json", &json!({ keccak256(CODE).to_string(): Bytes::from(CODE) }));
        write("block_hashes.json", &json!({ "1": B256::ZERO }));
        write("blocks/9437184/block.json", block);
        write("blocks/9437184/pre_state.json", state);
        let recording = Recording::open(folder.path())?;
        write("blocks/notes.txt", &Value::Null);
        assert_eq!(recording.numbers()?, [9_437_184]);
        recording.block(9_437_184)?.replay(&FusionCache::default())
    }

    #[test]
    fn a_block_that_is_what_its_header_says_matches() {
        let report = replay(&block(), &state()).unwrap();
        assert!(report.matches(), "{report:?}");
        assert_eq!((report.gas_used, report.receipts_match()), (21_000, Some(true)));
        assert_eq!(report.fork, SpecId::ISTANBUL);
    }

    #[test]
    fn a_header_that_says_something_else_does_not_match() {
        let with = |field: &str, value: Value| {
            let mut other = block();
            other[field] = value;
            replay(&other, &state()).unwrap()
        };
        assert!(!with("gasUsed", json!("0x5209")).matches());
        assert_eq!(with("receiptsRoot", json!(B256::ZERO)).receipts_match(), Some(false));
        assert!(!with("logsBloom", json!(alloy_primitives::Bloom::repeat_byte(1))).matches());
    }

    #[test]
    fn the_file_of_another_block_is_refused() {
        let mut other = block();
        other["number"] = json!("0x1");
        let found = replay(&other, &state());
        assert!(matches!(found, Err(BlocksError::WrongBlock { expected: 9_437_184, found: 1 })), "{found:?}");
    }

    #[test]
    fn what_is_no_recording_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = Recording::open(folder.path().join("nowhere")).unwrap_err().to_string();
        assert!(nowhere.contains("nowhere") && nowhere.contains("block_hashes.json"), "{nowhere}");

        fs::write(folder.path().join("bytecodes.json"), "{}").unwrap();
        fs::write(folder.path().join("block_hashes.json"), "{}").unwrap();
        let recording = Recording::open(folder.path()).unwrap();
        for name in ["latest", "007", "+7"] {
            let block = folder.path().join("blocks").join(name);
            fs::create_dir_all(&block).unwrap();
            let problem = recording.numbers().unwrap_err().to_string();
            assert!(problem.contains(name) && problem.contains("no block number"), "{problem}");
            fs::remove_dir(block).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_executed_is_named() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut other = block();
            change(&mut other["transactions"][0]);
            replay(&other, &state()).unwrap_err()
        };
        let says = |error: BlocksError, text: &str| {
            let shown = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            assert!(shown.contains(text), "{shown}");
        };
        says(with(&|tx| tx["nonce"] = json!("0x8")), "nonce");
        says(with(&|tx| tx["type"] = json!("0x5")), "unknown transaction type");
        says(with(&|tx| tx["gasPrice"] = Value::Null), "no gasPrice");
        says(with(&|tx| tx["type"] = json!("0x2")), "no maxPriorityFeePerGas");
        says(with(&|tx| tx["value"] = json!("zero")), "block.json");
        says(with(&|tx| tx["to"] = json!(CONTRACT)), "slot 0 of 0x00000000000000000000000000000000000000cc");

        let mut late = block();
        late["timestamp"] = json!("0xffffffffffffffff");
        says(replay(&late, &state()).unwrap_err(), "later than Prague");
        late["timestamp"] = json!("0x65f1b057");
        says(replay(&late, &state()).unwrap_err(), "baseFeePerGas");
        late["baseFeePerGas"] = json!("0x1");
        late["mixHash"] = json!(B256::ZERO);
        late["excessBlobGas"] = json!("0xffffffffffffffff");
        says(replay(&late, &state()).unwrap_err(), "excessBlobGas");

        let mut codeless = state();
        codeless[CONTRACT]["code_hash"] = json!(B256::ZERO);
        says(replay(&block(), &codeless).unwrap_err(), "is not in the recording");
        let mut slots = state();
        slots[CONTRACT]["storage"]["0x0"] = json!(U256::ONE);
        assert!(replay(&block(), &slots).unwrap().matches());
    }
}
