// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title The part of ERC-20 that the examples use
interface IERC20 {
    /// @notice Balance of `account`.
    function balanceOf(address account) external view returns (uint256);

    /// @notice Moves `amount` from the caller to `to`.
    function transfer(address to, uint256 amount) external returns (bool);

    /// @notice Moves `amount` from `from` to `to`, out of the caller's allowance.
    function transferFrom(address from, address to, uint256 amount) external returns (bool);

    /// @notice Lets `spender` move up to `amount` of the caller's tokens.
    function approve(address spender, uint256 amount) external returns (bool);
}
