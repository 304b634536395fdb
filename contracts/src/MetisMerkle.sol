// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {REGISTRY} from "./MetisAddresses.sol";
import {IModelRegistry, Model} from "./interfaces/IModelRegistry.sol";

/// @title Leaves of a model's files
/// @notice Shows a contract what is in a model's bundle: 1,024 bytes of a file, and the hashes from there to the root that the model
/// was registered with (docs/bundle.md, section 5).
/// @dev Only of models that are active: their roots were compared with the bundle. Those of others are only what somebody says.
library MetisMerkle {
    /// @notice Bytes of a leaf; the last of a file may be shorter.
    uint256 internal constant LEAF_BYTES = 1024;

    /// @notice Whether a leaf is in `weights.safetensors` of an active model.
    /// @param model The model's id.
    /// @param index The leaf's place in the file.
    /// @param leaf Its bytes.
    /// @param siblings The proof.
    /// @return Whether it is; never for a model that is not active.
    function isInWeights(bytes32 model, uint256 index, bytes memory leaf, bytes32[] memory siblings)
        internal
        view
        returns (bool)
    {
        Model memory m = IModelRegistry(REGISTRY).modelOf(model);
        return m.activeUntil != 0 && isLeaf(m.weightsRoot, m.weightsBytes, index, leaf, siblings);
    }

    /// @notice Whether a leaf is in `tokenizer.json` of an active model.
    /// @param model The model's id.
    /// @param index The leaf's place in the file.
    /// @param leaf Its bytes.
    /// @param siblings The proof.
    /// @return Whether it is; never for a model that is not active.
    function isInTokenizer(bytes32 model, uint256 index, bytes memory leaf, bytes32[] memory siblings)
        internal
        view
        returns (bool)
    {
        Model memory m = IModelRegistry(REGISTRY).modelOf(model);
        return m.activeUntil != 0 && isLeaf(m.tokenizerRoot, m.tokenizerBytes, index, leaf, siblings);
    }

    /// @notice Whether a leaf is in the file of a root.
    /// @param root The file's root.
    /// @param length The file's length in bytes.
    /// @param index The leaf's place in the file.
    /// @param leaf Its bytes, all of them.
    /// @param siblings The hash beside it at each level that has one, from the leaf upwards.
    /// @return Whether it is.
    function isLeaf(bytes32 root, uint256 length, uint256 index, bytes memory leaf, bytes32[] memory siblings)
        internal
        pure
        returns (bool)
    {
        uint256 width = length / LEAF_BYTES + (length % LEAF_BYTES == 0 ? 0 : 1);
        if (index >= width) return false;
        uint256 rest = length - index * LEAF_BYTES;
        if (leaf.length != (rest < LEAF_BYTES ? rest : LEAF_BYTES)) return false;
        bytes32 hash = hashOf(leaf);
        uint256 used = 0;
        for (; width > 1; width = (width + 1) / 2) {
            bool isRight = index % 2 == 1;
            // The last of an odd number moves up alone.
            if (isRight || index + 1 < width) {
                if (used == siblings.length) return false;
                bytes32 sibling = siblings[used++];
                hash = isRight ? _node(sibling, hash) : _node(hash, sibling);
            }
            index /= 2;
        }
        return used == siblings.length && hash == root;
    }

    /// @notice The hash of a leaf.
    /// @param leaf Its bytes.
    /// @return The hash.
    function hashOf(bytes memory leaf) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0), leaf));
    }

    /// @dev The first byte keeps a node from passing for a leaf.
    function _node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(uint8(1)), left, right));
    }
}
