// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title The part of ERC-20 that the examples use
interface IERC20 {
    /// @notice Balance of `account`.
    /// @param account Whose.
    /// @return Smallest units.
    function balanceOf(address account) external view returns (uint256);

    /// @notice Moves `amount` from the caller to `to`.
    /// @param to Who gets them.
    /// @param amount How many, in smallest units.
    /// @return Whether they moved.
    function transfer(address to, uint256 amount) external returns (bool);

    /// @notice Moves `amount` from `from` to `to`, out of the caller's allowance.
    /// @param from Whose they are.
    /// @param to Who gets them.
    /// @param amount How many, in smallest units.
    /// @return Whether they moved.
    function transferFrom(address from, address to, uint256 amount) external returns (bool);

    /// @notice Lets `spender` move up to `amount` of the caller's tokens.
    /// @param spender Who may.
    /// @param amount How many, in smallest units.
    /// @return Whether that holds now.
    function approve(address spender, uint256 amount) external returns (bool);
}
