// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {IDataAnchoringToken} from "./IDataAnchoringToken.sol";

/// @title Shares of models
/// @notice What `DataAnchoringToken` has besides draft ERC-8028.
interface IModelShares is IDataAnchoringToken {
    /// @notice A class has another controller.
    event ControllerChanged(uint256 indexed classId, address indexed controller);
    /// @notice No more shares of this class will be made.
    event ClassSealed(uint256 indexed classId);
    /// @notice Shares that expired then count no more.
    event SharesExpired(uint256 indexed classId, uint64 indexed expireAt, uint256 shareRatio);

    /// @notice There is no such class.
    error UnknownClass(uint256 classId);
    /// @notice There is no such token.
    error UnknownToken(uint256 tokenId);
    /// @notice Only for the class's controller.
    error NotController(uint256 classId, address caller);
    /// @notice Only for the model registry.
    error NotRegistry(address caller);
    /// @notice Only for the token's owner, or somebody whom they approved for this.
    error NotAuthorised(uint256 tokenId, address caller);
    /// @notice Tokens go to somebody, and to nobody who made them expire before.
    error BadToken(address to, uint256 expireAt);
    /// @notice The class's tokens would have more shares than there are.
    error TooManyShares(uint256 wanted, uint256 left);
    /// @notice The class's shares would expire at more different times than it keeps.
    error TooManyExpiries(uint256 max);
    /// @notice No shares of this class are made any more.
    error Sealed(uint256 classId);
    /// @notice The token has expired.
    error TokenExpired(uint256 tokenId, uint256 expireAt);
    /// @notice The token's quota is smaller.
    error QuotaExceeded(uint256 tokenId, uint256 wanted, uint256 left);
    /// @notice The tokens are of different classes, or the same.
    error NotTwins(uint256 fromTokenId, uint256 toTokenId);
    /// @notice There is nobody to share it.
    error NoShares(uint256 classId);
    /// @notice More than an index of revenue can hold: the asset is no money.
    error TooMuchRevenue(address asset, uint256 amount);
    /// @notice Nothing to settle.
    error NothingToSettle();
    /// @notice A model's class keeps the model's id.
    error IntegrityFixed(uint256 classId);
    /// @notice A transfer of money failed.
    error TransferFailed(address to, uint256 amount);

    /// @notice Makes the class of a registered model, with its founder's token. Only the registry.
    function createModelClass(
        bytes32 model,
        address founder,
        uint16 founderShare,
        string calldata metadataURI,
        string calldata policyURI
    ) external returns (uint256 classId);

    /// @notice Gives the class of a model that was taken over to its new owner. Only the registry.
    function reassignModelClass(uint256 classId, address controller) external;

    /// @notice Gives a class to another controller. Only its controller; a model's class goes with the model.
    function transferClass(uint256 classId, address controller) external;

    /// @notice Ends the making of shares of a class for good. Only its controller.
    function sealClass(uint256 classId) external;

    /// @notice Says that a token has expired, once. Anybody may.
    function observeExpiry(uint256 tokenId) external;

    /// @notice Who controls a class.
    function controllerOf(uint256 classId) external view returns (address);

    /// @notice The sum of a class's shares that have not expired.
    function totalShareOf(uint256 classId) external view returns (uint256);

    /// @notice How many tokens a class has. Token `n` of class `c`, from 1, has the id `c << 64 | n`.
    function tokenCountOf(uint256 classId) external view returns (uint256);

    /// @notice Whether no more shares of a class are made.
    function isSealed(uint256 classId) external view returns (bool);

    /// @notice The token whose usage is that of calls which were paid in money. The gateway has it; it has no share and no end.
    function meterOf(uint256 classId) external pure returns (uint256 tokenId);
}
