// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {INFERENCE, REGISTRY, SHARES} from "./MetisAddresses.sol";
import {Authorization, IInferenceGateway} from "./interfaces/IInferenceGateway.sol";
import {IMetisInference} from "./interfaces/IMetisInference.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {CLASS_SHIFT, IModelShares} from "./interfaces/IModelShares.sol";

/// @title The way to models that have a price
/// @notice Takes a quota or money, asks the model, records the use and brings the model's shares what it earned, in one transaction.
/// @dev There from genesis; nobody has power over it. The precompile answers for a model with a price only if this contract asks, and
/// this contract asks only through `_ask`, after which it is paid or reverts.
contract InferenceGateway is IInferenceGateway, EIP712, ReentrancyGuardTransient {
    /// @notice The metric of `UsageRecorded`: gas that inference took.
    bytes32 public constant METRIC = keccak256("inference_gas");

    bytes32 private constant AUTHORIZATION_TYPEHASH = keccak256(
        "Authorization(address signer,bytes32 callHash,uint256 tokenId,uint256 maxPrice,uint256 nonce,uint256 deadline)"
    );

    mapping(address account => uint256 amount) private _deposits;
    /// @dev A bit for each number, so that authorizations need no order.
    mapping(address signer => mapping(uint256 word => uint256 bits)) private _nonces;

    /// @dev The domain of what is signed here.
    constructor() EIP712("MetisVM InferenceGateway", "1") {}

    /// @inheritdoc IInferenceGateway
    function call(bytes calldata data) external payable nonReentrant returns (bytes memory answer) {
        bytes32 model = _modelOf(data);
        uint256 gasUsed;
        (answer, gasUsed) = _ask(data);
        uint256 price = _payWithMoney(model, msg.sender, gasUsed, msg.value);
        if (price < msg.value) _send(msg.sender, msg.value - price);
    }

    /// @inheritdoc IInferenceGateway
    function callWithQuota(uint256 tokenId, bytes calldata data) external nonReentrant returns (bytes memory answer) {
        bytes32 model = _modelOf(data);
        uint256 gasUsed;
        (answer, gasUsed) = _ask(data);
        _payWithQuota(model, msg.sender, tokenId, gasUsed);
    }

    /// @inheritdoc IInferenceGateway
    function callFor(Authorization calldata authorization, bytes calldata signature, bytes calldata data)
        external
        nonReentrant
        returns (bytes memory answer)
    {
        address signer = authorization.signer;
        if (block.timestamp > authorization.deadline) revert DeadlinePassed(authorization.deadline);
        bytes32 callHash = keccak256(data);
        if (callHash != authorization.callHash) revert WrongCall(authorization.callHash, callHash);
        if (!SignatureChecker.isValidSignatureNowCalldata(signer, hashOf(authorization), signature)) {
            revert BadSignature(signer);
        }
        _useNonce(signer, authorization.nonce);

        bytes32 model = _modelOf(data);
        uint256 gasUsed;
        (answer, gasUsed) = _ask(data);
        if (authorization.tokenId != 0) {
            if (gasUsed > authorization.maxPrice) revert PriceExceeded(gasUsed, authorization.maxPrice);
            _payWithQuota(model, signer, authorization.tokenId, gasUsed);
        } else {
            uint256 held = _deposits[signer];
            uint256 max = held < authorization.maxPrice ? held : authorization.maxPrice;
            _deposits[signer] = held - _payWithMoney(model, signer, gasUsed, max);
        }
    }

    /// @inheritdoc IInferenceGateway
    function deposit(address account) external payable {
        _deposits[account] += msg.value;
        emit Deposited(account, msg.sender, msg.value);
    }

    /// @inheritdoc IInferenceGateway
    function withdraw(uint256 amount, address payable to) external nonReentrant {
        uint256 held = _deposits[msg.sender];
        if (amount > held) revert PriceExceeded(amount, held);
        _deposits[msg.sender] = held - amount;
        emit Withdrawn(msg.sender, to, amount);
        _send(to, amount);
    }

    /// @inheritdoc IInferenceGateway
    function cancelNonce(uint256 nonce) external {
        _useNonce(msg.sender, nonce);
    }

    /// @inheritdoc IInferenceGateway
    function depositOf(address account) external view returns (uint256) {
        return _deposits[account];
    }

    /// @inheritdoc IInferenceGateway
    function isNonceUsed(address signer, uint256 nonce) external view returns (bool) {
        return _nonces[signer][nonce >> 8] >> (nonce & 0xff) & 1 == 1;
    }

    /// @inheritdoc IInferenceGateway
    function priceOf(bytes32 model, uint256 gasUsed) public view returns (uint256 price) {
        (uint256 perCall, uint256 perGas,) = IModelRegistry(REGISTRY).billingOf(model);
        return perCall + perGas * gasUsed;
    }

    /// @inheritdoc IInferenceGateway
    function quote(bytes32 model, uint32 promptTokens, uint32 maxNew) external view returns (uint256 price) {
        uint256 gasQuoted = IMetisInference(INFERENCE).quote(model, promptTokens, maxNew);
        return priceOf(model, gasQuoted + CALL_GAS);
    }

    /// @inheritdoc IInferenceGateway
    function hashOf(Authorization calldata authorization) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    AUTHORIZATION_TYPEHASH,
                    authorization.signer,
                    authorization.callHash,
                    authorization.tokenId,
                    authorization.maxPrice,
                    authorization.nonce,
                    authorization.deadline
                )
            )
        );
    }

    /// @dev What `_ask` measures besides the precompile's own charge, rounded up: a warm `STATICCALL` and the instructions around it.
    uint256 private constant CALL_GAS = 200;

    /// @dev Every function that asks a model has the model's id first.
    function _modelOf(bytes calldata data) private pure returns (bytes32 model) {
        if (data.length < 36) revert BadCall();
        return bytes32(data[4:36]);
    }

    /// @dev The precompile's answer, and the gas that it took.
    function _ask(bytes calldata data) private view returns (bytes memory answer, uint256 gasUsed) {
        bool success;
        assembly ("memory-safe") {
            let input := mload(0x40)
            calldatacopy(input, data.offset, data.length)
            // The memory is there before gas is read, so that what is measured is the call alone.
            let before := gas()
            success := staticcall(gas(), INFERENCE, input, data.length, 0, 0)
            gasUsed := sub(before, gas())
            answer := input
            mstore(answer, returndatasize())
            returndatacopy(add(answer, 0x20), 0, returndatasize())
            mstore(0x40, and(add(add(answer, returndatasize()), 0x3f), not(0x1f)))
        }
        if (!success) {
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
    }

    /// @dev Takes the price of a call from money that is here already, at most `max`.
    function _payWithMoney(bytes32 model, address payer, uint256 gasUsed, uint256 max) private returns (uint256 price) {
        (uint256 perCall, uint256 perGas, uint256 classId) = IModelRegistry(REGISTRY).billingOf(model);
        price = perCall + perGas * gasUsed;
        if (price > max) revert PriceExceeded(price, max);
        emit Called(model, payer, 0, gasUsed, price);
        if (price == 0) return 0;
        // The class's meter, as `meterOf` has it.
        IModelShares(SHARES).recordUsage(classId << CLASS_SHIFT, METRIC, gasUsed);
        IModelShares(SHARES).settleRevenueETH{value: price}(classId);
    }

    /// @dev Takes a call's gas from the quota of a token of the payer's.
    function _payWithQuota(bytes32 model, address payer, uint256 tokenId, uint256 gasUsed) private {
        (,, uint256 classId) = IModelRegistry(REGISTRY).billingOf(model);
        if (IModelShares(SHARES).ownerOf(tokenId) != payer) revert NotTokenOwner(tokenId, payer);
        if (classId == 0 || IModelShares(SHARES).classOf(tokenId) != classId) revert WrongClass(tokenId, classId);
        emit Called(model, payer, tokenId, gasUsed, 0);
        IModelShares(SHARES).recordUsage(tokenId, METRIC, gasUsed);
    }

    /// @dev A number holds once.
    function _useNonce(address signer, uint256 nonce) private {
        uint256 bit = 1 << (nonce & 0xff);
        uint256 used = _nonces[signer][nonce >> 8];
        if (used & bit != 0) revert NonceReplayed(signer, nonce);
        _nonces[signer][nonce >> 8] = used | bit;
        emit NonceUsed(signer, nonce);
    }

    /// @dev Whoever cannot take money back gets an error, and nothing has happened.
    function _send(address to, uint256 amount) private {
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert TransferFailed(to, amount);
    }
}
