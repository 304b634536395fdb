"""Writes the state tests of this folder.

The states after the transactions are worked out here by hand, from the gas tables of the execution specs, and their roots
by the few lines below: none of it uses an EVM. Standard library only: `python3 make.py`.
"""

import json
from pathlib import Path

HERE = Path(__file__).parent
MASK = (1 << 64) - 1

# --- Keccak-256, as in the Keccak reference (padding 0x01) ---------------------------------------------------------------

ROUNDS = []
lfsr = 1
for _ in range(24):
    constant = 0
    for bit in range(7):
        if lfsr & 1:
            constant |= 1 << ((1 << bit) - 1)
        lfsr = (lfsr << 1) ^ (0x171 if lfsr & 0x80 else 0)
    ROUNDS.append(constant)


def rotate(word, by):
    by %= 64
    return ((word << by) | (word >> (64 - by))) & MASK


def permute(a):
    for constant in ROUNDS:
        c = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        d = [c[x - 1] ^ rotate(c[(x + 1) % 5], 1) for x in range(5)]
        a = [[a[x][y] ^ d[x] for y in range(5)] for x in range(5)]
        x, y, current = 1, 0, a[1][0]
        for t in range(24):
            x, y = y, (2 * x + 3 * y) % 5
            current, a[x][y] = a[x][y], rotate(current, (t + 1) * (t + 2) // 2)
        a = [[a[x][y] ^ (~a[(x + 1) % 5][y] & a[(x + 2) % 5][y]) for y in range(5)] for x in range(5)]
        a[0][0] ^= constant
    return a


def keccak(data):
    rate = 136
    padded = bytearray(data) + b"\x01" + bytes(-(len(data) + 1) % rate)
    padded[-1] |= 0x80
    a = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), rate):
        for lane in range(rate // 8):
            word = int.from_bytes(padded[start + 8 * lane : start + 8 * lane + 8], "little")
            a[lane % 5][lane // 5] ^= word
        a = permute(a)
    return b"".join(a[lane % 5][lane // 5].to_bytes(8, "little") for lane in range(4))


assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"

# --- RLP and the trie, as in the yellow paper, appendices B and D --------------------------------------------------------


def rlp(item):
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, list):
        return prefix(0xC0, b"".join(rlp(part) for part in item))
    if len(item) == 1 and item[0] < 0x80:
        return item
    return prefix(0x80, item)


def prefix(base, payload):
    if len(payload) < 56:
        return bytes([base + len(payload)]) + payload
    length = len(payload).to_bytes((len(payload).bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(length)]) + length + payload


def hex_prefix(nibbles, leaf):
    flag = 2 * leaf + len(nibbles) % 2
    nibbles = [flag] + ([] if len(nibbles) % 2 else [0]) + nibbles
    return bytes(16 * high + low for high, low in zip(nibbles[::2], nibbles[1::2]))


def node(pairs):
    if not pairs:
        return b""
    if len(pairs) == 1:
        return [hex_prefix(pairs[0][0], True), pairs[0][1]]
    shared = 0
    while len({tuple(key[: shared + 1]) for key, _ in pairs}) == 1:
        shared += 1
    if shared:
        return [hex_prefix(pairs[0][0][:shared], False), reference([(key[shared:], v) for key, v in pairs])]
    return [reference([(key[1:], v) for key, v in pairs if key[0] == n]) for n in range(16)] + [b""]


def reference(pairs):
    inner = node(pairs)
    return inner if len(rlp(inner)) < 32 else keccak(rlp(inner))


def root(content):
    """The root of a trie whose keys are hashed."""
    pairs = [([n for b in keccak(key) for n in (b >> 4, b & 15)], value) for key, value in content.items()]
    return keccak(rlp(node(pairs)))


def state_root(state):
    leaves = {}
    for address, (nonce, balance, code, storage) in state.items():
        slots = {slot.to_bytes(32, "big"): rlp(value) for slot, value in storage.items() if value}
        leaves[bytes.fromhex(address[2:])] = rlp([nonce, balance, root(slots), keccak(code)])
    return root(leaves)


# --- Tests ---------------------------------------------------------------------------------------------------------------

SENDER, KEY = "0xa94f5374fce5edbc8e2a8697c15331677e6ebf0b", "0x45a915e4d060149eb4365960e6a7a45f334393093061116b197e3240065ff2d8"
CALLEE, MINER = "0x" + "c0" * 20, "0x" + "fe" * 20
RICH = 10**18
NO_LOGS = keccak(rlp([]))
OLD = ["Frontier", "Homestead", "EIP150", "EIP158", "Byzantium", "ConstantinopleFix", "Istanbul", "Berlin"]
NEW = ["London", "Paris", "Shanghai", "Cancun", "Prague", "Osaka"]
PRICE, BASE_FEE = 10, 7


def test(pre, posts, data=("0x",), gas=(100_000,), value=("0x00",), to=CALLEE, base_fee=BASE_FEE, **more):
    """A test in JSON. `posts` maps forks to lists of (indexes, state, logs hash, exception)."""
    account = lambda a: {"nonce": hex(a[0]), "balance": hex(a[1]), "code": "0x" + a[2].hex(), "storage": {hex(k): hex(v) for k, v in a[3].items()}}
    env = {"currentCoinbase": MINER, "currentDifficulty": "0x020000", "currentRandom": "0x" + "00" * 32, "currentGasLimit": "0x05f5e100", "currentNumber": "0x01", "currentTimestamp": "0x03e8", "currentBaseFee": hex(base_fee), "currentExcessBlobGas": "0x00"}
    transaction = {"nonce": "0x00", "gasPrice": hex(PRICE), "gasLimit": [hex(g) for g in gas], "to": to, "value": list(value), "data": list(data), "secretKey": KEY, **more}
    post = {}
    for fork, subtests in posts.items():
        post[fork] = []
        for (d, g, v), state, logs, exception in subtests:
            entry = {"indexes": {"data": d, "gas": g, "value": v}, "hash": "0x" + state_root(state).hex(), "logs": "0x" + logs.hex()}
            post[fork].append(entry | ({"expectException": exception} if exception else {}))
    return {"env": env, "pre": {a: account(s) for a, s in pre.items()}, "transaction": transaction, "post": post}


def after(pre, fork, gas_used, changes=None):
    """The state when the sender has paid for the gas; until London, the whole price goes to the miner."""
    fee = PRICE - (BASE_FEE if fork in NEW else 0)
    paid = dict(pre) | (changes or {})
    value = sum(s[1] for a, s in (changes or {}).items()) - sum(pre.get(a, (0, 0))[1] for a in changes or {})
    paid[SENDER] = (1, RICH - PRICE * gas_used - value, b"", {})
    paid[MINER] = (0, fee * gas_used, b"", {})
    return paid


def write(name, tests):
    text = tests if isinstance(tests, str) else json.dumps(tests, indent=1) + "\n"
    (HERE / f"{name}.json").write_text(text)


# A transfer of 0 and of 5 wei: 21,000 gas. Nothing is transferred to an empty account: before EIP-161 it comes to be.
pre = {SENDER: (0, RICH, b"", {})}
posts = {}
for fork in OLD + NEW:
    nothing = {} if fork not in ["Frontier", "Homestead", "EIP150"] else {CALLEE: (0, 0, b"", {})}
    posts[fork] = [
        ((0, 0, 0), after(pre, fork, 21_000, nothing), NO_LOGS, None),
        ((0, 0, 1), after(pre, fork, 21_000, {CALLEE: (0, 5, b"", {})}), NO_LOGS, None),
    ]
transfer = test(pre, posts, value=("0x00", "0x05"))
write("transfer", {"transfer": transfer})

# A loop that counts the first word of its input down and adds it up, stores the sum in slot 1 and logs it.
LOOP = bytes.fromhex(
    "6000" "35" "6000"  # PUSH1 0 CALLDATALOAD PUSH1 0        | sum n
    "5b" "81" "15" "601657"  # 5: JUMPDEST DUP2 ISZERO PUSH1 22 JUMPI
    "81" "01" "90" "6001" "90" "03" "90"  # DUP2 ADD SWAP1 PUSH1 1 SWAP1 SUB SWAP1
    "6005" "56"  # PUSH1 5 JUMP
    "5b" "80" "6001" "55"  # 22: JUMPDEST DUP1 PUSH1 1 SSTORE
    "6000" "52" "6020" "6000" "a0" "00"  # PUSH1 0 MSTORE PUSH1 32 PUSH1 0 LOG0 STOP
)
assert LOOP[5] == 0x5B and LOOP[22] == 0x5B
pre = {SENDER: (0, RICH, b"", {}), CALLEE: (1, 0, LOOP, {})}
posts = {}
COUNTS = [0, 3, 20_000]
for fork in ["Istanbul", "Berlin", "London", "Cancun", "Osaka"]:
    posts[fork] = []
    for index, count in enumerate(COUNTS):
        total = count * (count + 1) // 2
        word = count.to_bytes(32, "big")
        nonzero = sum(b != 0 for b in word)
        head, turn, last = 3 + 3 + 3, 1 + 3 + 3 + 3 + 10, 1 + 3 + 3
        body = 3 + 3 + 3 + 3 + 3 + 3 + 3 + 3 + 8
        # SSTORE of a fresh slot: EIP-2200; from Berlin on the slot is cold (EIP-2929). Nothing into nothing is a load.
        store = (20_000 if total else 800) if fork == "Istanbul" else (20_000 if total else 100) + 2_100
        log = 3 + 3 + (3 + 3) + 3 + (375 + 8 * 32)
        used = 21_000 + 16 * nonzero + 4 * (32 - nonzero) + head + turn * (count + 1) + body * count + last + store + log
        changed = {CALLEE: (1, 0, LOOP, {1: total})}
        logs = keccak(rlp([[bytes.fromhex(CALLEE[2:]), [], total.to_bytes(32, "big")]]))
        posts[fork].append(((index, 0, 0), after(pre, fork, used, changed), logs, None))
write("loop", {"loop": test(pre, posts, data=["0x" + c.to_bytes(32, "big").hex() for c in COUNTS], gas=(3_000_000,))})

# Transactions that must be rejected: the state stays. Before EIP-161 even a reward of nothing makes an account.
pre = {SENDER: (0, 1_000_000, b"", {})}
unchanged = lambda fork: pre | ({MINER: (0, 0, b"", {})} if fork in ["Frontier", "Homestead", "EIP150"] else {})
HUGE = "0x:bigint 0x1" + "0" * 64
posts = {
    fork: [
        ((0, 0, 0), unchanged(fork), NO_LOGS, "TransactionException.INTRINSIC_GAS_TOO_LOW"),
        ((0, 1, 0), unchanged(fork), NO_LOGS, "TransactionException.INSUFFICIENT_ACCOUNT_FUNDS"),
        ((0, 1, 1), unchanged(fork), NO_LOGS, "TransactionException.RLP_INVALID_VALUE"),
    ]
    for fork in OLD + NEW
}
rejected = test(pre, posts, gas=(20_999, 21_000), value=("0xffffff", HUGE))
delegated = {"maxFeePerGas": "0x0a", "maxPriorityFeePerGas": "0x00", "authorizationList": []}
posts = {"Prague": [((0, 0, 0), pre, NO_LOGS, "TransactionException.TYPE_4_TX_CONTRACT_CREATION")]}
creation = test(pre, posts, to="", **delegated)
posts = {"Prague": [((0, 0, 0), pre, NO_LOGS, "TransactionException.TYPE_4_EMPTY_AUTHORIZATION_LIST")], "Cancun": [((0, 0, 0), pre, NO_LOGS, "TransactionException.TYPE_4_TX_PRE_FORK")]}
nobody = test(pre, posts, gas=(50_000,), **delegated)
write("rejected", {"rejected": rejected, "set code by creation": creation, "set code by nobody": nobody})

# A creation at an address that has storage and nothing else fails and takes all gas (EIP-7610).
created = "0x" + keccak(rlp([bytes.fromhex(SENDER[2:]), 0]))[12:].hex()
pre = {SENDER: (0, RICH, b"", {}), created: (0, 5, b"", {1: 1})}
posts = {fork: [((0, 0, 0), after(pre, fork, 100_000), NO_LOGS, None)] for fork in ["Shanghai", "Osaka"]}
write("collision", {"collision": test(pre, posts, data=("0x00",), to="")})

# What must not pass: a wrong root, a wrong hash of the logs, a rejection that nobody expects and one that does not come.
pre = {SENDER: (0, RICH, b"", {})}
good = after(pre, "Cancun", 21_000)
wrong = {
    "wrong root": test(pre, {"Cancun": [((0, 0, 0), pre, NO_LOGS, None)]}),
    "wrong logs": test(pre, {"Cancun": [((0, 0, 0), good, keccak(b"logs"), None)]}),
    "rejected": test(pre, {"Cancun": [((0, 0, 0), pre, NO_LOGS, None)]}, gas=(20_999,)),
    "not rejected": test(pre, {"Cancun": [((0, 0, 0), good, NO_LOGS, "TransactionException.SENDER_NOT_EOA")]}),
    "rejected for another reason": test(pre, {"Cancun": [((0, 0, 0), pre, NO_LOGS, "TransactionException.SENDER_NOT_EOA")]}, gas=(20_999,)),
    "no such part": test(pre, {"Cancun": [((0, 1, 0), good, NO_LOGS, None)]}),
}
# This one writes the state out, so that the first difference can be named.
written = json.loads(json.dumps(wrong["wrong root"]))
written["post"]["Cancun"][0]["state"] = written["pre"]
write("wrong", wrong | {"wrong root": written})

# What is not executed: forks that revm does not have, and a file of another kind.
skipped = json.loads(json.dumps(transfer))
skipped["post"] = {fork: transfer["post"]["Byzantium"] for fork in ["Constantinople", "ShanghaiToCancunAtTime15k", "Ossaka"]}
write("skipped", {"skipped": skipped})
write("blockchain", {"blocks": {"genesisBlockHeader": {}, "pre": {}, "blocks": [], "network": "Cancun"}})
write("nothing", {})
write("malformed", '{"transfer": {"env": \n')
write("incomplete", {"no coinbase": transfer | {"env": {"currentNumber": "0x01"}}})
