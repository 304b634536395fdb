// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {SHARES} from "../MetisAddresses.sol";
import {IModelShares} from "../interfaces/IModelShares.sol";
import {Model, ModelStatus} from "../interfaces/IModelRegistry.sol";

/// @title A stand-in for the model registry, for tests on chains without it
/// @notice A test says which models there are and what they cost, without bonds, rents and waiting. The gateway and the shares need no
/// stand-in: `MetisTest` and `testing.js` put the real ones in their places.
/// @dev Its code goes to 0x…A200. It has those functions of `IModelRegistry` that contracts read.
contract MockRegistry {
    mapping(bytes32 model => Model) private _models;

    /// @notice Says that there is a model. All its shares are its owner's.
    /// @param model The model.
    /// @param owner Whose it is.
    /// @param perCall Wei for each call.
    /// @param perGas Wei for each unit of gas that the inference takes.
    /// @return classId Its class of shares.
    function mockModel(bytes32 model, address owner, uint96 perCall, uint64 perGas)
        external
        returns (uint256 classId)
    {
        classId = IModelShares(SHARES).createModelClass(model, owner, 10_000, "", "");
        Model storage m = _models[model];
        m.status = ModelStatus.Active;
        m.activeUntil = type(uint64).max;
        m.owner = owner;
        m.perCall = perCall;
        m.perGas = perGas;
        m.classId = uint56(classId);
    }

    /// @notice Says what a model costs from now on.
    /// @param model The model.
    /// @param perCall Wei for each call.
    /// @param perGas Wei for each unit of gas that the inference takes.
    function mockPrice(bytes32 model, uint96 perCall, uint64 perGas) external {
        _models[model].perCall = perCall;
        _models[model].perGas = perGas;
    }

    /// @notice Says what a model's files are, for `MetisMerkle`.
    /// @param model The model.
    /// @param weightsRoot Merkle root of its weights.
    /// @param weightsBytes Length of its weights.
    /// @param tokenizerRoot Merkle root of its tokenizer.
    /// @param tokenizerBytes Length of its tokenizer.
    function mockFiles(
        bytes32 model,
        bytes32 weightsRoot,
        uint64 weightsBytes,
        bytes32 tokenizerRoot,
        uint64 tokenizerBytes
    ) external {
        Model storage m = _models[model];
        m.weightsRoot = weightsRoot;
        m.weightsBytes = weightsBytes;
        m.tokenizerRoot = tokenizerRoot;
        m.tokenizerBytes = tokenizerBytes;
    }

    /// @notice As in `IModelRegistry`.
    /// @param model The model.
    /// @return What is known of it.
    function modelOf(bytes32 model) external view returns (Model memory) {
        return _models[model];
    }

    /// @notice As in `IModelRegistry`.
    /// @param model The model.
    /// @return Whether it can be called.
    function isActive(bytes32 model) external view returns (bool) {
        return block.timestamp < _models[model].activeUntil;
    }

    /// @notice As in `IModelRegistry`.
    /// @param model The model.
    /// @return perCall Wei for each call.
    /// @return perGas Wei for each unit of gas.
    /// @return classId Its class of shares.
    function billingOf(bytes32 model) external view returns (uint256 perCall, uint256 perGas, uint256 classId) {
        Model storage m = _models[model];
        return (m.perCall, m.perGas, m.classId);
    }
}
