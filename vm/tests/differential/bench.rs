//! The interpreters side by side.

use super::{
    case::Case,
    machine::{Answer, Fused, Machine, Revm},
};
use metis_vm::{FusionCache, FusionConfig, Interpreter, SpecId};
use std::{collections::HashMap, fmt};

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
    /// Executes a case with each of these gas limits by all interpreters.
    pub(crate) fn compare(
        &mut self,
        case: &Case,
        limits: impl IntoIterator<Item = u64>,
    ) -> Result<Vec<Executed>, Box<Difference>> {
        let cache = &self.cache;
        let machines = self.forks.entry(case.spec).or_insert_with(|| Machines {
            revm: Machine::revm(case.spec),
            subjects: std::array::from_fn(|i| Machine::fused(case.spec, cache[i].clone())),
        });
        machines.install(case);
        limits.into_iter().map(|gas| machines.compare(case, gas)).collect()
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
