// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @notice The cheatcodes that these tests use. forge-std has all of them.
interface Vm {
    function expectRevert(bytes calldata reason) external;
    function prank(address sender) external;
    function deal(address account, uint256 amount) external;
    function roll(uint256 number) external;
}

address constant VM = address(uint160(uint256(keccak256("hevm cheat code"))));
