//! The author's road by the program alone: publish, register, activate, ask, earn, end, on a chain that runs here.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use metis_models::fixture::Fixture;
use metisvm::devnet::{ACCOUNTS, KEYS};
use serde_json::Value;

mod nodes;

use nodes::{Devnet, Proxy, Reply};

const KEY: &str = "METISVM_TEST_KEY";

impl Devnet {
    /// Runs a command of the program as an account of the chain.
    fn run(&self, account: usize, arguments: &[&str]) -> Output {
        let asks = matches!(arguments[0], "status" | "earnings");
        let more: &[&str] = if asks { &[] } else { &["--yes"] };
        model(&self.url, account, &[arguments, more].concat())
    }

    /// A command that must succeed; its last JSON document.
    fn ok(&self, account: usize, arguments: &[&str]) -> Value {
        let output = self.run(account, arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{arguments:?}: {text}"))
    }

    /// A command that must fail; what it says.
    fn fails(&self, account: usize, arguments: &[&str]) -> String {
        let output = self.run(account, arguments);
        failure(&output, account)
    }
}

/// Runs `metisvm model` against a node, with an account's key for commands that send.
fn model(url: &str, account: usize, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metisvm"));
    command.args(["--json", "model"]).args(arguments).args(["--rpc", url]).stdin(Stdio::null());
    if !matches!(arguments[0], "status" | "earnings") {
        command.args(["--key-env", KEY]).env(KEY, KEYS[account]);
    }
    command.output().unwrap()
}

/// What a command that must fail says. It may not show a key.
fn failure(output: &Output, account: usize) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it succeeded: {said}");
    for shown in [&said, &*String::from_utf8_lossy(&output.stdout)] {
        assert!(!shown.contains(&KEYS[account][2..]), "a key was shown: {shown}");
    }
    said
}

/// Makes the bundle of a small random model in `folder`; its id.
fn bundle(folder: &Path) -> String {
    let checkpoint = tempfile::tempdir().unwrap();
    let parts = Fixture::default().bundle(checkpoint.path()).unwrap();
    parts.write(folder).unwrap();
    parts.id().to_string()
}

#[test]
fn author_earns_from_a_model_and_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, bundles, records) =
        (folder.path().join("mine"), folder.path().join("models"), folder.path().join("records"));
    let id = bundle(&mine);
    let [mine, records_path] = [&mine, &records].map(|path| path.to_str().unwrap());
    let chain = folder.path().join("chain.toml");
    let text = "chain_id = 7\ntx_gas_cap = 500_000_000\n[registry]\nmaturity_seconds = 20\nnotice_seconds = 30\n[market]\nmin_base_fee = 3_000_000_000\n";
    std::fs::write(&chain, text).unwrap();
    let devnet = Devnet::start(&["--chain", chain.to_str().unwrap(), "--records", records_path]);

    // Nobody knows it yet.
    assert!(devnet.fails(0, &["status", &id]).contains("is not registered on chain 7"));
    let dry = devnet.ok(0, &["register", mine, "--licence", "MIT", "--dry-run"]);
    assert_eq!(dry["dry_run"], true);
    assert!(devnet.fails(0, &["status", &id]).contains("is not registered"), "a dry run sends nothing");
    let price = ["--per-call", "0.5gwei", "--per-gas", "3"];
    let terms =
        [&["register", mine, "--licence", "MIT", "--uri", "https://models.example"][..], &price].concat();
    let registered = devnet.ok(0, &terms);
    assert_eq!(registered["model"], id);
    assert!(devnet.fails(1, &terms).contains("is registered on chain 7 already"));
    let status = devnet.ok(0, &["status", &id]);
    assert_eq!((&status["status"], &status["callable"]), (&"pending".into(), &false.into()));

    // It matures; the chain has not got the bundle, and says how to get it.
    let early = devnet.fails(0, &["activate", &id, "--days", "3"]);
    assert!(early.contains("NotMature"), "{early}");
    devnet.rpc("evm_increaseTime", serde_json::json!([30]));
    let missing = devnet.fails(0, &["activate", &id, "--days", "3"]);
    assert!(missing.contains(&format!("metisvm model fetch {id}")), "{missing}");
    std::fs::create_dir(&bundles).unwrap();
    let copy = bundles.join(&id);
    std::fs::create_dir(&copy).unwrap();
    for file in ["manifest.json", "weights.safetensors", "tokenizer.json"] {
        std::fs::copy(Path::new(mine).join(file), copy.join(file)).unwrap();
    }
    assert!(devnet.fails(1, &["activate", &id, "--days", "3"]).contains("NotModelOwner"));
    devnet.ok(0, &["activate", &id, "--days", "3"]);
    assert!(devnet.fails(0, &["activate", &id, "--days", "1"]).contains("to pay for 1 more days: --extend"));
    assert_eq!(devnet.ok(0, &["activate", &id, "--days", "1", "--extend"])["extended"], true);
    assert_eq!(devnet.ok(0, &["status", &id])["callable"], true);

    // Somebody asks and pays, and the author gets it.
    let asked = devnet.ok(1, &["ask", &id, "--prompt", "once", "--max-new", "5"]);
    assert_eq!(asked["tokens"].as_array().unwrap().len(), 5);
    let wei = |value: &Value| u128::from_str_radix(&value.as_str().unwrap()[2..], 16).unwrap();
    let (price, gas) = (wei(&asked["price_wei"]), wei(&asked["inference_gas"]));
    assert_eq!(price, 500_000_000 + 3 * gas);
    assert!(gas <= asked["quoted_gas"].as_u64().unwrap().into());
    let earnings = devnet.ok(1, &["earnings", &id]);
    assert_eq!((wei(&earnings["settled"]), &earnings["settlements"]), (price, &1.into()));
    let pending = wei(&earnings["tokens"][0]["pending"]);
    // A node that keeps its logs to itself does not hide the tokens.
    let silent = Proxy::before(&devnet, |method, _| match method {
        "eth_getLogs" => Reply::Error("too many blocks".into()),
        _ => Reply::Forward,
    });
    let output = model(&silent.url, 1, &["earnings", &id]);
    let part: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&part["settled"], &part["tokens"]), (&Value::Null, &earnings["tokens"]));
    assert!(price - pending <= 6_000);
    assert!(devnet.fails(2, &["claim", &id]).contains("has no token of model"));
    let claimed = devnet.ok(0, &["claim", &id, "--to", &ACCOUNTS[9].to_string()]);
    assert_eq!(wei(&claimed["claimed"]), pending);
    assert!(devnet.fails(0, &["claim", &id]).contains("nothing to pay out yet"));
    let balance = devnet.rpc("eth_getBalance", serde_json::json!([ACCOUNTS[9], "latest"]));
    assert_eq!(wei(&balance["result"]), 10_000_000_000_000_000_000_000 + pending);

    // A validator re-executes the paid call; one without the bundle stops and says what to do.
    let block = devnet.rpc("eth_getTransactionReceipt", serde_json::json!([asked["transaction"]]));
    let number = wei(&block["result"]["blockNumber"]);
    let spent = {
        let left = devnet.rpc("eth_getBalance", serde_json::json!([ACCOUNTS[1], "latest"]));
        10_000_000_000_000_000_000_000 - price - wei(&left["result"])
    };
    let (used, each) = (wei(&block["result"]["gasUsed"]), wei(&block["result"]["effectiveGasPrice"]));
    assert!((used * (each - 1)..=used * each).contains(&spent), "{spent} for {used} gas, {each} each");
    let record = records.join(format!("block-{number}.json"));
    let verify = |chain: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metisvm"));
        command
            .args(["verify", record.to_str().unwrap(), "--chain", chain.to_str().unwrap()])
            .output()
            .unwrap()
    };
    let verified = verify(&chain);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let other = elsewhere.join("chain.toml");
    std::fs::write(&other, text).unwrap();
    let stopped = verify(&other);
    assert!(!stopped.status.success());
    let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(said.contains(&id) && said.contains("metisvm model fetch"), "{said}");

    let changed = devnet.ok(0, &["price", &id, "--per-call", "1gwei"]);
    assert_eq!((wei(&changed["per_call_wei"]), &changed["per_gas_wei"]), (1_000_000_000, &3.into()));
    devnet.ok(0, &["price", &id, "--per-call", "0", "--per-gas", "0"]);
    devnet.ok(0, &["deprecate", &id]);
    assert!(devnet.fails(0, &["withdraw", &id]).contains("RentPaid"));
    devnet.rpc("evm_increaseTime", serde_json::json!([31]));
    assert!(devnet.fails(1, &["ask", &id, "--prompt", "once"]).contains("ModelNotActive"));
    devnet.ok(0, &["withdraw", &id]);
    let status = devnet.ok(0, &["status", &id]);
    assert_eq!((&status["status"], &status["bond_wei"]), (&"deprecated".into(), &"0x0".into()));
}

#[test]
fn author_mistakes_are_named_and_keys_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine");
    let id = bundle(&mine);
    let mine = mine.to_str().unwrap();
    let program = |arguments: &[&str], key: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metisvm"));
        command.arg("model").args(arguments).env_remove(KEY);
        if let Some(key) = key {
            command.env(KEY, key);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    };
    let nowhere = ["--rpc", "http://127.0.0.1:9"];
    let with = |more: &[&'static str]| -> Vec<String> {
        let command = [&["deprecate", &id][..], &nowhere, more].concat();
        command.into_iter().map(str::to_owned).collect()
    };
    let said = |more: &[&'static str], key: Option<&str>| {
        let arguments = with(more);
        program(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), key)
    };
    assert!(said(&["--key-env", KEY], None).contains("there is no such environment variable"));
    let secret = "not-a-key-but-a-secret";
    let refused = said(&["--key-env", KEY], Some(secret));
    assert!(refused.contains("does not hold a private key") && !refused.contains(secret), "{refused}");
    assert!(said(&[], None).contains("--key-env"), "one of them is required");
    assert!(said(&["--keystore", "/nowhere", "--password-env", KEY], Some("x")).contains("/nowhere"));
    let unreachable = said(&["--key-env", KEY], Some(KEYS[0]));
    assert!(unreachable.contains("--rpc http://127.0.0.1:9"), "{unreachable}");

    // A chain without a registry, money that is not there, a bundle that is none.
    let chain = folder.path().join("plain.toml");
    std::fs::write(&chain, "chain_id = 3\n").unwrap();
    let plain = Devnet::start(&["--chain", chain.to_str().unwrap()]);
    assert!(plain.fails(0, &["deprecate", &id]).contains("chain 3 has no model registry"));
    let devnet = Devnet::start(&["--bundles", folder.path().to_str().unwrap()]);
    assert!(devnet.fails(0, &["register", "/nowhere", "--licence", "MIT"]).contains("bundle /nowhere"));
    let poor = Command::new(env!("CARGO_BIN_EXE_metisvm"))
        .args([
            "model",
            "register",
            mine,
            "--licence",
            "MIT",
            "--rpc",
            &devnet.url,
            "--key-env",
            KEY,
            "--yes",
        ])
        .env(KEY, format!("0x{}", "11".repeat(32)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&poor.stderr).into_owned();
    assert!(!poor.status.success() && said.contains("has 0 coins on chain 59001 and needs"), "{said}");
    assert!(devnet.fails(0, &["register", mine, "--licence", ""]).contains("--licence has 0 bytes"));
    let parent = format!("0x{}", "12".repeat(32));
    let orphan = devnet.fails(0, &["register", mine, "--licence", "MIT", "--parent", &parent]);
    assert!(orphan.contains("no such model is registered"), "{orphan}");
    assert!(devnet.fails(0, &["withdraw", &id]).contains("is not deprecated"));
    assert!(devnet.fails(0, &["activate", &id, "--days", "1", "--extend"]).contains("is not active"));
    assert!(devnet.fails(0, &["earnings", &id]).contains("is not registered on chain 59001"));
    let own = metis_default_model::bundle().unwrap().id().to_string();
    let said = devnet.fails(0, &["status", &own]);
    assert!(said.contains("configuration"), "{said}");
}

#[test]
fn author_tools_get_what_they_expect_of_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let devnet = Devnet::start(&["--bundles", folder.path().to_str().unwrap()]);
    let json = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    assert_eq!(devnet.rpc("eth_chainId", json("[]"))["result"], "0xe679");
    assert_eq!(devnet.rpc("eth_blockNumber", json("[]"))["result"], "0x0");
    devnet.rpc("evm_mine", json("[]"));
    let block = devnet.rpc("eth_getBlockByNumber", json(r#"["latest", true]"#));
    assert_eq!((&block["result"]["number"], &block["result"]["transactions"]), (&"0x1".into(), &json("[]")));
    let by_hash = devnet.rpc("eth_getBlockByHash", serde_json::json!([block["result"]["hash"], false]));
    assert_eq!(by_hash["result"]["number"], "0x1");
    let history = devnet.rpc("eth_feeHistory", json(r#"["0x2", "latest", [50]]"#));
    assert_eq!(history["result"]["baseFeePerGas"].as_array().unwrap().len(), 3);
    let past = devnet.rpc("eth_getBalance", serde_json::json!([ACCOUNTS[0], "0x0"]));
    assert!(past["error"]["message"].as_str().unwrap().contains("last block only"));
    for (method, params, says) in [
        ("eth_sendRawTransaction", r#"["0x1234"]"#, "not a signed transaction"),
        ("eth_sendRawTransaction", "[]", "argument 1 is missing"),
        ("eth_getBalance", r#"["nobody"]"#, "argument 1"),
        ("eth_getBalance", r#"{"a": 1}"#, "Invalid params"),
        ("eth_feeHistory", r#"["0x2", "latest", [101]]"#, "percentiles"),
        ("evm_increaseTime", "[1099511627776]", "ahead of the clock"),
        (
            "eth_call",
            r#"[{}, "latest", {"0x0000000000000000000000000000000000000001": {"balance": "0x1"}}]"#,
            "overridden",
        ),
        ("eth_sendTransaction", r#"[{"from": "0x0000000000000000000000000000000000000001"}]"#, "has no key"),
        ("eth_sendTransaction", r#"[{"value": "0x1"}]"#, "`from` is missing"),
        ("eth_nothing", "[]", "Method not found"),
    ] {
        let answer = devnet.rpc(method, json(params));
        let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{method}: {answer}"));
        assert!(message.contains(says), "{method}: {message}");
    }
    // A revert has its data, and its name.
    let call = serde_json::json!([{ "to": "0x000000000000000000000000000000000000A100", "input": "0x01020304" }, "latest"]);
    let answer = devnet.rpc("eth_call", call);
    assert_eq!((&answer["error"]["code"], &answer["error"]["data"]), (&3.into(), &"0x1a2e1594".into()));
    assert!(answer["error"]["message"].as_str().unwrap().contains("BadCalldata()"));
    // Accounts of the node send without a key, and what they pay is seen.
    let sent = serde_json::json!([{ "from": ACCOUNTS[0], "to": ACCOUNTS[1], "value": "0x5" }]);
    let hash = devnet.rpc("eth_sendTransaction", sent)["result"].clone();
    let receipt = devnet.rpc("eth_getTransactionReceipt", serde_json::json!([hash]));
    assert_eq!(
        (&receipt["result"]["status"], &receipt["result"]["gasUsed"]),
        (&"0x1".into(), &"0x5208".into())
    );
    // No receiver: a contract is made, here one without code.
    let made = serde_json::json!([{ "from": ACCOUNTS[0], "data": "0x00" }]);
    let hash = devnet.rpc("eth_sendTransaction", made)["result"].clone();
    let receipt = devnet.rpc("eth_getTransactionReceipt", serde_json::json!([hash]));
    assert_eq!(
        (&receipt["result"]["status"], receipt["result"]["contractAddress"].is_string()),
        (&"0x1".into(), true)
    );
    // An estimate fits what a transaction can have, and what its sender can pay.
    let plain = serde_json::json!([{ "from": ACCOUNTS[0], "to": ACCOUNTS[1], "gasPrice": "0x3b9aca00" }]);
    assert_eq!(devnet.rpc("eth_estimateGas", plain)["result"], "0x5208");
    let poor = serde_json::json!([{ "from": format!("0x{}", "11".repeat(20)), "to": ACCOUNTS[1], "gasPrice": "0x3b9aca00" }]);
    assert!(devnet.rpc("eth_estimateGas", poor)["error"].is_object());
}

#[test]
fn author_sends_only_what_was_agreed() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine");
    let id = bundle(&mine);
    let register = ["register", mine.to_str().unwrap(), "--licence", "MIT"];
    let devnet = Devnet::start(&["--bundles", folder.path().to_str().unwrap()]);
    let with = |url: &str, more: &[&str]| model(url, 0, &[&register[..], more].concat());
    let nonce = || devnet.rpc("eth_getTransactionCount", serde_json::json!([ACCOUNTS[0]]))["result"].clone();

    assert!(failure(&with(&devnet.url, &[]), 0).contains("give --yes, or --max-cost AMOUNT"));
    assert!(failure(&with(&devnet.url, &["--max-cost", "1coin"]), 0).contains("more than --max-cost 1"));
    let other = failure(&with(&devnet.url, &["--yes", "--chain-id", "1"]), 0);
    assert!(other.contains("the node's chain is 59001, not --chain-id 1"), "{other}");
    let greedy = Proxy::before(&devnet, |method, _| match method {
        "eth_estimateGas" => Reply::Result("0xffffffffffffffff".into()),
        _ => Reply::Forward,
    });
    let refused = failure(&with(&greedy.url, &["--yes"]), 0);
    assert!(refused.contains("it needs 18446744073709551615 gas, and a block has"), "{refused}");
    assert_eq!(nonce(), "0x0", "nothing was sent");

    // The chain that a node names is the one that is signed for: another refuses it.
    let liar = Proxy::before(&devnet, |method, _| match method {
        "eth_chainId" => Reply::Result("0x1".into()),
        _ => Reply::Forward,
    });
    let refused = failure(&with(&liar.url, &["--yes"]), 0);
    assert!(refused.contains("signed for chain 1, and this is chain 59001"), "{refused}");

    // An answer that is lost does not lose the transaction, which is named; the next attempt goes on from there.
    let lost = Proxy::before(&devnet, |method, _| match method {
        "eth_sendRawTransaction" => Reply::ForwardAndHangUp,
        _ => Reply::Forward,
    });
    let said = failure(&with(&lost.url, &["--yes"]), 0);
    assert!(said.contains("may have been sent"), "{said}");
    let hash = said.split_whitespace().find(|word| word.starts_with("0x") && word.len() == 66);
    let found = devnet.rpc("eth_getTransactionByHash", serde_json::json!([hash.unwrap()]));
    assert_eq!(found["result"]["nonce"], "0x0", "{found}");
    let registered = devnet.ok(0, &[&register[..], &["--max-cost", "10coins"]].concat());
    assert_eq!(registered["model"], id);
    assert_eq!(nonce(), "0x2", "it was announced once");
    // So may one be that is refused after it has been passed on.
    let late = Proxy::before(&devnet, |method, _| match method {
        "eth_sendRawTransaction" => Reply::ForwardAndRefuse("request timed out".into()),
        _ => Reply::Forward,
    });
    let said = failure(&model(&late.url, 0, &["price", &id, "--per-gas", "2", "--yes"]), 0);
    assert!(said.contains("may have been sent (the node says: request timed out)"), "{said}");
    assert_eq!(nonce(), "0x3");
}

#[test]
fn author_gets_a_reason_from_nodes_that_do_not_answer() {
    let devnet = Devnet::start(&["--bundles", "/nowhere"]);
    let id = format!("0x{}", "ab".repeat(32));
    let price = ["price", &id, "--per-call", "1", "--yes", "--timeout", "2"];
    for (method, reply, says) in [
        ("eth_chainId", Reply::Raw("HTTP/1.1 200 OK\r\n\r\n<html>".into()), "is not JSON-RPC"),
        ("eth_chainId", Reply::Raw("HTTP/1.1 502 Bad Gateway\r\n\r\n".into()), "the server answers 502"),
        (
            "eth_chainId",
            Reply::Raw("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9\r\n\r\n".into()),
            "302",
        ),
        ("eth_chainId", Reply::Result("many".into()), "is this the address of a node?"),
        ("eth_getCode", Reply::Result("0x".into()), "has no model registry"),
        ("eth_getCode", Reply::Flood, "more than 32 MiB"),
        ("eth_getCode", Reply::Silence, "nothing came for 2 s"),
        ("eth_estimateGas", Reply::Error("no\u{1b}[2Jway\nreally".into()), "no\\u{1b}[2Jway\\nreally"),
        ("eth_estimateGas", Reply::Forward, "setPrice: it would revert with NotRegistered("),
    ] {
        let proxy = Proxy::before(
            &devnet,
            move |asked, _| if asked == method { reply.clone() } else { Reply::Forward },
        );
        let said = failure(&model(&proxy.url, 0, &price), 0);
        assert!(said.contains(says), "{method}: {said}");
    }
}

#[test]
fn author_waits_for_a_block_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine");
    bundle(&mine);
    let devnet = Devnet::start(&["--bundles", folder.path().to_str().unwrap()]);
    let slow = Proxy::before(&devnet, |method, _| match method {
        "eth_getTransactionReceipt" => Reply::Result(Value::Null),
        _ => Reply::Forward,
    });
    let register = ["register", mine.to_str().unwrap(), "--licence", "MIT", "--yes", "--timeout", "1"];
    let said = failure(&model(&slow.url, 0, &register), 0);
    assert!(said.contains("was sent, and is in no block after 1 s"), "{said}");
}

#[test]
fn author_is_told_when_a_record_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, records) = (folder.path().join("mine"), folder.path().join("records"));
    bundle(&mine);
    let mut devnet = Devnet::start(&["--records", records.to_str().unwrap()]);
    std::fs::remove_dir(&records).unwrap();
    let said = devnet.fails(0, &["register", mine.to_str().unwrap(), "--licence", "MIT"]);
    assert!(said.contains("its record cannot be written"), "{said}");
    assert!(!devnet.process.wait().unwrap().success(), "the chain goes on without its records");
}
