// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {IDataAnchoringToken} from "./IDataAnchoringToken.sol";

/// @dev A token's id is its class's, shifted, and its number in the class; number 0 is the meter.
uint256 constant CLASS_SHIFT = 64;

/// @title Shares of models
/// @notice What `DataAnchoringToken` has besides draft ERC-8028.
interface IModelShares is IDataAnchoringToken {
    /// @notice A class has another controller.
    /// @param classId The class.
    /// @param controller Who controls it from now on.
    event ControllerChanged(uint256 indexed classId, address indexed controller);
    /// @notice No more shares of this class will be made.
    /// @param classId The class.
    event ClassSealed(uint256 indexed classId);
    /// @notice Shares that expired then count no more.
    /// @param classId The class.
    /// @param expireAt Their last second.
    /// @param shareRatio All of them together.
    event SharesExpired(uint256 indexed classId, uint64 indexed expireAt, uint256 shareRatio);

    /// @notice There is no such class.
    /// @param classId The class.
    error UnknownClass(uint256 classId);
    /// @notice There is no such token.
    /// @param tokenId The token.
    error UnknownToken(uint256 tokenId);
    /// @notice Only for the class's controller.
    /// @param classId The class.
    /// @param caller Who tried.
    error NotController(uint256 classId, address caller);
    /// @notice Only for the model registry.
    /// @param caller Who tried.
    error NotRegistry(address caller);
    /// @notice Only for the token's owner, or somebody whom they approved for this.
    /// @param tokenId The token.
    /// @param caller Who tried.
    error NotAuthorised(uint256 tokenId, address caller);
    /// @notice Tokens go to somebody, and to nobody who made them expire before.
    /// @param to Who would get it.
    /// @param expireAt When it expires.
    error BadToken(address to, uint256 expireAt);
    /// @notice The class's tokens would have more shares than there are.
    /// @param wanted Shares that were asked for.
    /// @param left Shares that are left.
    error TooManyShares(uint256 wanted, uint256 left);
    /// @notice The class's shares would expire at more different times than it keeps.
    /// @param max Times that a class keeps.
    error TooManyExpiries(uint256 max);
    /// @notice No shares of this class are made any more.
    /// @param classId The class.
    error Sealed(uint256 classId);
    /// @notice The token has expired.
    /// @param tokenId The token.
    /// @param expireAt When.
    error TokenExpired(uint256 tokenId, uint256 expireAt);
    /// @notice The token's quota is smaller.
    /// @param tokenId The token.
    /// @param wanted Quota that was asked for.
    /// @param left Quota that is left.
    error QuotaExceeded(uint256 tokenId, uint256 wanted, uint256 left);
    /// @notice The tokens are of different classes, or the same.
    /// @param fromTokenId One token.
    /// @param toTokenId The other.
    error NotTwins(uint256 fromTokenId, uint256 toTokenId);
    /// @notice There is nobody to share it.
    /// @param classId The class.
    error NoShares(uint256 classId);
    /// @notice More than an index of revenue can hold: the asset is no money.
    /// @param asset The ERC-20, or 0 for the chain's own money.
    /// @param amount How much.
    error TooMuchRevenue(address asset, uint256 amount);
    /// @notice Nothing to settle.
    error NothingToSettle();
    /// @notice A model's class keeps the model's id.
    /// @param classId The class.
    error IntegrityFixed(uint256 classId);
    /// @notice A transfer of money failed.
    /// @param to To whom.
    /// @param amount How much, in wei.
    error TransferFailed(address to, uint256 amount);

    /// @notice Makes the class of a registered model, with its founder's token. Only the registry.
    /// @param model The model.
    /// @param founder Whose the first token is, and who controls the class.
    /// @param founderShare Shares of that token.
    /// @param metadataURI Where the bundle is.
    /// @param policyURI The model's licence.
    /// @return classId The class.
    function createModelClass(
        bytes32 model,
        address founder,
        uint16 founderShare,
        string calldata metadataURI,
        string calldata policyURI
    ) external returns (uint256 classId);

    /// @notice Gives the class of a model that was taken over to its new owner. Only the registry.
    /// @param classId The class.
    /// @param controller Who controls it from now on.
    function reassignModelClass(uint256 classId, address controller) external;

    /// @notice Gives a class to another controller. Only its controller; a model's class goes with the model.
    /// @param classId The class.
    /// @param controller Who controls it from now on.
    function transferClass(uint256 classId, address controller) external;

    /// @notice Ends the making of shares of a class for good. Only its controller.
    /// @param classId The class.
    function sealClass(uint256 classId) external;

    /// @notice Says that a token has expired, once. Anybody may.
    /// @param tokenId The token.
    function observeExpiry(uint256 tokenId) external;

    /// @notice Who controls a class.
    /// @param classId The class.
    /// @return Who.
    function controllerOf(uint256 classId) external view returns (address);

    /// @notice The sum of a class's shares that have not expired.
    /// @param classId The class.
    /// @return The sum.
    function totalShareOf(uint256 classId) external view returns (uint256);

    /// @notice How many tokens a class has. Token `n` of class `c`, from 1, has the id `c << 64 | n`.
    /// @param classId The class.
    /// @return How many.
    function tokenCountOf(uint256 classId) external view returns (uint256);

    /// @notice Whether no more shares of a class are made.
    /// @param classId The class.
    /// @return Whether.
    function isSealed(uint256 classId) external view returns (bool);

    /// @notice The token whose usage is that of calls which were paid in money. The gateway has it; it has no share and no end.
    /// @param classId The class.
    /// @return tokenId The token.
    function meterOf(uint256 classId) external pure returns (uint256 tokenId);
}
