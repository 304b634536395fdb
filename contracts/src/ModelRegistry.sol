// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {INFERENCE, SHARES} from "./MetisAddresses.sol";
import {IMetisInference} from "./interfaces/IMetisInference.sol";
import {IModelShares} from "./interfaces/IModelShares.sol";
import {
    IModelRegistry, Model, ModelClaims, ModelStatus, ModelTerms, RegistryRules
} from "./interfaces/IModelRegistry.sol";

/// @title The registry of models
/// @notice Anybody registers a model for a bond. Once validators have had time to fetch it, its owner pays rent for a place in the
/// byte budget that all validators hold, and it can be called.
/// @dev There from genesis. The precompile reads `_models` through the journal, so reverts and reorganisations undo what happens
/// here like anything else. Nobody has power over other people's models: the rules are immutable.
contract ModelRegistry is IModelRegistry {
    /// @dev The first slot, by docs/registry.md.
    mapping(bytes32 model => Model) private _models;
    /// @dev When a registration was announced.
    mapping(bytes32 commitment => uint256 time) private _commitments;
    /// @inheritdoc IModelRegistry
    uint256 public residentMebibytes;
    /// @notice Rent that was paid and not yet collected, in wei.
    uint256 public rentHeld;

    /// @dev An announcement holds for so long.
    uint256 private constant COMMITMENT_AGE = 1 days;
    uint256 private constant MAX_SHARE = 10_000;
    uint256 private constant MAX_LICENCE_BYTES = 128;
    uint256 private constant MAX_URI_BYTES = 512;

    uint40 private immutable _maturity;
    uint40 private immutable _notice;
    uint24 private immutable _maxModelMebibytes;
    uint24 private immutable _residentMebibytes;
    uint16 private immutable _maxRentDays;
    uint96 private immutable _bondBase;
    uint96 private immutable _bondPerMebibyte;
    uint96 private immutable _rentPerMebibyteDay;
    address private immutable _collector;

    /// @param rules_ The chain's rules.
    /// @param configured_ The models of the chain's configuration.
    constructor(RegistryRules memory rules_, bytes32[] memory configured_) {
        _maturity = rules_.maturity;
        _notice = rules_.notice;
        _maxModelMebibytes = rules_.maxModelMebibytes;
        _residentMebibytes = rules_.residentMebibytes;
        _maxRentDays = rules_.maxRentDays;
        _bondBase = rules_.bondBase;
        _bondPerMebibyte = rules_.bondPerMebibyte;
        _rentPerMebibyteDay = rules_.rentPerMebibyteDay;
        _collector = rules_.collector;
        // The precompile does not ask here for these, so nobody may sell them.
        for (uint256 i = 0; i < configured_.length; i++) {
            _models[configured_[i]].status = ModelStatus.Configured;
        }
    }

    /// @inheritdoc IModelRegistry
    function commit(bytes32 commitment) external {
        // Again and again would keep it fresh for ever, and a copy must not make the first one younger.
        uint256 time = _commitments[commitment];
        if (time != 0 && block.timestamp <= time + COMMITMENT_AGE) revert AlreadyCommitted(commitment);
        _commitments[commitment] = block.timestamp;
        emit Committed(commitment, msg.sender);
    }

    /// @inheritdoc IModelRegistry
    function register(bytes32 model, ModelClaims calldata claims, ModelTerms calldata terms, bytes32 salt)
        external
        payable
        returns (uint256 classId)
    {
        _useCommitment(commitmentOf(model, msg.sender, salt));
        Model storage m = _models[model];
        if (m.status == ModelStatus.Configured) revert WrongStatus(model, ModelStatus.Configured);
        // An id that was given up, bond and all, is free again. Else anybody could burn one for the price of gas.
        bool isFree = m.status == ModelStatus.None || (m.status == ModelStatus.Retired && m.bond == 0);
        if (!isFree) revert AlreadyRegistered(model);
        if (terms.parent != 0 && _models[terms.parent].status == ModelStatus.None) revert NotRegistered(terms.parent);
        uint256 mebibytes = mebibytesOf(claims);
        // The id 0 is the chain's default model.
        if (model == 0 || claims.weightsBytes == 0 || mebibytes > _maxModelMebibytes) {
            revert WrongSize(mebibytes, _maxModelMebibytes);
        }
        // Without a share nobody could be paid, and calls with a price would fail.
        if (terms.founderShare == 0 || terms.founderShare > MAX_SHARE) revert WrongShare(terms.founderShare);
        _checkText(terms.licence, 1, MAX_LICENCE_BYTES);
        _checkText(terms.uri, 0, MAX_URI_BYTES);
        uint256 bond = bondFor(mebibytes);
        if (msg.value != bond) revert WrongPayment(bond, msg.value);

        m.status = ModelStatus.Pending;
        m.perCall = terms.perCall;
        m.perGas = terms.perGas;
        m.linearMacs = claims.linearMacs;
        m.attentionMacs = claims.attentionMacs;
        m.headMacs = claims.headMacs;
        m.layers = claims.layers;
        m.vocabulary = claims.vocabulary;
        m.context = claims.context;
        m.spelledBytes = claims.spelledBytes;
        m.grouped = claims.grouped;
        m.mebibytes = uint24(mebibytes);
        m.owner = msg.sender;
        m.pendingOwner = address(0);
        m.maturesAt = uint40(block.timestamp) + _maturity;
        m.bond = uint96(bond);
        m.weightsBytes = claims.weightsBytes;
        m.tokenizerBytes = claims.tokenizerBytes;
        m.weightsRoot = claims.weightsRoot;
        m.tokenizerRoot = claims.tokenizerRoot;
        m.parent = terms.parent;
        m.licence = terms.licence;
        emit Registered(model, msg.sender, terms.parent, claims, terms.licence, terms.uri, m.maturesAt);
        emit PriceSet(model, terms.perCall, terms.perGas);
        classId = IModelShares(SHARES).createModelClass(model, msg.sender, terms.founderShare, terms.uri, terms.licence);
        m.classId = uint56(classId);
    }

    /// @inheritdoc IModelRegistry
    function activate(bytes32 model, uint16 daysPaid) external payable {
        Model storage m = _owned(model);
        if (m.status != ModelStatus.Pending) revert WrongStatus(model, m.status);
        if (block.timestamp < m.maturesAt) revert NotMature(model, m.maturesAt);
        _payRent(m, daysPaid, block.timestamp);
        uint256 free = _residentMebibytes - residentMebibytes;
        if (m.mebibytes > free) revert OverBudget(m.mebibytes, free);
        residentMebibytes += m.mebibytes;
        m.status = ModelStatus.Active;
        emit Activated(model, m.activeUntil);
        // The bundle is what was claimed, or nothing happens. A validator without it stops here.
        IMetisInference(INFERENCE).verifyBundle(model);
    }

    /// @inheritdoc IModelRegistry
    function extend(bytes32 model, uint16 daysPaid) external payable {
        Model storage m = _known(model);
        if (m.status != ModelStatus.Active) revert WrongStatus(model, m.status);
        uint256 until = m.activeUntil;
        _payRent(m, daysPaid, until > block.timestamp ? until : block.timestamp);
        emit Extended(model, msg.sender, m.activeUntil);
    }

    /// @inheritdoc IModelRegistry
    function evict(bytes32 model) external {
        Model storage m = _known(model);
        ModelStatus status = m.status;
        if (status != ModelStatus.Active && status != ModelStatus.Sunset) revert WrongStatus(model, status);
        if (block.timestamp < m.activeUntil) revert RentPaid(model, m.activeUntil);
        residentMebibytes -= m.mebibytes;
        m.activeUntil = 0;
        if (status == ModelStatus.Active) {
            m.status = ModelStatus.Pending;
            // Validators may let go of it now, and need as long as at first to get it again.
            m.maturesAt = uint40(block.timestamp) + _maturity;
        } else {
            m.status = ModelStatus.Retired;
        }
        emit Evicted(model);
    }

    /// @inheritdoc IModelRegistry
    function deprecate(bytes32 model) external {
        Model storage m = _owned(model);
        if (m.status == ModelStatus.Pending) {
            m.status = ModelStatus.Retired;
        } else if (m.status == ModelStatus.Active) {
            uint256 end = block.timestamp + _notice;
            if (end < m.activeUntil) m.activeUntil = uint64(end);
            m.status = ModelStatus.Sunset;
        } else {
            revert WrongStatus(model, m.status);
        }
        emit Deprecated(model, m.activeUntil);
    }

    /// @inheritdoc IModelRegistry
    function setPrice(bytes32 model, uint96 perCall, uint64 perGas) external {
        Model storage m = _owned(model);
        m.perCall = perCall;
        m.perGas = perGas;
        emit PriceSet(model, perCall, perGas);
    }

    /// @inheritdoc IModelRegistry
    function transferOwnership(bytes32 model, address to) external {
        Model storage m = _owned(model);
        m.pendingOwner = to;
        emit OwnershipTransferStarted(model, msg.sender, to);
    }

    /// @inheritdoc IModelRegistry
    function acceptOwnership(bytes32 model) external {
        Model storage m = _known(model);
        if (m.pendingOwner != msg.sender) revert NotPendingOwner(model, msg.sender);
        emit OwnershipTransferred(model, m.owner, msg.sender);
        m.owner = msg.sender;
        m.pendingOwner = address(0);
        IModelShares(SHARES).reassignModelClass(m.classId, msg.sender);
    }

    /// @inheritdoc IModelRegistry
    function withdrawBond(bytes32 model) external {
        Model storage m = _owned(model);
        if (m.status != ModelStatus.Retired) revert WrongStatus(model, m.status);
        // A bond lies here for as long as validators may be busy with the model: else one bond would do for any number of them.
        uint256 until = uint256(m.maturesAt) + _notice;
        if (block.timestamp < until) revert BondLocked(model, until);
        uint256 bond = m.bond;
        m.bond = 0;
        emit BondReturned(model, msg.sender, bond);
        _send(msg.sender, bond);
    }

    /// @inheritdoc IModelRegistry
    function collect() external {
        uint256 rent = rentHeld;
        rentHeld = 0;
        emit RentCollected(_collector, rent);
        _send(_collector, rent);
    }

    /// @inheritdoc IModelRegistry
    function modelOf(bytes32 model) external view returns (Model memory) {
        return _models[model];
    }

    /// @inheritdoc IModelRegistry
    function isActive(bytes32 model) external view returns (bool) {
        return block.timestamp < _models[model].activeUntil;
    }

    /// @inheritdoc IModelRegistry
    function billingOf(bytes32 model) external view returns (uint256 perCall, uint256 perGas, uint256 classId) {
        Model storage m = _models[model];
        return (m.perCall, m.perGas, m.classId);
    }

    /// @inheritdoc IModelRegistry
    function bondFor(uint256 mebibytes) public view returns (uint256) {
        return _bondBase + mebibytes * _bondPerMebibyte;
    }

    /// @inheritdoc IModelRegistry
    function rentFor(bytes32 model, uint16 daysPaid) public view returns (uint256) {
        return uint256(_models[model].mebibytes) * daysPaid * _rentPerMebibyteDay;
    }

    /// @inheritdoc IModelRegistry
    function mebibytesOf(ModelClaims calldata claims) public pure returns (uint256) {
        return (uint256(claims.weightsBytes) + claims.tokenizerBytes + (1 << 20) - 1) >> 20;
    }

    /// @inheritdoc IModelRegistry
    function commitmentOf(bytes32 model, address author, bytes32 salt) public pure returns (bytes32) {
        return keccak256(abi.encode(model, author, salt));
    }

    /// @inheritdoc IModelRegistry
    function rules() external view returns (RegistryRules memory) {
        return RegistryRules({
            maturity: _maturity,
            notice: _notice,
            maxModelMebibytes: _maxModelMebibytes,
            residentMebibytes: _residentMebibytes,
            maxRentDays: _maxRentDays,
            bondBase: _bondBase,
            bondPerMebibyte: _bondPerMebibyte,
            rentPerMebibyteDay: _rentPerMebibyteDay,
            collector: _collector
        });
    }

    /// @dev The model, which must be registered.
    function _known(bytes32 model) private view returns (Model storage m) {
        m = _models[model];
        if (m.status == ModelStatus.None) revert NotRegistered(model);
    }

    /// @dev The model, which must be the caller's.
    function _owned(bytes32 model) private view returns (Model storage m) {
        m = _known(model);
        if (m.owner != msg.sender) revert NotModelOwner(model, msg.sender);
    }

    /// @dev An announcement counts from the next block on: in its own block it could follow somebody else's registration.
    function _useCommitment(bytes32 commitment) private {
        uint256 time = _commitments[commitment];
        if (time == 0 || block.timestamp <= time || block.timestamp > time + COMMITMENT_AGE) {
            revert NotCommitted(commitment);
        }
        delete _commitments[commitment];
    }

    /// @dev Takes the rent of so many days from `from` on, which must have been sent along exactly.
    function _payRent(Model storage m, uint16 daysPaid, uint256 from) private {
        uint256 until = from + uint256(daysPaid) * 1 days;
        if (daysPaid == 0 || until > block.timestamp + uint256(_maxRentDays) * 1 days) {
            revert WrongDays(daysPaid, _maxRentDays);
        }
        uint256 rent = uint256(m.mebibytes) * daysPaid * _rentPerMebibyteDay;
        if (msg.value != rent) revert WrongPayment(rent, msg.value);
        rentHeld += rent;
        m.activeUntil = uint64(until);
    }

    /// @dev Texts are kept, or in events, at the cost of everybody.
    function _checkText(string calldata text, uint256 min, uint256 max) private pure {
        uint256 length = bytes(text).length;
        if (length < min || length > max) revert WrongText(length, max);
    }

    /// @dev Whoever cannot take money back gets an error, and nothing has happened.
    function _send(address to, uint256 amount) private {
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert TransferFailed(to, amount);
    }
}
