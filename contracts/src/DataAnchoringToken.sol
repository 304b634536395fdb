// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {GATEWAY, REGISTRY} from "./MetisAddresses.sol";
import {IDataAnchoringToken} from "./interfaces/IDataAnchoringToken.sol";
import {CLASS_SHIFT, IModelShares} from "./interfaces/IModelShares.sol";

/// @title Shares and quotas of models
/// @notice Draft ERC-8028 without its holes: a token earns what is settled between its minting and its expiry, exactly.
/// @dev Revenue is kept as an index for each class and asset: what one share has earned so far. What a token has earned is the
/// difference of two values of that index, and the art is to know the index at the token's minting and at its expiry for assets that nobody
/// has listed, without visiting tokens. So time is cut into *epochs*, between which the set of shares changes. The first settlement of
/// an asset in an epoch notes what the index was before it. An index at the beginning of an epoch is then found by a binary search.
///
/// Every division rounds down, and no remainder is paid out.
contract DataAnchoringToken is IModelShares, IERC165, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice A class: assets whose tokens share one revenue.
    struct Class {
        // What a settlement reads, in one slot.
        uint64 epoch;
        uint64 nextExpiry;
        uint32 totalShare;
        uint8 unitDecimals;
        bool ofModel;
        bool isSealed;
        uint64 tokens;
        // The rest.
        address controller;
        bytes32 integrityHash;
        string metadataURI;
        string policyURI;
        /// @dev When shares expire, the earliest last. 0 is never among them.
        uint64[] expiries;
        /// @dev Shares that expire then.
        mapping(uint64 expireAt => uint32 share) expiring;
        /// @dev The first epoch in which they counted no more; 0 if that was not seen yet.
        mapping(uint64 expireAt => uint64 epoch) gone;
        mapping(address asset => Revenue) revenue;
    }

    /// @notice What a class has earned in one asset.
    struct Revenue {
        /// @dev What one share has earned, times `SCALE`.
        uint192 index;
        /// @dev The epoch of the last note.
        uint64 epoch;
        Note[] notes;
    }

    /// @dev The index at the beginning of this epoch, and of all since the note before.
    struct Note {
        uint192 index;
        uint64 epoch;
    }

    /// @notice A token of a class.
    struct Token {
        address owner;
        uint64 expireAt;
        uint32 shareRatio;
        /// @dev The first epoch in which it counts.
        uint64 since;
        bool expirySeen;
        uint256 value;
        /// @dev The index up to which it was paid out.
        mapping(address asset => uint256 index) paid;
    }

    /// @notice Shares of a class, all its tokens that have not expired together, at most.
    uint256 public constant SHARE_CAP = 10_000;
    /// @notice Different times at which shares of a class may be going to expire.
    uint256 public constant MAX_EXPIRIES = 32;
    /// @notice A quota that is never used up.
    uint256 public constant UNLIMITED = type(uint256).max;

    uint256 private constant SCALE = 1e18;

    /// @notice Classes that were made. Their ids are 1 to this.
    uint256 public classCount;
    mapping(uint256 classId => Class) private _classes;
    mapping(uint256 tokenId => Token) private _tokens;
    mapping(address owner => mapping(uint256 classId => mapping(address operator => bool))) private _approved;

    /// @inheritdoc IDataAnchoringToken
    function createClass(
        string calldata metadataURI,
        bytes32 integrityHash,
        uint8 unitDecimals,
        string calldata policyURI
    ) external returns (uint256 classId) {
        (classId,) = _create(msg.sender, metadataURI, integrityHash, unitDecimals, policyURI);
    }

    /// @inheritdoc IModelShares
    function createModelClass(
        bytes32 model,
        address founder,
        uint16 founderShare,
        string calldata metadataURI,
        string calldata policyURI
    ) external onlyRegistry returns (uint256 classId) {
        Class storage c;
        (classId, c) = _create(founder, metadataURI, model, 0, policyURI);
        c.ofModel = true;
        _mint(classId, c, founder, 0, founderShare, 0);
    }

    /// @inheritdoc IModelShares
    function reassignModelClass(uint256 classId, address controller) external onlyRegistry {
        _setController(classId, _classes[classId], controller);
    }

    /// @inheritdoc IModelShares
    function transferClass(uint256 classId, address controller) external {
        Class storage c = _controlled(classId);
        if (c.ofModel) revert NotRegistry(msg.sender);
        _setController(classId, c, controller);
    }

    /// @inheritdoc IDataAnchoringToken
    function updateClassMetadata(uint256 classId, string calldata metadataURI, bytes32 integrityHash) external {
        Class storage c = _controlled(classId);
        if (c.ofModel && integrityHash != c.integrityHash) revert IntegrityFixed(classId);
        c.metadataURI = metadataURI;
        c.integrityHash = integrityHash;
        emit MetadataUpdated(classId, metadataURI, integrityHash);
    }

    /// @inheritdoc IDataAnchoringToken
    function updateClassPolicy(uint256 classId, string calldata policyURI) external {
        _controlled(classId).policyURI = policyURI;
        emit ClassPolicyUpdated(classId, policyURI);
    }

    /// @inheritdoc IModelShares
    function sealClass(uint256 classId) external {
        _controlled(classId).isSealed = true;
        emit ClassSealed(classId);
    }

    /// @inheritdoc IDataAnchoringToken
    function mint(uint256 classId, address to, uint256 value, uint256 shareRatio, uint64 expireAt)
        external
        returns (uint256 tokenId)
    {
        Class storage c = _controlled(classId);
        if (to == address(0) || (expireAt != 0 && expireAt < block.timestamp)) revert BadToken(to, expireAt);
        return _mint(classId, c, to, value, shareRatio, expireAt);
    }

    /// @inheritdoc IDataAnchoringToken
    function transferToken(uint256 tokenId, address to) external {
        Token storage token = _known(tokenId);
        if (token.owner != msg.sender) revert NotAuthorised(tokenId, msg.sender);
        if (to == address(0)) revert BadToken(to, token.expireAt);
        token.owner = to;
        emit TransferToken(tokenId, msg.sender, to);
    }

    /// @inheritdoc IDataAnchoringToken
    function approveForClass(uint256 classId, address operator, bool approved) external {
        _approved[msg.sender][classId][operator] = approved;
        emit ApprovalForClass(msg.sender, classId, operator, approved);
    }

    /// @inheritdoc IDataAnchoringToken
    function transferValue(uint256 fromTokenId, uint256 toTokenId, uint256 value) external {
        Token storage from = _usable(fromTokenId);
        Token storage to = _usable(toTokenId);
        if (classOf(fromTokenId) != classOf(toTokenId) || fromTokenId == toTokenId) {
            revert NotTwins(fromTokenId, toTokenId);
        }
        if (!_isAuthorised(fromTokenId, from.owner)) revert NotAuthorised(fromTokenId, msg.sender);
        // What has no end has no parts, and no sum of parts has no end.
        if (value == 0 || from.value < value || from.value == UNLIMITED || to.value >= UNLIMITED - value) {
            revert QuotaExceeded(fromTokenId, value, from.value);
        }
        from.value -= value;
        to.value += value;
        emit ValueTransferred(fromTokenId, toTokenId, value);
    }

    /// @inheritdoc IDataAnchoringToken
    function recordUsage(uint256 tokenId, bytes32 metricType, uint256 amount) external {
        if (_isMeter(tokenId)) {
            if (msg.sender != GATEWAY) revert NotAuthorised(tokenId, msg.sender);
        } else {
            Token storage token = _usable(tokenId);
            // The gateway asks the owner itself.
            if (msg.sender != GATEWAY && !_isAuthorised(tokenId, token.owner)) {
                revert NotAuthorised(tokenId, msg.sender);
            }
            uint256 value = token.value;
            if (value < amount) revert QuotaExceeded(tokenId, amount, value);
            if (value != UNLIMITED && amount > 0) token.value = value - amount;
        }
        emit UsageRecorded(tokenId, metricType, amount, msg.sender);
    }

    /// @inheritdoc IDataAnchoringToken
    function settleRevenueETH(uint256 classId) external payable {
        _settle(classId, address(0), msg.value);
    }

    /// @inheritdoc IDataAnchoringToken
    function settleRevenueERC20(uint256 classId, address asset, uint256 amount) external nonReentrant {
        // What arrives counts, for tokens that keep a part of what they move.
        uint256 before = IERC20(asset).balanceOf(address(this));
        IERC20(asset).safeTransferFrom(msg.sender, address(this), amount);
        _settle(classId, asset, IERC20(asset).balanceOf(address(this)) - before);
    }

    /// @inheritdoc IDataAnchoringToken
    function claim(uint256 tokenId, address asset, address payable to)
        external
        nonReentrant
        returns (uint256 amountClaimed)
    {
        Token storage token = _known(tokenId);
        address owner = token.owner;
        if (to == address(0)) revert BadToken(to, token.expireAt);
        if (msg.sender != owner && (to != owner || !_isAuthorised(tokenId, owner))) {
            revert NotAuthorised(tokenId, msg.sender);
        }
        _observe(tokenId, token);
        uint256 end;
        (amountClaimed, end) = _earned(tokenId, token, asset);
        // Less than one wei stays until it is one.
        if (amountClaimed == 0) return 0;
        token.paid[asset] = end;
        emit Claimed(tokenId, to, asset, amountClaimed);
        if (asset != address(0)) {
            IERC20(asset).safeTransfer(to, amountClaimed);
        } else {
            (bool sent,) = to.call{value: amountClaimed}("");
            if (!sent) revert TransferFailed(to, amountClaimed);
        }
    }

    /// @inheritdoc IModelShares
    function observeExpiry(uint256 tokenId) external {
        _observe(tokenId, _known(tokenId));
    }

    /// @inheritdoc IDataAnchoringToken
    function getClassMeta(uint256 classId)
        external
        view
        returns (string memory metadataURI, bytes32 integrityHash, uint8 unitDecimals, string memory policyURI)
    {
        Class storage c = _class(classId);
        return (c.metadataURI, c.integrityHash, c.unitDecimals, c.policyURI);
    }

    /// @inheritdoc IDataAnchoringToken
    function classOf(uint256 tokenId) public pure returns (uint256) {
        return tokenId >> CLASS_SHIFT;
    }

    /// @inheritdoc IDataAnchoringToken
    function valueOf(uint256 tokenId) external view returns (uint256) {
        return _isMeter(tokenId) ? UNLIMITED : _known(tokenId).value;
    }

    /// @inheritdoc IDataAnchoringToken
    function shareRatioOf(uint256 tokenId) external view returns (uint256) {
        return _isMeter(tokenId) ? 0 : _known(tokenId).shareRatio;
    }

    /// @inheritdoc IDataAnchoringToken
    function expireAtOf(uint256 tokenId) external view returns (uint64) {
        return _isMeter(tokenId) ? 0 : _known(tokenId).expireAt;
    }

    /// @inheritdoc IDataAnchoringToken
    function ownerOf(uint256 tokenId) external view returns (address) {
        return _isMeter(tokenId) ? GATEWAY : _known(tokenId).owner;
    }

    /// @inheritdoc IDataAnchoringToken
    function pendingRevenue(uint256 tokenId, address asset) external view returns (uint256 amount) {
        if (!_isMeter(tokenId)) (amount,) = _earned(tokenId, _known(tokenId), asset);
    }

    /// @inheritdoc IDataAnchoringToken
    function isApprovedForClass(address owner, uint256 classId, address operator) external view returns (bool) {
        return _approved[owner][classId][operator];
    }

    /// @inheritdoc IModelShares
    function controllerOf(uint256 classId) external view returns (address) {
        return _class(classId).controller;
    }

    /// @inheritdoc IModelShares
    function totalShareOf(uint256 classId) external view returns (uint256 total) {
        Class storage c = _class(classId);
        total = c.totalShare;
        for (uint256 i = c.expiries.length; i > 0 && c.expiries[i - 1] < block.timestamp; i--) {
            total -= c.expiring[c.expiries[i - 1]];
        }
    }

    /// @inheritdoc IModelShares
    function tokenCountOf(uint256 classId) external view returns (uint256) {
        return _class(classId).tokens;
    }

    /// @inheritdoc IModelShares
    function isSealed(uint256 classId) external view returns (bool) {
        return _class(classId).isSealed;
    }

    /// @inheritdoc IModelShares
    function meterOf(uint256 classId) public pure returns (uint256 tokenId) {
        return classId << CLASS_SHIFT;
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 id) external pure returns (bool) {
        return id == type(IERC165).interfaceId || id == type(IDataAnchoringToken).interfaceId
            || id == type(IModelShares).interfaceId;
    }

    /// @dev Only the registry makes and moves classes of models.
    modifier onlyRegistry() {
        if (msg.sender != REGISTRY) revert NotRegistry(msg.sender);
        _;
    }

    /// @dev A class begins in epoch 1, so 0 stands for none.
    function _create(
        address controller,
        string calldata metadataURI,
        bytes32 integrityHash,
        uint8 unitDecimals,
        string calldata policyURI
    ) private returns (uint256 classId, Class storage c) {
        classId = ++classCount;
        c = _classes[classId];
        c.epoch = 1;
        c.unitDecimals = unitDecimals;
        c.integrityHash = integrityHash;
        c.metadataURI = metadataURI;
        c.policyURI = policyURI;
        emit ClassCreated(classId, metadataURI, integrityHash);
        emit ClassPolicyUpdated(classId, policyURI);
        _setController(classId, c, controller);
    }

    /// @dev A class always has one.
    function _setController(uint256 classId, Class storage c, address controller) private {
        if (controller == address(0)) revert NotController(classId, controller);
        c.controller = controller;
        emit ControllerChanged(classId, controller);
    }

    /// @dev Shares count from the next epoch on; a token without any needs none.
    function _mint(uint256 classId, Class storage c, address to, uint256 value, uint256 shareRatio, uint64 expireAt)
        private
        returns (uint256 tokenId)
    {
        if (shareRatio > 0) _addShares(classId, c, shareRatio, expireAt);
        tokenId = classId << CLASS_SHIFT | ++c.tokens;
        Token storage token = _tokens[tokenId];
        token.owner = to;
        token.expireAt = expireAt;
        token.shareRatio = uint32(shareRatio);
        token.since = c.epoch;
        token.value = value;
        emit Minted(tokenId, classId, to, value, shareRatio, expireAt);
    }

    /// @dev Begins an epoch in which these shares count.
    function _addShares(uint256 classId, Class storage c, uint256 shareRatio, uint64 expireAt) private {
        if (c.isSealed) revert Sealed(classId);
        _expire(classId, c);
        uint256 left = SHARE_CAP - c.totalShare;
        if (shareRatio > left) revert TooManyShares(shareRatio, left);
        if (expireAt != 0) {
            if (c.expiring[expireAt] == 0) _addExpiry(c, expireAt);
            c.expiring[expireAt] += uint32(shareRatio);
        }
        c.totalShare += uint32(shareRatio);
        c.epoch++;
        // Who mints pays for the note of the asset that matters most, not who calls the model next.
        _note(c.epoch, c.revenue[address(0)]);
    }

    /// @dev Keeps the times sorted, the earliest last.
    function _addExpiry(Class storage c, uint64 expireAt) private {
        uint64[] storage expiries = c.expiries;
        uint256 i = expiries.length;
        if (i == MAX_EXPIRIES) revert TooManyExpiries(MAX_EXPIRIES);
        expiries.push(expireAt);
        for (; i > 0 && expiries[i - 1] < expireAt; i--) {
            expiries[i] = expiries[i - 1];
        }
        expiries[i] = expireAt;
        c.nextExpiry = expiries[expiries.length - 1];
    }

    /// @dev Takes out the shares that have expired, at most `MAX_EXPIRIES` times. Nothing was settled since the first of them did.
    function _expire(uint256 classId, Class storage c) private {
        uint64 next = c.nextExpiry;
        if (next == 0 || block.timestamp <= next) return;
        uint64 epoch = c.epoch + 1;
        uint64[] storage expiries = c.expiries;
        uint32 expired = 0;
        uint256 left = expiries.length;
        do {
            uint32 share = c.expiring[next];
            delete c.expiring[next];
            c.gone[next] = epoch;
            expired += share;
            emit SharesExpired(classId, next, share);
            expiries.pop();
            next = --left == 0 ? 0 : expiries[left - 1];
        } while (next != 0 && next < block.timestamp);
        c.totalShare -= expired;
        c.nextExpiry = next;
        c.epoch = epoch;
        // So that whoever observes an expiry leaves nothing to pay for to who calls the model next.
        _note(epoch, c.revenue[address(0)]);
    }

    /// @dev Money is here already. What no share can have is refused.
    function _settle(uint256 classId, address asset, uint256 amount) private {
        if (amount == 0) revert NothingToSettle();
        Class storage c = _class(classId);
        _expire(classId, c);
        uint256 total = c.totalShare;
        if (total == 0) revert NoShares(classId);
        Revenue storage revenue = c.revenue[asset];
        _note(c.epoch, revenue);
        uint256 index = revenue.index + amount * SCALE / total;
        if (index > type(uint192).max) revert TooMuchRevenue(asset, amount);
        revenue.index = uint192(index);
        emit RevenueSettled(classId, asset, amount);
    }

    /// @dev Notes the index at the beginning of an epoch, once.
    function _note(uint64 epoch, Revenue storage revenue) private {
        if (revenue.epoch == epoch) return;
        revenue.notes.push(Note(revenue.index, epoch));
        revenue.epoch = epoch;
    }

    /// @dev The index at the beginning of an epoch: that of the first note in it or after it. Without one, nothing was settled since.
    function _indexAt(Revenue storage revenue, uint64 epoch) private view returns (uint256) {
        if (epoch > revenue.epoch) return revenue.index;
        uint256 low = 0;
        uint256 high = revenue.notes.length - 1;
        while (low < high) {
            uint256 middle = (low + high) / 2;
            if (revenue.notes[middle].epoch < epoch) low = middle + 1;
            else high = middle;
        }
        return revenue.notes[low].index;
    }

    /// @dev What a token has to get, and the index up to which that is.
    function _earned(uint256 tokenId, Token storage token, address asset)
        private
        view
        returns (uint256 amount, uint256 end)
    {
        Class storage c = _classes[classOf(tokenId)];
        Revenue storage revenue = c.revenue[asset];
        uint64 gone = token.expireAt == 0 ? 0 : c.gone[token.expireAt];
        end = gone == 0 ? revenue.index : _indexAt(revenue, gone);
        uint256 start = token.paid[asset];
        uint256 minted = _indexAt(revenue, token.since);
        if (start < minted) start = minted;
        amount = token.shareRatio * (end - start) / SCALE;
    }

    /// @dev Says it once.
    function _observe(uint256 tokenId, Token storage token) private {
        if (token.expirySeen || !_isExpired(token)) return;
        token.expirySeen = true;
        _expire(classOf(tokenId), _classes[classOf(tokenId)]);
        emit Expired(tokenId);
    }

    /// @dev The class, which must exist.
    function _class(uint256 classId) private view returns (Class storage c) {
        c = _classes[classId];
        if (c.epoch == 0) revert UnknownClass(classId);
    }

    /// @dev The class, which must be the caller's to control.
    function _controlled(uint256 classId) private view returns (Class storage c) {
        c = _class(classId);
        if (c.controller != msg.sender) revert NotController(classId, msg.sender);
    }

    /// @dev The token, which must exist; a meter does not.
    function _known(uint256 tokenId) private view returns (Token storage token) {
        token = _tokens[tokenId];
        if (token.owner == address(0)) revert UnknownToken(tokenId);
    }

    /// @dev The token, which must not have expired.
    function _usable(uint256 tokenId) private view returns (Token storage token) {
        token = _known(tokenId);
        if (_isExpired(token)) revert TokenExpired(tokenId, token.expireAt);
    }

    /// @dev The second in which a token expires is its last.
    function _isExpired(Token storage token) private view returns (bool) {
        return token.expireAt != 0 && block.timestamp > token.expireAt;
    }

    /// @dev Number 0 of a class that exists.
    function _isMeter(uint256 tokenId) private view returns (bool) {
        return uint64(tokenId) == 0 && _classes[classOf(tokenId)].epoch != 0;
    }

    /// @dev Whether the caller is the owner, or an operator of theirs for the class.
    function _isAuthorised(uint256 tokenId, address owner) private view returns (bool) {
        return msg.sender == owner || _approved[owner][classOf(tokenId)][msg.sender];
    }
}
