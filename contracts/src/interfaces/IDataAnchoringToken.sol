// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title A data anchoring token
/// @notice The interface of draft ERC-8028: classes of assets, whose tokens have a quota of use and a share of the class's revenue until
/// they expire. `asset` is 0 for the chain's own money, or the address of an ERC-20.
interface IDataAnchoringToken {
    /// @notice A class was made.
    event ClassCreated(uint256 indexed classId, string metadataURI, bytes32 integrityHash);
    /// @notice A class has another policy.
    event ClassPolicyUpdated(uint256 indexed classId, string policyURI);
    /// @notice A class has other metadata.
    event MetadataUpdated(uint256 indexed classId, string metadataURI, bytes32 integrityHash);
    /// @notice A token was made.
    event Minted(
        uint256 indexed tokenId, uint256 indexed classId, address to, uint256 value, uint256 shareRatio, uint64 expireAt
    );
    /// @notice A token has another owner.
    event TransferToken(uint256 indexed tokenId, address indexed from, address indexed to);
    /// @notice Quota moved between tokens.
    event ValueTransferred(uint256 indexed fromTokenId, uint256 indexed toTokenId, uint256 value);
    /// @notice It was seen that a token has expired.
    event Expired(uint256 indexed tokenId);
    /// @notice A token was used.
    event UsageRecorded(uint256 indexed tokenId, bytes32 metricType, uint256 amount, address actor);
    /// @notice A class got revenue.
    event RevenueSettled(uint256 indexed classId, address indexed asset, uint256 amount);
    /// @notice A token's share was paid out.
    event Claimed(uint256 indexed tokenId, address indexed to, address indexed asset, uint256 amount);
    /// @notice An owner lets somebody act for their tokens of a class, or no longer.
    event ApprovalForClass(address indexed owner, uint256 indexed classId, address indexed operator, bool approved);

    /// @notice Facts of a class.
    function getClassMeta(uint256 classId)
        external
        view
        returns (string memory metadataURI, bytes32 integrityHash, uint8 unitDecimals, string memory policyURI);

    /// @notice The class of a token.
    function classOf(uint256 tokenId) external view returns (uint256);

    /// @notice What is left of a token's quota.
    function valueOf(uint256 tokenId) external view returns (uint256);

    /// @notice A token's share of its class's revenue, until it expires: this over the sum of those that have not.
    function shareRatioOf(uint256 tokenId) external view returns (uint256);

    /// @notice The last second of a token's life; 0 for ever.
    function expireAtOf(uint256 tokenId) external view returns (uint64);

    /// @notice Whose a token is.
    function ownerOf(uint256 tokenId) external view returns (address);

    /// @notice What a claim would pay out now.
    function pendingRevenue(uint256 tokenId, address asset) external view returns (uint256);

    /// @notice Makes a class, which the caller controls.
    function createClass(
        string calldata metadataURI,
        bytes32 integrityHash,
        uint8 unitDecimals,
        string calldata policyURI
    ) external returns (uint256 classId);

    /// @notice Replaces a class's metadata. Only its controller.
    function updateClassMetadata(uint256 classId, string calldata metadataURI, bytes32 integrityHash) external;

    /// @notice Replaces a class's policy. Only its controller.
    function updateClassPolicy(uint256 classId, string calldata policyURI) external;

    /// @notice Makes a token. Only the class's controller.
    function mint(uint256 classId, address to, uint256 value, uint256 shareRatio, uint64 expireAt)
        external
        returns (uint256 tokenId);

    /// @notice Gives a token away, with what it has not claimed. Only its owner.
    function transferToken(uint256 tokenId, address to) external;

    /// @notice Lets somebody use, and move quota of, the caller's tokens of a class, and claim to the caller.
    function approveForClass(uint256 classId, address operator, bool approved) external;

    /// @notice Whether somebody may.
    function isApprovedForClass(address owner, uint256 classId, address operator) external view returns (bool);

    /// @notice Moves quota between tokens of one class. Only the owner of the first, or an operator.
    function transferValue(uint256 fromTokenId, uint256 toTokenId, uint256 value) external;

    /// @notice Uses a token: takes from its quota. Only its owner, or an operator.
    function recordUsage(uint256 tokenId, bytes32 metricType, uint256 amount) external;

    /// @notice Brings a class revenue in the chain's own money.
    function settleRevenueETH(uint256 classId) external payable;

    /// @notice Brings a class revenue in an ERC-20 that the caller has allowed this contract to take.
    function settleRevenueERC20(uint256 classId, address asset, uint256 amount) external;

    /// @notice Pays out a token's share. Its owner to anybody; an operator to its owner.
    function claim(uint256 tokenId, address asset, address payable to) external returns (uint256 amountClaimed);
}
