// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {INFERENCE} from "./MetisAddresses.sol";
import {Constraint, Finish, IMetisInference, Message, ModelInfo, Role, Sampling} from "./interfaces/IMetisInference.sol";

/// @notice The answer of `MetisAI.generate`.
struct GenerateResult {
    /// @dev The new text. Bytes, because a token can end inside a UTF-8 character.
    bytes text;
    /// @dev The new tokens.
    uint32[] tokens;
    /// @dev How many tokens the prompt had.
    uint32 promptTokens;
    /// @dev Why the answer ended. Only after `Finish.Eos` did the model say all it wanted to; only after `Finish.Eos` and
    /// `Finish.Complete` does an answer have the form that was asked for.
    Finish finish;
}

/// @notice This chain has no inference precompile, or no gateway.
error MetisUnavailable();

/// @notice The answer was cut off before it had the form that was asked for.
/// @param text What there is of it.
error Unfinished(bytes text);

/// @title MetisAI
/// @notice Ask a language model inside a transaction. The answer is bit-exact on every validator.
/// @dev Each function is one STATICCALL to the inference precompile, so all of them also work in views and constructors.
/// What the precompile reverts with (`IMetisInference.UnknownModel`, `PromptTooLong`, ...) reaches the caller unchanged.
/// All gas that is left is offered and the unused part comes back; `quote` says in advance what a call costs at most.
/// Models with a price revert with `PaymentRequired` here: `MetisPaid` asks those.
library MetisAI {
    /// @notice Where the precompile is.
    address internal constant PRECOMPILE = INFERENCE;

    /// @notice Stands for the chain's default model.
    bytes32 internal constant DEFAULT_MODEL = bytes32(0);

    /// @notice Asks the default model, greedily.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens of the answer.
    /// @return text The answer.
    function ask(bytes memory prompt, uint32 maxNew) internal view returns (bytes memory text) {
        return generate(DEFAULT_MODEL, prompt, maxNew, greedy(), new uint32[](0)).text;
    }

    /// @notice Asks the default model, greedily, for an answer that matches a pattern, or reverts with `Unfinished`.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens of the answer. As many as the longest match has bytes are always enough.
    /// @param pattern What the answer must match, such as `yes|no` or `-?[0-9]{1,6}`.
    /// @return text The answer.
    function ask(bytes memory prompt, uint32 maxNew, bytes memory pattern) internal view returns (bytes memory text) {
        return wholeText(generateConstrained(DEFAULT_MODEL, prompt, maxNew, greedy(), matching(pattern)));
    }

    /// @notice Asks the default model for `yes` or `no`.
    /// @param prompt The question.
    /// @return yes Whether the answer is `yes`.
    function askYesNo(bytes memory prompt) internal view returns (bool yes) {
        return choose(prompt, noOrYes()) == 1;
    }

    /// @notice Asks the default model for a whole number, greedily.
    /// @param prompt The text before the number.
    /// @param digits Most digits, 1 to 77.
    /// @return number The number.
    function askNumber(bytes memory prompt, uint8 digits) internal view returns (uint256 number) {
        return numberIn(ask(prompt, digits, wholeNumber(digits)));
    }

    /// @notice The option that the default model continues a prompt with, greedily.
    /// @param prompt The text before the option.
    /// @param options The options to choose from.
    /// @return index The index of the option; the lowest of equals.
    function choose(bytes memory prompt, bytes[] memory options) internal view returns (uint256 index) {
        return choose(DEFAULT_MODEL, prompt, greedy(), options);
    }

    /// @notice The label that the default model finds likeliest after a prompt.
    /// @param prompt The text before the label.
    /// @param labels The labels to choose from.
    /// @return index The index of the likeliest label; ties to the lowest.
    function classify(bytes memory prompt, bytes[] memory labels) internal view returns (uint256 index) {
        (, uint32 best) = score(DEFAULT_MODEL, prompt, labels);
        return best;
    }

    /// @notice Sampling parameters that always take the likeliest token.
    /// @return s The parameters.
    function greedy() internal pure returns (Sampling memory s) {}

    /// @notice Continues a text.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens.
    /// @param stopIds Tokens that end the answer. They are not part of it.
    /// @return result The answer.
    function generate(
        bytes32 model,
        bytes memory prompt,
        uint32 maxNew,
        Sampling memory s,
        uint32[] memory stopIds
    ) internal view returns (GenerateResult memory result) {
        return toResult(_call(abi.encodeCall(IMetisInference.generate, (model, prompt, maxNew, s, stopIds))));
    }

    /// @notice No form: any answer.
    /// @return c The form.
    function anything() internal pure returns (Constraint memory c) {}

    /// @notice A form: what a pattern matches.
    /// @param pattern The pattern; `Constraint` says what may be in it.
    /// @return c The form.
    function matching(bytes memory pattern) internal pure returns (Constraint memory c) {
        c.pattern = pattern;
    }

    /// @notice A form: one of some options.
    /// @param options The options.
    /// @return c The form.
    function oneOf(bytes[] memory options) internal pure returns (Constraint memory c) {
        c.options = options;
    }

    /// @notice The options `no` and `yes`, in this order.
    /// @return options The options.
    function noOrYes() internal pure returns (bytes[] memory options) {
        options = new bytes[](2);
        options[0] = "no";
        options[1] = "yes";
    }

    /// @notice A pattern: a whole number without needless zeros in front. Its longest match has `digits` bytes.
    /// @param digits Most digits, 1 to 77, so that the number fits into 256 bits.
    /// @return pattern The pattern.
    function wholeNumber(uint8 digits) internal pure returns (bytes memory pattern) {
        if (digits == 0 || digits > 77) revert IMetisInference.BadConstraint(0);
        // One digit has no more of them: a repetition is at least once.
        if (digits == 1) return "[0-9]";
        uint8 more = digits - 1;
        bytes memory count = more < 10
            ? abi.encodePacked(bytes1(48 + more))
            : abi.encodePacked(bytes1(48 + more / 10), bytes1(48 + more % 10));
        return abi.encodePacked("0|[1-9][0-9]{0,", count, "}");
    }

    /// @notice The number that an answer of the form `wholeNumber` stands for.
    /// @param text The answer: digits and nothing else.
    /// @return number The number.
    function numberIn(bytes memory text) internal pure returns (uint256 number) {
        for (uint256 i = 0; i < text.length; i++) {
            number = number * 10 + uint8(text[i]) - 48;
        }
    }

    /// @notice The text of an answer that has the form that was asked for; reverts with `Unfinished` if it was cut off.
    /// @param result The answer.
    /// @return text Its text.
    function wholeText(GenerateResult memory result) internal pure returns (bytes memory text) {
        if (result.finish == Finish.Length) revert Unfinished(result.text);
        return result.text;
    }

    /// @notice Continues a text with an answer of a given form.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens.
    /// @param c The form: `matching` or `oneOf`.
    /// @return result The answer. It has the form unless `finish` is `Finish.Length`.
    function generateConstrained(
        bytes32 model,
        bytes memory prompt,
        uint32 maxNew,
        Sampling memory s,
        Constraint memory c
    ) internal view returns (GenerateResult memory result) {
        return toResult(_call(abi.encodeCall(IMetisInference.generateConstrained, (model, prompt, maxNew, s, c))));
    }

    /// @notice Continues a text with one of some options.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The text to continue.
    /// @param s How to draw tokens.
    /// @param options The options to choose from.
    /// @return index The index of the option; the lowest of equals.
    function choose(bytes32 model, bytes memory prompt, Sampling memory s, bytes[] memory options)
        internal
        view
        returns (uint32 index)
    {
        return abi.decode(_call(abi.encodeCall(IMetisInference.choose, (model, prompt, s, options))), (uint32));
    }

    /// @notice A conversation of one message.
    /// @param content What a user says.
    /// @return messages The conversation.
    function userSays(bytes memory content) internal pure returns (Message[] memory messages) {
        messages = new Message[](1);
        messages[0] = Message(Role.User, content);
    }

    /// @notice A conversation of a message of the system and one of a user.
    /// @param system What the system says.
    /// @param content What the user says.
    /// @return messages The conversation.
    function userSays(bytes memory system, bytes memory content) internal pure returns (Message[] memory messages) {
        messages = new Message[](2);
        messages[0] = Message(Role.System, system);
        messages[1] = Message(Role.User, content);
    }

    /// @notice The next message of an assistant in a conversation. The model must be one that chats; the embedded one is not.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param messages The conversation, such as `userSays` makes.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens.
    /// @param c The form: `matching`, `oneOf`, or `anything`.
    /// @return result The answer. It has the form unless `finish` is `Finish.Length`.
    function generateChat(
        bytes32 model,
        Message[] memory messages,
        uint32 maxNew,
        Sampling memory s,
        Constraint memory c
    ) internal view returns (GenerateResult memory result) {
        return toResult(_call(abi.encodeCall(IMetisInference.generateChat, (model, messages, maxNew, s, c))));
    }

    /// @notice The tokens of a conversation, up to where the answer begins.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param messages The conversation.
    /// @return ids The tokens.
    function tokenizeChat(bytes32 model, Message[] memory messages) internal view returns (uint32[] memory ids) {
        return abi.decode(_call(abi.encodeCall(IMetisInference.tokenizeChat, (model, messages))), (uint32[]));
    }

    /// @notice Continues a sequence of tokens.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The tokens to continue.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens.
    /// @param stopIds Tokens that end the answer. They are not part of it.
    /// @return tokens The new tokens.
    /// @return finish Why the answer ended.
    function generateTokens(
        bytes32 model,
        uint32[] memory prompt,
        uint32 maxNew,
        Sampling memory s,
        uint32[] memory stopIds
    ) internal view returns (uint32[] memory tokens, Finish finish) {
        bytes memory answer = _call(abi.encodeCall(IMetisInference.generateTokens, (model, prompt, maxNew, s, stopIds)));
        return abi.decode(answer, (uint32[], Finish));
    }

    /// @notice How likely each label is as the continuation of a prompt.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The text before the label.
    /// @param labels The continuations to compare.
    /// @return logProbQ16 The natural logarithm of each label's probability in Q16.
    /// @return best The index of the likeliest label; ties to the lowest.
    function score(bytes32 model, bytes memory prompt, bytes[] memory labels)
        internal
        view
        returns (int64[] memory logProbQ16, uint32 best)
    {
        return abi.decode(_call(abi.encodeCall(IMetisInference.score, (model, prompt, labels))), (int64[], uint32));
    }

    /// @notice The model's raw logits for chosen next tokens.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The text before the token.
    /// @param ids The tokens asked for.
    /// @return logitQ16 One logit in Q16 per token asked for.
    function logits(bytes32 model, bytes memory prompt, uint32[] memory ids)
        internal
        view
        returns (int32[] memory logitQ16)
    {
        return abi.decode(_call(abi.encodeCall(IMetisInference.logits, (model, prompt, ids))), (int32[]));
    }

    /// @notice A vector for a text, from models that embed.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param text The text.
    /// @return vectorQ16 The vector in Q16.
    function embed(bytes32 model, bytes memory text) internal view returns (int32[] memory vectorQ16) {
        return abi.decode(_call(abi.encodeCall(IMetisInference.embed, (model, text))), (int32[]));
    }

    /// @notice The tokens of a text.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param text The text.
    /// @return ids The tokens.
    function tokenize(bytes32 model, bytes memory text) internal view returns (uint32[] memory ids) {
        return abi.decode(_call(abi.encodeCall(IMetisInference.tokenize, (model, text))), (uint32[]));
    }

    /// @notice The text of tokens.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param ids The tokens.
    /// @return text The text.
    function detokenize(bytes32 model, uint32[] memory ids) internal view returns (bytes memory text) {
        return abi.decode(_call(abi.encodeCall(IMetisInference.detokenize, (model, ids))), (bytes));
    }

    /// @notice What a model is and what it costs.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @return info The facts.
    function modelInfo(bytes32 model) internal view returns (ModelInfo memory info) {
        return abi.decode(_call(abi.encodeCall(IMetisInference.modelInfo, (model))), (ModelInfo));
    }

    /// @notice Gas that a generation costs at most, without the cost of the call itself.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param promptTokens Tokens of the prompt.
    /// @param maxNew Most new tokens.
    /// @return gas The gas.
    function quote(bytes32 model, uint32 promptTokens, uint32 maxNew) internal view returns (uint64 gas) {
        return abi.decode(_call(abi.encodeCall(IMetisInference.quote, (model, promptTokens, maxNew))), (uint64));
    }

    /// @notice Reads what the precompile returns for `generate`, `generateConstrained` and `generateChat`.
    /// @param answer What it returned.
    /// @return result The answer.
    function toResult(bytes memory answer) internal pure returns (GenerateResult memory result) {
        (result.text, result.tokens, result.promptTokens, result.finish) =
            abi.decode(answer, (bytes, uint32[], uint32, Finish));
    }

    /// @dev A STATICCALL that passes on what the precompile reverts with. No function of the precompile answers with nothing,
    /// so a call that succeeds with nothing found no precompile there. A call that fails with nothing ran out of
    /// gas: the error is empty too.
    function _call(bytes memory data) private view returns (bytes memory answer) {
        bool success;
        (success, answer) = PRECOMPILE.staticcall(data);
        if (!success) {
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
        if (answer.length == 0) revert MetisUnavailable();
    }
}
