// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {GenerateResult, MetisAI} from "../MetisAI.sol";
import {Finish} from "../interfaces/IMetisInference.sol";
import {Command} from "./Command.sol";
import {IERC20} from "./IERC20.sol";
import {TestExchange} from "./TestExchange.sol";
import {TestGovernor} from "./TestGovernor.sol";
import {TestStaking} from "./TestStaking.sol";

/// @title A wallet that is told what to do in plain words
/// @notice The owner says "send twelve and a half usdc to alice"; the chain's default model writes the command
/// `transfer 12.5 USDC to alice`; the wallet reads that strictly and executes it, all in one transaction.
/// @dev The model only translates. What can happen is fixed here: the owner's own call, tokens that the owner has registered, receivers
/// in the owner's address book, and the owner's exchange, staking place and governor. A text that the wallet does not
/// understand word by word reverts, and `preview` shows the command before anything is signed.
contract IntentWallet {
    /// @notice The model says that the instruction is not one for a wallet.
    error NotAnInstruction();
    /// @notice The model's text is not a command, or it did not come to its end.
    /// @param text The model's text.
    error UnknownCommand(bytes text);
    /// @notice No token is registered under this symbol.
    /// @param symbol The symbol.
    error UnknownToken(string symbol);
    /// @notice Nobody in the address book has this name.
    /// @param name The name.
    error UnknownContact(string name);
    /// @notice Only for the owner.
    error NotOwner();
    /// @notice The command needs an exchange, a staking place or a governor that the owner has not set.
    /// @param verb The command's first word.
    error NoService(string verb);
    /// @notice A token did not move.
    /// @param token The token.
    error TransferFailed(IERC20 token);

    /// @notice An instruction was executed.
    /// @param instruction What the owner said.
    /// @param command What the model made of it.
    /// @param tokens The same, as the model's tokens.
    event Executed(string instruction, string command, uint32[] tokens);

    /// @notice Most tokens of a command; the longest has fewer.
    uint32 public constant MAX_NEW_TOKENS = 24;

    /// @notice Whose wallet this is.
    address public immutable owner = msg.sender;
    /// @notice The tokens, by symbol. All have 18 decimals.
    mapping(string symbol => IERC20 token) public tokens;
    /// @notice The address book.
    mapping(string name => address account) public contacts;
    /// @notice Where `swap` goes.
    TestExchange public exchange;
    /// @notice Where `stake` and `unstake` go.
    TestStaking public staking;
    /// @notice Where `vote` goes.
    TestGovernor public governor;

    /// @dev Nobody else is obeyed.
    modifier onlyOwner() {
        if (msg.sender != owner) revert NotOwner();
        _;
    }

    /// @notice Does what the owner says.
    /// @param instruction The owner's words.
    /// @return command The command that was executed.
    function ask(string calldata instruction) external onlyOwner returns (string memory command) {
        GenerateResult memory answer = _translate(instruction);
        _execute(answer.text);
        command = string(answer.text);
        emit Executed(instruction, command, answer.tokens);
    }

    /// @notice The command that `ask` would execute. Whether it would succeed is not checked.
    /// @param instruction The owner's words.
    /// @return command The command, `none` where there is none.
    function preview(string calldata instruction) external view returns (string memory command) {
        return string(_translate(instruction).text);
    }

    /// @notice Registers a token; the zero address removes it.
    /// @param symbol Its symbol.
    /// @param token The token.
    function setToken(string calldata symbol, IERC20 token) external onlyOwner {
        tokens[symbol] = token;
    }

    /// @notice Writes into the address book; the zero address removes a name.
    /// @param name The name.
    /// @param account Whose name it is.
    function setContact(string calldata name, address account) external onlyOwner {
        contacts[name] = account;
    }

    /// @notice Sets where `swap`, `stake`, `unstake` and `vote` go.
    /// @param exchange_ Where `swap` goes.
    /// @param staking_ Where `stake` and `unstake` go.
    /// @param governor_ Where `vote` goes.
    function setServices(TestExchange exchange_, TestStaking staking_, TestGovernor governor_) external onlyOwner {
        exchange = exchange_;
        staking = staking_;
        governor = governor_;
    }

    /// @notice Takes tokens out without asking the model.
    /// @param token The token.
    /// @param amount How many, in smallest units.
    function withdraw(IERC20 token, uint256 amount) external onlyOwner {
        _transfer(token, owner, amount);
    }

    /// @dev The command that the model makes of an instruction.
    function _translate(string calldata instruction) private view returns (GenerateResult memory answer) {
        answer = MetisAI.generate(
            MetisAI.DEFAULT_MODEL, bytes(instruction), MAX_NEW_TOKENS, MetisAI.greedy(), new uint32[](0)
        );
        // A command that is cut off is another command: `1` may be the beginning of `100`.
        if (answer.finish != Finish.Eos) revert UnknownCommand(answer.text);
    }

    /// @dev The whole grammar:
    /// transfer <amount> <TOKEN> to <name> | swap <amount> <TOKEN> for <TOKEN> | stake <amount> <TOKEN>
    /// | unstake <amount> <TOKEN> | vote <yes|no|abstain> on <number> | none
    function _execute(bytes memory text) private {
        string[] memory word = Command.split(text);
        if (word.length == 0) revert UnknownCommand(text);
        if (word.length == 1 && Command.same(word[0], "none")) revert NotAnInstruction();
        if (word.length == 5 && Command.same(word[0], "transfer") && Command.same(word[3], "to")) {
            _transfer(_token(word[2]), _contact(word[4]), Command.parseAmount(word[1]));
        } else if (word.length == 5 && Command.same(word[0], "swap") && Command.same(word[3], "for")) {
            _swap(_token(word[2]), Command.parseAmount(word[1]), _token(word[4]));
        } else if (word.length == 3 && Command.same(word[0], "stake")) {
            _stake(_token(word[2]), Command.parseAmount(word[1]));
        } else if (word.length == 3 && Command.same(word[0], "unstake")) {
            if (address(staking) == address(0)) revert NoService(word[0]);
            staking.unstake(_token(word[2]), Command.parseAmount(word[1]));
        } else if (word.length == 4 && Command.same(word[0], "vote") && Command.same(word[2], "on")) {
            _vote(word[1], word[3], text);
        } else {
            revert UnknownCommand(text);
        }
    }

    /// @dev Tokens that say they did not move.
    function _transfer(IERC20 token, address to, uint256 amount) private {
        if (!token.transfer(to, amount)) revert TransferFailed(token);
    }

    /// @dev The exchange may take this amount, and no more.
    function _swap(IERC20 tokenIn, uint256 amount, IERC20 tokenOut) private {
        if (address(exchange) == address(0)) revert NoService("swap");
        if (!tokenIn.approve(address(exchange), amount)) revert TransferFailed(tokenIn);
        exchange.swap(tokenIn, amount, tokenOut);
    }

    /// @dev The staking place may take this amount, and no more.
    function _stake(IERC20 token, uint256 amount) private {
        if (address(staking) == address(0)) revert NoService("stake");
        if (!token.approve(address(staking), amount)) revert TransferFailed(token);
        staking.stake(token, amount);
    }

    /// @dev A number has one spelling.
    function _vote(string memory choice, string memory proposal, bytes memory text) private {
        if (address(governor) == address(0)) revert NoService("vote");
        (bool valid, uint256 number) = Command.parseNumber(proposal);
        if (!valid) revert UnknownCommand(text);
        governor.castVote(number, _support(choice, text));
    }

    /// @dev The vote that a word stands for.
    function _support(string memory choice, bytes memory text) private pure returns (TestGovernor.Support) {
        if (Command.same(choice, "yes")) return TestGovernor.Support.For;
        if (Command.same(choice, "no")) return TestGovernor.Support.Against;
        if (Command.same(choice, "abstain")) return TestGovernor.Support.Abstain;
        revert UnknownCommand(text);
    }

    /// @dev The token of a symbol, which the owner must have registered.
    function _token(string memory symbol) private view returns (IERC20 token) {
        token = tokens[symbol];
        if (address(token) == address(0)) revert UnknownToken(symbol);
    }

    /// @dev The account of a name, which must be in the address book.
    function _contact(string memory name) private view returns (address account) {
        account = contacts[name];
        if (account == address(0)) revert UnknownContact(name);
    }
}
