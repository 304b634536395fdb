//! One execution: code, world, input, gas.

use super::{choices::Choices, generator::code};
use alloy_primitives::{Address, Bytes, U256, hex};
use metis_vm::{SpecId, StateDb, fork};
use revm::{
    bytecode::Bytecode,
    database::{CacheDB, EmptyDB},
    state::AccountInfo,
};
use std::fmt;

const fn short(last: u16) -> Address {
    let [high, low] = last.to_be_bytes();
    let mut bytes = [0; 20];
    bytes[18] = high;
    bytes[19] = low;
    Address::new(bytes)
}

/// Where the code is. These addresses are short, so that code reaches them by PUSH2.
pub(crate) const CALLEE: Address = short(0x1000);
/// A second contract.
pub(crate) const OTHER: Address = short(0x1001);
/// EIP-7702: an account that names the second contract as its code.
pub(crate) const DELEGATED: Address = short(0x1002);
/// An account without code.
pub(crate) const EOA: Address = short(0x1003);
/// Who calls.
pub(crate) const CALLER: Address = short(0x1004);

/// One execution.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) spec: SpecId,
    pub(crate) code: Vec<u8>,
    /// The second contract's code.
    pub(crate) other: Vec<u8>,
    pub(crate) calldata: Vec<u8>,
    pub(crate) storage: Vec<(U256, U256)>,
    pub(crate) value: u8,
    /// Whether the frame may not change state.
    pub(crate) is_static: bool,
    pub(crate) gas: u64,
    /// EIP-8037: gas for state apart.
    pub(crate) reservoir: u64,
}

impl Case {
    /// Code alone, on one fork.
    pub(crate) fn of_code(spec: SpecId, code: Vec<u8>, gas: u64) -> Self {
        Self {
            spec,
            code,
            other: vec![0x00],
            calldata: Vec::new(),
            storage: Vec::new(),
            value: 0,
            is_static: false,
            gas,
            reservoir: 0,
        }
    }

    /// Any programs on any fork.
    pub(crate) fn any(choices: &mut Choices<'_>) -> Self {
        let spec = Self::any_fork(choices);
        let main = code(choices, spec);
        let other = code(choices, spec);
        Self::around(spec, main, other, choices)
    }

    /// The newest forks have all instructions; half of the executions are on them.
    pub(crate) fn any_fork(choices: &mut Choices<'_>) -> SpecId {
        let forks: Vec<_> = fork::all().collect();
        let recent = &forks[forks.len() - 4..];
        if choices.chance(128) { choices.pick(&forks) } else { choices.pick(recent) }
    }

    /// Code with anything around it: input, storage, value.
    pub(crate) fn around(spec: SpecId, code: Vec<u8>, other: Vec<u8>, choices: &mut Choices<'_>) -> Self {
        let calldata = match choices.below(4) {
            0 => Vec::new(),
            1 => choices.word().to_be_bytes_vec(),
            _ => {
                let count = choices.below(100);
                choices.bytes(count)
            }
        };
        let storage = (0..choices.below(4)).map(|_| (U256::from(choices.below(5)), choices.word())).collect();
        Self {
            calldata,
            storage,
            value: if choices.chance(40) { 1 } else { 0 },
            is_static: choices.chance(12),
            reservoir: if choices.chance(64) { 200_000 } else { 0 },
            other,
            ..Self::of_code(spec, code, 200_000)
        }
    }

    /// The accounts.
    pub(crate) fn database(&self) -> StateDb {
        let mut database = CacheDB::new(EmptyDB::default());
        let mut insert = |address, balance: u64, code: Option<Bytecode>| {
            let code = code.unwrap_or_default();
            let code_hash = code.hash_slow();
            let info = AccountInfo {
                balance: U256::from(balance),
                nonce: 1,
                code_hash,
                code: Some(code),
                ..AccountInfo::default()
            };
            database.insert_account_info(address, info);
        };
        insert(CALLEE, 1000, Some(Bytecode::new_legacy(Bytes::copy_from_slice(&self.code))));
        insert(OTHER, 7, Some(Bytecode::new_legacy(Bytes::copy_from_slice(&self.other))));
        insert(EOA, 1, None);
        insert(CALLER, u64::MAX, None);
        if self.spec.is_enabled_in(SpecId::PRAGUE) {
            insert(DELEGATED, 0, Some(Bytecode::new_eip7702(OTHER)));
        }
        for address in [CALLEE, OTHER] {
            let Ok(account) = database.load_account(address);
            account.storage.extend(self.storage.iter().copied());
        }
        database
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All that it takes to see a difference again.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "spec      {}", fork::name(self.spec))?;
        writeln!(f, "code      {}", hex::encode(&self.code))?;
        writeln!(f, "other     {}", hex::encode(&self.other))?;
        writeln!(f, "calldata  {}", hex::encode(&self.calldata))?;
        writeln!(f, "storage   {:x?}", self.storage)?;
        writeln!(f, "value     {}", self.value)?;
        writeln!(f, "static    {}", self.is_static)?;
        writeln!(f, "gas       {}", self.gas)?;
        write!(f, "reservoir {}", self.reservoir)
    }
}
