//! The steps of a history: each knows whether it must succeed.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolEvent};
use anyhow::{Context, ensure};
use metis_precompiles::abi::tokenizeCall;
use metis_precompiles::{GATEWAY_ADDRESS, REGISTRY_ADDRESS, SHARES_ADDRESS};
use metis_vm::{BlockInfo, Outcome, Transaction};
use metisvm::contracts::ModelStatus;
use metisvm::contracts::{Gateway, Registry, Shares};
use rand::Rng;

use super::History;
use super::ledger::{Class, FRACTION, Token};
use crate::economy::{Economy, priced};
use crate::signer::Authorization;

const DAY: u64 = 86_400;
const ETHER: Address = Address::ZERO;
const CAP: u64 = 10_000;
const MOST_EXPIRIES: usize = 32;
/// Gas that a call of a history takes at most, and at least.
const CALL_GAS: [u64; 2] = [50_000, 3_000];

alloy_sol_types::sol! {
    interface IToken {
        function mint(address to, uint256 amount) external;
        function approve(address spender, uint256 amount) external returns (bool);
        function balanceOf(address account) external view returns (uint256);
    }
}

impl History<'_> {
    /// Plays one step.
    pub(super) fn step(&mut self) -> anyhow::Result<()> {
        match self.below(26) {
            0..=2 => self.wait(),
            3..=5 => self.mint(),
            6 => self.create_class(),
            7 => self.transfer_token(),
            8 => self.approve(),
            9 => self.transfer_value(),
            10 => self.record_usage(),
            11..=12 => self.settle(),
            13..=15 => self.claim(),
            16 => self.observe(),
            17..=18 => self.call(),
            19 => self.call_with_quota(),
            20 => self.deposit_or_withdraw(),
            21..=22 => self.call_for(),
            23 => self.forge(),
            _ => self.registry(),
        }?;
        self.check_deposits()?;
        self.check_registry()?;
        if self.below(16) == 0 { self.check_all() } else { Ok(()) }
    }

    fn tell(&mut self, what: String) {
        self.told.push(what);
    }

    fn send(&mut self, from: Address, to: Address, value: U256, call: Vec<u8>) -> anyhow::Result<Outcome> {
        Ok(self.vm.transact(&Transaction::call(from, to, call).with_value(value))?)
    }

    /// Sends a call that must succeed, or must fail. Returns whether it did.
    fn must(
        &mut self,
        succeed: bool,
        from: Address,
        to: Address,
        value: U256,
        call: &impl SolCall,
    ) -> anyhow::Result<Option<Outcome>> {
        let outcome = self.send(from, to, value, call.abi_encode())?;
        ensure!(
            outcome.is_success() == succeed,
            "{} {}, and must {}",
            if outcome.is_success() { "it succeeded" } else { "it failed" },
            outcome.output,
            if succeed { "not" } else { "fail" }
        );
        Ok(succeed.then_some(outcome))
    }

    fn view<C: SolCall>(&mut self, to: Address, call: &C) -> anyhow::Result<C::Return> {
        let outcome = self.vm.simulate(&Transaction::call(ETHER, to, call.abi_encode()))?;
        ensure!(outcome.is_success(), "{}: {}", C::SIGNATURE, outcome.output);
        C::abi_decode_returns(&outcome.output).context(C::SIGNATURE)
    }

    fn any_token(&mut self) -> usize {
        self.below(self.ledger.tokens.len() as u64) as usize
    }

    fn asset(&mut self) -> Address {
        if self.below(2) == 0 { ETHER } else { self.stage.token }
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let seconds = match self.below(3) {
            0 => 1,
            1 => self.below(3_600),
            _ => self.below(2 * DAY),
        };
        self.tell(format!("wait {seconds}"));
        let block = self.vm.config().block.clone();
        let (number, timestamp) = (block.number + 1, block.timestamp + seconds);
        self.vm.set_block(BlockInfo { number, timestamp, ..block });
        Ok(())
    }

    fn mint(&mut self) -> anyhow::Result<()> {
        let class = self.below(self.ledger.classes.len() as u64) as usize;
        let Class { id, controller, sealed, .. } = self.ledger.classes[class];
        let caller = if self.below(8) == 0 { self.person() } else { controller };
        let (to, time) = (self.person(), self.time());
        let share = [0, 1, self.below(200), self.below(5_000)][self.below(4) as usize];
        let value = [U256::MAX, U256::from(self.below(1 << 40)), U256::ZERO][self.below(3) as usize];
        let expire_at = match self.below(4) {
            0 => 0,
            1 => time.saturating_sub(1),
            // Often the same time.
            2 => time / DAY * DAY + 2 * DAY,
            _ => time + self.below(4 * DAY),
        };
        let is_new = |token: &Token| token.class == class && token.share > 0 && token.expire_at == expire_at;
        let is_new = !self.ledger.tokens.iter().any(is_new);
        let fits = expire_at == 0 || !is_new || self.ledger.expiries(class, time) < MOST_EXPIRIES;
        let shares = share == 0 || (!sealed && fits && self.ledger.total_share(class, time) + share <= CAP);
        let succeed = caller == controller && (expire_at == 0 || expire_at >= time) && shares;
        self.tell(format!("mint class {class} share {share} until {expire_at} by {caller}"));
        let call =
            Shares::mintCall { classId: id, to, value, shareRatio: U256::from(share), expireAt: expire_at };
        if let Some(outcome) = self.must(succeed, caller, SHARES_ADDRESS, U256::ZERO, &call)? {
            let token = Shares::mintCall::abi_decode_returns(&outcome.output)?;
            self.add_token(class, token, to, value, share, expire_at);
        }
        Ok(())
    }

    fn add_token(&mut self, class: usize, id: U256, owner: Address, value: U256, share: u64, expire_at: u64) {
        let (earned, claimed) = Default::default();
        let token = Token { id, class, owner, value, share, expire_at, earned, claimed, claims: 0 };
        self.ledger.classes[class].minted += 1;
        self.ledger.tokens.push(token);
    }

    fn create_class(&mut self) -> anyhow::Result<()> {
        let caller = self.person();
        if self.ledger.classes.len() >= 3 {
            // Instead, a class is closed, by whoever may.
            let class = self.below(self.ledger.classes.len() as u64) as usize;
            let Class { id, controller, .. } = self.ledger.classes[class];
            self.tell(format!("seal class {class} by {caller}"));
            let call = Shares::sealClassCall { classId: id };
            let sealed = self.must(caller == controller, caller, SHARES_ADDRESS, U256::ZERO, &call)?;
            self.ledger.classes[class].sealed |= sealed.is_some();
            return Ok(());
        }
        self.tell(format!("create class by {caller}"));
        let (metadata, policy) = (String::new(), String::new());
        let call = Shares::createClassCall {
            metadataURI: metadata,
            integrityHash: B256::ZERO,
            unitDecimals: 0,
            policyURI: policy,
        };
        let outcome = self.must(true, caller, SHARES_ADDRESS, U256::ZERO, &call)?.context("a class")?;
        let id = Shares::createClassCall::abi_decode_returns(&outcome.output)?;
        self.ledger.classes.push(Class { id, controller: caller, minted: 0, sealed: false });
        Ok(())
    }

    fn transfer_token(&mut self) -> anyhow::Result<()> {
        let (token, to) = (self.any_token(), self.person());
        let Token { id, owner, .. } = self.ledger.tokens[token];
        let caller = if self.below(3) == 0 { self.person() } else { owner };
        self.tell(format!("transfer token {token} to {to} by {caller}"));
        let call = Shares::transferTokenCall { tokenId: id, to };
        if self.must(caller == owner, caller, SHARES_ADDRESS, U256::ZERO, &call)?.is_some() {
            self.ledger.tokens[token].owner = to;
        }
        Ok(())
    }

    fn approve(&mut self) -> anyhow::Result<()> {
        let class = self.below(self.ledger.classes.len() as u64) as usize;
        let (owner, operator, approved) = (self.person(), self.person(), self.below(3) > 0);
        self.tell(format!("approve {operator} for {owner} in class {class}: {approved}"));
        let call = Shares::approveForClassCall { classId: self.ledger.classes[class].id, operator, approved };
        self.must(true, owner, SHARES_ADDRESS, U256::ZERO, &call)?;
        self.ledger.operators.retain(|known| *known != (owner, class, operator));
        if approved {
            self.ledger.operators.push((owner, class, operator));
        }
        Ok(())
    }

    fn transfer_value(&mut self) -> anyhow::Result<()> {
        let (from, to, caller, time) = (self.any_token(), self.any_token(), self.person(), self.time());
        let value = U256::from(self.below(1 << 30));
        let [a, b] = [from, to].map(|token| self.ledger.tokens[token].clone());
        let caller = if self.below(2) == 0 { a.owner } else { caller };
        let succeed = from != to
            && a.class == b.class
            && !a.is_expired(time)
            && !b.is_expired(time)
            && self.ledger.is_operator(a.owner, a.class, caller)
            && !value.is_zero()
            && a.value >= value
            && a.value != U256::MAX
            && b.value < U256::MAX - value;
        self.tell(format!("transfer value {value} from token {from} to {to} by {caller}"));
        let call = Shares::transferValueCall { fromTokenId: a.id, toTokenId: b.id, value };
        if self.must(succeed, caller, SHARES_ADDRESS, U256::ZERO, &call)?.is_some() {
            self.ledger.tokens[from].value -= value;
            self.ledger.tokens[to].value += value;
        }
        Ok(())
    }

    fn record_usage(&mut self) -> anyhow::Result<()> {
        let (index, amount, caller) = (self.any_token(), U256::from(self.below(1 << 36)), self.person());
        let token = self.ledger.tokens[index].clone();
        let caller = if self.below(2) == 0 { token.owner } else { caller };
        let succeed = !token.is_expired(self.time())
            && self.ledger.is_operator(token.owner, token.class, caller)
            && token.value >= amount;
        self.tell(format!("use {amount} of token {index} by {caller}"));
        let call = Shares::recordUsageCall { tokenId: token.id, metricType: B256::ZERO, amount };
        if self.must(succeed, caller, SHARES_ADDRESS, U256::ZERO, &call)?.is_some() {
            self.use_quota(index, amount);
        }
        Ok(())
    }

    fn use_quota(&mut self, token: usize, amount: U256) {
        let value = &mut self.ledger.tokens[token].value;
        if *value != U256::MAX {
            *value -= amount;
        }
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        let class = self.below(self.ledger.classes.len() as u64) as usize;
        let (id, caller, asset, time) =
            (self.ledger.classes[class].id, self.person(), self.asset(), self.time());
        let amount = U256::from([0, 1, self.below(1_000), self.below(1 << 60)][self.below(4) as usize]);
        let succeed = !amount.is_zero() && self.ledger.total_share(class, time) > 0;
        self.tell(format!("settle {amount} of {asset} for class {class}"));
        let settled = if asset == ETHER {
            let call = Shares::settleRevenueETHCall { classId: id };
            self.must(succeed, caller, SHARES_ADDRESS, amount, &call)?
        } else {
            self.must(true, caller, asset, U256::ZERO, &IToken::mintCall { to: caller, amount })?;
            let approve = IToken::approveCall { spender: SHARES_ADDRESS, amount };
            self.must(true, caller, asset, U256::ZERO, &approve)?;
            let call = Shares::settleRevenueERC20Call { classId: id, asset, amount };
            self.must(succeed, caller, SHARES_ADDRESS, U256::ZERO, &call)?
        };
        if settled.is_some() {
            self.ledger.settle(class, asset, amount, time);
        }
        Ok(())
    }

    fn claim(&mut self) -> anyhow::Result<()> {
        let (index, asset, to, caller) = (self.any_token(), self.asset(), self.person(), self.person());
        let token = self.ledger.tokens[index].clone();
        let to = if self.below(2) == 0 { token.owner } else { to };
        let caller = if self.below(2) == 0 { token.owner } else { caller };
        let operator = self.ledger.is_operator(token.owner, token.class, caller);
        let succeed = caller == token.owner || (to == token.owner && operator);
        self.tell(format!("claim {asset} of token {index} to {to} by {caller}"));
        let call = Shares::claimCall { tokenId: token.id, asset, to };
        let Some(outcome) = self.must(succeed, caller, SHARES_ADDRESS, U256::ZERO, &call)? else {
            return Ok(());
        };
        let amount = Shares::claimCall::abi_decode_returns(&outcome.output)?;
        let token = &mut self.ledger.tokens[index];
        *token.claimed.entry(asset).or_default() += amount;
        token.claims += 1;
        self.ledger.claims += 1;
        self.check_token(index, asset)?;
        let again = self.must(true, caller, SHARES_ADDRESS, U256::ZERO, &call)?.context("a claim")?;
        let again = Shares::claimCall::abi_decode_returns(&again.output)?;
        ensure!(again.is_zero(), "a second claim paid {again}");
        Ok(())
    }

    fn observe(&mut self) -> anyhow::Result<()> {
        let (index, caller) = (self.any_token(), self.person());
        self.tell(format!("observe token {index}"));
        let call = Shares::observeExpiryCall { tokenId: self.ledger.tokens[index].id };
        self.must(true, caller, SHARES_ADDRESS, U256::ZERO, &call)?;
        Ok(())
    }

    /// Whether the model with a price can be called.
    fn is_callable(&self) -> bool {
        self.time() < self.ledger.models[0].active_until
    }

    /// The class that its calls pay.
    fn paid_class(&self) -> usize {
        // The stage's model is registered, then and ever.
        self.ledger.models[0].class.unwrap_or(0)
    }

    /// Whether somebody can be paid for it.
    fn is_payable(&self) -> bool {
        self.is_callable() && self.ledger.total_share(self.paid_class(), self.time()) > 0
    }

    /// What is asked of it: little, as it is not what these histories are about.
    fn data(&mut self) -> Vec<u8> {
        let text = vec![b'a'; self.below(8) as usize];
        tokenizeCall { model: self.stage.active.id, text: text.into() }.abi_encode()
    }

    /// Books a call of the gateway that went through.
    fn book(&mut self, outcome: &Outcome) -> anyhow::Result<Gateway::Called> {
        let is_called = |log: &&metis_vm::Log| log.topics.first() == Some(&Gateway::Called::SIGNATURE_HASH);
        let log = outcome.logs.iter().find(is_called).context("the event")?;
        let called = Gateway::Called::decode_raw_log(log.topics.iter().copied(), &log.data)?;
        ensure!(called.gasUsed <= U256::from(CALL_GAS[0]), "gas {}", called.gasUsed);
        if !called.price.is_zero() {
            let (class, time) = (self.paid_class(), self.time());
            self.ledger.settle(class, ETHER, called.price, time);
        }
        Ok(called)
    }

    fn call(&mut self) -> anyhow::Result<()> {
        let (caller, data) = (self.person(), self.data());
        let succeed = self.is_payable();
        self.tell(format!("call by {caller}"));
        let before = self.vm.balance(caller);
        let call = Gateway::callCall { data: data.into() };
        let value = U256::from(1u64 << 40);
        if let Some(outcome) = self.must(succeed, caller, GATEWAY_ADDRESS, value, &call)? {
            let called = self.book(&outcome)?;
            let paid = before - self.vm.balance(caller);
            ensure!(paid == called.price, "paid {paid} for {}", called.price);
        }
        Ok(())
    }

    fn call_with_quota(&mut self) -> anyhow::Result<()> {
        let (index, data) = (self.any_token(), self.data());
        let token = self.ledger.tokens[index].clone();
        let caller = if self.below(4) == 0 { self.person() } else { token.owner };
        let allowed = self.is_callable()
            && caller == token.owner
            && token.class == self.paid_class()
            && !token.is_expired(self.time())
            && token.value >= U256::from(CALL_GAS[1]);
        self.tell(format!("call with the quota of token {index} by {caller}"));
        let call = Gateway::callWithQuotaCall { tokenId: token.id, data: data.into() };
        let outcome = self.send(caller, GATEWAY_ADDRESS, U256::ZERO, call.abi_encode())?;
        ensure!(allowed || !outcome.is_success(), "a quota paid that must not");
        let plenty = token.value >= U256::from(CALL_GAS[0]);
        ensure!(outcome.is_success() || !(allowed && plenty), "a quota did not pay: {}", outcome.output);
        if outcome.is_success() {
            let called = self.book(&outcome)?;
            ensure!(called.price.is_zero() && called.tokenId == token.id, "paid twice");
            self.use_quota(index, called.gasUsed);
        }
        Ok(())
    }

    fn signer(&mut self) -> usize {
        self.below(self.stage.signers.len() as u64) as usize
    }

    fn deposit_or_withdraw(&mut self) -> anyhow::Result<()> {
        let (who, amount) = (self.signer(), U256::from(self.below(1 << 30)));
        let address = self.stage.signers[who].address;
        if self.below(2) == 0 {
            self.tell(format!("deposit {amount} for signer {who}"));
            let caller = self.person();
            let call = Gateway::depositCall { account: address };
            self.must(true, caller, GATEWAY_ADDRESS, amount, &call)?;
            self.deposits[who] += amount;
        } else {
            self.tell(format!("withdraw {amount} by signer {who}"));
            let to = self.person();
            let call = Gateway::withdrawCall { amount, to };
            let succeed = amount <= self.deposits[who];
            if self.must(succeed, address, GATEWAY_ADDRESS, U256::ZERO, &call)?.is_some() {
                self.deposits[who] -= amount;
            }
        }
        Ok(())
    }

    /// A fresh authorization of a signer's, for their deposit.
    fn authorization(&mut self, who: usize, data: &[u8]) -> Authorization {
        self.nonces += 1;
        let (near, far) = (self.nonces, U256::from(self.rng.random::<u64>()) << 190);
        Authorization {
            signer: self.stage.signers[who].address,
            callHash: keccak256(data),
            tokenId: U256::ZERO,
            maxPrice: U256::from(1u64 << 40),
            nonce: if near.is_multiple_of(2) { U256::from(near) } else { far | U256::from(near) },
            deadline: U256::from(self.time() + self.below(100)),
        }
    }

    fn signed_call(&self, who: usize, authorization: &Authorization, data: &[u8]) -> Gateway::callForCall {
        let chain_id = self.stage.economy.node.config().chain_id;
        let signature = self.stage.signers[who].sign(chain_id, GATEWAY_ADDRESS, authorization);
        let data = Bytes::copy_from_slice(data);
        Gateway::callForCall { authorization: authorization.into(), signature, data }
    }

    fn call_for(&mut self) -> anyhow::Result<()> {
        let (who, data, relayer) = (self.signer(), self.data(), self.person());
        let authorization = self.authorization(who, &data);
        let call = self.signed_call(who, &authorization, &data);
        self.tell(format!("call for signer {who}"));
        let (before, outcome) =
            (self.deposits[who], self.send(relayer, GATEWAY_ADDRESS, U256::ZERO, call.abi_encode())?);
        let allowed = self.is_payable();
        ensure!(allowed || !outcome.is_success(), "a call went through that must not");
        // The price is that of the stage or of a later `setPrice`, which are all below this.
        let plenty = before >= U256::from(10_000_000u64);
        ensure!(outcome.is_success() || !(allowed && plenty), "a signed call failed: {}", outcome.output);
        if outcome.is_success() {
            let called = self.book(&outcome)?;
            ensure!(called.payer == authorization.signer && called.price <= before, "overdrawn");
            self.deposits[who] -= called.price;
            self.signed.push((who, call.abi_encode()));
        }
        Ok(())
    }

    /// Replays what was signed, or changes it.
    fn forge(&mut self) -> anyhow::Result<()> {
        let relayer = self.person();
        let (what, input) = if self.below(2) == 0 && !self.signed.is_empty() {
            let index = self.below(self.signed.len() as u64) as usize;
            (format!("replay call {index}"), self.signed[index].1.clone())
        } else {
            let (who, data, other) = (self.signer(), self.data(), self.signer());
            let authorization = self.authorization(who, &data);
            let mut call = self.signed_call(who, &authorization, &data);
            let what = self.below(6);
            let fields = &mut call.authorization;
            match what {
                0 => fields.maxPrice += U256::from(1),
                1 => fields.nonce += U256::from(1),
                2 => fields.deadline += U256::from(1),
                3 => fields.callHash = B256::repeat_byte(1),
                4 => call.data = [data.as_slice(), &[0]].concat().into(),
                _ => fields.signer = self.stage.signers[(who + 1 + other % 2) % 3].address,
            }
            (format!("forge field {what} of a call for signer {who}"), call.abi_encode())
        };
        self.tell(what);
        let outcome = self.send(relayer, GATEWAY_ADDRESS, U256::ZERO, input)?;
        ensure!(!outcome.is_success(), "it went through");
        Ok(())
    }

    fn registry(&mut self) -> anyhow::Result<()> {
        let which = self.below(2) as usize;
        let id = [&self.stage.active, &self.stage.other][which].id;
        let model = self.ledger.models[which].clone();
        let caller = if self.below(4) == 0 { self.person() } else { model.owner };
        let caller = if caller.is_zero() { self.person() } else { caller };
        let (owns, time) = (caller == model.owner && model.status != ModelStatus::None, self.time());
        let days = self.below(33) as u16;
        let (rent, seconds) = (Economy::rent(days), u64::from(days) * DAY);
        let choice = if model.status == ModelStatus::None { 0 } else { self.below(10) };
        self.tell(format!("registry {choice} of model {which} by {caller} for {days} days"));
        match choice {
            0 => return self.register(which, id, caller),
            1 => {
                let ready = model.status == ModelStatus::Pending && time >= model.matures_at;
                let succeed = owns && ready && (1..=30).contains(&days);
                let call = Registry::activateCall { model: id, daysPaid: days };
                if self.must(succeed, caller, REGISTRY_ADDRESS, rent, &call)?.is_some() {
                    let updated = &mut self.ledger.models[which];
                    (updated.status, updated.active_until) = (ModelStatus::Active, time + seconds);
                    self.ledger.rent += rent;
                }
            }
            2 => {
                let from = model.active_until.max(time);
                let succeed =
                    model.status == ModelStatus::Active && days > 0 && from + seconds <= time + 30 * DAY;
                let call = Registry::extendCall { model: id, daysPaid: days };
                if self.must(succeed, caller, REGISTRY_ADDRESS, rent, &call)?.is_some() {
                    self.ledger.models[which].active_until = from + seconds;
                    self.ledger.rent += rent;
                }
            }
            3 => {
                let resident = matches!(model.status, ModelStatus::Active | ModelStatus::Sunset);
                let succeed = resident && time >= model.active_until;
                let sunset = model.status == ModelStatus::Sunset;
                let call = Registry::evictCall { model: id };
                if self.must(succeed, caller, REGISTRY_ADDRESS, U256::ZERO, &call)?.is_some() {
                    let updated = &mut self.ledger.models[which];
                    updated.status = if sunset { ModelStatus::Retired } else { ModelStatus::Pending };
                    updated.active_until = 0;
                    updated.matures_at = if sunset { updated.matures_at } else { time + 100 };
                }
            }
            4 if self.below(4) == 0 => {
                let succeed = owns && matches!(model.status, ModelStatus::Active | ModelStatus::Pending);
                let call = Registry::deprecateCall { model: id };
                if self.must(succeed, caller, REGISTRY_ADDRESS, U256::ZERO, &call)?.is_some() {
                    let updated = &mut self.ledger.models[which];
                    if model.status == ModelStatus::Pending {
                        updated.status = ModelStatus::Retired;
                    } else {
                        updated.status = ModelStatus::Sunset;
                        updated.active_until = model.active_until.min(time + 50);
                    }
                }
            }
            5 => {
                let (call_fee, gas_fee) = (1 + self.below(2_000_000), self.below(20));
                let terms = priced(call_fee, gas_fee);
                let call = Registry::setPriceCall { model: id, perCall: terms.perCall, perGas: terms.perGas };
                self.must(owns, caller, REGISTRY_ADDRESS, U256::ZERO, &call)?;
            }
            6 => {
                let to = self.person();
                let call = Registry::transferOwnershipCall { model: id, to };
                if self.must(owns, caller, REGISTRY_ADDRESS, U256::ZERO, &call)?.is_some() {
                    self.ledger.models[which].pending_owner = to;
                }
            }
            7 => {
                let succeed = caller == model.pending_owner;
                let call = Registry::acceptOwnershipCall { model: id };
                if self.must(succeed, caller, REGISTRY_ADDRESS, U256::ZERO, &call)?.is_some() {
                    let updated = &mut self.ledger.models[which];
                    (updated.owner, updated.pending_owner) = (caller, Address::ZERO);
                    if let Some(class) = updated.class {
                        self.ledger.classes[class].controller = caller;
                    }
                }
            }
            8 => {
                // The rules of the test chain: a notice of 50 seconds after maturity.
                let succeed = owns && model.status == ModelStatus::Retired && time >= model.matures_at + 50;
                let call = Registry::withdrawBondCall { model: id };
                if self.must(succeed, caller, REGISTRY_ADDRESS, U256::ZERO, &call)?.is_some() {
                    self.ledger.models[which].bond = U256::ZERO;
                }
            }
            _ => {
                self.must(true, caller, REGISTRY_ADDRESS, U256::ZERO, &Registry::collectCall {})?;
                self.ledger.rent = U256::ZERO;
            }
        }
        Ok(())
    }

    fn register(&mut self, which: usize, id: B256, caller: Address) -> anyhow::Result<()> {
        let salt = B256::from(U256::from(self.rng.random::<u64>()));
        let commitment = Registry::commitmentOfCall { model: id, author: caller, salt };
        let commitment = self.view(REGISTRY_ADDRESS, &commitment)?;
        self.must(true, caller, REGISTRY_ADDRESS, U256::ZERO, &Registry::commitCall { commitment })?;
        let known = self.ledger.models[which].clone();
        let given_up = known.status == ModelStatus::Retired && known.bond.is_zero();
        let known = known.status != ModelStatus::None && !given_up;
        let waits = self.below(4) > 0;
        if waits {
            let block = self.vm.config().block.clone();
            let (number, timestamp) = (block.number + 1, block.timestamp + 1);
            self.vm.set_block(BlockInfo { number, timestamp, ..block });
        }
        let claims = [&self.stage.active, &self.stage.other][which].claims.clone();
        let terms = priced(1_000_003, 7);
        let call = Registry::registerCall { model: id, claims, terms, salt };
        let bond = Economy::bond();
        if let Some(outcome) = self.must(waits && !known, caller, REGISTRY_ADDRESS, bond, &call)? {
            let class_id = Registry::registerCall::abi_decode_returns(&outcome.output)?;
            let class = self.ledger.classes.len();
            self.ledger.classes.push(Class { id: class_id, controller: caller, minted: 0, sealed: false });
            self.add_token(class, (class_id << 64) | U256::from(1), caller, U256::ZERO, 6_000, 0);
            let matures_at = self.time() + 100;
            let model = &mut self.ledger.models[which];
            (model.status, model.owner, model.bond) = (ModelStatus::Pending, caller, bond);
            (model.pending_owner, model.active_until) = (Address::ZERO, 0);
            (model.matures_at, model.class) = (matures_at, Some(class));
        }
        Ok(())
    }

    fn check_registry(&self) -> anyhow::Result<()> {
        let bonds: U256 = self.ledger.models.iter().map(|model| model.bond).sum();
        let (balance, owed) = (self.vm.balance(REGISTRY_ADDRESS), bonds + self.ledger.rent);
        ensure!(balance == owed, "the registry has {balance} and should have {owed}");
        Ok(())
    }

    /// What a token has got and is owed is what it has earned.
    fn check_token(&mut self, index: usize, asset: Address) -> anyhow::Result<U256> {
        let token = self.ledger.tokens[index].clone();
        let pending = self.view(SHARES_ADDRESS, &Shares::pendingRevenueCall { tokenId: token.id, asset })?;
        let got = token.claimed.get(&asset).copied().unwrap_or_default() + pending;
        let [most, least] = token.earned.get(&asset).copied().unwrap_or_default().map(|sum| sum >> FRACTION);
        ensure!(got <= most, "token {index} got {got} of {asset} and earned {most}");
        let lost = U256::from(token.claims + 2);
        ensure!(got + lost >= least, "token {index} got {got} of {asset} and earned {least}");
        Ok(got)
    }

    /// Everything that must hold at any time.
    pub(super) fn check_all(&mut self) -> anyhow::Result<()> {
        for asset in [ETHER, self.stage.token] {
            let (mut got, mut claimed) = (U256::ZERO, U256::ZERO);
            for index in 0..self.ledger.tokens.len() {
                got += self.check_token(index, asset)?;
                claimed += self.ledger.tokens[index].claimed.get(&asset).copied().unwrap_or_default();
            }
            let held = match asset {
                ETHER => self.vm.balance(SHARES_ADDRESS),
                asset => self.view(asset, &IToken::balanceOfCall { account: SHARES_ADDRESS })?,
            };
            let settled = self.ledger.settled.get(&asset).copied().unwrap_or_default();
            ensure!(held == settled - claimed, "{held} of {asset} are there, of {settled} less {claimed}");
            ensure!(got <= settled, "{got} of {asset} are owed, of {settled}");
            // No more is lost than fractions of units.
            let lost = U256::from(self.ledger.claims + self.ledger.settlements)
                + U256::from(self.ledger.tokens.len());
            ensure!(got + lost >= settled, "{got} of {asset} are owed, of {settled}");
        }
        let time = self.time();
        for class in 0..self.ledger.classes.len() {
            let id = self.ledger.classes[class].id;
            let total = self.view(SHARES_ADDRESS, &Shares::totalShareOfCall { classId: id })?;
            let expected = self.ledger.total_share(class, time);
            ensure!(total == U256::from(expected) && expected <= CAP, "class {class}: {total}, {expected}");
        }
        let is_resident = |status: &ModelStatus| matches!(status, ModelStatus::Active | ModelStatus::Sunset);
        let resident = self.ledger.models.iter().filter(|model| is_resident(&model.status)).count();
        let counted = self.view(REGISTRY_ADDRESS, &Registry::residentMebibytesCall {})?;
        ensure!(counted == U256::from(resident), "{counted} MiB are resident, not {resident}");
        for index in 0..self.ledger.tokens.len() {
            let Token { id, owner, value, .. } = self.ledger.tokens[index];
            let actual = self.view(SHARES_ADDRESS, &Shares::valueOfCall { tokenId: id })?;
            ensure!(actual == value, "token {index} has a quota of {actual}, not {value}");
            let actual = self.view(SHARES_ADDRESS, &Shares::ownerOfCall { tokenId: id })?;
            ensure!(actual == owner, "token {index} is {actual}'s, not {owner}'s");
        }
        Ok(())
    }
}
