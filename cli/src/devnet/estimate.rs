//! The least gas limit with which a call succeeds.

use metis_vm::{Outcome, Transaction, VmError};

use super::chain::Chain;

/// Parts of the answer by which the limit may be too high.
const PRECISION: u64 = 64;

/// The least gas limit with which a call succeeds, or what came of it with all gas where none does.
///
/// What a call uses is not always enough for it: a model's worst case must be covered (`docs/gas.md`), and a call passes on no more than
/// 63/64 of what is left.
pub fn gas(chain: &mut Chain, tx: &Transaction) -> Result<Result<u64, Outcome>, VmError> {
    let most = tx.gas.unwrap_or_else(|| chain.most_gas());
    let whole = chain.simulate(&tx.clone().with_gas(most))?;
    if !whole.is_success() {
        return Ok(Err(whole));
    }
    // Refunds come after.
    let (mut low, mut high) = (whole.gas_used.saturating_sub(1), most);
    let mut tried = whole.gas_used.saturating_add(whole.gas_refunded);
    while high - low > 1.max(low / PRECISION) {
        let middle = tried.clamp(low + 1, high - 1);
        let enough = match chain.simulate(&tx.clone().with_gas(middle)) {
            Ok(outcome) => outcome.is_success(),
            Err(VmError::Rejected(_)) => false,
            Err(error) => return Err(error),
        };
        if enough {
            high = middle;
        } else {
            low = middle;
        }
        // Upwards in doublings until something is enough, for limits are mostly near what is used.
        tried = if high == most { low.saturating_mul(2) } else { low + (high - low) / 2 };
    }
    Ok(Ok(high))
}
