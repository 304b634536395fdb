// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {GenerateResult, MetisAI} from "../MetisAI.sol";
import {MetisPaid, Payment} from "../MetisPaid.sol";
import {Finish} from "../interfaces/IMetisInference.sol";

/// @title The library of paid calls as calls
/// @notice For end-to-end tests. It pays with what it has, and with what is sent along.
contract Payer {
    /// @notice The gateway's change is refused.
    error Refused();

    /// @notice Whether this contract takes change.
    bool public immutable accepts;

    /// @param accepts_ Whether it takes change.
    constructor(bool accepts_) payable {
        accepts = accepts_;
    }

    /// @notice Takes money, and change.
    receive() external payable {
        if (!accepts) revert Refused();
    }

    /// @notice `MetisPaid.money`.
    /// @param maxPrice Most wei.
    /// @return by What pays.
    function money(uint256 maxPrice) external pure returns (Payment memory by) {
        return MetisPaid.money(maxPrice);
    }

    /// @notice `MetisPaid.quota`.
    /// @param tokenId The token.
    /// @return by What pays.
    function quota(uint256 tokenId) external pure returns (Payment memory by) {
        return MetisPaid.quota(tokenId);
    }

    /// @notice `MetisPaid.ask`.
    /// @param by What pays.
    /// @param model The model.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens of the answer.
    /// @return text The answer.
    /// @return price Wei that it cost.
    function ask(Payment calldata by, bytes32 model, bytes calldata prompt, uint32 maxNew)
        external
        payable
        returns (bytes memory text, uint256 price)
    {
        return MetisPaid.ask(by, model, prompt, maxNew);
    }

    /// @notice `MetisPaid.ask` with a pattern.
    /// @param by What pays.
    /// @param model The model.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens of the answer.
    /// @param pattern What it must match.
    /// @return text The answer.
    /// @return price Wei that it cost.
    function askFor(Payment calldata by, bytes32 model, bytes calldata prompt, uint32 maxNew, bytes calldata pattern)
        external
        payable
        returns (bytes memory text, uint256 price)
    {
        return MetisPaid.ask(by, model, prompt, maxNew, pattern);
    }

    /// @notice `MetisPaid.askYesNo`.
    /// @param by What pays.
    /// @param model The model.
    /// @param prompt The question.
    /// @return yes Whether the answer is `yes`.
    /// @return price Wei that it cost.
    function askYesNo(Payment calldata by, bytes32 model, bytes calldata prompt)
        external
        payable
        returns (bool yes, uint256 price)
    {
        return MetisPaid.askYesNo(by, model, prompt);
    }

    /// @notice `MetisPaid.askNumber`.
    /// @param by What pays.
    /// @param model The model.
    /// @param prompt The text before the number.
    /// @param digits Most digits.
    /// @return number The number.
    /// @return price Wei that it cost.
    function askNumber(Payment calldata by, bytes32 model, bytes calldata prompt, uint8 digits)
        external
        payable
        returns (uint256 number, uint256 price)
    {
        return MetisPaid.askNumber(by, model, prompt, digits);
    }

    /// @notice `MetisPaid.choose`.
    /// @param by What pays.
    /// @param model The model.
    /// @param prompt The text before the option.
    /// @param options The options.
    /// @return index The index of the option.
    /// @return price Wei that it cost.
    function choose(Payment calldata by, bytes32 model, bytes calldata prompt, bytes[] calldata options)
        external
        payable
        returns (uint256 index, uint256 price)
    {
        return MetisPaid.choose(by, model, prompt, options);
    }

    /// @notice `MetisPaid.classify`.
    /// @param by What pays.
    /// @param model The model.
    /// @param prompt The text before the label.
    /// @param labels The labels.
    /// @return index The index of the likeliest label.
    /// @return price Wei that it cost.
    function classify(Payment calldata by, bytes32 model, bytes calldata prompt, bytes[] calldata labels)
        external
        payable
        returns (uint256 index, uint256 price)
    {
        return MetisPaid.classify(by, model, prompt, labels);
    }

    /// @notice `MetisPaid.generateConstrained` with `MetisAI.oneOf`.
    /// @param by What pays.
    /// @param model The model.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens of the answer.
    /// @param options The options.
    /// @return result The answer.
    /// @return price Wei that it cost.
    function generateOneOf(
        Payment calldata by,
        bytes32 model,
        bytes calldata prompt,
        uint32 maxNew,
        bytes[] calldata options
    ) external payable returns (GenerateResult memory result, uint256 price) {
        return MetisPaid.generateConstrained(by, model, prompt, maxNew, MetisAI.greedy(), MetisAI.oneOf(options));
    }

    /// @notice `MetisPaid.generateChat` with `MetisAI.userSays`.
    /// @param by What pays.
    /// @param model The model.
    /// @param content What the user says.
    /// @param maxNew Most tokens of the answer.
    /// @return result The answer.
    /// @return price Wei that it cost.
    function chat(Payment calldata by, bytes32 model, bytes calldata content, uint32 maxNew)
        external
        payable
        returns (GenerateResult memory result, uint256 price)
    {
        return MetisPaid.generateChat(
            by, model, MetisAI.userSays(content), maxNew, MetisAI.greedy(), MetisAI.anything()
        );
    }

    /// @notice `MetisPaid.generateTokens`.
    /// @param by What pays.
    /// @param model The model.
    /// @param prompt The tokens to continue.
    /// @param maxNew Most tokens of the answer.
    /// @return tokens The new tokens.
    /// @return finish Why the answer ended.
    /// @return price Wei that it cost.
    function generateTokens(Payment calldata by, bytes32 model, uint32[] calldata prompt, uint32 maxNew)
        external
        payable
        returns (uint32[] memory tokens, Finish finish, uint256 price)
    {
        return MetisPaid.generateTokens(by, model, prompt, maxNew, MetisAI.greedy(), new uint32[](0));
    }

    /// @notice `MetisPaid.logits`.
    /// @param by What pays.
    /// @param model The model.
    /// @param prompt The text before the token.
    /// @param ids The tokens asked for.
    /// @return logitQ16 One logit per token asked for.
    /// @return price Wei that it cost.
    function logits(Payment calldata by, bytes32 model, bytes calldata prompt, uint32[] calldata ids)
        external
        payable
        returns (int32[] memory logitQ16, uint256 price)
    {
        return MetisPaid.logits(by, model, prompt, ids);
    }

    /// @notice `MetisPaid.embed`.
    /// @param by What pays.
    /// @param model The model.
    /// @param text The text.
    /// @return vectorQ16 The vector.
    /// @return price Wei that it cost.
    function embed(Payment calldata by, bytes32 model, bytes calldata text)
        external
        payable
        returns (int32[] memory vectorQ16, uint256 price)
    {
        return MetisPaid.embed(by, model, text);
    }

    /// @notice `MetisPaid.quote`.
    /// @param model The model.
    /// @param promptTokens Tokens of the prompt.
    /// @param maxNew Most new tokens.
    /// @return price The most that it costs.
    function quote(bytes32 model, uint32 promptTokens, uint32 maxNew) external view returns (uint256 price) {
        return MetisPaid.quote(model, promptTokens, maxNew);
    }

    /// @notice `MetisPaid.priceOf`.
    /// @param model The model.
    /// @param gasUsed Gas of the inference.
    /// @return price What it costs.
    function priceOf(bytes32 model, uint256 gasUsed) external view returns (uint256 price) {
        return MetisPaid.priceOf(model, gasUsed);
    }
}
