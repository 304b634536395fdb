mod broken;
mod origins;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::ProgressBar;
use tempfile::TempDir;

use super::*;
use crate::bundle::{
    Bundle, BundleParts, LEAVES_SUFFIX, MANIFEST_FILE, Manifest, TOKENIZER_FILE, WEIGHTS_FILE, merkle,
};
use crate::fixture::Fixture;

static PARTS: LazyLock<BundleParts> = LazyLock::new(|| fixture(1));

fn fixture(seed: u64) -> BundleParts {
    let place = tempfile::tempdir().unwrap();
    Fixture { seed, layers: 1, hidden: 32, intermediate: 32, ..Fixture::default() }
        .bundle(place.path())
        .unwrap()
}

fn hidden() -> ProgressBar {
    ProgressBar::hidden()
}

/// The store's files of one model, by their names.
fn stored(parts: &BundleParts) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::from([(manifest_name(parts.id()), parts.manifest.clone())]);
    for bytes in [&parts.tokenizer, &parts.weights] {
        let leaves = merkle::leaves(bytes);
        files.insert(file_name(merkle::root(bytes)), bytes.clone());
        files.insert(leaves_name(merkle::root(bytes)), leaves.into_iter().flatten().collect());
    }
    files
}

/// A folder's files, by their paths in it.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

/// A store in memory, with what can be wrong with one.
#[derive(Debug)]
struct Memory {
    files: BTreeMap<String, Vec<u8>>,
    /// Whether it can begin in the middle of a file.
    ranges: bool,
    /// Whether it says how long files are.
    lengths: bool,
    /// After how many bytes each answer breaks off.
    breaks: Option<usize>,
    opened: AtomicUsize,
}

impl Memory {
    fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { files, ranges: true, lengths: true, breaks: None, opened: AtomicUsize::new(0) }
    }
}

struct BrokenPipe;

impl Read for BrokenPipe {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl Origin for Memory {
    fn locate(&self, name: &str) -> String {
        format!("memory:{name}")
    }

    fn open(&self, name: &str, from: u64) -> Result<Body<'_>, OriginError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let file = self.files.get(name).ok_or(OriginError::Missing)?;
        let start = if self.ranges { from.min(file.len() as u64) } else { 0 };
        let rest = &file[start as usize..];
        let reader: Box<dyn Read> = match self.breaks {
            Some(after) if after < rest.len() => Box::new(rest[..after].chain(BrokenPipe)),
            _ => Box::new(rest),
        };
        Ok(Body { start, length: self.lengths.then_some(file.len() as u64), reader })
    }
}

/// Fetches the model of [`PARTS`] from these stores, the first one first.
fn fetch_from(origins: Vec<Memory>, into: &Path) -> Result<Fetched, StoreError> {
    let origins: Vec<Box<dyn Origin>> =
        origins.into_iter().map(|origin| Box::new(origin) as Box<dyn Origin>).collect();
    fetch(PARTS.id(), &origins, into, &hidden())
}

/// The directory holds exactly the bundle of [`PARTS`] and nothing beside it.
fn exact(into: &Path) {
    let id = PARTS.id();
    let mut expected = BTreeMap::from([(format!("{id}/{MANIFEST_FILE}"), PARTS.manifest.clone())]);
    for (name, bytes) in [(TOKENIZER_FILE, &PARTS.tokenizer), (WEIGHTS_FILE, &PARTS.weights)] {
        let leaves = merkle::leaves(bytes).into_iter().flatten().collect();
        expected.insert(format!("{id}/{name}"), bytes.clone());
        expected.insert(format!("{id}/{name}{LEAVES_SUFFIX}"), leaves);
    }
    let found = contents(into);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(found == expected, "a file has other contents");
    Bundle::open_model(into.join(id.to_string()), id).unwrap();
}

#[test]
fn a_published_store_holds_files_under_the_hashes_of_their_contents() {
    let place = tempfile::tempdir().unwrap();
    let store = place.path().join("deep/store");
    let bundle = PARTS.clone().into_bundle().unwrap();
    let published = publish(&bundle, &store, &hidden()).unwrap();
    assert_eq!(published.id, PARTS.id());
    assert!(published.written && published.files.iter().all(|file| file.written));
    let mut found = contents(&store);
    assert_eq!(found.remove(".lock"), Some(Vec::new()));
    assert!(found == stored(&PARTS));
}

#[test]
fn publishing_again_changes_nothing_and_repairs_what_is_damaged() {
    let store = tempfile::tempdir().unwrap();
    let bundle = PARTS.clone().into_bundle().unwrap();
    publish(&bundle, store.path(), &hidden()).unwrap();
    let weights = store.path().join(file_name(merkle::root(&PARTS.weights)));
    let written = fs::metadata(&weights).unwrap().modified().unwrap();
    let again = publish(&bundle, store.path(), &hidden()).unwrap();
    assert!(!again.written && again.files.iter().all(|file| !file.written));
    assert_eq!(fs::metadata(&weights).unwrap().modified().unwrap(), written);

    let mut bytes = PARTS.weights.clone();
    bytes[1_500] ^= 1;
    for damaged in [bytes, PARTS.weights[..99].to_vec(), Vec::new()] {
        fs::write(&weights, damaged).unwrap();
        // What a publisher that was killed leaves behind.
        fs::write(store.path().join("files/.x.partial"), "half").unwrap();
        let repaired = publish(&bundle, store.path(), &hidden()).unwrap();
        let written: Vec<bool> = repaired.files.iter().map(|file| file.written).collect();
        assert_eq!(written, [false, true]);
        assert!(fs::read(&weights).unwrap() == PARTS.weights);
    }
}

#[test]
fn models_share_a_store_and_each_is_fetched_from_it() {
    let (store, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = fixture(2);
    assert_eq!(other.tokenizer, PARTS.tokenizer, "one file of both");
    for parts in [&PARTS, &other] {
        publish(&parts.clone().into_bundle().unwrap(), store.path(), &hidden()).unwrap();
    }
    assert_eq!(fs::read_dir(store.path().join("files")).unwrap().count(), 6);
    let origins: [Box<dyn Origin>; 1] = [Box::new(Folder::new(store.path()))];
    for parts in [&PARTS, &other] {
        let fetched = fetch(parts.id(), &origins, into.path(), &hidden()).unwrap();
        assert!(!fetched.was_there && fetched.kept == 0 && fetched.failures.is_empty());
        Bundle::open_model(&fetched.directory, parts.id()).unwrap();
    }
    fs::remove_dir_all(into.path().join(other.id().to_string())).unwrap();
    exact(into.path());
}

#[test]
fn a_model_that_is_there_is_not_fetched_again() {
    let into = tempfile::tempdir().unwrap();
    fetch_from(vec![Memory::new(stored(&PARTS))], into.path()).unwrap();
    let fetched = fetch_from(Vec::new(), into.path()).unwrap();
    assert!(fetched.was_there && fetched.received == 0);
    exact(into.path());
}

#[test]
fn a_directory_that_is_not_the_model_is_left_alone() {
    let into = tempfile::tempdir().unwrap();
    fetch_from(vec![Memory::new(stored(&PARTS))], into.path()).unwrap();
    let weights = into.path().join(PARTS.id().to_string()).join(WEIGHTS_FILE);
    let mut bytes = PARTS.weights.clone();
    bytes[2_000] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    let error = fetch_from(vec![Memory::new(stored(&PARTS))], into.path()).unwrap_err();
    assert!(matches!(error, StoreError::Occupied { .. }), "{error}");
    let message = error.to_string();
    for part in [&PARTS.id().to_string(), "leaf 1", "remove it"] {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    assert!(fs::read(weights).unwrap() == bytes);
}

#[test]
fn fetches_at_once_do_the_work_once() {
    let into = tempfile::tempdir().unwrap();
    let store = tempfile::tempdir().unwrap();
    publish(&PARTS.clone().into_bundle().unwrap(), store.path(), &hidden()).unwrap();
    let fetched: Vec<Fetched> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let origins: [Box<dyn Origin>; 1] = [Box::new(Folder::new(store.path()))];
                    fetch(PARTS.id(), &origins, into.path(), &hidden()).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(fetched.iter().filter(|fetched| !fetched.was_there).count(), 1);
    exact(into.path());
}

/// A directory that holds what a fetch left that was interrupted, with these contents.
fn interrupted(files: &[(&str, &[u8])]) -> TempDir {
    let into = tempfile::tempdir().unwrap();
    let partial = into.path().join(format!(".{}.partial", PARTS.id()));
    fs::create_dir(&partial).unwrap();
    for (name, bytes) in files {
        fs::write(partial.join(name), bytes).unwrap();
    }
    into
}
