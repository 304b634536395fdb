// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @notice How the next token is drawn from a model's distribution. All zero is greedy decoding.
/// @dev Q16 is a number times 2^16: 1.0 is 65536.
struct Sampling {
    /// @dev Softmax temperature in Q16. 0 is greedy: always the likeliest token, ties to the lowest id.
    uint32 temperatureQ16;
    /// @dev Nucleus: the smallest set of tokens with this total probability in Q16, 1 to 65536; 65536 is off. Ignored when greedy.
    uint32 topPQ16;
    /// @dev Only this many of the likeliest tokens. 0 is off.
    uint16 topK;
    /// @dev Seed of the counter-based generator. The same seed and input give the same tokens on every validator.
    uint64 seed;
}

/// @notice Why a generation ended.
enum Finish {
    /// The model ended its text itself.
    Eos,
    /// The limit on new tokens was reached; the text is cut off.
    Length,
    /// One of the caller's stop tokens came.
    Stop,
    /// The answer has the form that the caller asked for, and nothing can follow.
    Complete
}

/// @notice The form of an answer: a pattern, or a list of options. The other is empty.
/// @dev Both are about bytes. Whether an answer begins with a space is up to them: many models expect ` yes` rather than
/// `yes` after a prompt that does not end with a space.
struct Constraint {
    /// @dev A small regular expression that matches the whole answer: literals, `.`, classes such as `[0-9a-z]` and `[^,]`, groups, `|`,
    /// `?`, `*`, `+`, `{n}`, `{m,}` and `{m,n}`; `\` before a character that means something else. docs/constraints.md has all of it.
    bytes pattern;
    /// @dev The answers to choose from.
    bytes[] options;
}

/// @notice Who says a message of a conversation.
enum Role {
    /// Whoever set the conversation up. Only the first message can be.
    System,
    /// Who asks. The last message always is.
    User,
    /// Who answers.
    Assistant
}

/// @notice One message of a conversation.
struct Message {
    /// @dev Who says it.
    Role role;
    /// @dev What is said. The strings of special tokens in it are text: nothing in here can close the message's turn.
    bytes content;
}

/// @notice What a model is and what it costs to run.
struct ModelInfo {
    /// @dev keccak256 of the model's canonical manifest.
    bytes32 modelId;
    /// @dev The name of the architecture in ASCII, left-aligned, for example `llama`.
    bytes32 architecture;
    /// @dev Number of tokens in the vocabulary.
    uint32 vocab;
    /// @dev Most tokens of prompt and answer together.
    uint32 context;
    /// @dev Number of layers.
    uint32 layers;
    /// @dev Width of the hidden state; also the length of an embedding.
    uint32 hidden;
    /// @dev Size of the model's files in bytes.
    uint64 bundleBytes;
    /// @dev Multiply-accumulates of the linear layers for one token.
    uint64 linearMacs;
    /// @dev Multiply-accumulates of attention for one token and one position before it.
    uint64 attentionMacs;
    /// @dev Multiply-accumulates of the output head for one token.
    uint64 headMacs;
    /// @dev Name for people.
    string name;
}

/// @title The inference precompile
/// @notice The raw interface of the precompiled contract at 0x000000000000000000000000000000000000A100. Contracts are better
/// served by the library `MetisAI`.
/// @dev Every function is a pure function of the chain's model registry and the calldata, in integers only: all
/// validators get the same bytes. `model` 0 is the chain's default model. Text is bytes, because a token can end inside a
/// UTF-8 character. A function that is out of gas for the worst case of its arguments runs no model at all.
interface IMetisInference {
    /// @notice No model with this id is registered.
    /// @param model The model.
    error UnknownModel(bytes32 model);
    /// @notice The model is registered, but not active at this block.
    /// @param model The model.
    error ModelNotActive(bytes32 model);
    /// @notice The prompt has more tokens than fit in front of the answer.
    /// @param tokens Tokens that there are, or would have to be.
    /// @param max Tokens that fit.
    error PromptTooLong(uint32 tokens, uint32 max);
    /// @notice More new tokens were asked for than the chain allows in one call.
    /// @param requested Tokens that were asked for.
    /// @param max Tokens that may be asked for here.
    error TooManyNewTokens(uint32 requested, uint32 max);
    /// @notice The sampling parameters are out of range.
    error BadSampling();
    /// @notice A token id is not in the model's vocabulary.
    /// @param id The token.
    /// @param vocab Tokens of the vocabulary.
    error TokenOutOfRange(uint32 id, uint32 vocab);
    /// @notice This model cannot do what was asked, or no such function exists.
    /// @param selector The function.
    error NotSupported(bytes4 selector);
    /// @notice The pattern is wrong at this byte.
    /// @param position Bytes of the pattern that could be read.
    error BadConstraint(uint32 position);
    /// @notice The automaton of the pattern or of the options has more than `max` states.
    /// @param max States that an automaton may have.
    error ConstraintTooLarge(uint32 max);
    /// @notice After this many tokens the model has none to spell what would have to follow.
    /// @param tokens Tokens of the answer until then.
    error CannotSpell(uint32 tokens);
    /// @notice The message with this index cannot come where it is, or is missing at the end.
    /// @param index The message.
    error BadMessage(uint32 index);
    /// @notice The calldata does not decode.
    error BadCalldata();
    /// @notice The model has a price: it answers through the gateway.
    /// @param model The model.
    error PaymentRequired(bytes32 model);
    /// @notice The transaction pays less for a unit of gas than inference costs in this block.
    /// @param baseFee Wei that a unit of gas of inference costs.
    error InferenceFeeTooLow(uint256 baseFee);
    /// @notice The block has only so much gas left for inference.
    /// @param left Gas that is left.
    error BlockInferenceLimit(uint64 left);
    /// @notice The bundle is not what its registration claims; the field is the name of the claim in ASCII, left-aligned.
    /// @param model The model.
    /// @param field The claim.
    error BundleMismatch(bytes32 model, bytes32 field);
    /// @notice No validator can execute this bundle: it is malformed, or has no price.
    /// @param model The model.
    error BundleRefused(bytes32 model);

    /// @notice Continues a text.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens.
    /// @param stopIds Tokens that end the answer. They are not part of it.
    /// @return text The new text.
    /// @return tokens The new tokens.
    /// @return promptTokens How many tokens the prompt had.
    /// @return finish Why the answer ended.
    function generate(bytes32 model, bytes calldata prompt, uint32 maxNew, Sampling calldata s, uint32[] calldata stopIds)
        external
        view
        returns (bytes memory text, uint32[] memory tokens, uint32 promptTokens, Finish finish);

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
        uint32[] calldata prompt,
        uint32 maxNew,
        Sampling calldata s,
        uint32[] calldata stopIds
    ) external view returns (uint32[] memory tokens, Finish finish);

    /// @notice Continues a text with an answer of a given form.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens among those that can still lead to the form.
    /// @param c The form.
    /// @return text The new text. After `Finish.Eos` and `Finish.Complete` it has the form; after `Finish.Length` it is cut off.
    /// @return tokens The new tokens.
    /// @return promptTokens How many tokens the prompt had.
    /// @return finish Why the answer ended.
    function generateConstrained(
        bytes32 model,
        bytes calldata prompt,
        uint32 maxNew,
        Sampling calldata s,
        Constraint calldata c
    ) external view returns (bytes memory text, uint32[] memory tokens, uint32 promptTokens, Finish finish);

    /// @notice Continues a text with one of some options.
    /// @dev The model decides token by token; `score` compares whole options, and has to read each.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The text to continue.
    /// @param s How to draw tokens among those that can still lead to an option.
    /// @param options The answers to choose from.
    /// @return index The index of the answer; the lowest of equal options.
    function choose(bytes32 model, bytes calldata prompt, Sampling calldata s, bytes[] calldata options)
        external
        view
        returns (uint32 index);

    /// @notice The next message of an assistant in a conversation.
    /// @dev Reverts with `NotSupported` if the model does not chat: `tokenizeChat` tells.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param messages Perhaps one of the system, one of a user, then one of an assistant and one of a user as often as there are.
    /// @param maxNew Most tokens to add.
    /// @param s How to draw tokens.
    /// @param c The form of the answer, or all empty for any.
    /// @return text The answer.
    /// @return tokens Its tokens.
    /// @return promptTokens How many tokens the conversation had.
    /// @return finish Why the answer ended.
    function generateChat(
        bytes32 model,
        Message[] calldata messages,
        uint32 maxNew,
        Sampling calldata s,
        Constraint calldata c
    ) external view returns (bytes memory text, uint32[] memory tokens, uint32 promptTokens, Finish finish);

    /// @notice The tokens of a conversation, up to where the answer begins.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param messages The conversation.
    /// @return ids The tokens.
    function tokenizeChat(bytes32 model, Message[] calldata messages) external view returns (uint32[] memory ids);

    /// @notice How likely each label is as the continuation of a prompt.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The text before the label.
    /// @param labels The continuations to compare.
    /// @return logProbQ16 The natural logarithm of each label's probability in Q16.
    /// @return best The index of the likeliest label; ties to the lowest.
    function score(bytes32 model, bytes calldata prompt, bytes[] calldata labels)
        external
        view
        returns (int64[] memory logProbQ16, uint32 best);

    /// @notice The model's raw logits for chosen next tokens.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param prompt The text before the token.
    /// @param ids The tokens asked for.
    /// @return logitQ16 One logit in Q16 per token asked for.
    function logits(bytes32 model, bytes calldata prompt, uint32[] calldata ids)
        external
        view
        returns (int32[] memory logitQ16);

    /// @notice A vector for a text, from models that embed.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param text The text.
    /// @return vectorQ16 The vector in Q16.
    function embed(bytes32 model, bytes calldata text) external view returns (int32[] memory vectorQ16);

    /// @notice The tokens of a text.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param text The text.
    /// @return ids The tokens.
    function tokenize(bytes32 model, bytes calldata text) external view returns (uint32[] memory ids);

    /// @notice The text of tokens.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param ids The tokens.
    /// @return text The text.
    function detokenize(bytes32 model, uint32[] calldata ids) external view returns (bytes memory text);

    /// @notice What a model is and what it costs.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @return info The facts.
    function modelInfo(bytes32 model) external view returns (ModelInfo memory info);

    /// @notice Gas that a generation costs at most.
    /// @param model The model's id, or 0 for the chain's default model.
    /// @param promptTokens Tokens of the prompt.
    /// @param maxNew Most new tokens.
    /// @return gas The gas, without the cost of the call itself.
    function quote(bytes32 model, uint32 promptTokens, uint32 maxNew) external view returns (uint64 gas);

    /// @notice Compares a model's bundle with its registration. Only for the registry, which asks when it activates a model.
    /// @dev Reverts with `BundleMismatch` or `BundleRefused` on every validator alike. One that lacks the bundle stops.
    /// @param model The model's id.
    /// @return same Always true.
    function verifyBundle(bytes32 model) external view returns (bool same);

    /// @notice What a unit of gas that inference takes costs in this block, at least.
    /// @return baseFee Wei. 0 on chains without a market for inference.
    function inferenceBaseFee() external view returns (uint256 baseFee);
}
