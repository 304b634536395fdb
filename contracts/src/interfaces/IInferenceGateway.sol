// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @notice What a signer lets anybody ask a model for, once.
/// @dev Signed as EIP-712 data of the domain ("MetisVM InferenceGateway", "1", chain id, gateway), so it holds on one chain, for one
/// contract, for one call and up to one price.
struct Authorization {
    /// @dev Who pays.
    address signer;
    /// @dev `keccak256` of the calldata for the inference precompile, which names the model.
    bytes32 callHash;
    /// @dev The token whose quota pays, or 0 for the signer's deposit.
    uint256 tokenId;
    /// @dev Most wei that may be taken from the deposit, or most gas from the quota.
    uint256 maxPrice;
    /// @dev Any number that the signer has not used before.
    uint256 nonce;
    /// @dev The last second in which it holds.
    uint256 deadline;
}

/// @title The way to models that have a price
/// @notice One call in one transaction: the model answers, and its shares get what it earned, or nothing happens.
/// @dev `data` is calldata for the inference precompile; `answer` is what the precompile returned. What it reverts with reaches
/// the caller unchanged, and nothing is paid then. A call costs the model's price for each call and for each unit of gas that the
/// precompile takes, the `STATICCALL` itself included.
interface IInferenceGateway {
    /// @notice A model answered.
    /// @param model The model.
    /// @param payer Who paid.
    /// @param tokenId The token whose quota paid, or 0 for money.
    /// @param gasUsed Gas that the inference took.
    /// @param price Wei that were paid.
    event Called(bytes32 indexed model, address indexed payer, uint256 indexed tokenId, uint256 gasUsed, uint256 price);
    /// @notice Money was left here for calls that are signed.
    /// @param account Whose money.
    /// @param from Who left it.
    /// @param amount How much, in wei.
    event Deposited(address indexed account, address indexed from, uint256 amount);
    /// @notice Money was taken back.
    /// @param account Whose money.
    /// @param to To whom.
    /// @param amount How much, in wei.
    event Withdrawn(address indexed account, address indexed to, uint256 amount);
    /// @notice A signer used a number up.
    /// @param signer Who signed.
    /// @param nonce The number.
    event NonceUsed(address indexed signer, uint256 nonce);

    /// @notice The data names no model.
    error BadCall();
    /// @notice The call costs more than was sent, allowed, or left.
    /// @param price What it costs, in wei; with a quota, in gas.
    /// @param max What there is for it.
    error PriceExceeded(uint256 price, uint256 max);
    /// @notice The token is not the caller's.
    /// @param tokenId The token.
    /// @param caller Who tried.
    error NotTokenOwner(uint256 tokenId, address caller);
    /// @notice The token is not of the model's class.
    /// @param tokenId The token.
    /// @param classId The model's class; 0 if it is not registered.
    error WrongClass(uint256 tokenId, uint256 classId);
    /// @notice Not what was signed.
    /// @param signed The hash that was signed.
    /// @param actual The hash of the call.
    error WrongCall(bytes32 signed, bytes32 actual);
    /// @notice The authorization is not signed by its signer.
    /// @param signer Who signed.
    error BadSignature(address signer);
    /// @notice The authorization held until then.
    /// @param deadline The last second in which it held.
    error DeadlinePassed(uint256 deadline);
    /// @notice The number was used before.
    /// @param signer Who signed.
    /// @param nonce The number.
    error NonceReplayed(address signer, uint256 nonce);
    /// @notice A transfer of money failed.
    /// @param to To whom.
    /// @param amount How much, in wei.
    error TransferFailed(address to, uint256 amount);

    /// @notice Asks a model and pays with the money that is sent along. What is too much comes back.
    /// @param data Calldata for the precompile.
    /// @return answer What the precompile returned.
    function call(bytes calldata data) external payable returns (bytes memory answer);

    /// @notice Asks a model and pays with the quota of a token of the caller's: one unit for each unit of gas.
    /// @param tokenId A token of the model's class.
    /// @param data Calldata for the precompile.
    /// @return answer What the precompile returned.
    function callWithQuota(uint256 tokenId, bytes calldata data) external returns (bytes memory answer);

    /// @notice Asks a model for somebody who signed for it, and pays with their deposit or quota.
    /// @param authorization What was signed.
    /// @param signature The signature, or what the signer's contract takes for one (ERC-1271).
    /// @param data Calldata for the precompile.
    /// @return answer What the precompile returned.
    function callFor(Authorization calldata authorization, bytes calldata signature, bytes calldata data)
        external
        returns (bytes memory answer);

    /// @notice Leaves money for calls that `account` signs.
    /// @param account Whose money.
    function deposit(address account) external payable;

    /// @notice Takes money of the caller's back.
    /// @param amount How much, in wei.
    /// @param to Who gets it.
    function withdraw(uint256 amount, address payable to) external;

    /// @notice Makes a number useless, so that what was signed with it holds no more.
    /// @param nonce The number of the caller's.
    function cancelNonce(uint256 nonce) external;

    /// @notice Money that an account has here.
    /// @param account Whose money.
    /// @return Wei.
    function depositOf(address account) external view returns (uint256);

    /// @notice Whether a signer's number was used.
    /// @param signer Who would sign.
    /// @param nonce The number.
    /// @return Whether it was.
    function isNonceUsed(address signer, uint256 nonce) external view returns (bool);

    /// @notice What a call that takes so much gas costs, in wei.
    /// @param model The model.
    /// @param gasUsed Gas that the inference takes.
    /// @return price Wei; 0 for a model that nobody registered.
    function priceOf(bytes32 model, uint256 gasUsed) external view returns (uint256 price);

    /// @notice What a generation costs at most, in wei: money that always suffices for a prompt of so many tokens.
    /// @param model The model.
    /// @param promptTokens Tokens of the prompt.
    /// @param maxNew Most new tokens.
    /// @return price Wei.
    function quote(bytes32 model, uint32 promptTokens, uint32 maxNew) external view returns (uint256 price);

    /// @notice What a signer signs.
    /// @param authorization What is to be signed.
    /// @return The hash of the EIP-712 data.
    function hashOf(Authorization calldata authorization) external view returns (bytes32);
}
