//! Shares and quotas: every revert, and the holes of the draft that are closed.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is its report")]

use alloy_primitives::{Address, B256, Bytes, U256, hex};
use alloy_sol_types::{SolCall, SolValue, sol};
use metis_precompiles::{REGISTRY_ADDRESS, SHARES_ADDRESS};
use metis_tests::economy::{AUTHOR, DAY, Economy, STRANGER, USER};
use metis_vm::{Account, Transaction};
use metisvm::artifacts;
use metisvm::contracts::Shares;

sol! {
    interface IToken {
        function mint(address to, uint256 amount) external;
        function approve(address spender, uint256 amount) external returns (bool);
    }
}

const NOTHING: U256 = U256::ZERO;
const ETHER: Address = Address::ZERO;

/// A chain, and a class that the author controls.
fn chain() -> (Economy, U256) {
    let mut chain = Economy::new(|_| {}).unwrap();
    let class = create(&mut chain, AUTHOR);
    (chain, class)
}

fn create(chain: &mut Economy, controller: Address) -> U256 {
    let create = Shares::createClassCall {
        metadataURI: "ipfs://meta".into(),
        integrityHash: B256::repeat_byte(1),
        unitDecimals: 3,
        policyURI: "ipfs://policy".into(),
    };
    chain.ok(controller, SHARES_ADDRESS, NOTHING, &create).unwrap().1
}

fn minting(class: U256, to: Address, value: u64, share: u64, expire_at: u64) -> Shares::mintCall {
    let (value, share) = (U256::from(value), U256::from(share));
    Shares::mintCall { classId: class, to, value, shareRatio: share, expireAt: expire_at }
}

fn mint(chain: &mut Economy, class: U256, to: Address, share: u64, expire_at: u64) -> U256 {
    chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &minting(class, to, 100, share, expire_at)).unwrap().1
}

fn settle(chain: &mut Economy, class: U256, amount: u64) {
    let call = Shares::settleRevenueETHCall { classId: class };
    chain.ok(USER, SHARES_ADDRESS, U256::from(amount), &call).unwrap();
}

fn pending(chain: &mut Economy, token: U256) -> u64 {
    let call = Shares::pendingRevenueCall { tokenId: token, asset: ETHER };
    chain.view(SHARES_ADDRESS, &call).unwrap().to()
}

#[test]
fn a_new_token_earns_nothing_of_what_came_before_it() {
    let (mut chain, class) = chain();
    let first = mint(&mut chain, class, AUTHOR, 100, 0);
    settle(&mut chain, class, 1_000);
    let second = mint(&mut chain, class, USER, 100, 0);
    assert_eq!((pending(&mut chain, first), pending(&mut chain, second)), (1_000, 0));
    settle(&mut chain, class, 1_000);
    assert_eq!((pending(&mut chain, first), pending(&mut chain, second)), (1_500, 500));
}

#[test]
fn what_expires_earns_no_more_and_dilutes_nobody() {
    let (mut chain, class) = chain();
    let forever = mint(&mut chain, class, AUTHOR, 100, 0);
    let end = chain.time() + DAY;
    let days = mint(&mut chain, class, USER, 300, end);
    settle(&mut chain, class, 1_000);
    assert_eq!((pending(&mut chain, forever), pending(&mut chain, days)), (250, 750));
    // In its last second it still counts.
    chain.wait(DAY);
    settle(&mut chain, class, 1_000);
    assert_eq!((pending(&mut chain, forever), pending(&mut chain, days)), (500, 1_500));
    chain.wait(1);
    assert_eq!(
        chain.view(SHARES_ADDRESS, &Shares::totalShareOfCall { classId: class }).unwrap(),
        U256::from(100)
    );
    settle(&mut chain, class, 1_000);
    assert_eq!((pending(&mut chain, forever), pending(&mut chain, days)), (1_500, 1_500));
    // What it has earned stays its owner's, however late they come.
    chain.wait(1_000 * DAY);
    let claim = Shares::claimCall { tokenId: days, asset: ETHER, to: USER };
    assert_eq!(chain.ok(USER, SHARES_ADDRESS, NOTHING, &claim).unwrap().1, U256::from(1_500));
    assert_eq!(chain.ok(USER, SHARES_ADDRESS, NOTHING, &claim).unwrap().1, NOTHING);
    // The cap has room again.
    mint(&mut chain, class, USER, 9_900, 0);
}

#[test]
fn only_owners_and_who_they_approved_claim_and_operators_only_to_the_owner() {
    let (mut chain, class) = chain();
    let token = mint(&mut chain, class, USER, 100, 0);
    settle(&mut chain, class, 1_000);
    let claim = |to| Shares::claimCall { tokenId: token, asset: ETHER, to };
    let refused = Shares::NotAuthorised { tokenId: token, caller: STRANGER };
    chain.reverts(STRANGER, SHARES_ADDRESS, NOTHING, &claim(STRANGER), &refused).unwrap();
    chain.reverts(STRANGER, SHARES_ADDRESS, NOTHING, &claim(USER), &refused).unwrap();
    let approve = Shares::approveForClassCall { classId: class, operator: STRANGER, approved: true };
    chain.ok(USER, SHARES_ADDRESS, NOTHING, &approve).unwrap();
    chain.reverts(STRANGER, SHARES_ADDRESS, NOTHING, &claim(STRANGER), &refused).unwrap();
    let approved = Shares::isApprovedForClassCall { owner: USER, classId: class, operator: STRANGER };
    assert!(chain.view(SHARES_ADDRESS, &approved).unwrap());
    assert_eq!(chain.ok(STRANGER, SHARES_ADDRESS, NOTHING, &claim(USER)).unwrap().1, U256::from(1_000));
    let nobody = Shares::BadToken { to: ETHER, expireAt: NOTHING };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &claim(ETHER), &nobody).unwrap();
}

#[test]
fn classes_have_one_controller() {
    let (mut chain, class) = chain();
    let not = Shares::NotController { classId: class, caller: USER };
    let hash = B256::repeat_byte(2);
    let metadata =
        Shares::updateClassMetadataCall { classId: class, metadataURI: "m".into(), integrityHash: hash };
    let policy = Shares::updateClassPolicyCall { classId: class, policyURI: "p".into() };
    let seal = Shares::sealClassCall { classId: class };
    let give = Shares::transferClassCall { classId: class, controller: USER };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &metadata, &not).unwrap();
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &policy, &not).unwrap();
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &seal, &not).unwrap();
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &give, &not).unwrap();
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &minting(class, USER, 1, 1, 0), &not).unwrap();
    chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &metadata).unwrap();
    chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &policy).unwrap();
    let meta = chain.view(SHARES_ADDRESS, &Shares::getClassMetaCall { classId: class }).unwrap();
    assert_eq!(
        (meta.metadataURI.as_str(), meta.integrityHash, meta.unitDecimals, meta.policyURI.as_str()),
        ("m", hash, 3, "p")
    );
    let nobody = Shares::transferClassCall { classId: class, controller: ETHER };
    let refused = Shares::NotController { classId: class, caller: ETHER };
    chain.reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &nobody, &refused).unwrap();
    chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &give).unwrap();
    chain.ok(USER, SHARES_ADDRESS, NOTHING, &seal).unwrap();
    assert!(chain.view(SHARES_ADDRESS, &Shares::isSealedCall { classId: class }).unwrap());
    let closed = Shares::Sealed { classId: class };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &minting(class, USER, 1, 1, 0), &closed).unwrap();
    // Quotas can still be made.
    chain.ok(USER, SHARES_ADDRESS, NOTHING, &minting(class, USER, 1, 0, 0)).unwrap();
    let unknown = Shares::UnknownClass { classId: U256::from(9) };
    chain
        .reverts(USER, SHARES_ADDRESS, NOTHING, &Shares::sealClassCall { classId: U256::from(9) }, &unknown)
        .unwrap();
}

#[test]
fn a_models_class_belongs_to_the_model() {
    let mut chain = Economy::new(|_| {}).unwrap();
    let model = chain.model(1).unwrap();
    let class = chain.register(&model, metis_tests::economy::free()).unwrap();
    let not_registry = Shares::NotRegistry { caller: AUTHOR };
    let give = Shares::transferClassCall { classId: class, controller: USER };
    chain.reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &give, &not_registry).unwrap();
    let reassign = Shares::reassignModelClassCall { classId: class, controller: AUTHOR };
    chain.reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &reassign, &not_registry).unwrap();
    let create = Shares::createModelClassCall {
        model: model.id,
        founder: AUTHOR,
        founderShare: 1,
        metadataURI: String::new(),
        policyURI: String::new(),
    };
    chain.reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &create, &not_registry).unwrap();
    let other = Shares::updateClassMetadataCall {
        classId: class,
        metadataURI: "https://elsewhere".into(),
        integrityHash: B256::ZERO,
    };
    chain
        .reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &other, &Shares::IntegrityFixed { classId: class })
        .unwrap();
    let moved = Shares::updateClassMetadataCall { integrityHash: model.id, ..other };
    chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &moved).unwrap();
    // The meter has no share, no end and no limit, and only the gateway reads it out.
    let meter = chain.view(SHARES_ADDRESS, &Shares::meterOfCall { classId: class }).unwrap();
    assert_eq!(chain.view(SHARES_ADDRESS, &Shares::shareRatioOfCall { tokenId: meter }).unwrap(), NOTHING);
    assert_eq!(chain.view(SHARES_ADDRESS, &Shares::valueOfCall { tokenId: meter }).unwrap(), U256::MAX);
    assert_eq!(chain.view(SHARES_ADDRESS, &Shares::expireAtOfCall { tokenId: meter }).unwrap(), 0);
    assert_eq!(pending(&mut chain, meter), 0);
    let usage = Shares::recordUsageCall { tokenId: meter, metricType: B256::ZERO, amount: NOTHING };
    let refused = Shares::NotAuthorised { tokenId: meter, caller: AUTHOR };
    chain.reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &usage, &refused).unwrap();
    let transfer = Shares::transferTokenCall { tokenId: meter, to: AUTHOR };
    chain
        .reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &transfer, &Shares::UnknownToken { tokenId: meter })
        .unwrap();
}

#[test]
fn minting_has_bounds() {
    let (mut chain, class) = chain();
    let time = chain.time();
    let call = |to, share, end| minting(class, to, 1, share, end);
    let refused = Shares::BadToken { to: ETHER, expireAt: NOTHING };
    chain.reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &call(ETHER, 1, 0), &refused).unwrap();
    chain.wait(10);
    let past = Shares::BadToken { to: USER, expireAt: U256::from(time) };
    chain.reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &call(USER, 1, time), &past).unwrap();
    let many = Shares::TooManyShares { wanted: U256::from(10_001), left: U256::from(10_000) };
    chain.reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &call(USER, 10_001, 0), &many).unwrap();
    let huge = Shares::mintCall { shareRatio: U256::MAX, ..call(USER, 0, 0) };
    let many = Shares::TooManyShares { wanted: U256::MAX, left: U256::from(10_000) };
    chain.reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &huge, &many).unwrap();
    for day in 1..=32 {
        mint(&mut chain, class, USER, 1, time + day * DAY);
    }
    // At a known time there is room, at another there is not.
    mint(&mut chain, class, USER, 1, time + 32 * DAY);
    let expiries = Shares::TooManyExpiries { max: U256::from(32) };
    chain.reverts(AUTHOR, SHARES_ADDRESS, NOTHING, &call(USER, 1, time + 33 * DAY), &expiries).unwrap();
    chain.wait(DAY);
    mint(&mut chain, class, USER, 1, time + 33 * DAY);
}

#[test]
fn quotas_are_used_and_moved_by_their_owners_until_they_expire() {
    let (mut chain, class) = chain();
    let end = chain.time() + DAY;
    let (a, b) = (mint(&mut chain, class, USER, 0, end), mint(&mut chain, class, STRANGER, 0, 0));
    let usage = |token, amount: u64| Shares::recordUsageCall {
        tokenId: token,
        metricType: B256::repeat_byte(5),
        amount: U256::from(amount),
    };
    let refused = Shares::NotAuthorised { tokenId: a, caller: STRANGER };
    chain.reverts(STRANGER, SHARES_ADDRESS, NOTHING, &usage(a, 1), &refused).unwrap();
    chain.ok(USER, SHARES_ADDRESS, NOTHING, &usage(a, 40)).unwrap();
    let exceeded = Shares::QuotaExceeded { tokenId: a, wanted: U256::from(61), left: U256::from(60) };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &usage(a, 61), &exceeded).unwrap();

    let move_value = |from, to, value: u64| Shares::transferValueCall {
        fromTokenId: from,
        toTokenId: to,
        value: U256::from(value),
    };
    chain.reverts(STRANGER, SHARES_ADDRESS, NOTHING, &move_value(a, b, 1), &refused).unwrap();
    let exceeded =
        |wanted: u64| Shares::QuotaExceeded { tokenId: a, wanted: U256::from(wanted), left: U256::from(60) };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &move_value(a, b, 0), &exceeded(0)).unwrap();
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &move_value(a, b, 61), &exceeded(61)).unwrap();
    chain
        .reverts(
            USER,
            SHARES_ADDRESS,
            NOTHING,
            &move_value(a, a, 1),
            &Shares::NotTwins { fromTokenId: a, toTokenId: a },
        )
        .unwrap();
    let other = create(&mut chain, AUTHOR);
    let c = mint(&mut chain, other, USER, 0, 0);
    chain
        .reverts(
            USER,
            SHARES_ADDRESS,
            NOTHING,
            &move_value(a, c, 1),
            &Shares::NotTwins { fromTokenId: a, toTokenId: c },
        )
        .unwrap();
    chain.ok(USER, SHARES_ADDRESS, NOTHING, &move_value(a, b, 60)).unwrap();
    assert_eq!(chain.view(SHARES_ADDRESS, &Shares::valueOfCall { tokenId: b }).unwrap(), U256::from(160));

    chain.wait(DAY + 1);
    let expired = Shares::TokenExpired { tokenId: a, expireAt: U256::from(end) };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &usage(a, 0), &expired).unwrap();
    chain.reverts(STRANGER, SHARES_ADDRESS, NOTHING, &move_value(b, a, 1), &expired).unwrap();
    let seen =
        chain.ok(STRANGER, SHARES_ADDRESS, NOTHING, &Shares::observeExpiryCall { tokenId: a }).unwrap().0;
    assert_eq!(seen.logs.len(), 1);
    let again =
        chain.ok(STRANGER, SHARES_ADDRESS, NOTHING, &Shares::observeExpiryCall { tokenId: a }).unwrap().0;
    assert!(again.logs.is_empty(), "it is said once");
}

#[test]
fn a_sum_of_quotas_is_never_one_without_end() {
    let (mut chain, class) = chain();
    let quota = |chain: &mut Economy, value| {
        let mint = Shares::mintCall { value, ..minting(class, USER, 0, 0, 0) };
        chain.ok(AUTHOR, SHARES_ADDRESS, NOTHING, &mint).unwrap().1
    };
    let one = U256::from(1);
    let (a, b) = (quota(&mut chain, U256::from(2)), quota(&mut chain, U256::MAX - U256::from(2)));
    let move_value = |value| Shares::transferValueCall { fromTokenId: a, toTokenId: b, value };
    let refused = Shares::QuotaExceeded { tokenId: a, wanted: U256::from(2), left: U256::from(2) };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &move_value(U256::from(2)), &refused).unwrap();
    chain.ok(USER, SHARES_ADDRESS, NOTHING, &move_value(one)).unwrap();
    let refused = Shares::QuotaExceeded { tokenId: a, wanted: one, left: one };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &move_value(one), &refused).unwrap();
    let value = Shares::valueOfCall { tokenId: b };
    assert_eq!(chain.view(SHARES_ADDRESS, &value).unwrap(), U256::MAX - one);
}

#[test]
fn claiming_nothing_leaves_parts_of_a_wei_where_they_are() {
    let (mut chain, class) = chain();
    // Of each wei this token earns a third.
    let token = mint(&mut chain, class, USER, 100, 0);
    mint(&mut chain, class, AUTHOR, 200, 0);
    let claim = Shares::claimCall { tokenId: token, asset: ETHER, to: USER };
    for _ in 0..3 {
        settle(&mut chain, class, 1);
        let state = chain.vm.state().accounts[&SHARES_ADDRESS].storage.clone();
        let (outcome, claimed) = chain.ok(USER, SHARES_ADDRESS, NOTHING, &claim).unwrap();
        assert_eq!((claimed, outcome.logs.len()), (NOTHING, 0));
        assert_eq!(chain.vm.state().accounts[&SHARES_ADDRESS].storage, state);
    }
    settle(&mut chain, class, 1);
    assert_eq!(chain.ok(USER, SHARES_ADDRESS, NOTHING, &claim).unwrap().1, U256::from(1));
}

#[test]
fn tokens_are_given_away_by_their_owners() {
    let (mut chain, class) = chain();
    let token = mint(&mut chain, class, USER, 10, 0);
    settle(&mut chain, class, 77);
    let give = |to| Shares::transferTokenCall { tokenId: token, to };
    let refused = Shares::NotAuthorised { tokenId: token, caller: STRANGER };
    chain.reverts(STRANGER, SHARES_ADDRESS, NOTHING, &give(STRANGER), &refused).unwrap();
    let nobody = Shares::BadToken { to: ETHER, expireAt: NOTHING };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &give(ETHER), &nobody).unwrap();
    chain.ok(USER, SHARES_ADDRESS, NOTHING, &give(STRANGER)).unwrap();
    assert_eq!(chain.view(SHARES_ADDRESS, &Shares::ownerOfCall { tokenId: token }).unwrap(), STRANGER);
    // With what it has not been paid.
    let claim = Shares::claimCall { tokenId: token, asset: ETHER, to: STRANGER };
    assert_eq!(chain.ok(STRANGER, SHARES_ADDRESS, NOTHING, &claim).unwrap().1, U256::from(77));
    let unknown = Shares::UnknownToken { tokenId: U256::from(5) };
    let call = Shares::transferTokenCall { tokenId: U256::from(5), to: USER };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &call, &unknown).unwrap();
}

#[test]
fn revenue_needs_an_amount_and_somebody_to_share_it() {
    let (mut chain, class) = chain();
    let call = Shares::settleRevenueETHCall { classId: class };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &call, &Shares::NothingToSettle {}).unwrap();
    let one = U256::from(1);
    chain.reverts(USER, SHARES_ADDRESS, one, &call, &Shares::NoShares { classId: class }).unwrap();
    let end = chain.time() + 1;
    mint(&mut chain, class, USER, 5, end);
    chain.wait(2);
    chain.reverts(USER, SHARES_ADDRESS, one, &call, &Shares::NoShares { classId: class }).unwrap();
    let unknown = Shares::settleRevenueETHCall { classId: U256::from(7) };
    chain
        .reverts(USER, SHARES_ADDRESS, one, &unknown, &Shares::UnknownClass { classId: U256::from(7) })
        .unwrap();
}

#[test]
fn an_erc20_counts_for_what_arrives_and_absurd_ones_are_refused() {
    let (mut chain, class) = chain();
    let token = mint(&mut chain, class, USER, 100, 0);
    let code = artifacts::test_token().unwrap().initcode(&("T",).abi_encode_params()).unwrap();
    let asset = chain.vm.transact(&Transaction::create(USER, code)).unwrap().created_address.unwrap();
    let supply = U256::MAX >> 1;
    chain.ok(USER, asset, NOTHING, &IToken::mintCall { to: USER, amount: supply }).unwrap();
    let settle = |amount| Shares::settleRevenueERC20Call { classId: class, asset, amount };
    // Without an allowance.
    assert!(
        !chain.send(USER, SHARES_ADDRESS, NOTHING, settle(U256::from(5)).abi_encode()).unwrap().is_success()
    );
    chain.ok(USER, asset, NOTHING, &IToken::approveCall { spender: SHARES_ADDRESS, amount: supply }).unwrap();
    chain.ok(USER, SHARES_ADDRESS, NOTHING, &settle(U256::from(1_000))).unwrap();
    let claim = Shares::claimCall { tokenId: token, asset, to: STRANGER };
    assert_eq!(chain.ok(USER, SHARES_ADDRESS, NOTHING, &claim).unwrap().1, U256::from(1_000));
    let much = U256::from(1) << 150;
    let refused = Shares::TooMuchRevenue { asset, amount: much };
    chain.reverts(USER, SHARES_ADDRESS, NOTHING, &settle(much), &refused).unwrap();
    chain.ok(USER, SHARES_ADDRESS, NOTHING, &settle(U256::from(50))).unwrap();
}

#[test]
fn a_receiver_cannot_come_back_for_more() {
    let (mut chain, class) = chain();
    let thief = Address::repeat_byte(0x7f);
    let token = mint(&mut chain, class, thief, 1, 0);
    mint(&mut chain, class, USER, 99, 0);
    settle(&mut chain, class, 10_000);
    // When money arrives, it claims again and keeps what came of that in slot 0, plus one.
    let claim = Shares::claimCall { tokenId: token, asset: ETHER, to: thief }.abi_encode();
    let mut code = Vec::new();
    let prologue = 39;
    let push = |value: usize| [0x61, (value >> 8) as u8, value as u8];
    code.extend([push(claim.len()), push(prologue), push(0)].concat());
    code.push(0x39); // codecopy(0, prologue, length)
    code.extend([push(0), push(0), push(claim.len()), push(0), push(0)].concat());
    code.extend(hex!("61a202 5a f1")); // call(gas, 0xa202, 0, 0, length, 0, 0)
    code.extend([push(1).as_slice(), &[0x01], &push(0), &[0x55, 0x00]].concat()); // sstore(0, success + 1)
    assert_eq!(code.len(), prologue);
    code.extend(&claim);
    chain.vm.set_account(thief, &Account { code: code.into(), nonce: 1, ..Account::default() });
    let call = Bytes::from(claim);
    let tx = Transaction::call(thief, SHARES_ADDRESS, call);
    // The thief is a contract, so its own transaction is a simulation; an operator of its does the same for real.
    let outcome = chain.vm.simulate(&tx).unwrap();
    assert!(outcome.is_success());
    let approve = Shares::approveForClassCall { classId: class, operator: STRANGER, approved: true };
    let slot = {
        let account = chain.vm.state().accounts[&thief].clone();
        chain.vm.set_account(thief, &Account::default());
        chain.ok(thief, SHARES_ADDRESS, NOTHING, &approve).unwrap();
        chain.vm.set_account(thief, &account);
        let claim = Shares::claimCall { tokenId: token, asset: ETHER, to: thief };
        assert_eq!(chain.ok(STRANGER, SHARES_ADDRESS, NOTHING, &claim).unwrap().1, U256::from(100));
        chain.vm.state().accounts[&thief].storage.get(&NOTHING).copied()
    };
    assert_eq!(slot, Some(U256::from(1)), "the second claim, from inside the first, failed");
    assert_eq!(chain.balance(thief), U256::from(100));
    assert_eq!(chain.balance(SHARES_ADDRESS), U256::from(9_900));
}

#[test]
fn interfaces_can_be_asked_for() {
    let (mut chain, _) = chain();
    let has = |chain: &mut Economy, id: [u8; 4]| {
        chain.view(SHARES_ADDRESS, &Shares::supportsInterfaceCall { id: id.into() }).unwrap()
    };
    assert!(has(&mut chain, hex!("01ffc9a7")), "ERC-165");
    assert!(!has(&mut chain, hex!("ffffffff")));
    assert!(chain.balance(REGISTRY_ADDRESS).is_zero());
}
