// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {IERC20} from "./IERC20.sol";

/// @title A token for tests: ERC-20 with 18 decimals that anybody may mint
contract TestToken is IERC20 {
    /// @notice Fewer tokens than the transfer needs.
    /// @param account Whose.
    /// @param balance What there is.
    /// @param needed What was asked for.
    error InsufficientBalance(address account, uint256 balance, uint256 needed);
    /// @notice A smaller allowance than the transfer needs.
    /// @param spender Who may move them.
    /// @param allowance What they may move.
    /// @param needed What was asked for.
    error InsufficientAllowance(address spender, uint256 allowance, uint256 needed);

    /// @notice Tokens moved; from 0 when minted.
    /// @param from Whose they were.
    /// @param to Whose they are.
    /// @param amount How many, in smallest units.
    event Transfer(address indexed from, address indexed to, uint256 amount);
    /// @notice An allowance was set.
    /// @param owner Whose they are.
    /// @param spender Who may move them.
    /// @param amount How many, in smallest units.
    event Approval(address indexed owner, address indexed spender, uint256 amount);

    /// @notice Smallest units are 10^-18.
    uint8 public constant decimals = 18;
    /// @notice The symbol, also used as the name.
    string public symbol;
    /// @notice All tokens.
    uint256 public totalSupply;
    /// @inheritdoc IERC20
    mapping(address account => uint256 amount) public balanceOf;
    /// @notice What `spender` may still move for `owner`.
    mapping(address owner => mapping(address spender => uint256 amount)) public allowance;

    /// @param symbol_ The symbol.
    constructor(string memory symbol_) {
        symbol = symbol_;
    }

    /// @notice The token's name.
    /// @return The symbol.
    function name() external view returns (string memory) {
        return symbol;
    }

    /// @notice Makes `amount` new tokens for `to`.
    /// @param to Who gets them.
    /// @param amount How many, in smallest units.
    function mint(address to, uint256 amount) external {
        totalSupply += amount;
        balanceOf[to] += amount;
        emit Transfer(address(0), to, amount);
    }

    /// @inheritdoc IERC20
    function transfer(address to, uint256 amount) external returns (bool) {
        _move(msg.sender, to, amount);
        return true;
    }

    /// @inheritdoc IERC20
    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed < amount) revert InsufficientAllowance(msg.sender, allowed, amount);
        allowance[from][msg.sender] = allowed - amount;
        _move(from, to, amount);
        return true;
    }

    /// @inheritdoc IERC20
    function approve(address spender, uint256 amount) external returns (bool) {
        allowance[msg.sender][spender] = amount;
        emit Approval(msg.sender, spender, amount);
        return true;
    }

    /// @dev Moves tokens that are there.
    function _move(address from, address to, uint256 amount) private {
        uint256 balance = balanceOf[from];
        if (balance < amount) revert InsufficientBalance(from, balance, amount);
        balanceOf[from] = balance - amount;
        balanceOf[to] += amount;
        emit Transfer(from, to, amount);
    }
}
