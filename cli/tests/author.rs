//! The author's road by the program alone: publish, register, activate, ask, earn, end, on a chain that runs here.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use metis_models::fixture::Fixture;
use metisvm::devnet::{ACCOUNTS, KEYS};
use serde_json::Value;

const KEY: &str = "METISVM_TEST_KEY";

/// A chain in a process of its own.
struct Devnet {
    process: Child,
    url: String,
}

impl Devnet {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metisvm"));
        command.args(["devnet", "--json", "--listen", "127.0.0.1:0"]).args(arguments);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        // One JSON document, which ends with a line of its own.
        let mut text = String::new();
        while !text.ends_with("\n}\n") {
            assert!(output.read_line(&mut text).unwrap() > 0, "the chain ended: {text}");
        }
        let value: Value = serde_json::from_str(&text).unwrap();
        Self { process, url: value["url"].as_str().unwrap().to_owned() }
    }

    fn rpc(&self, method: &str, params: Value) -> Value {
        let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let body = body.to_string();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"))
    }

    /// Runs a command of the program as an account of the chain.
    fn run(&self, account: usize, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metisvm"));
        command.args(["--json", "model"]).args(arguments).args(["--rpc", &self.url]);
        if !matches!(arguments[0], "status" | "earnings") {
            command.args(["--key-env", KEY]).env(KEY, KEYS[account]);
        }
        command.output().unwrap()
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
        assert!(!output.status.success(), "{arguments:?} succeeded");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains(&KEYS[account][2..]), "a key was shown: {said}");
        said
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
    let text = "chain_id = 7\ntx_gas_cap = 500_000_000\n[registry]\nmaturity_seconds = 20\nnotice_seconds = 30\n[market]\n";
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
    assert_eq!(devnet.ok(0, &["activate", &id, "--days", "1"])["extended"], true);
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
    assert!(price - pending <= 6_000);
    assert!(devnet.fails(2, &["claim", &id]).contains("no such token"));
    let claimed = devnet.ok(0, &["claim", &id, "--to", &ACCOUNTS[9].to_string()]);
    assert_eq!(wei(&claimed["claimed"]), pending);
    assert!(devnet.fails(0, &["claim", &id]).contains("nothing to pay out yet"));
    let balance = devnet.rpc("eth_getBalance", serde_json::json!([ACCOUNTS[9], "latest"]));
    assert_eq!(wei(&balance["result"]), 10_000_000_000_000_000_000_000 + pending);

    // A validator re-executes the paid call; one without the bundle stops and says what to do.
    let block = devnet.rpc("eth_getTransactionReceipt", serde_json::json!([asked["transaction"]]));
    let number = wei(&block["result"]["blockNumber"]);
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

    devnet.ok(0, &["price", &id, "--per-call", "0"]);
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
        .args(["model", "register", mine, "--licence", "MIT", "--rpc", &devnet.url, "--key-env", KEY])
        .env(KEY, format!("0x{}", "11".repeat(32)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&poor.stderr).into_owned();
    assert!(!poor.status.success() && said.contains("has 0 coins on chain 59001 and needs"), "{said}");
    assert!(devnet.fails(0, &["register", mine, "--licence", ""]).contains("WrongText"));
    assert!(devnet.fails(0, &["earnings", &id]).contains("is not registered on chain 59001"));
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
        ("eth_getBalance", r#"{"a": 1}"#, ""),
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
}
