// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {MetisAI} from "../MetisAI.sol";
import {INFERENCE} from "../MetisAddresses.sol";
import {IMetisInference, Message, Role} from "../interfaces/IMetisInference.sol";

/// @title A character of a game that remembers its conversations
/// @notice Players talk to it in transactions, each in a conversation of their own.
/// @dev The chain keeps 32 bytes for each player: the hash of the conversation. A player hands the conversation back with their next
/// words, and cannot hand back another. Only the last turns are remembered, so that what a call costs has a bound. The model's
/// chat format is used where it has one; other models read a transcript and write its next line.
contract NpcDialogue {
    /// @notice How the model is asked.
    enum Form {
        /// As a transcript, of which it writes the next line.
        Transcript,
        /// In its chat format, which has no place for a system message: the persona is a part of the first message.
        Chat,
        /// In its chat format.
        ChatWithSystem
    }

    /// @notice The conversation is not the one that is remembered.
    /// @param remembered The hash of what is.
    /// @param given The hash of what was handed in.
    error WrongHistory(bytes32 remembered, bytes32 given);
    /// @notice Words are 1 to `MAX_WORDS_BYTES` bytes without control characters, which could look like the next line.
    /// @param at The position of such a character, or the length.
    error BadWords(uint256 at);
    /// @notice A conversation has at least one turn.
    error NoTurns();

    /// @notice A player spoke and was answered. With all of these since the last `Forgotten`, a conversation can be put together again.
    /// @param player Who.
    /// @param words What they said.
    /// @param answer What the character said.
    /// @param memoryHash The hash of the conversation that is remembered from now on.
    event Spoken(address indexed player, string words, bytes answer, bytes32 memoryHash);
    /// @notice A player's conversation was forgotten.
    /// @param player Whose.
    event Forgotten(address indexed player);

    /// @notice Most bytes of what a player says at once.
    uint256 public constant MAX_WORDS_BYTES = 280;

    /// @notice The model.
    bytes32 public immutable model;
    /// @notice How it is asked.
    Form public immutable form;
    /// @notice Turns that are remembered: a player's words and the answer are one.
    uint256 public immutable maxTurns;
    /// @notice Most tokens of an answer.
    uint32 public immutable maxNew;
    /// @notice Who the character is, for the model.
    bytes public persona;
    /// @notice The hash of each player's conversation; 0 before the first words.
    mapping(address player => bytes32 memoryHash) public memoryOf;

    /// @param model_ The model, or 0 for the chain's default model.
    /// @param persona_ Who the character is.
    /// @param maxTurns_ Turns that are remembered. All of them, the persona and an answer must fit into the model's context.
    /// @param maxNew_ Most tokens of an answer.
    constructor(bytes32 model_, bytes memory persona_, uint256 maxTurns_, uint32 maxNew_) {
        if (maxTurns_ == 0) revert NoTurns();
        model = model_;
        persona = persona_;
        maxTurns = maxTurns_;
        maxNew = maxNew_;
        form = _formOf(model_, persona_);
    }

    /// @notice Says something to the character.
    /// @param history The conversation so far; empty before the first words.
    /// @param words What the player says.
    /// @return answer What the character says. It may be cut off.
    function say(Message[] memory history, string calldata words) external returns (bytes memory answer) {
        _checkWords(bytes(words));
        bytes32 given = hashOf(history);
        if (given != memoryOf[msg.sender]) revert WrongHistory(memoryOf[msg.sender], given);
        answer = form == Form.Transcript ? _continue(history, bytes(words)) : _chat(history, bytes(words));
        bytes32 memoryHash = hashOf(remember(history, words, answer));
        memoryOf[msg.sender] = memoryHash;
        emit Spoken(msg.sender, words, answer, memoryHash);
    }

    /// @notice Forgets the caller's conversation.
    function forget() external {
        delete memoryOf[msg.sender];
        emit Forgotten(msg.sender);
    }

    /// @notice The conversation after a turn: what has to be handed in with the next words.
    /// @param history The conversation before.
    /// @param words What the player said.
    /// @param answer What the character said.
    /// @return next The conversation. Its oldest turn is left out if it would be too long.
    function remember(Message[] memory history, string calldata words, bytes memory answer)
        public
        view
        returns (Message[] memory next)
    {
        uint256 dropped = history.length < 2 * maxTurns ? 0 : history.length + 2 - 2 * maxTurns;
        uint256 kept = history.length - dropped;
        next = new Message[](kept + 2);
        for (uint256 i = 0; i < kept; i++) {
            next[i] = history[dropped + i];
        }
        next[kept] = Message(Role.User, bytes(words));
        next[kept + 1] = Message(Role.Assistant, answer);
    }

    /// @notice The hash by which a conversation is remembered.
    /// @param history The conversation.
    /// @return memoryHash Its hash; 0 if it is empty.
    function hashOf(Message[] memory history) public pure returns (bytes32 memoryHash) {
        return history.length == 0 ? bytes32(0) : keccak256(abi.encode(history));
    }

    /// @dev The format keeps what is said inside its turn.
    function _chat(Message[] memory history, bytes memory words) private view returns (bytes memory answer) {
        uint256 first = form == Form.ChatWithSystem ? 1 : 0;
        Message[] memory messages = new Message[](first + history.length + 1);
        for (uint256 i = 0; i < history.length; i++) {
            messages[first + i] = history[i];
        }
        messages[first + history.length] = Message(Role.User, words);
        // A new message, so that the history stays what is remembered.
        if (first == 1) messages[0] = Message(Role.System, persona);
        else messages[0] = Message(Role.User, bytes.concat(persona, "\n\n", messages[0].content));
        return MetisAI.generateChat(model, messages, maxNew, MetisAI.greedy(), MetisAI.anything()).text;
    }

    /// @dev The answer is one line, by its form: the model cannot go on with the player's part.
    function _continue(Message[] memory history, bytes memory words) private view returns (bytes memory answer) {
        bytes memory transcript = persona;
        for (uint256 i = 0; i < history.length; i++) {
            bytes memory speaker = history[i].role == Role.User ? bytes("\nPlayer: ") : bytes("\nYou:");
            transcript = bytes.concat(transcript, speaker, history[i].content);
        }
        transcript = bytes.concat(transcript, "\nPlayer: ", words, "\nYou:");
        return
            MetisAI.generateConstrained(model, transcript, maxNew, MetisAI.greedy(), MetisAI.matching(".+")).text;
    }

    /// @dev In a transcript a line break would begin another speaker's line.
    function _checkWords(bytes calldata words) private pure {
        if (words.length == 0 || words.length > MAX_WORDS_BYTES) revert BadWords(words.length);
        for (uint256 i = 0; i < words.length; i++) {
            if (words[i] < 0x20) revert BadWords(i);
        }
    }

    /// @dev Asks the model itself.
    function _formOf(bytes32 model_, bytes memory persona_) private view returns (Form) {
        try IMetisInference(INFERENCE).tokenizeChat(model_, MetisAI.userSays(persona_, "?")) returns (uint32[] memory) {
            return Form.ChatWithSystem;
        } catch (bytes memory reason) {
            bytes4 selector = bytes4(reason);
            if (selector == IMetisInference.BadMessage.selector) return Form.Chat;
            if (selector == IMetisInference.NotSupported.selector) return Form.Transcript;
            assembly ("memory-safe") {
                revert(add(reason, 0x20), mload(reason))
            }
        }
    }
}
