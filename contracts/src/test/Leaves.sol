// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {MetisMerkle} from "../MetisMerkle.sol";

/// @title The library of leaves as calls
/// @notice For end-to-end tests.
contract Leaves {
    /// @notice `MetisMerkle.isInWeights`.
    /// @param model The model.
    /// @param index The leaf's place.
    /// @param leaf Its bytes.
    /// @param siblings The proof.
    /// @return Whether it is.
    function isInWeights(bytes32 model, uint256 index, bytes calldata leaf, bytes32[] calldata siblings)
        external
        view
        returns (bool)
    {
        return MetisMerkle.isInWeights(model, index, leaf, siblings);
    }

    /// @notice `MetisMerkle.isInTokenizer`.
    /// @param model The model.
    /// @param index The leaf's place.
    /// @param leaf Its bytes.
    /// @param siblings The proof.
    /// @return Whether it is.
    function isInTokenizer(bytes32 model, uint256 index, bytes calldata leaf, bytes32[] calldata siblings)
        external
        view
        returns (bool)
    {
        return MetisMerkle.isInTokenizer(model, index, leaf, siblings);
    }

    /// @notice `MetisMerkle.isLeaf`.
    /// @param root The file's root.
    /// @param length The file's length.
    /// @param index The leaf's place.
    /// @param leaf Its bytes.
    /// @param siblings The proof.
    /// @return Whether it is.
    function isLeaf(bytes32 root, uint256 length, uint256 index, bytes calldata leaf, bytes32[] calldata siblings)
        external
        pure
        returns (bool)
    {
        return MetisMerkle.isLeaf(root, length, index, leaf, siblings);
    }
}
