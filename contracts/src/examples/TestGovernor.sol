// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title A governor for tests: counts one vote per address and proposal
contract TestGovernor {
    /// @notice What a vote can be, numbered as in other governors.
    enum Support {
        Against,
        For,
        Abstain
    }

    /// @notice This address has voted on this proposal.
    /// @param voter Who.
    /// @param proposal On what.
    error AlreadyVoted(address voter, uint256 proposal);

    /// @notice A vote was cast.
    /// @param voter Who.
    /// @param proposal On what.
    /// @param support How.
    event VoteCast(address indexed voter, uint256 indexed proposal, Support support);

    /// @notice Whether an address has voted.
    mapping(uint256 proposal => mapping(address voter => bool)) public hasVoted;
    /// @notice Votes of each kind.
    mapping(uint256 proposal => mapping(Support support => uint256)) public votes;

    /// @notice Casts the caller's vote.
    /// @param proposal On what.
    /// @param support How.
    function castVote(uint256 proposal, Support support) external {
        if (hasVoted[proposal][msg.sender]) revert AlreadyVoted(msg.sender, proposal);
        hasVoted[proposal][msg.sender] = true;
        votes[proposal][support] += 1;
        emit VoteCast(msg.sender, proposal, support);
    }
}
