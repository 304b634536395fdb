// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {GenerateResult, MetisAI} from "../MetisAI.sol";
import {MetisPaid} from "../MetisPaid.sol";
import {Finish} from "../interfaces/IMetisInference.sol";

/// @title A governance contract that has proposals summarised before they are voted on
/// @notice Members propose, a model with a price writes a summary, the treasury pays it, members vote. What the model earns goes to the
/// holders of its shares in the same transaction.
/// @dev The treasury is what this contract holds. One summary costs at most `cap`, whatever the model's owner asks for in the
/// meantime, and only members' proposals cause costs. A summary is a reading aid: its proposal's hash is what is voted on, and a
/// proposal can be written so that a model summarises it wrongly.
contract GovernanceSummariser {
    /// @notice A proposal.
    struct Proposal {
        /// @dev Who made it.
        address proposer;
        /// @dev Whether it has a summary.
        bool summarised;
        /// @dev Whether the summary came to its end.
        bool complete;
        /// @dev Votes for it.
        uint32 yes;
        /// @dev Votes against it.
        uint32 no;
        /// @dev `keccak256` of its text.
        bytes32 textHash;
        /// @dev Wei that the summary cost.
        uint256 price;
        /// @dev The summary. It may be cut off inside a character if it is not complete.
        bytes summary;
    }

    /// @notice Only for the treasurer.
    /// @param caller Who tried.
    error NotTreasurer(address caller);
    /// @notice Only for members.
    /// @param caller Who tried.
    error NotMember(address caller);
    /// @notice There is no such proposal.
    /// @param id The proposal.
    error UnknownProposal(uint256 id);
    /// @notice This is not the proposal's text.
    /// @param id The proposal.
    /// @param textHash `keccak256` of what was given.
    error WrongText(uint256 id, bytes32 textHash);
    /// @notice The proposal has a summary.
    /// @param id The proposal.
    error AlreadySummarised(uint256 id);
    /// @notice The proposal cannot be voted on before it has a summary.
    /// @param id The proposal.
    error NotSummarised(uint256 id);
    /// @notice This member has voted on this proposal.
    /// @param id The proposal.
    /// @param member The member.
    error AlreadyVoted(uint256 id, address member);
    /// @notice A transfer of money failed.
    /// @param to To whom.
    /// @param amount How much, in wei.
    error TransferFailed(address to, uint256 amount);

    /// @notice Somebody became a member, or is one no longer.
    /// @param member Who.
    /// @param isMember Which of both.
    event MemberSet(address indexed member, bool isMember);
    /// @notice A summary may cost so much from now on.
    /// @param cap Wei.
    event CapSet(uint256 cap);
    /// @notice A proposal was made.
    /// @param id Its number.
    /// @param proposer Who made it.
    /// @param text Its text.
    event Proposed(uint256 indexed id, address indexed proposer, string text);
    /// @notice A proposal was summarised.
    /// @param id The proposal.
    /// @param price Wei that it cost.
    /// @param complete Whether the summary came to its end.
    /// @param summary The summary.
    event Summarised(uint256 indexed id, uint256 price, bool complete, bytes summary);
    /// @notice A member voted.
    /// @param id The proposal.
    /// @param member Who.
    /// @param support For it, or against it.
    event Voted(uint256 indexed id, address indexed member, bool support);
    /// @notice Money left the treasury.
    /// @param to To whom.
    /// @param amount Wei.
    event Withdrawn(address indexed to, uint256 amount);

    /// @notice Who looks after members and money.
    address public immutable treasurer = msg.sender;
    /// @notice The model that summarises.
    bytes32 public immutable model;
    /// @notice Most tokens of a summary.
    uint32 public immutable maxNew;
    /// @notice Most wei that a summary may cost.
    uint256 public cap;
    /// @notice Who may propose and vote.
    mapping(address account => bool) public isMember;
    /// @notice Who has voted on what.
    mapping(uint256 id => mapping(address member => bool)) public hasVoted;
    Proposal[] private _proposals;

    /// @dev Members and money are the treasurer's.
    modifier onlyTreasurer() {
        if (msg.sender != treasurer) revert NotTreasurer(msg.sender);
        _;
    }

    /// @dev Proposals cost the treasury money, and votes count.
    modifier onlyMember() {
        if (!isMember[msg.sender]) revert NotMember(msg.sender);
        _;
    }

    /// @param model_ The model that summarises.
    /// @param maxNew_ Most tokens of a summary.
    /// @param cap_ Most wei that a summary may cost.
    constructor(bytes32 model_, uint32 maxNew_, uint256 cap_) payable {
        model = model_;
        maxNew = maxNew_;
        cap = cap_;
        emit CapSet(cap_);
    }

    /// @notice Takes money for the treasury, and what the gateway gives back.
    receive() external payable {}

    /// @notice Makes a proposal.
    /// @param text Its text.
    /// @return id Its number.
    function propose(string calldata text) external onlyMember returns (uint256 id) {
        id = _proposals.length;
        Proposal storage p = _proposals.push();
        p.proposer = msg.sender;
        p.textHash = keccak256(bytes(text));
        emit Proposed(id, msg.sender, text);
    }

    /// @notice Has a proposal summarised at the treasury's expense. Anybody may.
    /// @param id The proposal.
    /// @param text Its text, as its event has it.
    /// @return summary The summary.
    function summarise(uint256 id, string calldata text) external returns (bytes memory summary) {
        Proposal storage p = _proposal(id);
        if (p.summarised) revert AlreadySummarised(id);
        bytes32 textHash = keccak256(bytes(text));
        if (textHash != p.textHash) revert WrongText(id, textHash);
        // Before money moves, so that a second summary of it is never paid.
        p.summarised = true;
        (GenerateResult memory result, uint256 price) = MetisPaid.generate(
            MetisPaid.money(cap), model, promptFor(text), maxNew, MetisAI.greedy(), new uint32[](0)
        );
        summary = result.text;
        p.summary = summary;
        p.price = price;
        p.complete = result.finish == Finish.Eos;
        emit Summarised(id, price, p.complete, summary);
    }

    /// @notice Votes on a proposal that has a summary.
    /// @param id The proposal.
    /// @param support For it, or against it.
    function vote(uint256 id, bool support) external onlyMember {
        Proposal storage p = _proposal(id);
        if (!p.summarised) revert NotSummarised(id);
        if (hasVoted[id][msg.sender]) revert AlreadyVoted(id, msg.sender);
        hasVoted[id][msg.sender] = true;
        if (support) p.yes++;
        else p.no++;
        emit Voted(id, msg.sender, support);
    }

    /// @notice Makes somebody a member, or no longer one.
    /// @param account Who.
    /// @param member Which of both.
    function setMember(address account, bool member) external onlyTreasurer {
        isMember[account] = member;
        emit MemberSet(account, member);
    }

    /// @notice Sets what a summary may cost.
    /// @param cap_ Wei.
    function setCap(uint256 cap_) external onlyTreasurer {
        cap = cap_;
        emit CapSet(cap_);
    }

    /// @notice Takes money out of the treasury.
    /// @param to To whom.
    /// @param amount Wei.
    function withdraw(address payable to, uint256 amount) external onlyTreasurer {
        emit Withdrawn(to, amount);
        (bool sent,) = to.call{value: amount}("");
        if (!sent) revert TransferFailed(to, amount);
    }

    /// @notice What a summary of a text costs at most, at today's price: what `cap` and the treasury should allow.
    /// @param text The text.
    /// @return price Wei.
    function quote(string calldata text) external view returns (uint256 price) {
        return MetisPaid.quote(model, uint32(MetisAI.tokenize(model, promptFor(text)).length), maxNew);
    }

    /// @notice A proposal.
    /// @param id Its number.
    /// @return proposal The proposal.
    function proposalOf(uint256 id) external view returns (Proposal memory proposal) {
        return _proposal(id);
    }

    /// @notice How many proposals there are.
    /// @return count The number.
    function proposalCount() external view returns (uint256 count) {
        return _proposals.length;
    }

    /// @notice What the model is asked.
    /// @param text The proposal.
    /// @return prompt The prompt.
    function promptFor(string calldata text) public pure returns (bytes memory prompt) {
        return bytes.concat("Proposal: ", bytes(text), "\nSummary:");
    }

    /// @dev The proposal, which must exist.
    function _proposal(uint256 id) private view returns (Proposal storage) {
        if (id >= _proposals.length) revert UnknownProposal(id);
        return _proposals[id];
    }
}
