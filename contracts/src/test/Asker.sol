// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {GenerateResult, MetisAI} from "../MetisAI.sol";
import {Constraint, Finish, Sampling} from "../interfaces/IMetisInference.sol";

/// @title The library's constrained answers as calls
/// @notice For end-to-end tests.
contract Asker {
    /// @notice `MetisAI.ask` with a pattern.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens of the answer.
    /// @param pattern What it must match.
    /// @return The answer.
    function ask(bytes calldata prompt, uint32 maxNew, bytes calldata pattern) external view returns (bytes memory) {
        return MetisAI.ask(prompt, maxNew, pattern);
    }

    /// @notice `MetisAI.askYesNo`.
    /// @param prompt The text to continue.
    /// @return Whether the answer is `yes`.
    function askYesNo(bytes calldata prompt) external view returns (bool) {
        return MetisAI.askYesNo(prompt);
    }

    /// @notice `MetisAI.askNumber`.
    /// @param prompt The text to continue.
    /// @param digits Most digits.
    /// @return The number.
    function askNumber(bytes calldata prompt, uint8 digits) external view returns (uint256) {
        return MetisAI.askNumber(prompt, digits);
    }

    /// @notice `MetisAI.choose`.
    /// @param prompt The text to continue.
    /// @param options The options.
    /// @return The index of the option.
    function choose(bytes calldata prompt, bytes[] calldata options) external view returns (uint256) {
        return MetisAI.choose(prompt, options);
    }

    /// @notice `MetisAI.generateChat` with `MetisAI.userSays`.
    /// @param system What the system says.
    /// @param content What the user says.
    /// @return text The answer.
    function chat(bytes calldata system, bytes calldata content) external view returns (bytes memory text) {
        return MetisAI.generateChat(
            MetisAI.DEFAULT_MODEL, MetisAI.userSays(system, content), 8, MetisAI.greedy(), MetisAI.anything()
        ).text;
    }

    /// @notice `MetisAI.tokenizeChat` with `MetisAI.userSays`.
    /// @param content What the user says.
    /// @return ids The tokens.
    function tokenizeChat(bytes calldata content) external view returns (uint32[] memory ids) {
        return MetisAI.tokenizeChat(MetisAI.DEFAULT_MODEL, MetisAI.userSays(content));
    }

    /// @notice `MetisAI.generateConstrained` with `MetisAI.oneOf`.
    /// @param prompt The text to continue.
    /// @param maxNew Most tokens of the answer.
    /// @param s How to draw tokens.
    /// @param options The options.
    /// @return text The answer.
    /// @return finish Why it ended.
    function generateOneOf(bytes calldata prompt, uint32 maxNew, Sampling calldata s, bytes[] calldata options)
        external
        view
        returns (bytes memory text, Finish finish)
    {
        Constraint memory c = MetisAI.oneOf(options);
        GenerateResult memory result = MetisAI.generateConstrained(MetisAI.DEFAULT_MODEL, prompt, maxNew, s, c);
        return (result.text, result.finish);
    }
}
