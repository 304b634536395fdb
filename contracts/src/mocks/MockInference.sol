// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {GATEWAY, REGISTRY} from "../MetisAddresses.sol";
import {IModelRegistry} from "../interfaces/IModelRegistry.sol";
import {Constraint, Finish, IMetisInference, Message, ModelInfo, Sampling} from "../interfaces/IMetisInference.sol";

/// @title A stand-in for the inference precompile, for tests on chains without it
/// @notice A test says what the model answers or reverts with; contracts under test cannot tell the difference.
/// @dev It needs no constructor, so its code can be put at 0x…A100: `vm.etch` in Foundry, `hardhat_setCode` in Hardhat. Of several things
/// that were said, the most particular holds: the whole calldata, then function and prompt, then the function, then texts.
///
/// It has no model. Its tokens are bytes, the most new tokens are not looked at, and of a form only options are checked. Like the
/// precompile it is asked by anybody and changes nothing, and it wants to be paid where `MockRegistry` has a price.
contract MockInference is IMetisInference {
    /// @notice What a call comes to.
    enum Kind {
        None,
        Return,
        Revert
    }

    /// @notice How a call ends, as it is.
    struct Reply {
        Kind kind;
        bytes data;
    }

    /// @notice How a prompt is continued.
    struct Answer {
        bool known;
        bool cut;
        bytes text;
    }

    /// @notice Nothing was said about this call.
    /// @param selector The function.
    /// @param prompt What it was asked.
    error NotMocked(bytes4 selector, bytes prompt);
    /// @notice The text that was said is none of the options, which no model can answer.
    /// @param text The text.
    error NotAnOption(bytes text);

    /// @dev Everything that was said, by round and then by what it is about.
    mapping(bytes32 key => Reply) private _replies;
    mapping(bytes32 key => Answer) private _answers;
    uint256 private _round;
    uint256 private _gas;

    /// @notice Says what a call returns.
    /// @param data Its calldata, or a selector for all calls of that function.
    /// @param returned What it returns, ABI-encoded.
    function mockCall(bytes calldata data, bytes calldata returned) external {
        _replies[_key(keccak256(data), 0)] = Reply(Kind.Return, returned);
    }

    /// @notice Says what a call reverts with, such as `abi.encodeWithSelector(IMetisInference.PromptTooLong.selector, 9, 8)`.
    /// @param data Its calldata, or a selector for all calls of that function.
    /// @param reason The error, ABI-encoded.
    function mockCallRevert(bytes calldata data, bytes calldata reason) external {
        _replies[_key(keccak256(data), 0)] = Reply(Kind.Revert, reason);
    }

    /// @notice Says what a function returns for a prompt, whatever else it is asked.
    /// @param selector The function.
    /// @param promptHash `keccak256` of the prompt. A conversation's is its last message.
    /// @param returned What it returns, ABI-encoded.
    function mockPrompt(bytes4 selector, bytes32 promptHash, bytes calldata returned) external {
        _replies[_key(selector, promptHash)] = Reply(Kind.Return, returned);
    }

    /// @notice Says what a function reverts with for a prompt.
    /// @param selector The function.
    /// @param promptHash `keccak256` of the prompt.
    /// @param reason The error, ABI-encoded.
    function mockPromptRevert(bytes4 selector, bytes32 promptHash, bytes calldata reason) external {
        _replies[_key(selector, promptHash)] = Reply(Kind.Revert, reason);
    }

    /// @notice Says how a prompt is continued: the answer of every function that writes, chooses or scores.
    /// @param prompt The prompt.
    /// @param text The answer.
    function mockText(bytes calldata prompt, bytes calldata text) external {
        _answers[_key(keccak256(prompt), 0)] = Answer(true, false, text);
    }

    /// @notice The same with an answer that is cut off: it ends with `Finish.Length`.
    /// @param prompt The prompt.
    /// @param text What there is of the answer.
    function mockCutText(bytes calldata prompt, bytes calldata text) external {
        _answers[_key(keccak256(prompt), 0)] = Answer(true, true, text);
    }

    /// @notice Says how all other prompts are continued.
    /// @param text The answer.
    function mockDefaultText(bytes calldata text) external {
        _answers[_key(0, 0)] = Answer(true, false, text);
    }

    /// @notice Says how much gas an answer takes besides what this contract needs itself, for prices that depend on it.
    /// @param gas_ The gas.
    function mockGas(uint256 gas_) external {
        _gas = gas_;
    }

    /// @notice Forgets everything that was said.
    function mockReset() external {
        _round++;
        _gas = 0;
    }

    /// @inheritdoc IMetisInference
    function generate(bytes32 model, bytes calldata prompt, uint32, Sampling calldata, uint32[] calldata)
        external
        view
        returns (bytes memory text, uint32[] memory tokens, uint32 promptTokens, Finish finish)
    {
        return _write(model, prompt, uint32(prompt.length), Finish.Eos, new bytes[](0));
    }

    /// @inheritdoc IMetisInference
    function generateTokens(bytes32 model, uint32[] calldata prompt, uint32, Sampling calldata, uint32[] calldata)
        external
        view
        returns (uint32[] memory tokens, Finish finish)
    {
        (, tokens,, finish) = _write(model, _bytesOf(prompt), uint32(prompt.length), Finish.Eos, new bytes[](0));
    }

    /// @inheritdoc IMetisInference
    function generateConstrained(
        bytes32 model,
        bytes calldata prompt,
        uint32,
        Sampling calldata,
        Constraint calldata c
    ) external view returns (bytes memory text, uint32[] memory tokens, uint32 promptTokens, Finish finish) {
        return _write(model, prompt, uint32(prompt.length), Finish.Complete, c.options);
    }

    /// @inheritdoc IMetisInference
    function choose(bytes32 model, bytes calldata prompt, Sampling calldata, bytes[] calldata options)
        external
        view
        returns (uint32 index)
    {
        _ask(model, prompt);
        return _place(_answerTo(prompt).text, options);
    }

    /// @inheritdoc IMetisInference
    function generateChat(
        bytes32 model,
        Message[] calldata messages,
        uint32,
        Sampling calldata,
        Constraint calldata c
    ) external view returns (bytes memory text, uint32[] memory tokens, uint32 promptTokens, Finish finish) {
        bool free = c.pattern.length == 0 && c.options.length == 0;
        uint32 read = uint32(_joined(messages).length);
        return _write(model, _last(messages), read, free ? Finish.Eos : Finish.Complete, c.options);
    }

    /// @inheritdoc IMetisInference
    function tokenizeChat(bytes32, Message[] calldata messages) external view returns (uint32[] memory ids) {
        _describe(_last(messages));
        return _tokensOf(_joined(messages));
    }

    /// @inheritdoc IMetisInference
    /// @dev The text that was said is likely, the other labels are all equally unlikely.
    function score(bytes32 model, bytes calldata prompt, bytes[] calldata labels)
        external
        view
        returns (int64[] memory logProbQ16, uint32 best)
    {
        _ask(model, prompt);
        best = _place(_answerTo(prompt).text, labels);
        logProbQ16 = new int64[](labels.length);
        for (uint256 i = 0; i < labels.length; i++) {
            logProbQ16[i] = i == best ? -(int64(1) << 13) : -(int64(4) << 16);
        }
    }

    /// @inheritdoc IMetisInference
    function logits(bytes32 model, bytes calldata prompt, uint32[] calldata)
        external
        view
        returns (int32[] memory)
    {
        _ask(model, prompt);
        revert NotMocked(msg.sig, prompt);
    }

    /// @inheritdoc IMetisInference
    function embed(bytes32 model, bytes calldata text) external view returns (int32[] memory) {
        _ask(model, text);
        revert NotMocked(msg.sig, text);
    }

    /// @inheritdoc IMetisInference
    function tokenize(bytes32, bytes calldata text) external view returns (uint32[] memory ids) {
        _describe(text);
        return _tokensOf(text);
    }

    /// @inheritdoc IMetisInference
    function detokenize(bytes32, uint32[] calldata ids) external view returns (bytes memory text) {
        text = _bytesOf(ids);
        _describe(text);
    }

    /// @inheritdoc IMetisInference
    function modelInfo(bytes32 model) external view returns (ModelInfo memory info) {
        _describe("");
        info.modelId = model == 0 ? keccak256("the default model") : model;
        info.architecture = "mock";
        info.vocab = 256;
        info.context = 4096;
        info.layers = 1;
        info.hidden = 64;
        info.name = "mock";
    }

    /// @inheritdoc IMetisInference
    function quote(bytes32, uint32, uint32) external view returns (uint64 gas) {
        _describe("");
        // Enough for what this contract does itself.
        return uint64(1_000_000 + _gas);
    }

    /// @inheritdoc IMetisInference
    function verifyBundle(bytes32) external view returns (bool same) {
        _describe("");
        return true;
    }

    /// @inheritdoc IMetisInference
    function inferenceBaseFee() external view returns (uint256 baseFee) {
        _describe("");
        return 0;
    }

    /// @dev What functions that write return.
    function _write(bytes32 model, bytes memory prompt, uint32 promptTokens, Finish whole, bytes[] memory options)
        private
        view
        returns (bytes memory, uint32[] memory, uint32, Finish)
    {
        _ask(model, prompt);
        Answer memory answer = _answerTo(prompt);
        if (options.length > 0 && !answer.cut) _place(answer.text, options);
        return (answer.text, _tokensOf(answer.text), promptTokens, answer.cut ? Finish.Length : whole);
    }

    /// @dev What comes before an answer by a model.
    function _ask(bytes32 model, bytes memory prompt) private view {
        if (msg.sender != GATEWAY && REGISTRY.code.length > 0) {
            (uint256 perCall, uint256 perGas,) = IModelRegistry(REGISTRY).billingOf(model);
            if (perCall | perGas != 0) revert PaymentRequired(model);
        }
        uint256 start = gasleft();
        uint256 wanted = _gas;
        while (start - gasleft() < wanted) {}
        _describe(prompt);
    }

    /// @dev Ends the call with what was said about it.
    function _describe(bytes memory prompt) private view {
        bytes32[3] memory keys = [
            _key(keccak256(msg.data), 0),
            _key(msg.sig, keccak256(prompt)),
            _key(keccak256(abi.encodePacked(msg.sig)), 0)
        ];
        for (uint256 i = 0; i < keys.length; i++) {
            Reply storage reply = _replies[keys[i]];
            if (reply.kind == Kind.None) continue;
            bytes memory data = reply.data;
            bool reverts = reply.kind == Kind.Revert;
            assembly ("memory-safe") {
                if reverts { revert(add(data, 0x20), mload(data)) }
                return(add(data, 0x20), mload(data))
            }
        }
    }

    /// @dev What was said about a prompt, or about all others.
    function _answerTo(bytes memory prompt) private view returns (Answer memory answer) {
        answer = _answers[_key(keccak256(prompt), 0)];
        if (!answer.known) answer = _answers[_key(0, 0)];
        if (!answer.known) revert NotMocked(msg.sig, prompt);
    }

    /// @dev Forgetting begins another round.
    function _key(bytes32 first, bytes32 second) private view returns (bytes32) {
        return keccak256(abi.encode(_round, first, second));
    }

    /// @dev Where a text is among options; it must be there.
    function _place(bytes memory text, bytes[] memory options) private pure returns (uint32) {
        for (uint256 i = 0; i < options.length; i++) {
            if (keccak256(options[i]) == keccak256(text)) return uint32(i);
        }
        revert NotAnOption(text);
    }

    /// @dev What a conversation is known by.
    function _last(Message[] calldata messages) private pure returns (bytes memory) {
        return messages.length == 0 ? bytes("") : messages[messages.length - 1].content;
    }

    /// @dev A conversation as one text.
    function _joined(Message[] calldata messages) private pure returns (bytes memory text) {
        for (uint256 i = 0; i < messages.length; i++) {
            text = bytes.concat(text, messages[i].content);
        }
    }

    /// @dev A token for each byte.
    function _tokensOf(bytes memory text) private pure returns (uint32[] memory ids) {
        ids = new uint32[](text.length);
        for (uint256 i = 0; i < text.length; i++) {
            ids[i] = uint8(text[i]);
        }
    }

    /// @dev A byte for each token.
    function _bytesOf(uint32[] calldata ids) private pure returns (bytes memory text) {
        text = new bytes(ids.length);
        for (uint256 i = 0; i < ids.length; i++) {
            if (ids[i] > 255) revert TokenOutOfRange(ids[i], 256);
            text[i] = bytes1(uint8(ids[i]));
        }
    }
}
