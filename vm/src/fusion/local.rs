//! What one EVM knows without asking others.

use super::{
    FusionCache, Interpreter, dispatch,
    engine::{self, Tools},
    memo::Memo,
    near::Near,
    tables::{Originals, Tables},
};
use alloy_primitives::B256;
use metis_opcode_opt::{Cached, Key, Linker, Profile, Request};
use revm::{
    context::Host,
    interpreter::{
        InstructionTable, InterpreterAction, instructions::GasTable, interpreter::EthInterpreter,
        interpreter_action::FrameInput, interpreter_types::Jumps,
    },
};
use std::{fmt, sync::Arc};

/// Programs that are found without a lock, by the hash's first bytes.
const NEAR: usize = 64;
/// Codes without a program that are remembered.
const WARMING: usize = 256;

type Frame = revm::interpreter::Interpreter<EthInterpreter>;

/// Programs at hand, code that may get one, and hashes of short inputs.
pub(super) struct Local {
    originals: Originals,
    /// Whether this build can execute programs.
    is_sound: bool,
    tables: Option<Tables>,
    near: Vec<Option<Near>>,
    warming: Vec<Option<Warming>>,
    memo: Memo,
}

/// Code that has no program yet.
struct Warming {
    code: B256,
    /// Whether the shared cache may have its program by now.
    asked: bool,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

/// Another machine's: it starts with nothing at hand.
impl Clone for Local {
    fn clone(&self) -> Self {
        Self {
            originals: self.originals.clone(),
            is_sound: self.is_sound,
            tables: None,
            near: Vec::new(),
            warming: Vec::new(),
            memo: Memo::default(),
        }
    }
}

impl Local {
    /// For machines on `H`.
    pub(super) fn new<H: Host>() -> Self {
        Self {
            originals: Originals::new::<H>(),
            is_sound: dispatch::is_sound::<H>(),
            tables: None,
            near: Vec::new(),
            warming: Vec::new(),
            memo: Memo::default(),
        }
    }

    /// How a frame is to be executed next.
    pub(super) fn way<H: Host>(
        &mut self,
        cache: &FusionCache,
        frame: &mut Frame,
        instructions: &InstructionTable<EthInterpreter, H>,
        gas: &GasTable,
    ) -> Way {
        let kind = cache.config().interpreter;
        if kind == Interpreter::Revm || !self.is_sound || self.tables(frame, gas, instructions).is_foreign {
            return Way::Revm;
        }
        let always = matches!(kind, Interpreter::FusedAlways | Interpreter::Plain);
        if always {
            frame.bytecode.get_or_calculate_hash();
        }
        // Initcode of CREATE comes without a hash, and is executed once.
        let Some(hash) = frame.bytecode.hash() else { return Way::Revm };

        let place = usize::from(hash[0]) % NEAR;
        if let Some(Some(near)) = self.near.get(place)
            && near.is_named(hash)
            && near.program::<H>(frame).is_some()
        {
            near.touch();
            return Way::Program(place);
        }
        let found =
            if always { self.made::<H>(cache, frame, hash) } else { self.found::<H>(cache, frame, hash) };
        match found.and_then(|program| Near::new(hash, program, frame)) {
            Some(near) => {
                self.near.resize_with(NEAR, || None);
                self.near[place] = Some(near);
                Way::Program(place)
            }
            None => self.warm(cache, frame, hash),
        }
    }

    /// Executes a frame by the program at this place until it returns or calls.
    pub(super) fn execute<H: Host>(
        &mut self,
        place: usize,
        frame: &mut Frame,
        instructions: &InstructionTable<EthInterpreter, H>,
        gas: &GasTable,
        host: &mut H,
    ) -> InterpreterAction {
        let tools = Tools { instructions, gas, memo: &mut self.memo };
        match self.near.get(place) {
            Some(Some(near)) => engine::execute(near, frame, host, tools),
            _ => engine::run_plain(frame, instructions, gas, host),
        }
    }

    /// The tables in force. They may change between transactions; programs at hand are for the old ones then.
    fn tables<H: Host>(
        &mut self,
        frame: &Frame,
        gas: &GasTable,
        instructions: &InstructionTable<EthInterpreter, H>,
    ) -> &Tables {
        let begins = frame.input.depth == 0 && frame.bytecode.pc() == 0;
        let spec = frame.runtime_flag.spec_id;
        let are_old =
            |tables: &mut Tables| tables.spec != spec || begins && !tables.are(spec, gas, instructions);
        if self.tables.take_if(are_old).is_some() {
            self.near.clear();
            self.warming.clear();
        }
        self.tables.get_or_insert_with(|| Tables::new(&self.originals, spec, gas, instructions))
    }

    /// The frame's program from the shared cache, which makes it if it has to.
    fn made<H: Host>(&self, cache: &FusionCache, frame: &Frame, hash: B256) -> Option<Arc<Cached>> {
        cache.programs().get_or_make(self.request::<H>(cache, frame, hash, None)?)
    }

    /// The frame's program, if the shared cache has it. Asked at first sight, and once the program was asked for.
    fn found<H: Host>(&self, cache: &FusionCache, frame: &Frame, hash: B256) -> Option<Arc<Cached>> {
        let warming = self.warming.get(warming_place(hash)).and_then(Option::as_ref);
        if warming.is_some_and(|warming| warming.code == hash && !warming.asked) {
            return None;
        }
        cache.programs().get(&self.key::<H>(cache, frame, hash)?)
    }

    /// Under which key the frame's program is kept. `None` for code that cannot have one.
    fn key<H: Host>(&self, cache: &FusionCache, frame: &Frame, hash: B256) -> Option<Key> {
        let tables = self.tables.as_ref()?;
        // Only legacy code has one.
        frame.bytecode.legacy_jump_table()?;
        let fused = cache.config().interpreter != Interpreter::Plain;
        let linker: Linker = dispatch::handler::<H>;
        Some(Key { code: hash, target: tables.identity, linker: linker as usize, fused })
    }

    /// What the frame's program is made from.
    fn request<H: Host>(
        &self,
        cache: &FusionCache,
        frame: &Frame,
        hash: B256,
        profile: Option<Profile>,
    ) -> Option<Request> {
        let key = self.key::<H>(cache, frame, hash)?;
        let target = Arc::clone(&self.tables.as_ref()?.target);
        Some(Request {
            key,
            code: frame.bytecode.original_bytes(),
            target,
            profile,
            linker: dispatch::handler::<H>,
        })
    }

    /// How code is executed that has no program.
    fn warm(&mut self, cache: &FusionCache, frame: &Frame, hash: B256) -> Way {
        self.warming.resize_with(WARMING, || None);
        let place = &mut self.warming[warming_place(hash)];
        if place.as_ref().is_some_and(|warming| warming.code != hash) {
            *place = None;
        }
        place.get_or_insert(Warming { code: hash, asked: false });
        if frame.bytecode.pc() == 0 {
            cache.heat().enter(hash);
        }
        if cache.heat().is_above(hash, cache.config().hot_gas) { Way::Watch(hash) } else { Way::Warm(hash) }
    }

    /// Counts in the gas that a frame without a program has burnt. If it was watched, it is hot: then its program is asked for.
    pub(super) fn burnt<H: Host>(
        &mut self,
        cache: &FusionCache,
        frame: &Frame,
        hash: B256,
        burnt: u64,
        profile: Option<Profile>,
    ) {
        if profile.is_none() {
            return cache.heat().burn(hash, burnt);
        }
        cache.heat().cool(hash);
        let place = self.warming.get_mut(warming_place(hash)).and_then(Option::as_mut);
        if let Some(warming) = place.filter(|warming| warming.code == hash) {
            warming.asked = true;
        }
        if let Some(request) = self.request::<H>(cache, frame, hash, profile) {
            cache.programs().request(request);
        }
    }
}

/// Where a code without a program is remembered.
fn warming_place(hash: B256) -> usize {
    usize::from(hash[1]) % WARMING
}

/// How a frame is executed next.
pub(super) enum Way {
    /// By revm, and never otherwise.
    Revm,
    /// By revm, while it is seen how much gas this code burns.
    Warm(B256),
    /// The same, and for some steps also where control goes.
    Watch(B256),
    /// By the program at this place.
    Program(usize),
}

/// Gas that a frame gave to the one that it calls.
pub(super) fn forwarded(input: &FrameInput) -> u64 {
    match input {
        FrameInput::Call(call) => call.gas_limit,
        FrameInput::Create(create) => create.gas_limit(),
        FrameInput::Empty => 0,
    }
}
