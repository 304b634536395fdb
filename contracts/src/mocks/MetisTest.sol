// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {DataAnchoringToken} from "../DataAnchoringToken.sol";
import {InferenceGateway} from "../InferenceGateway.sol";
import {GATEWAY, INFERENCE, REGISTRY, SHARES} from "../MetisAddresses.sol";
import {MockInference} from "./MockInference.sol";
import {MockRegistry} from "./MockRegistry.sol";

/// @notice The cheatcode of Foundry, and of Hardhat's Solidity tests, that is needed here.
interface IEtch {
    /// @notice Puts code at an address.
    /// @param target Where.
    /// @param code What.
    function etch(address target, bytes calldata code) external;
}

/// @title A base for tests in Solidity, of contracts that ask models
/// @notice Call `setUpMetis` in `setUp`. Then say what `inference` answers, and which models `registry` knows. The gateway and the shares
/// are the real ones, so priced calls pay as they do on a chain.
abstract contract MetisTest {
    /// @notice The precompile's stand-in, in its place.
    MockInference internal constant inference = MockInference(INFERENCE);
    /// @notice The registry's stand-in, in its place.
    MockRegistry internal constant registry = MockRegistry(REGISTRY);
    /// @notice The gateway.
    InferenceGateway internal constant gateway = InferenceGateway(GATEWAY);
    /// @notice The shares of models.
    DataAnchoringToken internal constant shares = DataAnchoringToken(SHARES);

    /// @notice Puts everything in its place.
    function setUpMetis() internal {
        IEtch vm_ = IEtch(address(uint160(uint256(keccak256("hevm cheat code")))));
        vm_.etch(INFERENCE, address(new MockInference()).code);
        vm_.etch(REGISTRY, address(new MockRegistry()).code);
        vm_.etch(GATEWAY, address(new InferenceGateway()).code);
        vm_.etch(SHARES, address(new DataAnchoringToken()).code);
    }
}
