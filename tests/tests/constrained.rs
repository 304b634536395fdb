//! Constrained answers as contracts see them, through compiled Solidity and the embedded model.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::{SolCall, SolError, SolValue, sol};
use metis_precompiles::MetisPrecompiles;
use metis_precompiles::abi::{
    BadCalldata, BadConstraint, ConstraintTooLarge, NotSupported, TooManyNewTokens, generateChatCall,
    tokenizeChatCall,
};
use metis_tests::chain::{SENDER, node};
use metis_vm::{Outcome, Recorder, State, Status, Transaction, Vm};
use metisvm::artifacts::{self, Artifact};

sol! {
    error Unfinished(bytes text);
    interface IAsker {
        struct S { uint32 temperatureQ16; uint32 topPQ16; uint16 topK; uint64 seed; }
        function ask(bytes prompt, uint32 maxNew, bytes pattern) external view returns (bytes);
        function askYesNo(bytes prompt) external view returns (bool);
        function askNumber(bytes prompt, uint8 digits) external view returns (uint256);
        function choose(bytes prompt, bytes[] options) external view returns (uint256);
        function chat(bytes system, bytes content) external view returns (bytes text);
        function tokenizeChat(bytes content) external view returns (uint32[] ids);
        function generateOneOf(bytes prompt, uint32 maxNew, S s, bytes[] options)
            external view returns (bytes text, uint8 finish);
    }
    interface IAssembly {
        function speak(uint256 proposal, string words) external returns (uint8 stance);
        function pledge(string words) external returns (uint256 amount);
        function tally(uint256 proposal, uint8 stance) external view returns (uint256);
        function pledged(address member) external view returns (uint256);
    }
}

fn deploy(artifact: &Artifact) -> (Vm<MetisPrecompiles>, Address) {
    let mut vm = node("Osaka").unwrap().vm(State::default());
    let outcome = vm.transact(&Transaction::create(SENDER, artifact.initcode(&[]).unwrap())).unwrap();
    assert!(outcome.is_success(), "{}", outcome.status);
    (vm, outcome.created_address.unwrap())
}

/// What a call to `Asker` comes to.
fn asked(call: &impl SolCall) -> Outcome {
    let (mut vm, asker) = deploy(&artifacts::asker().unwrap());
    vm.transact(&Transaction::call(SENDER, asker, call.abi_encode())).unwrap()
}

fn answer<C: SolCall>(call: &C) -> C::Return {
    let outcome = asked(call);
    assert!(outcome.is_success(), "{} {}", outcome.status, outcome.output);
    C::abi_decode_returns(&outcome.output).unwrap()
}

fn error(call: &impl SolCall) -> Bytes {
    let outcome = asked(call);
    assert_eq!(outcome.status, Status::Revert);
    outcome.output
}

fn ask(prompt: &str, max_new: u32, pattern: &str) -> IAsker::askCall {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    IAsker::askCall { prompt: bytes(prompt), maxNew: max_new, pattern: bytes(pattern) }
}

fn listed(options: &[&str]) -> Vec<Bytes> {
    options.iter().map(|option| Bytes::copy_from_slice(option.as_bytes())).collect()
}

#[test]
fn an_assembly_understands_votes_and_pledges() {
    let node = node("Osaka").unwrap();
    let mut recorder = Recorder::new(node.vm(State::default()), node.chain().unwrap());
    let initcode = artifacts::assembly().unwrap().initcode(&[]).unwrap();
    let assembly =
        recorder.transact(&Transaction::create(SENDER, initcode)).unwrap().created_address.unwrap();
    let mut send = |input: Vec<u8>| {
        let outcome = recorder.transact(&Transaction::call(SENDER, assembly, input)).unwrap();
        assert!(outcome.is_success(), "{} {}", outcome.status, outcome.output);
        outcome.output
    };
    for (words, stance) in
        [("vote yes on 7", 0), ("i vote against proposal 7", 1), ("please abstain on proposal 7 for me", 2)]
    {
        let call = IAssembly::speakCall { proposal: U256::from(7), words: words.into() };
        let got = IAssembly::speakCall::abi_decode_returns(&send(call.abi_encode())).unwrap();
        assert_eq!(got, stance, "{words}");
        let tally = IAssembly::tallyCall { proposal: U256::from(7), stance };
        assert_eq!(send(tally.abi_encode()), Bytes::from(U256::ONE.abi_encode()));
    }
    for (words, amount) in [("stake 50 metis", 50), ("please stake twelve metis for me", 12)] {
        let call = IAssembly::pledgeCall { words: words.into() };
        let got = IAssembly::pledgeCall::abi_decode_returns(&send(call.abi_encode())).unwrap();
        assert_eq!(got, U256::from(amount), "{words}");
    }
    let pledged = IAssembly::pledgedCall { member: SENDER };
    assert_eq!(send(pledged.abi_encode()), Bytes::from(U256::from(62).abi_encode()));

    // Whoever executes again comes to the same.
    let (record, _) = recorder.finish();
    record.verify(node.precompiles()).unwrap();
}

#[test]
fn whatever_is_asked_the_answer_has_its_form() {
    for prompt in ["send 5 metis to alice", "what is the weather like?", "\u{1f600}", "vote no on 3"] {
        answer(&IAsker::askYesNoCall { prompt: Bytes::copy_from_slice(prompt.as_bytes()) });
        for (digits, below) in [(1u8, 10u64), (2, 100), (12, 1_000_000_000_000)] {
            let prompt = Bytes::copy_from_slice(prompt.as_bytes());
            let number = answer(&IAsker::askNumberCall { prompt, digits });
            assert!(number < U256::from(below), "{number} has more than {digits} digits");
        }
        let text = answer(&ask(prompt, 30, "(a|b){2,4}-[^a-z]{3}"));
        let (letters, rest) = text.split_at(text.iter().position(|&byte| byte == b'-').unwrap());
        assert!((2..=4).contains(&letters.len()) && letters.iter().all(|byte| b"ab".contains(byte)));
        assert!(rest.len() == 4 && rest[1..].iter().all(|byte| !byte.is_ascii_lowercase()));

        let options = ["transfer", "vote", "none"];
        let prompt = Bytes::copy_from_slice(prompt.as_bytes());
        let index = answer(&IAsker::chooseCall { prompt: prompt.clone(), options: listed(&options) });
        assert!(index < U256::from(3));
        let s = IAsker::S { temperatureQ16: 1 << 18, topPQ16: 1 << 16, topK: 0, seed: 3 };
        let drawn = answer(&IAsker::generateOneOfCall { prompt, maxNew: 8, s, options: listed(&options) });
        assert!(options.iter().any(|option| option.as_bytes() == &drawn.text[..]));
        assert_eq!(drawn.finish, 3, "nothing can follow");
    }
    assert_eq!(
        answer(&IAsker::chooseCall { prompt: "vote no on 3".into(), options: listed(&["none", "vote"]) }),
        U256::ONE
    );
}

#[test]
fn what_is_wrong_with_a_form_reaches_the_caller() {
    let unfinished = |text: &'static str| Unfinished { text: text.into() }.abi_encode();
    assert_eq!(error(&ask("hi", 2, "aaaa|zzzz{9}"))[..4], unfinished("")[..4], "cut off");
    assert_eq!(error(&ask("hi", 4, "a{3,2}")), BadConstraint { position: 5 }.abi_encode());
    assert_eq!(error(&ask("hi", 4, "(a|b)*a(a|b){15}")), ConstraintTooLarge { max: 1_024 }.abi_encode());
    assert_eq!(error(&ask("hi", 4, "")), BadCalldata {}.abi_encode());
    assert_eq!(
        error(&IAsker::chooseCall { prompt: "hi".into(), options: vec![] }),
        BadCalldata {}.abi_encode()
    );
    // The embedded model translates; it does not chat.
    let refused = |selector: [u8; 4]| NotSupported { selector: selector.into() }.abi_encode();
    let chat = IAsker::chatCall { system: "be kind".into(), content: "hi".into() };
    assert_eq!(error(&chat), refused(generateChatCall::SELECTOR));
    assert_eq!(
        error(&IAsker::tokenizeChatCall { content: "hi".into() }),
        refused(tokenizeChatCall::SELECTOR)
    );
    for digits in [0, 78] {
        let call = IAsker::askNumberCall { prompt: "hi".into(), digits };
        assert_eq!(error(&call), BadConstraint { position: 0 }.abi_encode());
    }
    let long = "x".repeat(300);
    let too_long = error(&IAsker::chooseCall { prompt: "hi".into(), options: listed(&[&long]) });
    assert_eq!(too_long[..4], TooManyNewTokens::SELECTOR, "the context is shorter than the option");
}
