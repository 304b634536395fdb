// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {IERC20} from "./IERC20.sol";

/// @title An exchange for tests: fixed rates, paid out of what it holds
contract TestExchange {
    /// @notice This pair has no rate.
    /// @param tokenIn What is given.
    /// @param tokenOut What is wanted.
    error NoRate(IERC20 tokenIn, IERC20 tokenOut);
    /// @notice Only for the owner.
    error NotOwner();
    /// @notice A token did not move.
    /// @param token The token.
    error TransferFailed(IERC20 token);

    /// @notice Tokens were swapped.
    /// @param trader Who swapped.
    /// @param tokenIn What is given.
    /// @param amountIn How much was given, in smallest units.
    /// @param tokenOut What is wanted.
    /// @param amountOut How much was paid, in smallest units.
    event Swapped(address indexed trader, IERC20 tokenIn, uint256 amountIn, IERC20 tokenOut, uint256 amountOut);

    /// @notice Who sets the rates.
    address public immutable owner = msg.sender;
    /// @notice Smallest units of `tokenOut` for 10^18 smallest units of `tokenIn`.
    mapping(IERC20 tokenIn => mapping(IERC20 tokenOut => uint256 rate)) public rates;

    /// @notice Sets a rate; 0 closes the pair.
    /// @param tokenIn What is given.
    /// @param tokenOut What is wanted.
    /// @param rate Smallest units of `tokenOut` for 10^18 of `tokenIn`.
    function setRate(IERC20 tokenIn, IERC20 tokenOut, uint256 rate) external {
        if (msg.sender != owner) revert NotOwner();
        rates[tokenIn][tokenOut] = rate;
    }

    /// @notice Takes `amountIn` of `tokenIn` out of the caller's allowance and pays in `tokenOut`.
    /// @return amountOut What was paid.
    /// @param tokenIn What is given.
    /// @param amountIn How much is given, in smallest units.
    /// @param tokenOut What is wanted.
    function swap(IERC20 tokenIn, uint256 amountIn, IERC20 tokenOut) external returns (uint256 amountOut) {
        uint256 rate = rates[tokenIn][tokenOut];
        if (rate == 0) revert NoRate(tokenIn, tokenOut);
        amountOut = amountIn * rate / 1e18;
        if (!tokenIn.transferFrom(msg.sender, address(this), amountIn)) revert TransferFailed(tokenIn);
        if (!tokenOut.transfer(msg.sender, amountOut)) revert TransferFailed(tokenOut);
        emit Swapped(msg.sender, tokenIn, amountIn, tokenOut, amountOut);
    }
}
