//! Whatever stores give and whenever they stop: the exact bundle, or an error that says what was wrong, and never another bundle.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// The names that a fetch asks for.
fn names() -> Vec<String> {
    stored(&PARTS).into_keys().collect()
}

/// What can be done to a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Append(Vec<u8>),
    Swap(Index),
    Remove,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), 1u8..).prop_map(|(at, by)| Damage::Flip(at, by)),
        4 => any::<Index>().prop_map(Damage::Cut),
        2 => proptest::collection::vec(any::<u8>(), 1..2_000).prop_map(Damage::Append),
        1 => any::<Index>().prop_map(Damage::Swap),
        1 => Just(Damage::Remove),
    ]
}

/// The store with one file that is damaged.
fn damaged(name: &str, damage: &Damage) -> BTreeMap<String, Vec<u8>> {
    let mut files = stored(&PARTS);
    let mut bytes = files.remove(name).unwrap();
    match damage {
        Damage::Flip(at, by) => {
            let at = at.index(bytes.len());
            bytes[at] ^= by;
        }
        Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Damage::Append(more) => bytes.extend(more),
        Damage::Swap(with) => {
            let others: Vec<_> = files.values().collect();
            bytes = others[with.index(others.len())].clone();
        }
        Damage::Remove => return files,
    }
    files.insert(name.to_owned(), bytes);
    files
}

fn no_bundle(into: &Path) {
    assert!(!into.join(PARTS.id().to_string()).exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_damaged_store_gives_an_error_with_a_place_and_another_store_the_rest(
        name in select(names()), damage in damage(), ranges: bool, lengths: bool, break_at in proptest::option::of(900usize..9_000),
    ) {
        let into = tempfile::tempdir().unwrap();
        let bad = || Memory {
            ranges, lengths, breaks: break_at, ..Memory::new(damaged(&name, &damage))
        };
        let error = fetch_from(vec![bad()], into.path()).unwrap_err();
        let StoreError::NotFetched { failures, .. } = &error else { panic!("{error}") };
        prop_assert_eq!(failures.len(), 1);
        let message = error.to_string();
        let kept = into.path().join(format!(".{}.partial", PARTS.id())).exists();
        prop_assert_eq!(kept, message.contains("kept in"), "{}", message);
        prop_assert_eq!(!kept, message.contains("check the id and the address"), "{}", message);
        if break_at.is_none() {
            prop_assert!(message.contains(&name), "{}", message);
        }
        no_bundle(into.path());

        let fetched = fetch_from(vec![bad(), Memory::new(stored(&PARTS))], into.path()).unwrap();
        exact(into.path());
        let files = [&PARTS.tokenizer, &PARTS.weights].map(|file| file.len() as u64);
        let total: u64 = files.map(|length| length + list_length(length)).iter().sum();
        prop_assert_eq!(fetched.kept + fetched.received, total);
    }

    #[test]
    fn a_store_that_breaks_off_is_asked_to_go_on(ranges: bool, lengths: bool, after in 600usize..40_000) {
        let into = tempfile::tempdir().unwrap();
        let store = || Memory { ranges, lengths, breaks: Some(after), ..Memory::new(stored(&PARTS)) };
        let mut last = 0;
        // Each fetch gets further, or nobody could.
        for _ in 0..200 {
            match fetch_from(vec![store()], into.path()) {
                Ok(_) => {
                    exact(into.path());
                    return Ok(());
                }
                Err(error) => {
                    let StoreError::NotFetched { failures, .. } = &error else { panic!("{error}") };
                    no_bundle(into.path());
                    match &failures[..] {
                        [Failure { problem: Problem::BrokeOff { kept, .. }, .. }] if *kept > last => last = *kept,
                        // The next file.
                        [Failure { problem: Problem::BrokeOff { kept, .. }, .. }] if *kept < last => last = *kept,
                        // The manifest is read at once.
                        [Failure { problem: Problem::Origin(OriginError::Read(_)), .. }] => {
                            prop_assert!(after < PARTS.manifest.len());
                            break;
                        }
                        // Less than a leaf, or a beginning that it cannot skip.
                        _ => {
                            prop_assert!(after < 1_024 || !ranges, "{}", error);
                            break;
                        }
                    }
                }
            }
        }
        fetch_from(vec![store(), Memory::new(stored(&PARTS))], into.path()).unwrap();
        exact(into.path());
    }

    #[test]
    fn what_an_interrupted_fetch_left_is_trusted_as_far_as_it_is_right(
        files in proptest::sample::subsequence(vec![0usize, 1, 2, 3, 4], 0..=5),
        lengths in proptest::array::uniform5(any::<Index>()),
        flips in proptest::array::uniform5(proptest::option::of((any::<Index>(), 1u8..))),
        more in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..3_000)),
        ranges: bool,
    ) {
        let leaves = |bytes: &[u8]| merkle::leaves(bytes).into_iter().flatten().collect::<Vec<u8>>();
        let (weights, tokenizer) = (leaves(&PARTS.weights), leaves(&PARTS.tokenizer));
        let all: [(&str, &[u8]); 5] = [
            (MANIFEST_FILE, &PARTS.manifest),
            ("tokenizer.json.leaves", &tokenizer),
            (TOKENIZER_FILE, &PARTS.tokenizer),
            ("weights.safetensors.leaves", &weights),
            (WEIGHTS_FILE, &PARTS.weights),
        ];
        let left: Vec<(&str, Vec<u8>)> = files.iter().map(|&file| {
            let (name, bytes) = all[file];
            let mut bytes = bytes[..lengths[file].index(bytes.len() + 1)].to_vec();
            if let (Some((at, by)), false) = (&flips[file], bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] ^= by;
            } else if let Some(more) = &more {
                bytes.extend(more);
            }
            (name, bytes)
        }).collect();
        let left: Vec<(&str, &[u8])> = left.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
        let into = interrupted(&left);
        fetch_from(vec![Memory { ranges, ..Memory::new(stored(&PARTS)) }], into.path()).unwrap();
        exact(into.path());
    }
}

#[test]
fn a_right_beginning_is_not_asked_for_again() {
    let leaves: Vec<u8> = merkle::leaves(&PARTS.weights).into_iter().flatten().collect();
    let all = stored(&PARTS);
    let lists = list_length(PARTS.weights.len() as u64);
    for (length, right) in [(0, 0), (1_023, 0), (1_024, 1_024), (5_000, 4_096)] {
        let files = [("weights.safetensors.leaves", &leaves[..]), (WEIGHTS_FILE, &PARTS.weights[..length])];
        let into = interrupted(&files);
        let fetched = fetch_from(vec![Memory::new(all.clone())], into.path()).unwrap();
        assert_eq!(fetched.kept, right + lists, "of {length} bytes");
        exact(into.path());
    }
}

#[test]
fn stores_complete_each_other() {
    let root = |bytes: &[u8]| merkle::root(bytes);
    let without = |name: String| {
        let mut files = stored(&PARTS);
        files.remove(&name).unwrap();
        Memory::new(files)
    };
    let into = tempfile::tempdir().unwrap();
    let stores = vec![
        without(file_name(root(&PARTS.tokenizer))),
        without(file_name(root(&PARTS.weights))),
        without(manifest_name(PARTS.id())),
    ];
    let fetched = fetch_from(stores, into.path()).unwrap();
    exact(into.path());
    assert!(!fetched.failures.is_empty());
    assert!(fetched.failures.iter().all(|f| matches!(f.problem, Problem::Origin(OriginError::Missing))));
}

#[test]
fn a_wrong_beginning_of_a_list_is_not_the_next_stores_fault() {
    let mut leaves: Vec<u8> = merkle::leaves(&PARTS.weights).into_iter().flatten().collect();
    leaves[0] ^= 1;
    let into = interrupted(&[("weights.safetensors.leaves", &leaves[..64])]);
    let fetched = fetch_from(vec![Memory::new(stored(&PARTS))], into.path()).unwrap();
    assert_eq!((fetched.failures.len(), fetched.kept), (0, 0));
    exact(into.path());
}
