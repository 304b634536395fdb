//! Programs by code, shared between threads, within a bound.
//!
//! Lookups never wait for fusion: a miss is answered at once, and [`CodeCache::request`] has the program made by a thread of
//! the cache's own. When it lands decides how fast code runs and nothing else.

use crate::{fuse, fuse::Target, profile::Profile, program::Program, stream::StreamOp};
use alloy_primitives::{B256, Bytes};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
};

/// What a handler of the interpreter looks like in a program. Its address is part of a program's key, because a program is
/// linked for one interpreter.
pub type Linker = fn(StreamOp) -> u64;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Keccak-256 of the code.
    pub code: B256,
    /// Identity of the [`Target`]: fork, gas table, instructions that the user has replaced.
    pub target: B256,
    /// Identity of the [`Linker`].
    pub linker: usize,
    /// Whether ops were fused at all.
    pub fused: bool,
}

/// What a program is made from.
#[derive(Clone, Debug)]
pub struct Request {
    /// Under which key it is kept.
    pub key: Key,
    /// The code.
    pub code: Bytes,
    /// Gas and instructions.
    pub target: Arc<Target>,
    /// Which blocks are hot, if that is known.
    pub profile: Option<Profile>,
    /// Puts in the handlers.
    pub linker: Linker,
}

/// What a cache holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Programs.
    pub programs: usize,
    /// Bytes that they take.
    pub bytes: usize,
    /// Most bytes that they may take.
    pub max_bytes: usize,
    /// Programs made since the beginning.
    pub made: u64,
    /// Programs thrown out to make room.
    pub evicted: u64,
    /// Requests that were dropped, because too many were waiting.
    pub dropped: u64,
}

/// Requests that may wait. More are dropped; hot code asks again.
const QUEUE: usize = 64;
/// Bytes of an entry besides its program.
const ENTRY_BYTES: usize = 256;

/// A bounded cache of programs. Cloning shares it.
#[derive(Clone)]
pub struct CodeCache {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when a request is done.
    done: Condvar,
}

struct State {
    entries: HashMap<Key, Entry>,
    /// Keys by when they were last used; the first goes first.
    order: BTreeMap<u64, Key>,
    clock: u64,
    pending: HashSet<Key>,
    /// Code that does not become a program: too many cells.
    refused: HashSet<Key>,
    stats: CacheStats,
    worker: Option<SyncSender<Request>>,
}

struct Entry {
    program: Arc<Program>,
    bytes: usize,
    used: u64,
}

impl CodeCache {
    /// An empty cache for at most so many bytes of programs.
    pub fn new(max_bytes: usize) -> Self {
        let state = State {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            pending: HashSet::new(),
            refused: HashSet::new(),
            stats: CacheStats { max_bytes, ..CacheStats::default() },
            worker: None,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), done: Condvar::new() }) }
    }

    /// The program, if it is there.
    pub fn get(&self, key: &Key) -> Option<Arc<Program>> {
        self.shared.lock().get(key)
    }

    /// The program; made now if it is not there. `None` if the code is too long for one.
    pub fn get_or_make(&self, request: Request) -> Option<Arc<Program>> {
        {
            let mut state = self.shared.lock();
            if let Some(program) = state.get(&request.key) {
                return Some(program);
            }
            if state.refused.contains(&request.key) {
                return None;
            }
        }
        self.shared.make(request)
    }

    /// Has the program made in the background. Returns at once; a request that is already waiting, or for which there is no
    /// room in the queue, is dropped.
    pub fn request(&self, request: Request) {
        let mut state = self.shared.lock();
        let key = request.key;
        if state.entries.contains_key(&key) || state.pending.contains(&key) || state.refused.contains(&key) {
            return;
        }
        if state.worker.is_none() {
            state.worker = self.start();
        }
        let Some(worker) = &state.worker else { return };
        match worker.try_send(request) {
            Ok(()) => {
                state.pending.insert(key);
            }
            Err(TrySendError::Full(_)) => state.stats.dropped += 1,
            Err(TrySendError::Disconnected(_)) => state.worker = None,
        }
    }

    /// Waits until nothing is waiting to be made.
    pub fn wait(&self) {
        let mut state = self.shared.lock();
        while !state.pending.is_empty() && state.worker.is_some() {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is in it.
    pub fn stats(&self) -> CacheStats {
        self.shared.lock().stats
    }

    /// The thread that fuses. It ends when the cache is dropped.
    fn start(&self) -> Option<SyncSender<Request>> {
        let (sender, requests) = sync_channel::<Request>(QUEUE);
        let shared = Arc::downgrade(&self.shared);
        let fuser = move || {
            for request in requests {
                let Some(shared) = shared.upgrade() else { return };
                let key = request.key;
                shared.make(request);
                shared.lock().pending.remove(&key);
                shared.done.notify_all();
            }
        };
        // Without a thread nothing is fused, and all results are the same.
        std::thread::Builder::new().name("metis-fuser".into()).spawn(fuser).ok().map(|_| sender)
    }
}

impl fmt::Debug for CodeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeCache").field("stats", &self.stats()).finish()
    }
}

impl Shared {
    /// No state is left half changed where somebody panics, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a program, without holding the lock, and keeps it.
    fn make(&self, request: Request) -> Option<Arc<Program>> {
        let Request { key, code, target, profile, linker } = request;
        let made = match (&profile, key.fused) {
            (_, false) => fuse::translate(&code, &target),
            (None, true) => fuse::fuse(&code, &target),
            (Some(profile), true) => fuse::fuse_profiled(&code, &target, profile),
        };
        let mut state = self.lock();
        let Some(mut program) = made else {
            state.refuse(key);
            return None;
        };
        program.link(linker);
        let program = Arc::new(program);
        state.insert(key, Arc::clone(&program));
        Some(program)
    }
}

/// Refusals that are remembered. Beyond that they are found out again.
const MOST_REFUSED: usize = 1024;

impl State {
    fn get(&mut self, key: &Key) -> Option<Arc<Program>> {
        let now = self.tick();
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.used);
        entry.used = now;
        self.order.insert(now, *key);
        Some(Arc::clone(&entry.program))
    }

    fn insert(&mut self, key: Key, program: Arc<Program>) {
        let bytes = program.bytes() + ENTRY_BYTES;
        self.stats.made += 1;
        self.remove(&key);
        while self.stats.bytes + bytes > self.stats.max_bytes {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            let oldest = *oldest;
            self.remove(&oldest);
            self.stats.evicted += 1;
        }
        let used = self.tick();
        self.order.insert(used, key);
        self.entries.insert(key, Entry { program, bytes, used });
        self.stats.bytes += bytes;
        self.stats.programs = self.entries.len();
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.stats.bytes -= entry.bytes;
            self.stats.programs = self.entries.len();
        }
    }

    fn refuse(&mut self, key: Key) {
        if self.refused.len() < MOST_REFUSED {
            self.refused.insert(key);
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
