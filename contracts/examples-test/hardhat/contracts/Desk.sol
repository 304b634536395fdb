// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {MetisAI} from "@metisvm/contracts/src/MetisAI.sol";
import {MetisPaid} from "@metisvm/contracts/src/MetisPaid.sol";

/// @title A contract under test: it asks models, and pays one with what its caller sends
contract Desk {
    error ChangeNotTaken();

    bytes public noted;
    uint256 public spent;

    /// @dev What the gateway gives back.
    receive() external payable {}

    function topic(bytes calldata text) external view returns (bytes memory) {
        return MetisAI.ask(bytes.concat("Topic of: ", text), 8, "[a-z]{1,12}");
    }

    function note(bytes32 model, bytes calldata text) external payable {
        uint256 price;
        (noted, price) = MetisPaid.ask(MetisPaid.money(msg.value), model, text, 16);
        spent += price;
        (bool sent,) = msg.sender.call{value: msg.value - price}("");
        if (!sent) revert ChangeNotTaken();
    }
}
