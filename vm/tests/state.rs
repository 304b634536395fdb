//! States as text and as digests.
#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its failure report")]

use alloy_primitives::{Address, B256, Bytes, U256, address, bytes};
use metis_vm::{Account, State, state::Problem};
use proptest::{collection, prelude::*};
use std::collections::BTreeMap;

const AA: Address = address!("00000000000000000000000000000000000000aa");

fn error(text: &str) -> (usize, Option<String>, Option<String>, Problem) {
    let error = State::from_json(text).unwrap_err();
    (error.line, error.account, error.field, error.problem)
}

#[test]
fn all_ways_to_write_a_number_are_read() {
    let state = State::from_json(
        r#"{
            "0x00000000000000000000000000000000000000AA": {
                "balance": "1000", "nonce": "0x10", "code": "0x6000",
                "storage": {"0x01": "0xff", "2": 3}
            },
            "0x00000000000000000000000000000000000000bb": {"balance": 7, "nonce": 18446744073709551615},
            "0x00000000000000000000000000000000000000cc": {}
        }"#,
    )
    .unwrap();
    let storage = BTreeMap::from([(U256::from(1), U256::from(255)), (U256::from(2), U256::from(3))]);
    let aa = Account { balance: U256::from(1000), nonce: 16, code: bytes!("6000"), storage };
    assert_eq!(state.accounts[&AA], aa);
    assert_eq!(state.accounts[&Address::with_last_byte(0xbb)].nonce, u64::MAX);
    assert!(state.accounts[&Address::with_last_byte(0xcc)].is_empty());
}

#[test]
fn an_error_names_its_account_its_field_and_its_line() {
    let account = |body: &str| format!("{{\n\"0x00000000000000000000000000000000000000aa\":\n{body}\n}}");
    let (aa, field) =
        (Some("0x00000000000000000000000000000000000000aa".to_owned()), |f: &str| Some(f.to_owned()));

    let (line, at, in_field, problem) = error(&account(r#"{"balance": "12x"}"#));
    assert_eq!((line, at, in_field), (3, aa.clone(), field("balance")));
    assert!(matches!(problem, Problem::NotANumber(_)));

    let cases = [
        (r#"{"balanc": 1}"#, "balanc", Problem::UnknownField),
        (r#"{"nonce": 1, "nonce": 1}"#, "nonce", Problem::DuplicateField),
        (r#"{"code": "6000"}"#, "code", Problem::NotHex),
        (r#"{"code": "0x600"}"#, "code", Problem::NotHex),
        (r#"{"code": "0x0x60"}"#, "code", Problem::NotHex),
        (r#"{"storage": {"0x1": 1, "0x01": 1}}"#, "storage[0x01]", Problem::DuplicateSlot),
    ];
    for (body, name, problem) in cases {
        assert_eq!(error(&account(body)), (3, aa.clone(), field(name), problem), "{body}");
    }
    for (body, name) in [
        (r#"{"balance": -1}"#, "balance"),
        (r#"{"balance": 1.5}"#, "balance"),
        (r#"{"nonce": "18446744073709551616"}"#, "nonce"),
        (r#"{"storage": {"x": 1}}"#, "storage[x]"),
        (r#"{"storage": {"1": null}}"#, "storage[1]"),
        (r#"{"storage": []}"#, "storage"),
    ] {
        let (line, at, in_field, _) = error(&account(body));
        assert_eq!((line, at, in_field), (3, aa.clone(), field(name)), "{body}");
    }
    let text = State::from_json(&account(r#"{"balance": "12x"}"#)).unwrap_err().to_string();
    assert_eq!(
        text,
        "line 3, column 17: account 0x00000000000000000000000000000000000000aa, field balance: \
         expected a number: 0x and hexadecimal digits, or decimal digits"
    );
}

#[test]
fn addresses_are_whole_and_unique() {
    for bad in [
        "aa",
        "0xaa",
        "0x00000000000000000000000000000000000000zz",
        "0x0x000000000000000000000000000000000000aa",
    ] {
        let (line, at, field, problem) = error(&format!("{{\n\"{bad}\": {{}}}}"));
        assert_eq!((line, at, field, problem), (2, Some(bad.to_owned()), None, Problem::NotAnAddress));
    }
    let twice = r#"{"0x00000000000000000000000000000000000000aa": {}, "0x00000000000000000000000000000000000000AA": {}}"#;
    assert_eq!(error(twice).3, Problem::DuplicateAccount);
    for bad in ["", "[]", "{", "{}x", "null", r#"{"0x00000000000000000000000000000000000000aa": 1}"#] {
        assert!(matches!(error(bad).3, Problem::Json(_)), "{bad}");
    }
}

#[test]
fn the_text_is_canonical() {
    let account = Account {
        balance: U256::from(16),
        nonce: 2,
        code: bytes!("00"),
        storage: BTreeMap::from([
            (U256::from(256), U256::from(1)),
            (U256::from(2), U256::from(1)),
            (U256::from(3), U256::ZERO),
        ]),
    };
    let text = State::from_iter([(address!("Ab5801a7D398351b8bE11C439e05C5B3259aeC9B"), account)]).to_json();
    let word = |n: u64| B256::from(U256::from(n)).to_string();
    let expected = format!(
        r#"{{
  "0xab5801a7d398351b8be11c439e05c5b3259aec9b": {{
    "balance": "0x10",
    "nonce": 2,
    "code": "0x00",
    "storage": {{
      "{}": "{}",
      "{}": "{}"
    }}
  }}
}}"#,
        word(2),
        word(1),
        word(256),
        word(1)
    );
    assert_eq!(text, expected);
}

fn any_account() -> impl Strategy<Value = Account> {
    let word = prop_oneof![
        Just(U256::ZERO),
        any::<[u8; 32]>().prop_map(U256::from_be_bytes),
        (0u64..4).prop_map(U256::from)
    ];
    let code = collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    (word.clone(), 0u64..3, code, collection::btree_map(word.clone(), word, 0..6))
        .prop_map(|(balance, nonce, code, storage)| Account { balance, nonce, code, storage })
}

fn any_accounts() -> impl Strategy<Value = Vec<(Address, Account)>> {
    let address = any::<[u8; 20]>().prop_map(Address::from);
    collection::btree_map(address, any_account(), 0..8).prop_map(|map| map.into_iter().collect())
}

/// The state without what does not count.
fn normal(state: &State) -> State {
    let strip = |account: &Account| Account { storage: account.slots().collect(), ..account.clone() };
    state
        .accounts
        .iter()
        .map(|(a, account)| (*a, strip(account)))
        .filter(|(_, account)| !account.is_empty())
        .collect()
}

proptest! {
    #[test]
    fn the_text_gives_the_state_back(accounts in any_accounts()) {
        let state = State::from_iter(accounts);
        let back = State::from_json(&state.to_json()).unwrap();
        prop_assert_eq!(normal(&back), normal(&state));
        prop_assert_eq!(back.to_json(), state.to_json());
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_insertion(
        (sorted, shuffled) in any_accounts().prop_flat_map(|a| (Just(a.clone()), Just(a).prop_shuffle()))
    ) {
        let digest = State::from_iter(sorted).digest();
        prop_assert_eq!(State::from_iter(shuffled.clone()).digest(), digest);
        let mut grown = State::default();
        let mut vm = metis_vm::EvmBuilder::new().build(revm::handler::EthPrecompiles::new(Default::default()));
        for (address, account) in shuffled {
            vm.set_account(address, &account);
            grown.overlay(State::from_iter([(address, account)]));
        }
        prop_assert_eq!(grown.digest(), digest);
        prop_assert_eq!(vm.state().digest(), digest, "through revm's hash maps");
    }

    #[test]
    fn equal_digests_mean_equal_states(a in any_accounts(), b in any_accounts()) {
        let (a, b) = (State::from_iter(a), State::from_iter(b));
        prop_assert_eq!(a.digest() == b.digest(), normal(&a) == normal(&b));
        prop_assert_eq!(normal(&a).digest(), a.digest());
    }

    #[test]
    fn no_text_panics(text in "[\\{\\}\":,0-9a-fx ]{0,60}") {
        let _ = State::from_json(&text);
    }
}
