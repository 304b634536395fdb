//! How often a contract's blocks were executed.

/// Executions by block. A block begins at a jump destination, or where control comes to otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Offset where control came to, and how often; ascending.
    blocks: Vec<(u32, u64)>,
}

impl Profile {
    /// Counts in that control came to this offset other than from the instruction before.
    pub fn enter(&mut self, pc: u32) {
        match self.blocks.binary_search_by_key(&pc, |&(pc, _)| pc) {
            Ok(found) => self.blocks[found].1 = self.blocks[found].1.saturating_add(1),
            Err(place) => self.blocks.insert(place, (pc, 1)),
        }
    }

    /// How often the last entry at or before this offset was taken: an upper bound for the instruction there.
    pub fn count(&self, pc: u32) -> u64 {
        let behind = self.blocks.partition_point(|&(entry, _)| entry <= pc);
        behind.checked_sub(1).map_or(0, |found| self.blocks[found].1)
    }
}
