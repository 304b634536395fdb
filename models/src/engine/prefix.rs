//! Key-value caches of recent prompts: a prefix that several requests share is computed once.
//!
//! Prompts are cut into blocks of [`BLOCK`] tokens. A block is known by its tokens and by the block before it, compared token by token, so a
//! path from the root is one prefix and nothing else. Keys and values of a position are a function of the tokens up to it, and a copy has the
//! bytes that computing it again would give: what is kept, and what was dropped, cannot change an answer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metis_kernels::{Backend, BackendError, KvShape, TokenId};

use super::Engine;
use crate::bundle::Manifest;

/// Tokens of a block.
pub(super) const BLOCK: usize = 16;
/// What a block weighs besides its keys and values: its tokens twice, and where it is.
const OVERHEAD: usize = 512;

impl<B: Backend> Engine<B> {
    /// Copies up to `most` blocks of `prompt` from position `fed` on into the sequence's cache, and returns to where it is filled. The last
    /// token is never among them: somebody asks for its logits.
    pub(super) fn restore(
        &self,
        prompt: &[TokenId],
        mut fed: usize,
        most: usize,
        cache: &mut B::KvCache,
    ) -> Result<usize, BackendError> {
        if fed.is_multiple_of(BLOCK) {
            for block in self.prefixes.find(&prompt[..prompt.len().saturating_sub(1)], fed / BLOCK, most) {
                self.backend.copy_positions(&block, 0..BLOCK, cache, fed)?;
                fed += BLOCK;
            }
        }
        Ok(fed)
    }

    /// Keeps the blocks of `prompt` that were completed when the positions `fed` were computed.
    pub(super) fn remember(
        &self,
        prompt: &[TokenId],
        fed: Range<usize>,
        cache: &B::KvCache,
    ) -> Result<(), BackendError> {
        for block in fed.start / BLOCK..fed.end.min(prompt.len()) / BLOCK {
            let end = (block + 1) * BLOCK;
            if self.prefixes.wants(&prompt[..end]) {
                let mut copy = self.graph.kv_cache(&self.backend, &self.manifest, BLOCK)?;
                self.backend.copy_positions(cache, end - BLOCK..end, &mut copy, 0)?;
                self.prefixes.insert(&prompt[..end], copy);
            }
        }
        Ok(())
    }
}

/// Blocks of recent prompts, bounded; the least recently used goes first.
#[derive(Debug)]
pub(super) struct PrefixCache<C> {
    /// Most blocks.
    capacity: usize,
    tree: Mutex<Tree<C>>,
}

/// The block before, and the tokens.
type Key = (BlockId, [TokenId; BLOCK]);

/// A block's number; none is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BlockId(u64);

/// The block before the first.
const ROOT: BlockId = BlockId(0);

#[derive(Debug)]
struct Tree<C> {
    blocks: BTreeMap<Key, Block<C>>,
    /// When blocks were last used. A block is younger than all that follow it, so the oldest is one that nothing follows.
    ages: BTreeMap<u64, Key>,
    clock: u64,
    last_id: BlockId,
    restored: u64,
}

#[derive(Debug)]
struct Block<C> {
    id: BlockId,
    age: u64,
    cache: Arc<C>,
}

impl<C> PrefixCache<C> {
    /// An empty cache of so many bytes.
    pub(super) fn new<B: Backend<KvCache = C>>(backend: &B, m: &Manifest, bytes: usize) -> Self {
        let shape = KvShape { layers: m.layers, attention: m.attention(), capacity: BLOCK };
        Self::with_capacity(bytes / backend.kv_bytes(shape).saturating_add(OVERHEAD))
    }

    fn with_capacity(capacity: usize) -> Self {
        Self { capacity, tree: Mutex::new(Tree::new()) }
    }

    /// Whether it keeps nothing.
    pub(super) const fn is_off(&self) -> bool {
        self.capacity == 0
    }

    /// The blocks of `prompt` that are kept, from block `first` on.
    fn find(&self, prompt: &[TokenId], first: usize, most: usize) -> Vec<Arc<C>> {
        if self.is_off() || prompt.len() < (first + 1) * BLOCK {
            return Vec::new();
        }
        let mut tree = self.lock();
        let path = tree.path(prompt, first.saturating_add(most));
        let found: Vec<Arc<C>> =
            path.iter().skip(first).map(|key| Arc::clone(&tree.blocks[key].cache)).collect();
        tree.touch(&path);
        tree.restored += (found.len() * BLOCK) as u64;
        found
    }

    /// Whether the last block of `prompt`, which is whole blocks, is one to keep: it is not there, and what is before it is.
    fn wants(&self, prompt: &[TokenId]) -> bool {
        let blocks = prompt.len() / BLOCK;
        blocks <= self.capacity && self.lock().path(prompt, blocks).len() + 1 == blocks
    }

    /// Keeps the last block of `prompt`, which is whole blocks.
    fn insert(&self, prompt: &[TokenId], cache: C) {
        let blocks = prompt.len() / BLOCK;
        let mut tree = self.lock();
        let mut path = tree.path(prompt, blocks);
        // The block before may have been dropped since; another request may have been here first.
        if blocks > self.capacity || path.len() + 1 != blocks {
            return;
        }
        let Some(&tokens) = prompt.last_chunk() else { return };
        let before = path.last().map_or(ROOT, |key| tree.blocks[key].id);
        path.push((before, tokens));
        tree.add((before, tokens), cache);
        tree.touch(&path);
        // The path is younger than the rest and not longer than the capacity: what goes is not on it.
        while tree.blocks.len() > self.capacity {
            tree.drop_oldest();
        }
    }

    /// Drops everything.
    pub(super) fn clear(&self) {
        let mut tree = self.lock();
        tree.blocks.clear();
        tree.ages.clear();
    }

    /// Positions that were copied instead of computed.
    pub(super) fn restored(&self) -> u64 {
        self.lock().restored
    }

    fn lock(&self) -> MutexGuard<'_, Tree<C>> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Tree<C> {
    const fn new() -> Self {
        Self { blocks: BTreeMap::new(), ages: BTreeMap::new(), clock: 0, last_id: ROOT, restored: 0 }
    }

    /// The first blocks of `prompt` that are here, at most `most`.
    fn path(&self, prompt: &[TokenId], most: usize) -> Vec<Key> {
        let mut path = Vec::new();
        let mut before = ROOT;
        for &tokens in prompt.as_chunks().0.iter().take(most) {
            let Some(block) = self.blocks.get(&(before, tokens)) else { break };
            path.push((before, tokens));
            before = block.id;
        }
        path
    }

    /// Makes the blocks of a path the youngest, the first one last.
    fn touch(&mut self, path: &[Key]) {
        for key in path.iter().rev() {
            self.clock += 1;
            if let Some(block) = self.blocks.get_mut(key) {
                self.ages.remove(&block.age);
                block.age = self.clock;
                self.ages.insert(self.clock, *key);
            }
        }
    }

    fn add(&mut self, key: Key, cache: C) {
        self.last_id.0 += 1;
        self.clock += 1;
        self.ages.insert(self.clock, key);
        self.blocks.insert(key, Block { id: self.last_id, age: self.clock, cache: Arc::new(cache) });
    }

    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.ages.pop_first() {
            self.blocks.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prompt(blocks: &[u32]) -> Vec<TokenId> {
        blocks.iter().flat_map(|&block| [TokenId(block); BLOCK]).collect()
    }

    /// Stands for keys and values: the whole prefix.
    fn insert(cache: &PrefixCache<Vec<TokenId>>, prompt: &[TokenId]) {
        for end in (BLOCK..=prompt.len()).step_by(BLOCK) {
            if cache.wants(&prompt[..end]) {
                cache.insert(&prompt[..end], prompt[..end].to_vec());
            }
        }
    }

    #[test]
    fn a_prefix_is_found_as_far_as_it_is_the_same() {
        let cache = PrefixCache::with_capacity(8);
        insert(&cache, &prompt(&[1, 2, 3]));
        let found = |blocks: &[u32], first, most| cache.find(&prompt(blocks), first, most).len();
        assert_eq!(found(&[1, 2, 3, 4], 0, 9), 3);
        assert_eq!(found(&[1, 2, 4], 0, 9), 2);
        assert_eq!(found(&[1, 2, 3], 0, 2), 2);
        assert_eq!(found(&[1, 2, 3], 2, 9), 1);
        assert_eq!(found(&[1, 2, 3], 3, 9), 0);
        assert_eq!(found(&[2, 3], 0, 9), 0, "the same blocks after other ones are others");
        assert_eq!(cache.find(&prompt(&[1, 2])[..BLOCK + 1], 0, 9).len(), 1, "whole blocks");
        cache.clear();
        assert_eq!(found(&[1, 2, 3], 0, 9), 0);
    }

    #[test]
    fn nothing_is_kept_without_room() {
        let cache = PrefixCache::with_capacity(0);
        insert(&cache, &prompt(&[1]));
        assert!(cache.is_off() && cache.find(&prompt(&[1]), 0, 9).is_empty());
    }

    #[test]
    fn whatever_is_found_is_the_prefix_and_memory_is_bounded() {
        let prompts = prop::collection::vec(prop::collection::vec(0u32..3, 1..6), 1..60);
        proptest!(|(capacity in 1usize..12, prompts in prompts)| {
            let cache = PrefixCache::<Vec<TokenId>>::with_capacity(capacity);
            for blocks in prompts {
                let prompt = prompt(&blocks);
                for (i, found) in cache.find(&prompt, 0, usize::MAX).iter().enumerate() {
                    prop_assert_eq!(&prompt[..(i + 1) * BLOCK], &found[..]);
                }
                insert(&cache, &prompt);
                // The latest prompt is there as far as there is room.
                prop_assert_eq!(cache.find(&prompt, 0, usize::MAX).len(), blocks.len().min(capacity));
                let tree = cache.lock();
                prop_assert!(tree.blocks.len() <= capacity);
                prop_assert_eq!(tree.blocks.len(), tree.ages.len());
                // Nothing is kept that cannot be found.
                for (before, _) in tree.blocks.keys() {
                    prop_assert!(*before == ROOT || tree.blocks.values().any(|block| block.id == *before));
                }
            }
        });
    }
}
