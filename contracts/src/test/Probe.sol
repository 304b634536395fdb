// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title A contract that makes any call and says what came of it
/// @notice For end-to-end tests of the precompile.
contract Probe {
    /// @notice The ways to call.
    enum Kind {
        Call,
        StaticCall,
        DelegateCall
    }

    /// @notice A path has no call in it.
    error EmptyPath();

    /// @notice Whether the constructor's call succeeded.
    bool public constructedSuccess;
    /// @notice What the constructor's call returned.
    bytes public constructedData;

    /// @notice STATICCALLs from inside the constructor; the zero address does not.
    /// @param target Whom to call.
    /// @param data The calldata.
    constructor(address target, bytes memory data) {
        if (target == address(0)) return;
        (constructedSuccess, constructedData) = target.staticcall(data);
    }

    /// @notice Makes one call.
    /// @param kind How.
    /// @param target Whom to call.
    /// @param gasLimit Gas to give, cut to what there is; 0 is all.
    /// @param data The calldata.
    /// @return success Whether the call succeeded.
    /// @return output What it returned, or reverted with.
    /// @return gasUsed Gas that it took, with the cost of the call itself.
    function probe(Kind kind, address target, uint256 gasLimit, bytes memory data)
        public
        returns (bool success, bytes memory output, uint256 gasUsed)
    {
        if (gasLimit == 0) gasLimit = type(uint256).max;
        uint256 before = gasleft();
        if (kind == Kind.Call) (success, output) = target.call{gas: gasLimit}(data);
        else if (kind == Kind.StaticCall) (success, output) = target.staticcall{gas: gasLimit}(data);
        else (success, output) = target.delegatecall{gas: gasLimit}(data);
        gasUsed = before - gasleft();
    }

    /// @notice Makes a call from inside calls of this contract by itself.
    /// @param path How to call: all but the last reach this contract again, the last reaches the target.
    /// @param target Whom to call in the end.
    /// @param gasLimit Gas for the last call, cut to what there is; 0 is all.
    /// @param data The calldata of the last call.
    /// @return success Whether the last call succeeded; false where one on the way did not.
    /// @return output What the last call returned, or the first that failed reverted with.
    /// @return gasUsed Gas that the last call took; 0 where one on the way failed.
    function nested(Kind[] calldata path, address target, uint256 gasLimit, bytes calldata data)
        external
        returns (bool success, bytes memory output, uint256 gasUsed)
    {
        if (path.length == 0) revert EmptyPath();
        if (path.length == 1) return probe(path[0], target, gasLimit, data);
        bytes memory again = abi.encodeCall(this.nested, (path[1:], target, gasLimit, data));
        (bool reached, bytes memory answer,) = probe(path[0], address(this), 0, again);
        if (!reached) return (false, answer, 0);
        return abi.decode(answer, (bool, bytes, uint256));
    }

    /// @notice Makes a call and reverts with what it reverts with, unchanged.
    /// @param kind How.
    /// @param target Whom to call.
    /// @param data The calldata.
    /// @return output What it returned.
    function bubble(Kind kind, address target, bytes calldata data) external returns (bytes memory output) {
        bool success;
        (success, output,) = probe(kind, target, 0, data);
        if (!success) {
            assembly ("memory-safe") {
                revert(add(output, 0x20), mload(output))
            }
        }
    }
}
