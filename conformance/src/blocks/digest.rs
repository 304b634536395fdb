//! Everything that a transaction did, as 32 bytes: equal digests, equal executions.

use alloy_primitives::{B256, keccak256};
use revm::{
    context::result::{ExecutionResult, HaltReason, Output},
    state::{Account, EvmState},
};

/// The digest of one transaction: status with reason, every figure of its gas, output, logs, and the state that it
/// changed.
///
/// Of the state, what goes on: the accounts that it touched, with balance, nonce, code hash, whether they were created or
/// destroyed, and the slots whose value is another than before. What was merely read is left out.
/// Reasons are encoded by name, so digests are comparable within one build only.
pub fn transaction(result: &ExecutionResult<HaltReason>, state: &EvmState) -> B256 {
    let mut bytes = Bytes::default();
    match result {
        ExecutionResult::Success { reason, output, .. } => {
            bytes.byte(0);
            bytes.text(&format!("{reason:?}"));
            if let Output::Create(_, address) = output {
                bytes.optional(address.as_ref().map(|address| address.as_slice()));
            }
        }
        ExecutionResult::Revert { .. } => bytes.byte(1),
        ExecutionResult::Halt { reason, .. } => {
            bytes.byte(2);
            bytes.text(&format!("{reason:?}"));
        }
    }
    let gas = result.gas();
    for figure in [gas.total_gas_spent(), gas.inner_refunded(), gas.floor_gas(), gas.state_gas_spent_final()]
    {
        bytes.number(figure);
    }
    bytes.optional(result.output().map(|output| output.as_ref()));
    bytes.length(result.logs().len());
    for log in result.logs() {
        bytes.fixed(log.address.as_slice());
        bytes.length(log.topics().len());
        for topic in log.topics() {
            bytes.fixed(topic.as_slice());
        }
        bytes.variable(&log.data.data);
    }
    bytes.state(state);
    keccak256(&bytes.0)
}

/// The digest of a sequence of digests: of a block's transactions, of a recording's blocks.
pub fn sequence(digests: &[B256]) -> B256 {
    keccak256(digests.concat())
}

/// An unambiguous encoding: everything of variable length is preceded by its length.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn state(&mut self, state: &EvmState) {
        let mut touched: Vec<_> = state.iter().filter(|(_, account)| account.is_touched()).collect();
        touched.sort_unstable_by_key(|(address, _)| **address);
        self.length(touched.len());
        for (address, account) in touched {
            self.fixed(address.as_slice());
            self.account(account);
        }
    }

    fn account(&mut self, account: &Account) {
        self.fixed(&account.info.balance.to_be_bytes::<32>());
        self.number(account.info.nonce);
        self.fixed(account.info.code_hash.as_slice());
        self.byte(account.is_created().into());
        self.byte(account.is_selfdestructed().into());
        let mut changed: Vec<_> = account.changed_storage_slots().collect();
        changed.sort_unstable_by_key(|(slot, _)| **slot);
        self.length(changed.len());
        for (slot, value) in changed {
            self.fixed(&slot.to_be_bytes::<32>());
            self.fixed(&value.present_value.to_be_bytes::<32>());
        }
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.fixed(&number.to_be_bytes());
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn variable(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.fixed(bytes);
    }

    fn text(&mut self, text: &str) {
        self.variable(text.as_bytes());
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        self.byte(bytes.is_some().into());
        self.variable(bytes.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{Address, Log, U256};
    use revm::{
        context::result::{ResultGas, SuccessReason},
        state::{EvmStorageSlot, TransactionId},
    };

    fn result() -> ExecutionResult<HaltReason> {
        ExecutionResult::Success {
            reason: SuccessReason::Return,
            gas: ResultGas::default().with_total_gas_spent(30_000),
            logs: vec![Log::new_unchecked(Address::ZERO, vec![B256::ZERO], [1, 2].into())],
            output: Output::Call([3].into()),
        }
    }

    fn state(balance: u64, value: u64) -> EvmState {
        let mut account = Account::new_not_existing(TransactionId::ZERO);
        account.mark_touch();
        account.info.balance = U256::from(balance);
        let slot = EvmStorageSlot::new_changed(U256::ZERO, U256::from(value), TransactionId::ZERO);
        account.storage.insert(U256::ONE, slot);
        EvmState::from_iter([(Address::ZERO, account)])
    }

    #[test]
    fn whatever_differs_shows() {
        let expected = transaction(&result(), &state(1, 1));
        assert_eq!(transaction(&result(), &state(1, 1)), expected);
        assert_ne!(transaction(&result(), &state(2, 1)), expected);
        assert_ne!(transaction(&result(), &state(1, 2)), expected);

        let mut other = result();
        if let ExecutionResult::Success { gas, .. } = &mut other {
            gas.set_refunded(1);
        }
        assert_ne!(transaction(&other, &state(1, 1)), expected);

        let mut other = result();
        if let ExecutionResult::Success { logs, .. } = &mut other {
            logs[0].data.set_topics_unchecked(vec![]);
        }
        assert_ne!(transaction(&other, &state(1, 1)), expected);

        let mut other = result();
        if let ExecutionResult::Success { reason, .. } = &mut other {
            *reason = SuccessReason::Stop;
        }
        assert_ne!(transaction(&other, &state(1, 1)), expected);
    }

    #[test]
    fn what_was_merely_read_does_not_show() {
        let expected = transaction(&result(), &state(1, 1));
        let mut more = state(1, 1);
        more.insert(Address::with_last_byte(9), Account::new_not_existing(TransactionId::ZERO));
        let read = EvmStorageSlot::new(U256::from(7), TransactionId::ZERO);
        more.get_mut(&Address::ZERO).unwrap().storage.insert(U256::from(5), read);
        assert_eq!(transaction(&result(), &more), expected);
    }
}
