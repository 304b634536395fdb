//! What the tests share: a provider with one address more than Ethereum has, and tiny contracts.
#![allow(dead_code, reason = "every test binary uses another part of it")]

use alloy_primitives::{Address, Bytes, U256, address, bytes};
use metis_vm::{Account, EvmBuilder, Meter, MeterTerms, SpecId, State, Vm};
use revm::{
    context::{Cfg, ContextTr},
    context_interface::{JournalTr, cfg::gas::GasTracker},
    handler::{EthPrecompiles, PrecompileProvider},
    interpreter::{CallInputs, CallScheme, Gas, InstructionResult, InterpreterResult},
    primitives::AddressSet,
};

/// Where the dummy lives.
pub(crate) const DUMMY: Address = address!("000000000000000000000000000000000000A100");
/// Somebody with money.
pub(crate) const ALICE: Address = address!("00000000000000000000000000000000000a11ce");
/// Somebody else.
pub(crate) const BOB: Address = address!("0000000000000000000000000000000000000b0b");
/// A contract under test.
pub(crate) const CONTRACT: Address = address!("c000000000000000000000000000000000000001");
/// The gas of every call of the dummy.
pub(crate) const DUMMY_GAS: u64 = 1000;

/// Ethereum's precompiles and a dummy. The dummy reads the first byte of its input: 0 echoes (input, then one byte that says
/// how it was called), 1 reverts with the input, 2 fails fatally, 3 runs out of gas, 4 returns storage slot 1 of `CONTRACT`.
///
/// It meters the gas of its calls, and reverts with nothing where the terms leave too little.
#[derive(Debug)]
pub(crate) struct Dummy {
    ethereum: EthPrecompiles,
    warm: AddressSet,
    terms: Option<MeterTerms>,
    metered: u64,
}

impl Dummy {
    pub(crate) fn new() -> Self {
        let mut dummy = Self {
            ethereum: EthPrecompiles::new(SpecId::OSAKA),
            warm: AddressSet::default(),
            terms: None,
            metered: 0,
        };
        dummy.warm_up();
        dummy
    }

    fn warm_up(&mut self) {
        self.warm.clone_from(self.ethereum.warm_addresses());
        self.warm.insert(DUMMY);
    }
}

impl Meter for Dummy {
    fn begin_transaction(&mut self, terms: Option<MeterTerms>) {
        self.terms = terms;
        self.metered = 0;
    }

    fn metered(&self) -> u64 {
        self.metered
    }
}

impl<CTX: ContextTr<Cfg: Cfg<Spec = SpecId>>> PrecompileProvider<CTX> for Dummy {
    type Output = InterpreterResult;

    fn set_spec(&mut self, spec: SpecId) -> bool {
        let changed = <EthPrecompiles as PrecompileProvider<CTX>>::set_spec(&mut self.ethereum, spec);
        self.warm_up();
        changed
    }

    fn run(&mut self, context: &mut CTX, inputs: &CallInputs) -> Result<Option<InterpreterResult>, String> {
        if inputs.bytecode_address != DUMMY {
            return self.ethereum.run(context, inputs);
        }
        let input = inputs.input.bytes(context);
        let mut gas = Gas::new(inputs.gas_limit);
        *gas.tracker_mut() = GasTracker::new(inputs.gas_limit, inputs.gas_limit, inputs.reservoir);
        if !gas.record_regular_cost(DUMMY_GAS) || input.first() == Some(&3) {
            gas.spend_all();
            return Ok(Some(InterpreterResult::new(InstructionResult::PrecompileOOG, Bytes::new(), gas)));
        }
        if let Some(terms) = self.terms {
            if !terms.affordable || terms.left < self.metered + DUMMY_GAS {
                return Ok(Some(InterpreterResult::new(InstructionResult::Revert, Bytes::new(), gas)));
            }
            self.metered += DUMMY_GAS;
        }
        let (result, output) = match input.first() {
            Some(1) => (InstructionResult::Revert, input),
            Some(2) => return Err("the dummy has no weights".to_owned()),
            Some(4) => {
                let journal = context.journal_mut();
                // The journal panics on the slots of an account that the transaction has not loaded yet.
                journal.load_account(CONTRACT).map_err(|e| format!("{e:?}"))?;
                let slot = journal.sload(CONTRACT, U256::from(1)).map_err(|e| format!("{e:?}"))?;
                (InstructionResult::Return, slot.data.to_be_bytes_vec().into())
            }
            _ => {
                let how = match inputs.scheme {
                    CallScheme::Call => 1,
                    CallScheme::CallCode => 2,
                    CallScheme::DelegateCall => 3,
                    CallScheme::StaticCall => 4,
                };
                (InstructionResult::Return, [input.as_ref(), &[how]].concat().into())
            }
        };
        Ok(Some(InterpreterResult::new(result, output, gas)))
    }

    fn warm_addresses(&self) -> &AddressSet {
        &self.warm
    }
}

/// A state in which Alice is rich and `CONTRACT` has this code.
pub(crate) fn state_with(code: impl Into<Bytes>) -> State {
    let alice = Account { balance: U256::from(10u64).pow(U256::from(20)), ..Account::default() };
    State::from_iter([
        (ALICE, alice),
        (CONTRACT, Account { code: code.into(), nonce: 1, ..Account::default() }),
    ])
}

/// A machine of `fork` on [`state_with`] this code.
pub(crate) fn vm(fork: SpecId, code: impl Into<Bytes>) -> Vm<Dummy> {
    EvmBuilder::new().fork(fork).state(state_with(code)).build(Dummy::new())
}

/// How a forwarding contract reaches the dummy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Call = 0xf1,
    DelegateCall = 0xf4,
    StaticCall = 0xfa,
}

/// Code that forwards its calldata to `target` and passes on what comes back, reverting where that reverts.
pub(crate) fn forwarder(via: Via, target: Address) -> Bytes {
    let mut code = vec![];
    code.extend(bytes!("36 6000 6000 37")); // calldatacopy(0, 0, size)
    code.extend(bytes!("6000 6000 36 6000")); // out size, out offset, in size, in offset
    if via == Via::Call {
        code.extend(bytes!("6000")); // value
    }
    code.push(0x73); // push20
    code.extend(target);
    code.extend([0x5a, via as u8]); // gas, the call
    code.extend(bytes!("3d 6000 6000 3e")); // returndatacopy(0, 0, size)
    let success = code.len() as u8 + 7;
    code.extend([0x60, success, 0x57]); // jumpi(success)
    code.extend(bytes!("3d 6000 fd")); // revert(0, size)
    code.extend(bytes!("5b 3d 6000 f3")); // success: return(0, size)
    code.into()
}
