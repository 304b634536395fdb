//! A file against the hashes of its leaves, one after another: bytes are checked before they are kept, in constant memory.

use std::io::{self, Read};
use std::ops::Range;

use alloy_primitives::B256;
use thiserror::Error;

use crate::bundle::DamagedLeaf;
use crate::bundle::merkle::{LEAF_BYTES, RootBuilder, leaf_hash};

/// Why leaves could not be copied to their end. What was kept before is right.
#[derive(Debug, Error)]
pub enum LeafError {
    /// The file could not be read on.
    #[error("{0}")]
    Read(io::Error),
    /// The file ends before its length.
    #[error("it ends after {0} bytes")]
    Ends(u64),
    /// A leaf is not the one that the list names.
    #[error("{0} is damaged")]
    Damaged(DamagedLeaf),
    /// The list of hashes could not be read, or ends too early.
    #[error("list of leaf hashes: {0}")]
    List(io::Error),
    /// A leaf that is right could not be kept.
    #[error("{0}")]
    Keep(io::Error),
}

/// Bytes in the list of the leaf hashes of a file.
pub const fn list_length(length: u64) -> u64 {
    length.div_ceil(LEAF_BYTES as u64) * B256::len_bytes() as u64
}

/// The Merkle root that a list of leaf hashes stands for; of its whole hashes, if it does not end with one.
pub fn root_of_list(mut list: impl Read) -> io::Result<B256> {
    let (mut root, mut hash) = (RootBuilder::default(), B256::ZERO);
    while read_full(&mut list, hash.as_mut_slice())? == hash.len() {
        root.push(hash);
    }
    Ok(root.root())
}

/// Reads the bytes `span` of a file from `body` and gives each leaf to `keep` if its hash is the next one of `list`.
///
/// `span` begins with a leaf and ends with the file; `body` and `list` are where it begins.
pub fn copy_leaves(
    mut body: impl Read,
    mut list: impl Read,
    span: Range<u64>,
    mut keep: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), LeafError> {
    let mut buffer = [0; LEAF_BYTES];
    let mut at = span.start;
    while at < span.end {
        let length = (span.end - at).min(LEAF_BYTES as u64);
        let leaf = &mut buffer[..length as usize];
        let read = read_full(&mut body, leaf).map_err(LeafError::Read)?;
        if read < leaf.len() {
            return Err(LeafError::Ends(at + read as u64));
        }
        let mut expected = B256::ZERO;
        list.read_exact(expected.as_mut_slice()).map_err(LeafError::List)?;
        if leaf_hash(leaf) != expected {
            let index = usize::try_from(at / LEAF_BYTES as u64).unwrap_or(usize::MAX);
            return Err(LeafError::Damaged(DamagedLeaf { index, bytes: at..at + length }));
        }
        keep(leaf).map_err(LeafError::Keep)?;
        at += length;
    }
    Ok(())
}

/// Fills the buffer as far as the reader goes.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::bundle::merkle;

    fn list(file: &[u8]) -> Vec<u8> {
        merkle::leaves(file).into_iter().flatten().collect()
    }

    fn copy(body: &[u8], list: &[u8], span: Range<u64>) -> (Vec<u8>, Result<(), LeafError>) {
        let mut kept = Vec::new();
        let result = copy_leaves(body, list, span, |leaf| {
            kept.extend_from_slice(leaf);
            Ok(())
        });
        (kept, result)
    }

    fn file() -> impl Strategy<Value = Vec<u8>> {
        (0usize..9_000)
            .prop_map(|length| (0..length).map(|i| ((i * 7) >> 3) as u8 ^ (i >> 10) as u8).collect())
    }

    proptest! {
        #[test]
        fn a_list_has_the_root_of_its_file_and_its_length(file in file()) {
            prop_assert_eq!(root_of_list(&*list(&file)).unwrap(), merkle::root(&file));
            prop_assert_eq!(list_length(file.len() as u64), list(&file).len() as u64);
        }

        #[test]
        fn only_whole_leaves_before_the_first_wrong_byte_are_kept(file in file(), at: Index, flip in 1u8..) {
            prop_assume!(!file.is_empty());
            let (mut wrong, at) = (file.clone(), at.index(file.len()));
            wrong[at] ^= flip;
            let (kept, result) = copy(&wrong, &list(&file), 0..file.len() as u64);
            let start = at / LEAF_BYTES * LEAF_BYTES;
            prop_assert_eq!(&kept, &file[..start]);
            let Err(LeafError::Damaged(leaf)) = result else { panic!("{result:?}") };
            prop_assert_eq!(leaf.index, at / LEAF_BYTES);
            prop_assert_eq!(leaf.bytes, start as u64..(start + LEAF_BYTES).min(file.len()) as u64);
        }

        #[test]
        fn a_copy_goes_on_at_any_leaf_and_stops_where_the_bytes_do(file in file(), from: Index, cut: Index) {
            let (length, hashes) = (file.len(), list(&file));
            let from = from.index(hashes.len() / 32 + 1) * LEAF_BYTES;
            let from = from.min(length / LEAF_BYTES * LEAF_BYTES);
            let cut = from + cut.index(length - from + 1);
            let (kept, result) = copy(&file[from..cut], &hashes[from / 32..], from as u64..length as u64);
            if cut == length {
                prop_assert!(result.is_ok(), "{:?}", result);
                prop_assert_eq!(&kept, &file[from..]);
            } else {
                prop_assert!(matches!(result, Err(LeafError::Ends(at)) if at == cut as u64), "{:?}", result);
                prop_assert_eq!(&kept, &file[from..cut / LEAF_BYTES * LEAF_BYTES]);
            }
        }

        #[test]
        fn a_list_that_is_cut_is_an_error(file in file(), cut: Index) {
            prop_assume!(!file.is_empty());
            let hashes = list(&file);
            let cut = cut.index(hashes.len());
            let (kept, result) = copy(&file, &hashes[..cut], 0..file.len() as u64);
            prop_assert!(matches!(result, Err(LeafError::List(_))), "{:?}", result);
            prop_assert_eq!(&kept, &file[..cut / 32 * LEAF_BYTES]);
        }
    }
}
