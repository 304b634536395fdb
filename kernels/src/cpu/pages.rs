//! Memory for packed weights, on huge pages where the system grants them.
//!
//! Decoding reads every weight once per token, in order: with pages of 4 KiB it would also look up an address for every 64 blocks.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::MmapMut;

use super::packed::Block;

/// Matrices share mappings of this size, as most are smaller than a huge page. Untouched pages cost nothing.
const MAPPING_BYTES: usize = 64 << 20;

/// Hands out regions.
#[derive(Clone, Default)]
pub(super) struct Pages(Arc<Mutex<Option<Mapping>>>);

/// A mapping that is being filled.
struct Mapping {
    memory: Arc<Memory>,
    /// Blocks that regions have.
    used: usize,
}

struct Memory {
    start: *mut Block,
    blocks: usize,
    /// Unmapped with the last region.
    _map: MmapMut,
}

// SAFETY: `start` is only used by regions, each of which has blocks of its own.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// Blocks of its own in a mapping that others share.
pub(super) struct Region {
    memory: Arc<Memory>,
    first: usize,
    blocks: usize,
}

impl Pages {
    /// So many zeroed blocks.
    pub(super) fn region(&self, blocks: usize) -> io::Result<Region> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapping) = current.as_mut().filter(|m| m.memory.blocks - m.used >= blocks) {
            let first = mapping.used;
            mapping.used += blocks;
            return Ok(Region { memory: Arc::clone(&mapping.memory), first, blocks });
        }
        let memory = Arc::new(Memory::new(blocks)?);
        *current = Some(Mapping { memory: Arc::clone(&memory), used: blocks });
        Ok(Region { memory, first: 0, blocks })
    }
}

impl Memory {
    fn new(blocks: usize) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let bytes = blocks.checked_mul(size_of::<Block>()).ok_or_else(too_large)?.max(MAPPING_BYTES);
        let mut map = MmapMut::map_anon(bytes)?;
        // Without huge pages it is only slower.
        #[cfg(target_os = "linux")]
        drop(map.advise(memmap2::Advice::HugePage));
        let start = map.as_mut_ptr().cast::<Block>();
        assert!(start.is_aligned(), "mappings begin at a page");
        Ok(Self { start, blocks: bytes / size_of::<Block>(), _map: map })
    }
}

impl Deref for Region {
    type Target = [Block];

    fn deref(&self) -> &[Block] {
        // SAFETY: within the mapping, zeroed at first, any bytes are a block, and no other region has these.
        unsafe { std::slice::from_raw_parts(self.memory.start.add(self.first), self.blocks) }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [Block] {
        // SAFETY: as above, and this region is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.add(self.first), self.blocks) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks", self.blocks)
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_do_not_overlap_and_outlive_the_allocator() {
        let pages = Pages::default();
        let sizes = [1, 1000, 3, MAPPING_BYTES / 64, 7, 2 * MAPPING_BYTES / 64, 5];
        let mut regions: Vec<Region> = sizes.iter().map(|&size| pages.region(size).unwrap()).collect();
        drop(pages);
        for (i, region) in regions.iter_mut().enumerate() {
            assert!(region.iter().all(|block| block.0 == [0; 64]));
            region.fill(Block([i as u8 + 1; 64]));
        }
        for (i, region) in regions.iter().enumerate() {
            assert_eq!(region.len(), sizes[i]);
            assert!(region.iter().all(|block| block.0 == [i as u8 + 1; 64]));
        }
    }
}
