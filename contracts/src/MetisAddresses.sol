// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

// Where a MetisVM chain has its system contracts. The first is a precompiled contract, the others are there from genesis.

/// @dev The inference precompile.
address constant INFERENCE = 0x000000000000000000000000000000000000A100;
/// @dev `ModelRegistry`.
address constant REGISTRY = 0x000000000000000000000000000000000000A200;
/// @dev `InferenceGateway`.
address constant GATEWAY = 0x000000000000000000000000000000000000a201;
/// @dev `DataAnchoringToken`.
address constant SHARES = 0x000000000000000000000000000000000000A202;
