// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {GATEWAY} from "./MetisAddresses.sol";
import {GenerateResult, MetisAI, MetisUnavailable} from "./MetisAI.sol";
import {IInferenceGateway} from "./interfaces/IInferenceGateway.sol";
import {Constraint, Finish, IMetisInference, Message, Sampling} from "./interfaces/IMetisInference.sol";

/// @notice What pays for a call: `MetisPaid.money` or `MetisPaid.quota`.
struct Payment {
    /// @dev Most wei that the call may cost, where money pays.
    uint256 maxPrice;
    /// @dev The token whose quota pays, or 0 for money.
    uint256 tokenId;
}

/// @title MetisPaid
/// @notice Ask a language model that has a price. What it earns goes to the holders of its shares, in the same transaction.
/// @dev Each function is one call to the gateway by the contract that uses this library. That contract pays:
///
/// - `money(max)`: from its own balance, of which what was sent along (`msg.value`) is a part. The gateway takes the price and sends
///   the rest back, so **the contract must accept plain transfers: `receive() external payable {}`**. The price is returned, for
///   contracts that settle with whoever called them. A call that costs more reverts with `IInferenceGateway.PriceExceeded`, and
///   nothing is paid.
/// - `quota(tokenId)`: from the quota of a token of the model's class that the contract owns, one unit for each unit of gas.
///
/// Models without a price can be asked in the same way, and cost nothing. Errors arrive unchanged, as with `MetisAI`. What only describes
/// a model (`tokenize`, `modelInfo`, `quote`) is free: `MetisAI` has it. Calls change state, so nothing here works in views; to try
/// a call, simulate the transaction.
library MetisPaid {
    /// @notice Pays with the calling contract's money.
    /// @param maxPrice Most wei that the call may cost. It need not be there: what there is limits the call too.
    /// @return by What pays.
    function money(uint256 maxPrice) internal pure returns (Payment memory by) {
        by.maxPrice = maxPrice;
    }

    /// @notice Pays with the quota of a token that the calling contract owns.
    /// @param tokenId The token.
    /// @return by What pays.
    function quota(uint256 tokenId) internal pure returns (Payment memory by) {
        by.tokenId = tokenId;
    }

    /// @notice Asks a model, greedily.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens of the answer.
    /// @return text The answer.
    /// @return price Wei that it cost.
    function ask(Payment memory by, bytes32 model, bytes memory prompt, uint32 maxNew)
        internal
        returns (bytes memory text, uint256 price)
    {
        GenerateResult memory result;
        (result, price) = generate(by, model, prompt, maxNew, MetisAI.greedy(), new uint32[](0));
        text = result.text;
    }

    /// @notice Asks a model, greedily, for an answer that matches a pattern, or reverts with `Unfinished`.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens of the answer. As many as the longest match has bytes are always enough.
    /// @param pattern What the answer must match, such as `yes|no` or `-?[0-9]{1,6}`.
    /// @return text The answer.
    /// @return price Wei that it cost.
    function ask(Payment memory by, bytes32 model, bytes memory prompt, uint32 maxNew, bytes memory pattern)
        internal
        returns (bytes memory text, uint256 price)
    {
        GenerateResult memory result;
        (result, price) =
            generateConstrained(by, model, prompt, maxNew, MetisAI.greedy(), MetisAI.matching(pattern));
        text = MetisAI.wholeText(result);
    }

    /// @notice Asks a model for `yes` or `no`.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The question.
    /// @return yes Whether the answer is `yes`.
    /// @return price Wei that it cost.
    function askYesNo(Payment memory by, bytes32 model, bytes memory prompt)
        internal
        returns (bool yes, uint256 price)
    {
        uint256 index;
        (index, price) = choose(by, model, prompt, MetisAI.noOrYes());
        yes = index > 0;
    }

    /// @notice Asks a model for a whole number, greedily.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The text before the number.
    /// @param digits Most digits, 1 to 77.
    /// @return number The number.
    /// @return price Wei that it cost.
    function askNumber(Payment memory by, bytes32 model, bytes memory prompt, uint8 digits)
        internal
        returns (uint256 number, uint256 price)
    {
        bytes memory text;
        (text, price) = ask(by, model, prompt, digits, MetisAI.wholeNumber(digits));
        number = MetisAI.numberIn(text);
    }

    /// @notice The option that a model continues a prompt with, greedily.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The text before the option.
    /// @param options The options to choose from.
    /// @return index The index of the option; the lowest of equals.
    /// @return price Wei that it cost.
    function choose(Payment memory by, bytes32 model, bytes memory prompt, bytes[] memory options)
        internal
        returns (uint256 index, uint256 price)
    {
        return choose(by, model, prompt, MetisAI.greedy(), options);
    }

    /// @notice The label that a model finds likeliest after a prompt.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The text before the label.
    /// @param labels The labels to choose from.
    /// @return index The index of the likeliest label; ties to the lowest.
    /// @return price Wei that it cost.
    function classify(Payment memory by, bytes32 model, bytes memory prompt, bytes[] memory labels)
        internal
        returns (uint256 index, uint256 price)
    {
        (, index, price) = score(by, model, prompt, labels);
    }

    /// @notice Continues a text.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens.
    /// @param stopIds Tokens that end the answer. They are not part of it.
    /// @return result The answer.
    /// @return price Wei that it cost.
    function generate(
        Payment memory by,
        bytes32 model,
        bytes memory prompt,
        uint32 maxNew,
        Sampling memory s,
        uint32[] memory stopIds
    ) internal returns (GenerateResult memory result, uint256 price) {
        bytes memory answer;
        (answer, price) = _call(by, abi.encodeCall(IMetisInference.generate, (model, prompt, maxNew, s, stopIds)));
        result = MetisAI.toResult(answer);
    }

    /// @notice Continues a text with an answer of a given form.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens.
    /// @param c The form: `MetisAI.matching` or `MetisAI.oneOf`.
    /// @return result The answer. It has the form unless `finish` is `Finish.Length`.
    /// @return price Wei that it cost.
    function generateConstrained(
        Payment memory by,
        bytes32 model,
        bytes memory prompt,
        uint32 maxNew,
        Sampling memory s,
        Constraint memory c
    ) internal returns (GenerateResult memory result, uint256 price) {
        bytes memory answer;
        (answer, price) = _call(by, abi.encodeCall(IMetisInference.generateConstrained, (model, prompt, maxNew, s, c)));
        result = MetisAI.toResult(answer);
    }

    /// @notice Continues a text with one of some options.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The text to continue.
    /// @param s How to draw tokens.
    /// @param options The options to choose from.
    /// @return index The index of the option; the lowest of equals.
    /// @return price Wei that it cost.
    function choose(Payment memory by, bytes32 model, bytes memory prompt, Sampling memory s, bytes[] memory options)
        internal
        returns (uint256 index, uint256 price)
    {
        bytes memory answer;
        (answer, price) = _call(by, abi.encodeCall(IMetisInference.choose, (model, prompt, s, options)));
        index = abi.decode(answer, (uint32));
    }

    /// @notice The next message of an assistant in a conversation. The model must be one that chats.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param messages The conversation, such as `MetisAI.userSays` makes.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens.
    /// @param c The form: `MetisAI.matching`, `MetisAI.oneOf`, or `MetisAI.anything`.
    /// @return result The answer. It has the form unless `finish` is `Finish.Length`.
    /// @return price Wei that it cost.
    function generateChat(
        Payment memory by,
        bytes32 model,
        Message[] memory messages,
        uint32 maxNew,
        Sampling memory s,
        Constraint memory c
    ) internal returns (GenerateResult memory result, uint256 price) {
        bytes memory answer;
        (answer, price) = _call(by, abi.encodeCall(IMetisInference.generateChat, (model, messages, maxNew, s, c)));
        result = MetisAI.toResult(answer);
    }

    /// @notice Continues a sequence of tokens.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The tokens to continue.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens.
    /// @param stopIds Tokens that end the answer. They are not part of it.
    /// @return tokens The new tokens.
    /// @return finish Why the answer ended.
    /// @return price Wei that it cost.
    function generateTokens(
        Payment memory by,
        bytes32 model,
        uint32[] memory prompt,
        uint32 maxNew,
        Sampling memory s,
        uint32[] memory stopIds
    ) internal returns (uint32[] memory tokens, Finish finish, uint256 price) {
        bytes memory answer;
        (answer, price) =
            _call(by, abi.encodeCall(IMetisInference.generateTokens, (model, prompt, maxNew, s, stopIds)));
        (tokens, finish) = abi.decode(answer, (uint32[], Finish));
    }

    /// @notice How likely each label is as the continuation of a prompt.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The text before the label.
    /// @param labels The continuations to compare.
    /// @return logProbQ16 The natural logarithm of each label's probability in Q16.
    /// @return best The index of the likeliest label; ties to the lowest.
    /// @return price Wei that it cost.
    function score(Payment memory by, bytes32 model, bytes memory prompt, bytes[] memory labels)
        internal
        returns (int64[] memory logProbQ16, uint32 best, uint256 price)
    {
        bytes memory answer;
        (answer, price) = _call(by, abi.encodeCall(IMetisInference.score, (model, prompt, labels)));
        (logProbQ16, best) = abi.decode(answer, (int64[], uint32));
    }

    /// @notice The model's raw logits for chosen next tokens.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param prompt The text before the token.
    /// @param ids The tokens asked for.
    /// @return logitQ16 One logit in Q16 per token asked for.
    /// @return price Wei that it cost.
    function logits(Payment memory by, bytes32 model, bytes memory prompt, uint32[] memory ids)
        internal
        returns (int32[] memory logitQ16, uint256 price)
    {
        bytes memory answer;
        (answer, price) = _call(by, abi.encodeCall(IMetisInference.logits, (model, prompt, ids)));
        logitQ16 = abi.decode(answer, (int32[]));
    }

    /// @notice A vector for a text, from models that embed.
    /// @param by What pays.
    /// @param model The model's id.
    /// @param text The text.
    /// @return vectorQ16 The vector in Q16.
    /// @return price Wei that it cost.
    function embed(Payment memory by, bytes32 model, bytes memory text)
        internal
        returns (int32[] memory vectorQ16, uint256 price)
    {
        bytes memory answer;
        (answer, price) = _call(by, abi.encodeCall(IMetisInference.embed, (model, text)));
        vectorQ16 = abi.decode(answer, (int32[]));
    }

    /// @notice What a generation without a form costs at most, in wei: a `maxPrice` with which it never fails.
    /// @dev For prompts of at most 16 bytes for each token. A form costs more: `priceOf` has the price of any amount of gas.
    /// @param model The model's id.
    /// @param promptTokens Tokens of the prompt; `MetisAI.tokenize` counts them.
    /// @param maxNew Most new tokens.
    /// @return price The price.
    function quote(bytes32 model, uint32 promptTokens, uint32 maxNew) internal view returns (uint256 price) {
        return _gateway().quote(model, promptTokens, maxNew);
    }

    /// @notice What a call that takes so much gas costs, in wei.
    /// @param model The model's id.
    /// @param gasUsed Gas that the inference takes.
    /// @return price The price; 0 for a model that nobody registered.
    function priceOf(bytes32 model, uint256 gasUsed) internal view returns (uint256 price) {
        return _gateway().priceOf(model, gasUsed);
    }

    /// @dev One call to the gateway, and what it cost.
    function _call(Payment memory by, bytes memory data) private returns (bytes memory answer, uint256 price) {
        IInferenceGateway gateway = _gateway();
        if (by.tokenId != 0) return (gateway.callWithQuota(by.tokenId, data), 0);
        uint256 held = address(this).balance;
        answer = gateway.call{value: by.maxPrice < held ? by.maxPrice : held}(data);
        // The rest is back before the gateway returns.
        price = held - address(this).balance;
    }

    /// @dev A call to an address without code would say nothing at all.
    function _gateway() private view returns (IInferenceGateway) {
        if (GATEWAY.code.length == 0) revert MetisUnavailable();
        return IInferenceGateway(GATEWAY);
    }
}
