// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @notice Where a model is in its life.
enum ModelStatus {
    /// Nobody has registered it.
    None,
    /// Registered, not callable: it matures, or nobody pays its rent.
    Pending,
    /// Callable while its rent is paid. Every validator holds it.
    Active,
    /// Deprecated, and still callable until its notice is over.
    Sunset,
    /// Deprecated and gone. Its bond can be taken back, once it has lain there for maturity and notice.
    Retired,
    /// The chain's configuration has it. Nobody can register it.
    Configured
}

/// @notice What an author says of a bundle. Activation compares all of it with the bundle itself.
/// @dev Counts are those of the bundle's manifest (docs/bundle.md, section 4) and of the gas schedule (docs/gas.md, section 1).
struct ModelClaims {
    /// @dev Merkle root of `weights.safetensors`.
    bytes32 weightsRoot;
    /// @dev Merkle root of `tokenizer.json`.
    bytes32 tokenizerRoot;
    /// @dev Length of `weights.safetensors`.
    uint64 weightsBytes;
    /// @dev Length of `tokenizer.json`.
    uint64 tokenizerBytes;
    /// @dev Multiply-accumulates of the linear layers for one token.
    uint56 linearMacs;
    /// @dev Multiply-accumulates of attention for one pair of positions.
    uint32 attentionMacs;
    /// @dev Multiply-accumulates of the head for one token.
    uint40 headMacs;
    /// @dev Layers.
    uint16 layers;
    /// @dev Tokens of the vocabulary.
    uint24 vocabulary;
    /// @dev Most tokens of a sequence.
    uint24 context;
    /// @dev Bytes that all tokens of the vocabulary stand for together.
    uint32 spelledBytes;
    /// @dev Whether weights have a multiplier for each group of 32.
    bool grouped;
}

/// @notice What a model's owner asks of whom, and what people should know.
struct ModelTerms {
    /// @dev The registered model that this one was made from, or 0.
    bytes32 parent;
    /// @dev Wei for each call.
    uint96 perCall;
    /// @dev Wei for each unit of gas that the inference takes.
    uint64 perGas;
    /// @dev Shares of the founder's token, 1 to 10,000. Others can be minted until all together have 10,000.
    uint16 founderShare;
    /// @dev The licence, an SPDX expression or a name: 1 to 128 bytes.
    string licence;
    /// @dev Where the bundle's files are: at most 512 bytes.
    string uri;
}

/// @notice What the registry knows of a model.
/// @dev The layout of the first two slots is normative (docs/registry.md): the precompile reads them.
struct Model {
    /// @dev Callable while the block's time is below this, in seconds since 1970.
    uint64 activeUntil;
    /// @dev Wei for each call.
    uint96 perCall;
    /// @dev Wei for each unit of gas that the inference takes.
    uint64 perGas;
    /// @dev Where it is in its life.
    ModelStatus status;
    /// @dev As in `ModelClaims`.
    uint56 linearMacs;
    uint32 attentionMacs;
    uint40 headMacs;
    uint16 layers;
    uint24 vocabulary;
    uint24 context;
    uint32 spelledBytes;
    bool grouped;
    /// @dev What it takes of the resident budget: its files' bytes in MiB, rounded up.
    uint24 mebibytes;
    /// @dev Whose it is.
    address owner;
    /// @dev When it may be activated, in seconds since 1970.
    uint40 maturesAt;
    /// @dev Its class of shares.
    uint56 classId;
    /// @dev Who may take it over, or nobody.
    address pendingOwner;
    /// @dev Wei that lie here while it is registered.
    uint96 bond;
    /// @dev As in `ModelClaims`.
    uint64 weightsBytes;
    uint64 tokenizerBytes;
    bytes32 weightsRoot;
    bytes32 tokenizerRoot;
    /// @dev The model that it was made from, or 0.
    bytes32 parent;
    /// @dev Its licence.
    string licence;
}

/// @notice What the chain asks of authors. Fixed for good when the chain begins.
struct RegistryRules {
    /// @dev Seconds between registration and activation, in which validators fetch the bundle.
    uint40 maturity;
    /// @dev Seconds that a deprecated model is still callable, if its rent is paid for so long.
    uint40 notice;
    /// @dev Largest model, in MiB.
    uint24 maxModelMebibytes;
    /// @dev What all active models may have together, in MiB.
    uint24 residentMebibytes;
    /// @dev Days of rent that may be paid ahead.
    uint16 maxRentDays;
    /// @dev Wei of bond for each model.
    uint96 bondBase;
    /// @dev Wei of bond for each MiB.
    uint96 bondPerMebibyte;
    /// @dev Wei of rent for each MiB and day.
    uint96 rentPerMebibyteDay;
    /// @dev Who gets the rent; 0 burns it.
    address collector;
}

/// @title The registry of models
/// @notice Who may run what: models by the hash of their manifest, with an owner, a price, and a place among those that all
/// validators hold.
interface IModelRegistry {
    /// @notice Registration was announced.
    /// @param commitment The announcement.
    /// @param author Who announced it.
    event Committed(bytes32 indexed commitment, address indexed author);
    /// @notice A model was registered. Validators fetch its bundle now.
    /// @param model The model.
    /// @param owner Whose it is.
    /// @param parent The model that it was made from, or 0.
    /// @param claims What its bundle has.
    /// @param licence Its licence.
    /// @param uri Where its bundle is.
    /// @param maturesAt When it can be activated, in seconds since 1970.
    event Registered(
        bytes32 indexed model, address indexed owner, bytes32 indexed parent, ModelClaims claims, string licence, string uri, uint256 maturesAt
    );
    /// @notice A model can be called until then.
    /// @param model The model.
    /// @param activeUntil Until when, in seconds since 1970.
    event Activated(bytes32 indexed model, uint256 activeUntil);
    /// @notice Its rent was paid ahead.
    /// @param model The model.
    /// @param payer Who paid.
    /// @param activeUntil Until when, in seconds since 1970.
    event Extended(bytes32 indexed model, address indexed payer, uint256 activeUntil);
    /// @notice A model whose rent is not paid left the resident budget. Unless it was deprecated it matures again.
    /// @param model The model.
    event Evicted(bytes32 indexed model);
    /// @notice Its owner gives it up: it can be called until then.
    /// @param model The model.
    /// @param activeUntil Until when, in seconds since 1970.
    event Deprecated(bytes32 indexed model, uint256 activeUntil);
    /// @notice Its price changed.
    /// @param model The model.
    /// @param perCall Wei for each call.
    /// @param perGas Wei for each unit of gas.
    event PriceSet(bytes32 indexed model, uint256 perCall, uint256 perGas);
    /// @notice Somebody may take it over.
    /// @param model The model.
    /// @param from Whose it is.
    /// @param to Who may take it over.
    event OwnershipTransferStarted(bytes32 indexed model, address indexed from, address indexed to);
    /// @notice Somebody took it over.
    /// @param model The model.
    /// @param from Whose it was.
    /// @param to Whose it is.
    event OwnershipTransferred(bytes32 indexed model, address indexed from, address indexed to);
    /// @notice Its bond went back.
    /// @param model The model.
    /// @param to Who got it.
    /// @param amount How much, in wei.
    event BondReturned(bytes32 indexed model, address indexed to, uint256 amount);
    /// @notice Rent went to the collector.
    /// @param collector Who got it.
    /// @param amount How much, in wei.
    event RentCollected(address indexed collector, uint256 amount);

    /// @notice Nobody has registered this model.
    /// @param model The model.
    error NotRegistered(bytes32 model);
    /// @notice Somebody has registered this model, and has not given it up with its bond.
    /// @param model The model.
    error AlreadyRegistered(bytes32 model);
    /// @notice Only for its owner.
    /// @param model The model.
    /// @param caller Who tried.
    error NotModelOwner(bytes32 model, address caller);
    /// @notice Only for who was named by its owner.
    /// @param model The model.
    /// @param caller Who tried.
    error NotPendingOwner(bytes32 model, address caller);
    /// @notice Not in this part of its life.
    /// @param model The model.
    /// @param status Where it is in its life.
    error WrongStatus(bytes32 model, ModelStatus status);
    /// @notice It can be activated from then on.
    /// @param model The model.
    /// @param maturesAt When it can be activated, in seconds since 1970.
    error NotMature(bytes32 model, uint256 maturesAt);
    /// @notice Its bond can be taken back from then on: a notice after it matured, or would have.
    /// @param model The model.
    /// @param until From when on, in seconds since 1970.
    error BondLocked(bytes32 model, uint256 until);
    /// @notice Its rent is paid until then.
    /// @param model The model.
    /// @param activeUntil Until when, in seconds since 1970.
    error RentPaid(bytes32 model, uint256 activeUntil);
    /// @notice There is no announcement of this registration in an earlier block within a day.
    /// @param commitment The announcement.
    error NotCommitted(bytes32 commitment);
    /// @notice This was announced already.
    /// @param commitment The announcement.
    error AlreadyCommitted(bytes32 commitment);
    /// @notice Exactly so much must be sent.
    /// @param required Wei that must be sent.
    /// @param sent Wei that were sent.
    error WrongPayment(uint256 required, uint256 sent);
    /// @notice Larger than a model may be, or empty.
    /// @param mebibytes Its size, in MiB.
    /// @param max The largest that it may be, in MiB.
    error WrongSize(uint256 mebibytes, uint256 max);
    /// @notice The resident budget has no room: other models must leave first.
    /// @param mebibytes Its size, in MiB.
    /// @param free What is free, in MiB.
    error OverBudget(uint256 mebibytes, uint256 free);
    /// @notice Rent cannot be paid for no day, or so far ahead.
    /// @param daysPaid Days that were asked for.
    /// @param max Days that may be paid ahead.
    error WrongDays(uint256 daysPaid, uint256 max);
    /// @notice A text is empty or too long.
    /// @param length Its bytes.
    /// @param max The most that it may have.
    error WrongText(uint256 length, uint256 max);
    /// @notice Shares must be 1 to 10,000.
    /// @param share What was asked for.
    error WrongShare(uint256 share);
    /// @notice A transfer of money failed.
    /// @param to To whom.
    /// @param amount How much, in wei.
    error TransferFailed(address to, uint256 amount);

    /// @notice Announces a registration, so that nobody who sees it in the mempool can be first with it.
    /// @param commitment `commitmentOf(model, msg.sender, salt)`.
    function commit(bytes32 commitment) external;

    /// @notice Registers a model. Its bond must be sent along: `bondFor(mebibytesOf(claims))`.
    /// @dev Models of the chain's configuration cannot be registered: `WrongStatus` with `Configured`.
    /// @param model `keccak256` of the manifest.
    /// @param claims What is in the bundle.
    /// @param terms Price, shares, licence.
    /// @param salt Of the announcement.
    /// @return classId The class of its shares.
    function register(bytes32 model, ModelClaims calldata claims, ModelTerms calldata terms, bytes32 salt)
        external
        payable
        returns (uint256 classId);

    /// @notice Makes a matured model callable. Its rent must be sent along: `rentFor(model, daysPaid)`.
    /// @dev Reverts with `IMetisInference.BundleMismatch` or `BundleRefused` where the bundle is not what was claimed.
    /// @param model The model.
    /// @param daysPaid Days of rent.
    function activate(bytes32 model, uint16 daysPaid) external payable;

    /// @notice Pays an active model's rent ahead. Anybody may.
    /// @param model The model.
    /// @param daysPaid Days of rent.
    function extend(bytes32 model, uint16 daysPaid) external payable;

    /// @notice Takes a model whose rent is not paid out of the resident budget. Anybody may.
    /// @param model The model.
    function evict(bytes32 model) external;

    /// @notice Gives a model up. It stays callable for the chain's notice, if its rent is paid for so long.
    /// @param model The model.
    function deprecate(bytes32 model) external;

    /// @notice Sets what calls cost from now on. With a price, the model is only called through the gateway.
    /// @param model The model.
    /// @param perCall Wei for each call.
    /// @param perGas Wei for each unit of gas that the inference takes.
    function setPrice(bytes32 model, uint96 perCall, uint64 perGas) external;

    /// @notice Names who may take a model over; nobody if 0.
    /// @param model The model.
    /// @param to Who.
    function transferOwnership(bytes32 model, address to) external;

    /// @notice Takes a model over, with control over its class of shares.
    /// @param model The model.
    function acceptOwnership(bytes32 model) external;

    /// @notice Sends the bond of a retired model back to its owner, a notice after it matured or would have. From then on anybody can register it anew.
    /// @param model The model.
    function withdrawBond(bytes32 model) external;

    /// @notice Sends the rent that was paid to the collector. Anybody may.
    function collect() external;

    /// @notice What the registry knows of a model.
    /// @param model The model.
    /// @return Its record; all zero if nobody has registered it.
    function modelOf(bytes32 model) external view returns (Model memory);

    /// @notice Whether a model can be called in this block.
    /// @param model The model.
    /// @return Whether it can.
    function isActive(bytes32 model) external view returns (bool);

    /// @notice What calls of a model cost, and the class of shares that gets it; zeros for one that is not registered.
    /// @param model The model.
    /// @return perCall Wei for each call.
    /// @return perGas Wei for each unit of gas that the inference takes.
    /// @return classId The class.
    function billingOf(bytes32 model) external view returns (uint256 perCall, uint256 perGas, uint256 classId);

    /// @notice Bond for a model of this size, in wei.
    /// @param mebibytes The size, in MiB.
    /// @return The bond.
    function bondFor(uint256 mebibytes) external view returns (uint256);

    /// @notice Rent of a model for so many days, in wei.
    /// @param model The model.
    /// @param daysPaid The days.
    /// @return The rent.
    function rentFor(bytes32 model, uint16 daysPaid) external view returns (uint256);

    /// @notice What claims take of the resident budget, in MiB.
    /// @param claims The claims.
    /// @return Both files, rounded up.
    function mebibytesOf(ModelClaims calldata claims) external pure returns (uint256);

    /// @notice What an author announces.
    /// @param model The model.
    /// @param author Who will register it.
    /// @param salt A secret number.
    /// @return The announcement.
    function commitmentOf(bytes32 model, address author, bytes32 salt) external pure returns (bytes32);

    /// @notice MiB that active models take of the resident budget.
    /// @return MiB.
    function residentMebibytes() external view returns (uint256);

    /// @notice The chain's rules.
    /// @return The rules.
    function rules() external view returns (RegistryRules memory);
}
