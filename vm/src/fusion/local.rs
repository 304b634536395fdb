//! What one EVM knows without asking others.

use super::{
    FusionCache, Interpreter, dispatch,
    engine::{self, Tools},
    memo::Memo,
    tables::{Originals, Tables},
};
use alloy_primitives::{B256, Bytes};
use metis_opcode_opt::{Key, Linker, Profile, Program, Request};
use revm::{
    context::Host,
    interpreter::{
        InstructionTable, InterpreterAction,
        instructions::GasTable,
        interpreter::EthInterpreter,
        interpreter_action::FrameInput,
        interpreter_types::{Jumps, LoopControl},
    },
};
use std::{fmt, sync::Arc};

/// Programs that are found without a lock, by the hash's first bytes.
const NEAR: usize = 64;
/// Codes whose heat is known.
const WARMING: usize = 256;
/// Steps for which a contract is watched before it is fused.
const PROFILED_STEPS: usize = 20_000;

type Frame = revm::interpreter::Interpreter<EthInterpreter>;

/// Programs at hand, the heat of code that has none, and hashes of short inputs.
pub(super) struct Local {
    originals: Originals,
    tables: Option<Tables>,
    near: Vec<Option<(B256, Arc<Program>)>>,
    warming: Vec<Option<Warming>>,
    memo: Memo,
}

/// Code that has no program yet.
struct Warming {
    code: B256,
    /// Gas that it has burnt since it was seen first, or since its program was asked for.
    gas: u64,
    profile: Option<Profile>,
    /// Times that it was entered. What is executed once is never fused.
    entered: u32,
    /// Whether the shared cache may have its program.
    asked: bool,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl Local {
    /// For machines on `H`.
    pub(super) fn new<H: Host>() -> Self {
        Self {
            originals: Originals::new::<H>(),
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
        if kind == Interpreter::Revm {
            return Way::Revm;
        }
        self.look_at_tables(frame, gas, instructions);
        let always = matches!(kind, Interpreter::FusedAlways | Interpreter::Plain);
        if always {
            frame.bytecode.get_or_calculate_hash();
        }
        // Initcode comes without a hash, and is executed once.
        let Some(hash) = frame.bytecode.hash() else { return Way::Revm };

        let place = usize::from(hash[0]) % NEAR;
        if let Some(Some((code, program))) = self.near.get(place)
            && *code == hash
        {
            return Way::Program(Arc::clone(program));
        }
        let found =
            if always || self.may_be_found(hash) { self.find::<H>(cache, frame, hash, always) } else { None };
        match found {
            Some(program) => {
                self.near.resize_with(NEAR, || None);
                self.near[place] = Some((hash, Arc::clone(&program)));
                Way::Program(program)
            }
            None => self.warm(cache, frame, hash),
        }
    }

    /// Executes a frame by its program until it returns or calls.
    pub(super) fn execute<H: Host>(
        &mut self,
        program: &Program,
        frame: &mut Frame,
        instructions: &InstructionTable<EthInterpreter, H>,
        gas: &GasTable,
        host: &mut H,
    ) -> InterpreterAction {
        engine::execute(program, frame, host, Tools { instructions, gas, memo: &mut self.memo })
    }

    /// Tables may change between transactions. Programs at hand are for the old ones then.
    fn look_at_tables<H: Host>(
        &mut self,
        frame: &Frame,
        gas: &GasTable,
        instructions: &InstructionTable<EthInterpreter, H>,
    ) {
        let begins = frame.input.depth == 0 && frame.bytecode.pc() == 0;
        let spec = frame.runtime_flag.spec_id;
        let current =
            self.tables.as_ref().is_some_and(|tables| !begins || tables.are(spec, gas, instructions));
        if !current {
            let tables = Tables::new(&self.originals, spec, gas, instructions);
            self.near.clear();
            self.warming.clear();
            self.tables = Some(tables);
        }
    }

    /// Whether it is worth a look into the shared cache: at first sight, and after its program was asked for.
    fn may_be_found(&self, hash: B256) -> bool {
        let warming = self.warming.get(usize::from(hash[1]) % WARMING).and_then(Option::as_ref);
        warming.is_none_or(|warming| warming.code != hash || warming.asked)
    }

    fn find<H: Host>(
        &self,
        cache: &FusionCache,
        frame: &Frame,
        hash: B256,
        always: bool,
    ) -> Option<Arc<Program>> {
        let request = self.requested::<H>(cache, frame, hash, None)?;
        if always { cache.programs().get_or_make(request) } else { cache.programs().get(&request.key) }
    }

    fn requested<H: Host>(
        &self,
        cache: &FusionCache,
        frame: &Frame,
        hash: B256,
        profile: Option<Profile>,
    ) -> Option<Request> {
        let tables = self.tables.as_ref()?;
        // Only legacy code has one.
        frame.bytecode.legacy_jump_table()?;
        let linker: Linker = dispatch::handler::<H>;
        let fused = cache.config().interpreter != Interpreter::Plain;
        let key = Key { code: hash, target: tables.identity, linker: linker as usize, fused };
        let code: Bytes = frame.bytecode.original_bytes();
        Some(Request { key, code, target: Arc::clone(&tables.target), profile, linker })
    }

    /// How code is executed that has no program.
    fn warm(&mut self, cache: &FusionCache, frame: &Frame, hash: B256) -> Way {
        self.warming.resize_with(WARMING, || None);
        let place = &mut self.warming[usize::from(hash[1]) % WARMING];
        if place.as_ref().is_none_or(|warming| warming.code != hash) {
            *place = Some(Warming { code: hash, gas: 0, profile: None, entered: 0, asked: false });
        }
        let Some(warming) = place else { return Way::Revm };
        warming.entered = warming.entered.saturating_add(u32::from(frame.bytecode.pc() == 0));
        if warming.entered > 1 && warming.gas >= cache.config().hot_gas / 2 && warming.profile.is_none() {
            Way::Watch(hash)
        } else {
            Way::Warm(hash)
        }
    }

    /// Counts in the gas that a frame without a program has burnt, and has a program made once it is enough.
    pub(super) fn burnt<H: Host>(
        &mut self,
        cache: &FusionCache,
        frame: &Frame,
        hash: B256,
        burnt: u64,
        profile: Option<Profile>,
    ) {
        let place = self.warming.get_mut(usize::from(hash[1]) % WARMING).and_then(Option::as_mut);
        let Some(warming) = place.filter(|warming| warming.code == hash) else { return };
        warming.gas = warming.gas.saturating_add(burnt);
        if profile.is_some() {
            warming.profile = profile;
        }
        if warming.entered > 1 && warming.gas >= cache.config().hot_gas {
            let profile = warming.profile.clone();
            (warming.gas, warming.asked) = (0, true);
            if let Some(request) = self.requested::<H>(cache, frame, hash, profile) {
                cache.programs().request(request);
            }
        }
    }
}

/// How a frame is executed next.
pub(super) enum Way {
    /// By revm, and never otherwise.
    Revm,
    /// By revm, while it is seen how much gas this code burns.
    Warm(B256),
    /// The same, and for some steps also where control goes.
    Watch(B256),
    /// By a program.
    Program(Arc<Program>),
}

/// Gas that a frame gave to the one that it calls.
pub(super) fn forwarded(input: &FrameInput) -> u64 {
    match input {
        FrameInput::Call(call) => call.gas_limit,
        FrameInput::Create(create) => create.gas_limit(),
        FrameInput::Empty => 0,
    }
}

/// revm's loop, not inlined: among other code it takes nearly twice the time.
#[inline(never)]
pub(super) fn run_plain<H: Host>(
    frame: &mut Frame,
    instructions: &InstructionTable<EthInterpreter, H>,
    gas: &GasTable,
    host: &mut H,
) -> InterpreterAction {
    frame.run_plain(instructions, gas, host)
}

/// revm's loop, counting where control goes for a bounded number of steps.
pub(super) fn watch<H: Host>(
    frame: &mut Frame,
    instructions: &InstructionTable<EthInterpreter, H>,
    gas: &GasTable,
    host: &mut H,
    profile: &mut Profile,
) -> InterpreterAction {
    let mut expected = usize::MAX;
    for _ in 0..PROFILED_STEPS {
        let pc = frame.bytecode.pc();
        if pc != expected {
            profile.enter(u32::try_from(pc).unwrap_or(u32::MAX));
        }
        let byte = frame.bytecode.opcode();
        let immediate =
            metis_opcode_opt::Op::from_byte(byte).map_or(0, |op| usize::from(op.immediate_size()));
        expected = pc + 1 + immediate;
        if let Err(result) = frame.step(instructions, gas, host) {
            if frame.bytecode.action().is_none() {
                frame.halt(result);
            }
            return frame.take_next_action();
        }
    }
    run_plain(frame, instructions, gas, host)
}
