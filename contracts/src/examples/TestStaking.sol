// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {IERC20} from "./IERC20.sol";

/// @title A place to stake for tests: keeps tokens, gives them back
contract TestStaking {
    /// @notice Less is staked than was asked back.
    /// @param staked What is staked.
    /// @param needed What was asked back.
    error InsufficientStake(uint256 staked, uint256 needed);
    /// @notice A token did not move.
    /// @param token The token.
    error TransferFailed(IERC20 token);

    /// @notice Tokens were staked.
    /// @param staker Who.
    /// @param token The token.
    /// @param amount How many, in smallest units.
    event Staked(address indexed staker, IERC20 indexed token, uint256 amount);
    /// @notice Tokens were given back.
    /// @param staker Who.
    /// @param token The token.
    /// @param amount How many, in smallest units.
    event Unstaked(address indexed staker, IERC20 indexed token, uint256 amount);

    /// @notice What a staker has here.
    mapping(address staker => mapping(IERC20 token => uint256 amount)) public stakeOf;

    /// @notice Takes `amount` of `token` out of the caller's allowance.
    /// @param token The token.
    /// @param amount How many, in smallest units.
    function stake(IERC20 token, uint256 amount) external {
        stakeOf[msg.sender][token] += amount;
        if (!token.transferFrom(msg.sender, address(this), amount)) revert TransferFailed(token);
        emit Staked(msg.sender, token, amount);
    }

    /// @notice Gives `amount` of `token` back to the caller.
    /// @param token The token.
    /// @param amount How many, in smallest units.
    function unstake(IERC20 token, uint256 amount) external {
        uint256 staked = stakeOf[msg.sender][token];
        if (staked < amount) revert InsufficientStake(staked, amount);
        stakeOf[msg.sender][token] = staked - amount;
        if (!token.transfer(msg.sender, amount)) revert TransferFailed(token);
        emit Unstaked(msg.sender, token, amount);
    }
}
