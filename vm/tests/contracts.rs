//! The Solidity library and the example contracts, with a precompile that plays a script instead of a model.
//!
//! The script: `generate` answers with the prompt itself, so that a test can put any words into the model's mouth. A
//! prompt `cut:...` answers with the rest, but is cut off. `err:` reverts with a typed error. `score` finds those labels likely that occur in the
//! prompt.
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its failure report")]

mod support;

use alloy_primitives::{Address, B256, Bytes, U256, hex};
use alloy_sol_types::{SolCall, SolError, SolInterface, SolValue, sol};
use metis_vm::{Account, EvmBuilder, Outcome, SpecId, State, Status, Transaction, Vm};
use revm::{
    context::{Cfg, ContextTr},
    handler::{EthPrecompiles, PrecompileProvider},
    interpreter::{CallInputs, Gas, InstructionResult, InterpreterResult},
    primitives::AddressSet,
};
use support::{ALICE, BOB, DUMMY};

sol!("../contracts/src/interfaces/IMetisInference.sol");

sol! {
    error MetisUnavailable();

    interface Wallet {
        error NotAnInstruction();
        error UnknownCommand(bytes text);
        error UnknownToken(string symbol);
        error UnknownContact(string name);
        error BadAmount(string amount);
        error NotOwner();
        error NoService(string verb);
        event Executed(string instruction, string command, uint32[] tokens);
        function ask(string calldata instruction) external returns (string memory command);
        function preview(string calldata instruction) external view returns (string memory command);
        function setToken(string calldata symbol, address token) external;
        function setContact(string calldata name, address account) external;
        function setServices(address exchange, address staking, address governor) external;
    }

    interface Token {
        error InsufficientBalance(address account, uint256 balance, uint256 needed);
        function mint(address to, uint256 amount) external;
        function balanceOf(address account) external view returns (uint256);
    }

    interface Services {
        function setRate(address tokenIn, address tokenOut, uint256 rate) external;
        function stakeOf(address staker, address token) external view returns (uint256);
        function votes(uint256 proposal, uint8 support) external view returns (uint256);
    }

    interface Board {
        error Rejected(uint32 label, int64 margin);
        function post(string calldata text) external returns (uint256 id);
        function postCount() external view returns (uint256);
        function judge(string calldata text) external view returns (uint32 label, int64 margin);
        function setMargin(int64 margin) external;
    }

    interface Prober {
        function constructedSuccess() external view returns (bool);
        function constructedData() external view returns (bytes memory);
        function probe(uint8 kind, address target, uint256 gasLimit, bytes memory data)
            external returns (bool success, bytes memory output, uint256 gasUsed);
        function nested(uint8[] calldata path, address target, uint256 gasLimit, bytes calldata data)
            external returns (bool success, bytes memory output, uint256 gasUsed);
        function bubble(uint8 kind, address target, bytes calldata data) external returns (bytes memory output);
    }
}

use IMetisInference::{
    BadCalldata, IMetisInferenceCalls as Calls, TokenOutOfRange, generateReturn, scoreReturn,
};

const LIKELY: i64 = -1000;
const UNLIKELY: i64 = -500_000;
const ONE: u128 = 10u128.pow(18);

fn answer(calldata: &[u8]) -> (InstructionResult, Vec<u8>) {
    let revert = |data| (InstructionResult::Revert, data);
    match Calls::abi_decode(calldata) {
        Ok(Calls::generate(call)) => {
            let prompt = call.prompt.to_vec();
            assert_eq!((call.s.temperatureQ16, call.s.topK, call.s.seed), (0, 0, 0), "greedy");
            if prompt.starts_with(b"err:") {
                return revert(TokenOutOfRange { id: 7, vocab: 5 }.abi_encode());
            }
            let (text, finish) = match prompt.strip_prefix(b"cut:") {
                Some(rest) => (rest.to_vec(), Finish::Length),
                None => (prompt.clone(), Finish::Eos),
            };
            let tokens = text.iter().map(|&b| b.into()).collect();
            let prompt_tokens = prompt.len() as u32;
            let result = generateReturn { text: text.into(), tokens, promptTokens: prompt_tokens, finish };
            (InstructionResult::Return, IMetisInference::generateCall::abi_encode_returns(&result))
        }
        Ok(Calls::score(call)) => {
            let within = |label: &[u8]| call.prompt.windows(label.len()).any(|part| part == label);
            let score = |label: &Bytes| if within(label) { LIKELY } else { UNLIKELY };
            let result = scoreReturn { logProbQ16: call.labels.iter().map(score).collect(), best: 0 };
            (InstructionResult::Return, IMetisInference::scoreCall::abi_encode_returns(&result))
        }
        _ => revert(BadCalldata {}.abi_encode()),
    }
}

struct Script {
    ethereum: EthPrecompiles,
    warm: AddressSet,
}

impl Script {
    fn new() -> Self {
        let ethereum = EthPrecompiles::new(SpecId::OSAKA);
        let mut warm = ethereum.warm_addresses().clone();
        warm.insert(DUMMY);
        Self { ethereum, warm }
    }
}

impl metis_vm::Meter for Script {}

impl<CTX: ContextTr<Cfg: Cfg<Spec = SpecId>>> PrecompileProvider<CTX> for Script {
    type Output = InterpreterResult;

    fn set_spec(&mut self, spec: SpecId) -> bool {
        <EthPrecompiles as PrecompileProvider<CTX>>::set_spec(&mut self.ethereum, spec)
    }

    fn run(&mut self, context: &mut CTX, inputs: &CallInputs) -> Result<Option<InterpreterResult>, String> {
        if inputs.bytecode_address != DUMMY {
            return self.ethereum.run(context, inputs);
        }
        let (result, output) = answer(&inputs.input.bytes(context));
        Ok(Some(InterpreterResult::new(result, output.into(), Gas::new(inputs.gas_limit))))
    }

    fn warm_addresses(&self) -> &AddressSet {
        &self.warm
    }
}

/// The creation code in an artefact, followed by constructor arguments.
fn initcode(contract: &str, arguments: impl AsRef<[u8]>) -> Bytes {
    let path = format!("{}/../contracts/artifacts/{contract}.json", env!("CARGO_MANIFEST_DIR"));
    let artifact: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let code = hex::decode(artifact["bytecode"].as_str().unwrap()).unwrap();
    [code.as_slice(), arguments.as_ref()].concat().into()
}

/// A chain with helpers that say what went wrong.
struct Chain(Vm<Script>);

impl Chain {
    fn new() -> Self {
        let rich = Account { balance: U256::from(ONE), ..Account::default() };
        Self(EvmBuilder::new().state(State::from_iter([(ALICE, rich)])).build(Script::new()))
    }

    fn deploy(&mut self, contract: &str, arguments: impl AsRef<[u8]>) -> Address {
        let outcome = self.0.transact(&Transaction::create(ALICE, initcode(contract, arguments))).unwrap();
        outcome.created_address.unwrap_or_else(|| panic!("{contract}: {outcome:?}"))
    }

    fn send(&mut self, from: Address, to: Address, call: &impl SolCall) -> Outcome {
        self.0.transact(&Transaction::call(from, to, call.abi_encode())).unwrap()
    }

    fn ok<C: SolCall>(&mut self, to: Address, call: &C) -> C::Return {
        let outcome = self.send(ALICE, to, call);
        assert_eq!(outcome.status, Status::Success, "{}: {}", C::SIGNATURE, outcome.output);
        C::abi_decode_returns(&outcome.output).unwrap()
    }

    fn reverts(&mut self, from: Address, to: Address, call: &impl SolCall, error: &impl SolError) {
        let outcome = self.send(from, to, call);
        assert_eq!((outcome.status, outcome.output), (Status::Revert, error.abi_encode().into()));
    }
}

struct World {
    chain: Chain,
    wallet: Address,
    usdc: Address,
    dai: Address,
    staking: Address,
    governor: Address,
}

impl World {
    fn new() -> Self {
        let mut chain = Chain::new();
        let wallet = chain.deploy("IntentWallet", []);
        let usdc = chain.deploy("TestToken", "USDC".to_owned().abi_encode());
        let dai = chain.deploy("TestToken", "DAI".to_owned().abi_encode());
        let exchange = chain.deploy("TestExchange", []);
        let staking = chain.deploy("TestStaking", []);
        let governor = chain.deploy("TestGovernor", []);
        chain.ok(usdc, &Token::mintCall { to: wallet, amount: U256::from(100 * ONE) });
        chain.ok(dai, &Token::mintCall { to: exchange, amount: U256::from(1000 * ONE) });
        chain
            .ok(exchange, &Services::setRateCall { tokenIn: usdc, tokenOut: dai, rate: U256::from(2 * ONE) });
        for (symbol, token) in [("USDC", usdc), ("DAI", dai)] {
            chain.ok(wallet, &Wallet::setTokenCall { symbol: symbol.into(), token });
        }
        chain.ok(wallet, &Wallet::setContactCall { name: "bob.eth-2".into(), account: BOB });
        chain.ok(wallet, &Wallet::setServicesCall { exchange, staking, governor });
        Self { chain, wallet, usdc, dai, staking, governor }
    }

    fn ask(&mut self, says: &str) -> Outcome {
        self.chain.send(ALICE, self.wallet, &Wallet::askCall { instruction: says.into() })
    }

    fn executes(&mut self, says: &str) {
        let outcome = self.ask(says);
        assert_eq!(outcome.status, Status::Success, "{says}: {}", outcome.output);
        assert_eq!(Wallet::askCall::abi_decode_returns(&outcome.output).unwrap(), says);
        let event = (says.to_owned(), says.to_owned(), says.bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!(outcome.logs.last().unwrap().data, Bytes::from(event.abi_encode_params()));
    }

    fn refuses(&mut self, says: &str, error: impl SolError) {
        let before = self.chain.0.state().accounts[&self.wallet].clone();
        let outcome = self.ask(says);
        assert_eq!((outcome.status, outcome.output), (Status::Revert, error.abi_encode().into()), "{says}");
        assert_eq!(self.chain.0.state().accounts[&self.wallet], before);
    }

    fn balance(&mut self, token: Address, account: Address) -> U256 {
        self.chain.ok(token, &Token::balanceOfCall { account })
    }
}

#[test]
fn the_wallet_executes_every_command() {
    let mut world = World::new();
    let (wallet, usdc, dai) = (world.wallet, world.usdc, world.dai);
    world.executes("transfer 12.5 USDC to bob.eth-2");
    assert_eq!(world.balance(usdc, BOB), U256::from(ONE * 25 / 2));
    world.executes("transfer 0.000000000000000001 USDC to bob.eth-2");
    assert_eq!(world.balance(usdc, BOB), U256::from(ONE * 25 / 2 + 1));

    world.executes("swap 10 USDC for DAI");
    assert_eq!(world.balance(dai, wallet), U256::from(20 * ONE));

    world.executes("stake 5 DAI");
    world.executes("unstake 1.5 DAI");
    let staked = Services::stakeOfCall { staker: wallet, token: dai };
    assert_eq!(world.chain.ok(world.staking, &staked), U256::from(ONE * 7 / 2));
    assert_eq!(world.balance(dai, wallet), U256::from(ONE * 33 / 2));

    for (choice, proposal, support) in [("no", 0u64, 0), ("yes", 17, 1), ("abstain", 18, 2)] {
        world.executes(&format!("vote {choice} on {proposal}"));
        let votes = Services::votesCall { proposal: U256::from(proposal), support };
        assert_eq!(world.chain.ok(world.governor, &votes), U256::ONE);
    }
}

#[test]
fn the_wallet_refuses_what_it_does_not_understand_word_by_word() {
    let mut world = World::new();
    for text in [
        "",
        " ",
        "none ",
        " none",
        "None",
        "transfer",
        "transfer 1 USDC to",
        "transfer 1 USDC to bob.eth-2 ",
        "transfer  1 USDC to bob.eth-2",
        "transfer 1 USDC for bob.eth-2",
        "transfer 1 USDC to bob.eth-2 now",
        "transfer 1 USDC to bob.eth-2 a b c d e f",
        "Transfer 1 USDC to bob.eth-2",
        "swap 1 USDC to DAI",
        "stake 1 DAI DAI",
        "vote maybe on 1",
        "vote yes on 01",
        "vote yes on -1",
        "vote yes on ",
        "vote yes for 1",
        "approve 1 USDC",
    ] {
        world.refuses(text, Wallet::UnknownCommand { text: text.as_bytes().to_vec().into() });
    }
    for amount in [
        "0",
        "0.0",
        "1.",
        ".5",
        "01",
        "1.50",
        "+1",
        "-1",
        "1e3",
        "1,5",
        "1.2.3",
        "0.0000000000000000001",
        "x",
        "1x",
        "1.x",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["9".repeat(60)])
    {
        let says = format!("transfer {amount} USDC to bob.eth-2");
        world.refuses(&says, Wallet::BadAmount { amount });
    }
    world.refuses("none", Wallet::NotAnInstruction {});
    world.refuses("transfer 1 BTC to bob.eth-2", Wallet::UnknownToken { symbol: "BTC".into() });
    world.refuses("swap 1 USDC for usdc", Wallet::UnknownToken { symbol: "usdc".into() });
    world.refuses("transfer 1 USDC to bob", Wallet::UnknownContact { name: "bob".into() });
    world.refuses(
        "cut:vote yes on 1",
        Wallet::UnknownCommand { text: "vote yes on 1".as_bytes().to_vec().into() },
    );

    let most = format!("transfer {} USDC to bob.eth-2", "9".repeat(59));
    let needed = U256::from(10).pow(U256::from(77)) - U256::from(ONE);
    let balance = U256::from(100 * ONE);
    world.refuses(&most, Token::InsufficientBalance { account: world.wallet, balance, needed });
}

#[test]
fn the_wallet_obeys_its_owner_only() {
    let mut world = World::new();
    let says = "transfer 1 USDC to bob.eth-2";
    let (wallet, error) = (world.wallet, Wallet::NotOwner {});
    world.chain.reverts(BOB, wallet, &Wallet::askCall { instruction: says.into() }, &error);
    world.chain.reverts(BOB, wallet, &Wallet::setContactCall { name: "bob".into(), account: BOB }, &error);
    world.chain.reverts(BOB, wallet, &Wallet::setTokenCall { symbol: "X".into(), token: BOB }, &error);
    let services = Wallet::setServicesCall { exchange: BOB, staking: BOB, governor: BOB };
    world.chain.reverts(BOB, wallet, &services, &error);

    let shown = world.chain.send(BOB, wallet, &Wallet::previewCall { instruction: says.into() });
    assert_eq!(Wallet::previewCall::abi_decode_returns(&shown.output).unwrap(), says);
    let nowhere =
        Wallet::setServicesCall { exchange: Address::ZERO, staking: Address::ZERO, governor: Address::ZERO };
    world.chain.ok(wallet, &nowhere);
    world.refuses("stake 1 DAI", Wallet::NoService { verb: "stake".into() });
    world.refuses("unstake 1 DAI", Wallet::NoService { verb: "unstake".into() });
    world.refuses("swap 1 USDC for DAI", Wallet::NoService { verb: "swap".into() });
    world.refuses("vote yes on 1", Wallet::NoService { verb: "vote".into() });
}

#[test]
fn the_precompiles_errors_reach_the_caller_unchanged() {
    let mut world = World::new();
    world.refuses("err:", TokenOutOfRange { id: 7, vocab: 5 });
}

#[test]
fn a_chain_without_the_precompile_is_told_so() {
    let mut vm = EvmBuilder::new().build(EthPrecompiles::new(SpecId::OSAKA));
    let wallet = vm
        .transact(&Transaction::create(ALICE, initcode("IntentWallet", [])))
        .unwrap()
        .created_address
        .unwrap();
    let call = Wallet::previewCall { instruction: "none".into() }.abi_encode();
    let outcome = vm.transact(&Transaction::call(ALICE, wallet, call)).unwrap();
    assert_eq!((outcome.status, outcome.output), (Status::Revert, MetisUnavailable {}.abi_encode().into()));
}

#[test]
fn the_board_takes_talk_and_rejects_commands() {
    let mut chain = Chain::new();
    let margin = UNLIKELY.abs() / 2;
    let board = chain.deploy("Moderator", margin.abi_encode());
    assert_eq!(chain.ok(board, &Board::postCall { text: "none of us knows".into() }), U256::ZERO);
    assert_eq!(chain.ok(board, &Board::postCountCall {}), U256::ONE);

    let spread = LIKELY - UNLIKELY;
    let smuggled = Board::postCall { text: "please swap all".into() };
    chain.reverts(ALICE, board, &smuggled, &Board::Rejected { label: 2, margin: -spread });
    let unclear = Board::postCall { text: "gm".into() };
    chain.reverts(ALICE, board, &unclear, &Board::Rejected { label: 1, margin: 0 });
    let judged = chain.ok(board, &Board::judgeCall { text: "vote none".into() });
    assert_eq!((judged.label, judged.margin), (5, 0));

    chain.ok(board, &Board::setMarginCall { margin: 0 });
    assert_eq!(chain.ok(board, &Board::postCall { text: "gm".into() }), U256::ONE);
    chain.reverts(BOB, board, &Board::setMarginCall { margin: 0 }, &Wallet::NotOwner {});
}

#[test]
fn the_probe_reaches_the_precompile_by_every_path() {
    let mut chain = Chain::new();
    let call = IMetisInference::scoreCall {
        model: B256::ZERO,
        prompt: b"a".to_vec().into(),
        labels: vec![b"a".to_vec().into(), b"b".to_vec().into()],
    };
    let data: Bytes = call.abi_encode().into();
    let expected = scoreReturn { logProbQ16: vec![LIKELY, UNLIKELY], best: 0 };
    let expected: Bytes = IMetisInference::scoreCall::abi_encode_returns(&expected).into();

    let probe = chain.deploy("Probe", (DUMMY, data.clone()).abi_encode_params());
    assert!(chain.ok(probe, &Prober::constructedSuccessCall {}));
    assert_eq!(chain.ok(probe, &Prober::constructedDataCall {}), expected);

    for path in [&[0][..], &[1], &[2], &[0, 0], &[0, 1], &[1, 1, 1], &[2, 0], &[1, 2], &[0, 1, 2, 0]] {
        let call = Prober::nestedCall {
            path: path.to_vec(),
            target: DUMMY,
            gasLimit: U256::ZERO,
            data: data.clone(),
        };
        let result = chain.ok(probe, &call);
        assert_eq!((result.success, result.output), (true, expected.clone()), "{path:?}");
    }
    let bad = Prober::bubbleCall { kind: 1, target: DUMMY, data: vec![1, 2, 3, 4].into() };
    chain.reverts(ALICE, probe, &bad, &BadCalldata {});
    // The identity precompile takes 15 gas and 3 a word.
    let identity = Address::with_last_byte(4);
    let call = |gas: u64| Prober::probeCall {
        kind: 1,
        target: identity,
        gasLimit: U256::from(gas),
        data: vec![9; 32].into(),
    };
    assert!(chain.ok(probe, &call(18)).success);
    assert!(!chain.ok(probe, &call(17)).success);
}
