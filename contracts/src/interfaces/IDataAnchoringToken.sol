// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title A data anchoring token
/// @notice The interface of draft ERC-8028: classes of assets, whose tokens have a quota of use and a share of the class's revenue until
/// they expire. `asset` is 0 for the chain's own money, or the address of an ERC-20.
interface IDataAnchoringToken {
    /// @notice A class was made.
    /// @param classId The class.
    /// @param metadataURI Where its metadata is.
    /// @param integrityHash Hash of what it stands for.
    event ClassCreated(uint256 indexed classId, string metadataURI, bytes32 integrityHash);
    /// @notice A class has another policy.
    /// @param classId The class.
    /// @param policyURI Where its policy is.
    event ClassPolicyUpdated(uint256 indexed classId, string policyURI);
    /// @notice A class has other metadata.
    /// @param classId The class.
    /// @param metadataURI Where its metadata is.
    /// @param integrityHash Hash of what it stands for.
    event MetadataUpdated(uint256 indexed classId, string metadataURI, bytes32 integrityHash);
    /// @notice A token was made.
    /// @param tokenId The token.
    /// @param classId The class.
    /// @param to Whose it is.
    /// @param value Quota.
    /// @param shareRatio Share of the class's revenue.
    /// @param expireAt The last second of its life, or 0 for ever.
    event Minted(
        uint256 indexed tokenId, uint256 indexed classId, address to, uint256 value, uint256 shareRatio, uint64 expireAt
    );
    /// @notice A token has another owner.
    /// @param tokenId The token.
    /// @param from Whose it was.
    /// @param to Whose it is.
    event TransferToken(uint256 indexed tokenId, address indexed from, address indexed to);
    /// @notice Quota moved between tokens.
    /// @param fromTokenId The token that has less then.
    /// @param toTokenId The token that has more then.
    /// @param value Quota.
    event ValueTransferred(uint256 indexed fromTokenId, uint256 indexed toTokenId, uint256 value);
    /// @notice It was seen that a token has expired.
    /// @param tokenId The token.
    event Expired(uint256 indexed tokenId);
    /// @notice A token was used.
    /// @param tokenId The token.
    /// @param metricType What is counted.
    /// @param amount How much of it.
    /// @param actor Who said so.
    event UsageRecorded(uint256 indexed tokenId, bytes32 metricType, uint256 amount, address actor);
    /// @notice A class got revenue.
    /// @param classId The class.
    /// @param asset The ERC-20, or 0 for the chain's own money.
    /// @param amount How much.
    event RevenueSettled(uint256 indexed classId, address indexed asset, uint256 amount);
    /// @notice A token's share was paid out.
    /// @param tokenId The token.
    /// @param to Who got it.
    /// @param asset The ERC-20, or 0 for the chain's own money.
    /// @param amount How much.
    event Claimed(uint256 indexed tokenId, address indexed to, address indexed asset, uint256 amount);
    /// @notice An owner lets somebody act for their tokens of a class, or no longer.
    /// @param owner Whose.
    /// @param classId The class.
    /// @param operator Who may act for them.
    /// @param approved Whether they may.
    event ApprovalForClass(address indexed owner, uint256 indexed classId, address indexed operator, bool approved);

    /// @notice Facts of a class.
    /// @param classId The class.
    /// @return metadataURI Where its metadata is.
    /// @return integrityHash Hash of what it stands for; the model's id for a model's class.
    /// @return unitDecimals Decimals of a unit of quota.
    /// @return policyURI Where its policy is; the licence for a model's class.
    function getClassMeta(uint256 classId)
        external
        view
        returns (string memory metadataURI, bytes32 integrityHash, uint8 unitDecimals, string memory policyURI);

    /// @notice The class of a token.
    /// @param tokenId The token.
    /// @return Its class.
    function classOf(uint256 tokenId) external view returns (uint256);

    /// @notice What is left of a token's quota.
    /// @param tokenId The token.
    /// @return What is left.
    function valueOf(uint256 tokenId) external view returns (uint256);

    /// @notice A token's share of its class's revenue, until it expires: this over the sum of those that have not.
    /// @param tokenId The token.
    /// @return Its share.
    function shareRatioOf(uint256 tokenId) external view returns (uint256);

    /// @notice The last second of a token's life; 0 for ever.
    /// @param tokenId The token.
    /// @return Seconds since 1970, or 0.
    function expireAtOf(uint256 tokenId) external view returns (uint64);

    /// @notice Whose a token is.
    /// @param tokenId The token.
    /// @return Its owner.
    function ownerOf(uint256 tokenId) external view returns (address);

    /// @notice What a claim would pay out now.
    /// @param tokenId The token.
    /// @param asset The ERC-20, or 0 for the chain's own money.
    /// @return How much.
    function pendingRevenue(uint256 tokenId, address asset) external view returns (uint256);

    /// @notice Makes a class, which the caller controls.
    /// @param metadataURI Where its metadata is.
    /// @param integrityHash Hash of what it stands for.
    /// @param unitDecimals Decimals of a unit of quota.
    /// @param policyURI Where its policy is.
    /// @return classId The class.
    function createClass(
        string calldata metadataURI,
        bytes32 integrityHash,
        uint8 unitDecimals,
        string calldata policyURI
    ) external returns (uint256 classId);

    /// @notice Replaces a class's metadata. Only its controller.
    /// @param classId The class.
    /// @param metadataURI Where its metadata is.
    /// @param integrityHash Hash of what it stands for.
    function updateClassMetadata(uint256 classId, string calldata metadataURI, bytes32 integrityHash) external;

    /// @notice Replaces a class's policy. Only its controller.
    /// @param classId The class.
    /// @param policyURI Where its policy is.
    function updateClassPolicy(uint256 classId, string calldata policyURI) external;

    /// @notice Makes a token. Only the class's controller.
    /// @param classId The class.
    /// @param to Whose it will be.
    /// @param value Quota of use.
    /// @param shareRatio Share of revenue.
    /// @param expireAt The last second of its life, or 0 for ever.
    /// @return tokenId The token.
    function mint(uint256 classId, address to, uint256 value, uint256 shareRatio, uint64 expireAt)
        external
        returns (uint256 tokenId);

    /// @notice Gives a token away, with what it has not claimed. Only its owner.
    /// @param tokenId The token.
    /// @param to Who gets it.
    function transferToken(uint256 tokenId, address to) external;

    /// @notice Lets somebody use, and move quota of, the caller's tokens of a class, and claim to the caller.
    /// @param classId The class.
    /// @param operator Who may act for them.
    /// @param approved Whether they may.
    function approveForClass(uint256 classId, address operator, bool approved) external;

    /// @notice Whether somebody may.
    /// @param owner Whose.
    /// @param classId The class.
    /// @param operator Who may act for them.
    /// @return Whether they may.
    function isApprovedForClass(address owner, uint256 classId, address operator) external view returns (bool);

    /// @notice Moves quota between tokens of one class. Only the owner of the first, or an operator.
    /// @dev A quota without end is not moved, and no sum is one.
    /// @param fromTokenId The token that has less then.
    /// @param toTokenId The token that has more then.
    /// @param value How much quota.
    function transferValue(uint256 fromTokenId, uint256 toTokenId, uint256 value) external;

    /// @notice Uses a token: takes from its quota. Only its owner, or an operator.
    /// @param tokenId The token.
    /// @param metricType What is counted.
    /// @param amount How much of the quota.
    function recordUsage(uint256 tokenId, bytes32 metricType, uint256 amount) external;

    /// @notice Brings a class revenue in the chain's own money.
    /// @param classId The class.
    function settleRevenueETH(uint256 classId) external payable;

    /// @notice Brings a class revenue in an ERC-20 that the caller has allowed this contract to take.
    /// @param classId The class.
    /// @param asset The ERC-20.
    /// @param amount How much.
    function settleRevenueERC20(uint256 classId, address asset, uint256 amount) external;

    /// @notice Pays out a token's share. Its owner to anybody; an operator to its owner. Where there is nothing to pay out, nothing happens.
    /// @param tokenId The token.
    /// @param asset The ERC-20, or 0 for the chain's own money.
    /// @param to Who gets it.
    /// @return amountClaimed How much.
    function claim(uint256 tokenId, address asset, address payable to) external returns (uint256 amountClaimed);
}
