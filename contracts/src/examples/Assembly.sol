// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {MetisAI} from "../MetisAI.sol";

/// @title An assembly in which members speak instead of ticking boxes
/// @notice "I am all in favour of number seven" is a vote, "put me down for fifty metis" is a pledge.
/// @dev The model only reads. Its answers have a form that the contract gives, so they need no parser that could fail: one of
/// three stances, and a number.
contract Assembly {
    /// @notice What a member thinks of a proposal.
    enum Stance {
        Yes,
        No,
        Abstain
    }

    /// @notice A member spoke on a proposal.
    /// @param member Who.
    /// @param proposal On what.
    /// @param stance What their words were taken for.
    /// @param words What they said.
    event Spoken(address indexed member, uint256 indexed proposal, Stance stance, string words);
    /// @notice A member pledged an amount.
    /// @param member Who.
    /// @param amount The number in them.
    /// @param words What they said.
    event Pledged(address indexed member, uint256 amount, string words);

    /// @notice How many members took each stance, by proposal.
    mapping(uint256 proposal => mapping(Stance stance => uint256 count)) public tally;
    /// @notice What a member has pledged.
    mapping(address member => uint256 amount) public pledged;

    /// @notice Counts a member's words on a proposal.
    /// @param proposal The proposal.
    /// @param words What the member says.
    /// @return stance What they were taken for.
    function speak(uint256 proposal, string calldata words) external returns (Stance stance) {
        stance = stanceOf(words);
        tally[proposal][stance]++;
        emit Spoken(msg.sender, proposal, stance, words);
    }

    /// @notice Takes a pledge.
    /// @param words What the member says.
    /// @return amount The whole number in it.
    function pledge(string calldata words) external returns (uint256 amount) {
        amount = amountOf(words);
        pledged[msg.sender] += amount;
        emit Pledged(msg.sender, amount, words);
    }

    /// @notice The stance in a text: there is always one.
    /// @param words The text.
    /// @return stance The stance.
    function stanceOf(string calldata words) public view returns (Stance stance) {
        // The beginnings of what the default model writes for a vote, in the order of `Stance`.
        bytes[] memory options = new bytes[](3);
        options[0] = "vote yes";
        options[1] = "vote no";
        options[2] = "vote abstain";
        return Stance(MetisAI.choose(bytes(words), options));
    }

    /// @notice The amount in a text: there is always one, below a billion.
    /// @param words The text.
    /// @return amount The amount.
    function amountOf(string calldata words) public view returns (uint256 amount) {
        // The model writes `stake 50 METIS` for a pledge. As many tokens as the longest such answer has bytes are enough.
        bytes memory text = MetisAI.ask(bytes(words), 21, "stake [1-9][0-9]{0,8} METIS");
        for (uint256 i = 6; text[i] != " "; i++) {
            amount = amount * 10 + uint8(text[i]) - 48;
        }
    }
}
