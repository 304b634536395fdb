//! The interpreters side by side.

use super::{
    case::Case,
    machine::{Answer, Fused, Machine, Revm},
    tables::Change,
};
use metis_opcode_opt::{Flow, Op};
use metis_vm::{FusionCache, FusionConfig, Interpreter, SpecId, fusion::analysis};
use std::{collections::HashMap, fmt, sync::OnceLock};

/// The interpreters that are compared with revm.
pub(crate) const SUBJECTS: [Interpreter; 2] = [Interpreter::FusedAlways, Interpreter::Plain];

/// Machines by fork; each is used again for every case on its fork.
pub(crate) struct Bench {
    cache: [FusionCache; 2],
    forks: HashMap<SpecId, Machines>,
}

struct Machines {
    revm: Machine<Revm>,
    subjects: [Machine<Fused>; 2],
}

/// An interpreter that does not do what revm does.
pub(crate) struct Difference {
    pub(crate) case: Case,
    pub(crate) interpreter: Interpreter,
    pub(crate) what: String,
}

/// What revm did.
#[derive(Clone, Debug)]
pub(crate) struct Executed {
    pub(crate) answer: Answer,
    pub(crate) gas_used: u64,
}

impl Default for Bench {
    fn default() -> Self {
        // Small, so that programs come and go.
        const MAX_BYTES: usize = 1 << 20;
        let cache = SUBJECTS.map(|interpreter| {
            FusionCache::new(FusionConfig { interpreter, max_bytes: MAX_BYTES, ..FusionConfig::default() })
        });
        Self { cache, forks: HashMap::new() }
    }
}

impl Bench {
    /// An empty one, in a build that does execute fused ops: otherwise each op is revm's, and nothing would be compared.
    pub(crate) fn checked() -> Self {
        static EXECUTES: OnceLock<bool> = OnceLock::new();
        let executes = EXECUTES.get_or_init(|| {
            // Nearly every instruction once: the program's size tells whether they are recognised.
            let goes_on =
                Op::ALL.iter().filter(|op| matches!(op.flow(), Flow::Next) && op.immediate_size() == 0);
            let all: Vec<u8> = goes_on.flat_map(|op| [op.byte(), Op::SWAP1.byte()]).collect();
            Self::executes_fused(&all, SpecId::OSAKA).is_ok_and(|executes| executes)
        });
        assert!(
            *executes,
            "revm's instructions are not recognised in this build: no fused op would be executed"
        );
        Self::default()
    }

    /// Whether the program that is executed for `code` is as large as the one that mainnet's own instructions make. It is not
    /// where the machines do not recognise revm's instructions: then each op is revm's, and nothing would be tested.
    pub(crate) fn executes_fused(code: &[u8], spec: SpecId) -> Result<bool, Box<Difference>> {
        let mut bench = Self::default();
        let size = |bench: &Self| bench.cache[0].stats().bytes;
        // What an entry takes besides its program.
        let stop = [Op::STOP.byte()];
        bench.compare_one(&Case::of_code(spec, stop.to_vec(), 1_000_000))?;
        let first = size(&bench);
        bench.compare_one(&Case::of_code(spec, code.to_vec(), 1_000_000))?;
        let bytes = |code: &[u8]| {
            let program = analysis::program(code, spec, Interpreter::FusedAlways);
            program.map_or(0, |program| program.bytes() + code.len())
        };
        Ok(size(&bench) - first + bytes(&stop) == first + bytes(code))
    }

    /// For one fork, with changed tables.
    pub(crate) fn with_tables(spec: SpecId, changes: &[Change]) -> Self {
        let mut bench = Self::default();
        let machines = bench.machines(spec);
        for change in changes {
            change.apply(&mut machines.revm.evm.instruction);
            machines.subjects.iter_mut().for_each(|subject| change.apply(&mut subject.evm.instruction));
        }
        bench
    }

    /// Executes a case with each of these gas limits by all interpreters.
    pub(crate) fn compare(
        &mut self,
        case: &Case,
        limits: impl IntoIterator<Item = u64>,
    ) -> Result<Vec<Executed>, Box<Difference>> {
        let machines = self.machines(case.spec);
        machines.install(case);
        limits.into_iter().map(|gas| machines.compare(case, gas)).collect()
    }

    fn machines(&mut self, spec: SpecId) -> &mut Machines {
        let cache = &self.cache;
        self.forks.entry(spec).or_insert_with(|| Machines {
            revm: Machine::revm(spec),
            subjects: std::array::from_fn(|i| Machine::fused(spec, cache[i].clone())),
        })
    }

    /// The same for one gas limit.
    pub(crate) fn compare_one(&mut self, case: &Case) -> Result<Executed, Box<Difference>> {
        self.compare(case, [case.gas]).map(|mut executed| executed.remove(0))
    }
}

impl Machines {
    fn install(&mut self, case: &Case) {
        let database = case.database();
        for subject in &mut self.subjects {
            subject.install(database.clone());
        }
        self.revm.install(database);
    }

    fn compare(&mut self, case: &Case, gas: u64) -> Result<Executed, Box<Difference>> {
        let expected = self.revm.execute(case, gas);
        for (subject, interpreter) in self.subjects.iter_mut().zip(SUBJECTS) {
            let answer = subject.execute(case, gas);
            let journals = (self.revm.journal(), subject.journal());
            let what = if answer != expected {
                Some(format!("revm: {expected:?}\nthis: {answer:?}"))
            } else if journals.0 != journals.1 {
                Some(format!("revm: {:?}\nthis: {:?}", journals.0, journals.1))
            } else {
                None
            };
            subject.reset();
            if let Some(what) = what {
                self.revm.reset();
                let case = Case { gas, ..case.clone() };
                return Err(Box::new(Difference { case, interpreter, what }));
            }
        }
        self.revm.reset();
        let gas_used = expected.as_ref().map_or(gas, |result| gas - result.gas.remaining());
        Ok(Executed { answer: expected, gas_used })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} differs from revm", self.interpreter)?;
        writeln!(f, "{}", self.case)?;
        write!(f, "{}", self.what)
    }
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
