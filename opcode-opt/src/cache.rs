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
        atomic::{AtomicBool, Ordering},
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
    /// Code that does not become a program: too large.
    refused: HashSet<Key>,
    stats: CacheStats,
    worker: Option<SyncSender<Request>>,
}

struct Entry {
    program: Arc<Cached>,
    bytes: usize,
    /// When it was found last.
    used: u64,
}

/// A program of the cache, and the code that it was made from.
#[derive(Debug)]
pub struct Cached {
    program: Program,
    code: Bytes,
    linker: Linker,
    touched: AtomicBool,
}

impl Cached {
    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What put the handlers in.
    pub fn linker(&self) -> Linker {
        self.linker
    }

    /// Whether it was made from this code. The hash in a [`Key`] is what somebody's database says; the bytes decide.
    pub fn is_of(&self, code: &[u8]) -> bool {
        std::ptr::eq(self.code.as_ref(), code) || *self.code == *code
    }

    /// Says that the program is used without asking the cache, which then keeps it.
    pub fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }
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

    /// The program, if it is there. Ask it whether it is of the code at hand.
    pub fn get(&self, key: &Key) -> Option<Arc<Cached>> {
        self.shared.lock().get(key)
    }

    /// The program; made now if it is not there. `None` if it would be too large.
    pub fn get_or_make(&self, request: Request) -> Option<Arc<Cached>> {
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
                let waiting = Waiting { shared: &shared, key: request.key };
                shared.make(request);
                drop(waiting);
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
    fn make(&self, request: Request) -> Option<Arc<Cached>> {
        let Request { key, code, target, profile, linker } = request;
        let made = match (&profile, key.fused) {
            (_, false) => fuse::translate(&code, &target),
            (None, true) => fuse::fuse(&code, &target),
            (Some(profile), true) => fuse::fuse_profiled(&code, &target, profile),
        };
        let made = made.map(|mut program| {
            program.link(linker);
            Arc::new(Cached { program, code, linker, touched: AtomicBool::new(false) })
        });
        let mut state = self.lock();
        match made {
            Some(program) => state.insert(key, program),
            None => {
                state.refuse(key);
                None
            }
        }
    }
}

/// A request that the cache's thread works on. Whoever waits goes on when this is dropped, even by a panic, which ends the
/// thread and the requests behind; the next one starts another.
struct Waiting<'a> {
    shared: &'a Shared,
    key: Key,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if std::thread::panicking() {
            state.pending.clear();
            state.worker = None;
        } else {
            state.pending.remove(&self.key);
        }
        drop(state);
        self.shared.done.notify_all();
    }
}

/// Refusals that are remembered. Beyond that they are found out again.
const MOST_REFUSED: usize = 1024;

impl State {
    fn get(&mut self, key: &Key) -> Option<Arc<Cached>> {
        let now = self.tick();
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.used);
        entry.used = now;
        self.order.insert(now, *key);
        Some(Arc::clone(&entry.program))
    }

    /// Keeps a program. One that is larger than the whole cache is refused.
    fn insert(&mut self, key: Key, program: Arc<Cached>) -> Option<Arc<Cached>> {
        let bytes = program.program.bytes() + program.code.len() + ENTRY_BYTES;
        if bytes > self.stats.max_bytes {
            self.refuse(key);
            return None;
        }
        self.stats.made += 1;
        self.remove(&key);
        self.make_room(bytes);
        let used = self.tick();
        self.order.insert(used, key);
        self.entries.insert(key, Entry { program: Arc::clone(&program), bytes, used });
        self.stats.bytes += bytes;
        self.stats.programs = self.entries.len();
        Some(program)
    }

    /// Throws out what was found longest ago, unless it was touched since.
    fn make_room(&mut self, bytes: usize) {
        let mut chances = self.entries.len();
        while self.stats.bytes + bytes > self.stats.max_bytes {
            let Some((_, &oldest)) = self.order.first_key_value() else { return };
            let touched = |entry: &Entry| entry.program.touched.swap(false, Ordering::Relaxed);
            if chances > 0 && self.entries.get(&oldest).is_some_and(touched) {
                chances -= 1;
                let _ = self.get(&oldest);
                continue;
            }
            self.remove(&oldest);
            self.stats.evicted += 1;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn linker(op: StreamOp) -> u64 {
        1000 + op as u64
    }

    fn request(code: Vec<u8>) -> Request {
        let mut code_hash = B256::ZERO;
        code_hash[..8].copy_from_slice(&(code.len() as u64).to_be_bytes());
        let target = Target { gas: [3; 256], native: [true; 256] };
        let key =
            Key { code: code_hash, target: B256::ZERO, linker: linker as *const () as usize, fused: true };
        Request { key, code: code.into(), target: Arc::new(target), profile: None, linker }
    }

    #[test]
    fn a_program_is_made_once_and_linked() {
        let cache = CodeCache::new(1 << 20);
        let wanted = request(vec![0x60, 1, 0x60, 2, 0x01]);
        assert!(cache.get(&wanted.key).is_none());
        let made = cache.get_or_make(wanted.clone());
        let made = made.expect("small code");
        assert_eq!(made.program().cells()[0][0], 1000 + StreamOp::PushW as u64);
        assert!(
            made.is_of(&wanted.code)
                && made.is_of(&[0x60, 1, 0x60, 2, 0x01])
                && !made.is_of(&wanted.code[1..])
        );
        let again = cache.get_or_make(wanted.clone());
        assert!(again.is_some_and(|again| Arc::ptr_eq(&again, &made)));
        assert_eq!(cache.stats().made, 1);
        cache.request(wanted);
        cache.wait();
        assert_eq!(cache.stats().made, 1);
    }

    #[test]
    fn the_bound_holds_whatever_is_asked_for() {
        const BOUND: usize = 20_000;
        let cache = CodeCache::new(BOUND);
        for len in 1..200 {
            let wanted = request(vec![0x33; len]);
            assert!(cache.get_or_make(wanted).is_some());
            let stats = cache.stats();
            assert!(stats.bytes <= BOUND && stats.max_bytes == BOUND);
        }
        let stats = cache.stats();
        assert!(stats.evicted > 0 && stats.programs > 0);
        assert_eq!(stats.made, stats.evicted + stats.programs as u64);
        // Too large for the whole cache: nothing is thrown out for it.
        assert!(cache.get_or_make(request(vec![0x33; 5000])).is_none());
        assert_eq!(cache.stats(), stats);
    }

    #[test]
    fn what_was_used_last_stays() {
        let codes = [10, 11, 12].map(|len| request(vec![0x33; len]));
        let all = CodeCache::new(1 << 20);
        codes.iter().for_each(|code| drop(all.get_or_make(code.clone())));
        for touches in [false, true] {
            let cache = CodeCache::new(all.stats().bytes - 1);
            let [first, second, third] = &codes;
            let made = cache.get_or_make(first.clone());
            cache.get_or_make(second.clone());
            match (touches, made) {
                (true, Some(made)) => made.touch(),
                _ => drop(cache.get(&first.key)),
            }
            cache.get_or_make(third.clone());
            assert!(cache.get(&first.key).is_some() && cache.get(&third.key).is_some());
            assert!(cache.get(&second.key).is_none());
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri an hour")]
    fn code_of_too_many_cells_is_refused_and_remembered() {
        let cache = CodeCache::new(1 << 30);
        let long = request(vec![0x33; 70_000]);
        assert!(cache.get_or_make(long.clone()).is_none());
        cache.request(long.clone());
        cache.wait();
        assert!(cache.get_or_make(long).is_none());
        assert_eq!(cache.stats().programs, 0);
    }

    /// A linker of somebody else's may panic. Nobody waits for ever, and the cache works on.
    #[test]
    fn a_panic_of_the_fuser_ends_no_one_else() {
        fn panics(_: StreamOp) -> u64 {
            std::panic::resume_unwind(Box::new("no handler"))
        }
        let cache = CodeCache::new(1 << 20);
        let good = request(vec![0x33; 2]);
        for round in 0..3 {
            let bad = request(vec![0x33; 10 + round]);
            cache.request(Request { linker: panics, ..bad });
            cache.wait();
            assert_eq!(cache.stats().programs, round.min(1));
            cache.request(good.clone());
            cache.wait();
            assert!(cache.get(&good.key).is_some());
        }
    }

    /// Many threads ask for the same few programs, in both ways, while a small bound throws them out again.
    #[test]
    fn threads_get_the_program_of_their_own_code() {
        let cache = CodeCache::new(4_000);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let cache = cache.clone();
                scope.spawn(move || {
                    for round in 0..300 {
                        let len = 1 + (round * 7 + thread) % 40;
                        let wanted = request(vec![0x33; len]);
                        let program = if round % 3 == 0 {
                            cache.get_or_make(wanted)
                        } else {
                            cache.request(wanted.clone());
                            cache.get(&wanted.key)
                        };
                        if let Some(program) = program {
                            assert_eq!(program.program().ops(), len + 1);
                        }
                    }
                });
            }
        });
        cache.wait();
        assert!(cache.stats().bytes <= 4_000);
    }
}
