//! Sets of bytes, and the classes of bytes that no set of a grammar tells apart.

use std::collections::BTreeSet;

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(super) fn one(byte: u8) -> Self {
        Self::range(byte, byte)
    }

    pub(super) fn range(first: u8, last: u8) -> Self {
        let mut set = Self::default();
        (first..=last).for_each(|byte| set.insert(byte));
        set
    }

    pub(super) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    pub(super) const fn contains(self, byte: u8) -> bool {
        self.0[byte as usize / 64] >> (byte % 64) & 1 == 1
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    pub(super) fn complement(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The class of each byte: bytes that are in the same sets share one. Classes are numbered by their lowest byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ByteClasses {
    class_of: Box<[u8; 256]>,
    count: usize,
}

impl ByteClasses {
    pub(super) fn of(sets: impl IntoIterator<Item = ByteSet>) -> Self {
        let sets: BTreeSet<ByteSet> = sets.into_iter().collect();
        let mut classes = Self { class_of: Box::new([0; 256]), count: 1 };
        sets.into_iter().for_each(|set| classes.refine(set));
        classes
    }

    /// How many there are: 1 to 256.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn of_byte(&self, byte: u8) -> usize {
        usize::from(self.class_of[usize::from(byte)])
    }

    /// The lowest byte of each class, in the order of the classes.
    pub(super) fn representatives(&self) -> Vec<u8> {
        let mut lowest = Vec::with_capacity(self.count);
        for byte in 0..=255 {
            if self.of_byte(byte) == lowest.len() {
                lowest.push(byte);
            }
        }
        lowest
    }

    /// Splits every class into what is in `set` and what is not.
    fn refine(&mut self, set: ByteSet) {
        // The new number of (old class, in the set), given in the order of the bytes.
        let mut numbers = [[None::<u8>; 2]; 256];
        let mut count = 0;
        for byte in 0..=255u8 {
            let old = self.of_byte(byte);
            let number = &mut numbers[old][usize::from(set.contains(byte))];
            // At most 256 numbers are given to 256 bytes: the last is 255.
            self.class_of[usize::from(byte)] = *number.get_or_insert_with(|| {
                count += 1;
                (count - 1) as u8
            });
        }
        self.count = count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_share_a_class_exactly_if_no_set_tells_them_apart(
            sets in prop::collection::vec((any::<u8>(), any::<u8>(), any::<bool>()), 0..20),
        ) {
            let sets = sets.into_iter().map(|(a, b, not)| {
                let set = ByteSet::range(a.min(b), a.max(b));
                if not { set.complement() } else { set }
            });
            let sets: Vec<ByteSet> = sets.collect();
            let classes = ByteClasses::of(sets.iter().copied());
            for a in 0..=255 {
                for b in 0..=255 {
                    let same = sets.iter().all(|set| set.contains(a) == set.contains(b));
                    prop_assert_eq!(classes.of_byte(a) == classes.of_byte(b), same);
                }
            }
            let lowest = classes.representatives();
            prop_assert_eq!(lowest.len(), classes.count());
            prop_assert!(lowest.iter().enumerate().all(|(class, &byte)| classes.of_byte(byte) == class));
        }
    }

    #[test]
    fn every_byte_can_be_its_own_class() {
        assert_eq!(ByteClasses::of((0..=255).map(ByteSet::one)).count(), 256);
        assert_eq!(ByteClasses::of([]).count(), 1);
        assert_eq!(ByteClasses::of([ByteSet::one(7)]).count(), 2);
    }
}
