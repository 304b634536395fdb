//! When mainnet's hard forks began.

use metis_vm::SpecId;

/// The last fork of the schedule. Later ones change the blob parameters between forks, which nothing here has tested.
pub const LAST: SpecId = SpecId::PRAGUE;

/// The first second of the fork after [`LAST`] (Osaka).
const END: u64 = 1_764_798_551;

/// The forks that began at a block, latest first. Petersburg began with Constantinople, in the same block.
const BY_NUMBER: [(u64, SpecId); 10] = [
    (15_537_394, SpecId::MERGE),
    (12_965_000, SpecId::LONDON),
    (12_244_000, SpecId::BERLIN),
    (9_069_000, SpecId::ISTANBUL),
    (7_280_000, SpecId::PETERSBURG),
    (4_370_000, SpecId::BYZANTIUM),
    (2_675_000, SpecId::SPURIOUS_DRAGON),
    (2_463_000, SpecId::TANGERINE),
    (1_150_000, SpecId::HOMESTEAD),
    (0, SpecId::FRONTIER),
];

/// The forks that began at a second of the UNIX epoch, latest first.
const BY_TIME: [(u64, SpecId); 3] =
    [(1_746_612_311, SpecId::PRAGUE), (1_710_338_135, SpecId::CANCUN), (1_681_338_455, SpecId::SHANGHAI)];

/// The fork of a mainnet block; `None` when it is later than [`LAST`].
///
/// Source: EIP-6953 and the execution specs' fork table. The DAO's irregular transfers in block 1,920,000 and the
/// difficulty bomb's delays are no rules of the EVM, so they have no entry.
pub fn fork(number: u64, timestamp: u64) -> Option<SpecId> {
    if timestamp >= END {
        return None;
    }
    let begun = |begin: u64, at: u64| at >= begin;
    BY_TIME
        .iter()
        .find(|(begin, _)| begun(*begin, timestamp))
        .or_else(|| BY_NUMBER.iter().find(|(begin, _)| begun(*begin, number)))
        .map(|(_, fork)| *fork)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_begins_with_its_first_block_and_not_before() {
        for [(later, fork), (_, before)] in BY_NUMBER.array_windows() {
            assert_eq!(super::fork(*later, 0), Some(*fork));
            assert_eq!(super::fork(later - 1, 0), Some(*before));
        }
        for [(later, fork), (_, before)] in BY_TIME.array_windows() {
            assert_eq!(super::fork(20_000_000, *later), Some(*fork));
            assert_eq!(super::fork(20_000_000, later - 1), Some(*before));
        }
        assert_eq!(fork(0, 0), Some(SpecId::FRONTIER));
        assert_eq!(fork(20_000_000, END - 1), Some(LAST));
        assert_eq!(fork(20_000_000, END), None);
    }
}
