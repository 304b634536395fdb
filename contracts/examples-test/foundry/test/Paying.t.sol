// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {GovernanceSummariser} from "@metisvm/contracts/src/examples/GovernanceSummariser.sol";
import {MetisAI} from "@metisvm/contracts/src/MetisAI.sol";
import {MetisMerkle} from "@metisvm/contracts/src/MetisMerkle.sol";
import {MetisPaid} from "@metisvm/contracts/src/MetisPaid.sol";
import {MetisTest} from "@metisvm/contracts/src/mocks/MetisTest.sol";
import {IInferenceGateway} from "@metisvm/contracts/src/interfaces/IInferenceGateway.sol";
import {IMetisInference} from "@metisvm/contracts/src/interfaces/IMetisInference.sol";
import {Vm, VM} from "./Vm.sol";

/// @title How to test a contract that pays for a model, without the VM
/// @dev Gateway and shares are the real ones.
contract PayingTest is MetisTest {
    Vm private constant vm = Vm(VM);
    bytes32 private constant MODEL = keccak256("a model");
    address private constant OWNER = address(0xA0704);
    bytes private constant PROMPT = "Proposal: Plant trees.\nSummary:";

    uint256 private classId;
    GovernanceSummariser private council;

    function setUp() public {
        setUpMetis();
        classId = registry.mockModel(MODEL, OWNER, 500, 0);
        council = new GovernanceSummariser{value: 10_000}(MODEL, 16, 2_000);
        council.setMember(address(this), true);
        council.propose("Plant trees.");
        inference.mockText(PROMPT, "Trees.");
    }

    function test_a_summary_is_paid_and_its_models_owner_can_take_the_money() public {
        require(keccak256(council.summarise(0, "Plant trees.")) == keccak256("Trees."));
        require(address(council).balance == 9_500 && council.proposalOf(0).price == 500);
        uint256 token = classId << 64 | 1;
        require(shares.pendingRevenue(token, address(0)) == 500);
        vm.prank(OWNER);
        shares.claim(token, address(0), payable(OWNER));
        require(OWNER.balance == 500);
    }

    function test_the_registry_says_what_was_said() public view {
        (uint256 perCall, uint256 perGas, uint256 class) = registry.billingOf(MODEL);
        require(perCall == 500 && perGas == 0 && class == classId);
        require(registry.isActive(MODEL) && registry.modelOf(MODEL).owner == OWNER);
        require(!registry.isActive(0) && gateway.priceOf(0, 1_000) == 0);
    }

    function test_a_price_above_the_cap_is_not_paid() public {
        registry.mockPrice(MODEL, 2_001, 0);
        vm.expectRevert(abi.encodeWithSelector(IInferenceGateway.PriceExceeded.selector, 2_001, 2_000));
        council.summarise(0, "Plant trees.");
    }

    function test_a_price_can_depend_on_gas() public {
        registry.mockPrice(MODEL, 0, 1);
        inference.mockGas(200_000);
        council.setCap(10_000_000);
        vm.deal(address(council), 10_000_000);
        council.summarise(0, "Plant trees.");
        uint256 price = council.proposalOf(0).price;
        require(price > 200_000 && price < 300_000 && price <= council.quote("Plant trees."));
    }

    function test_a_model_with_a_price_does_not_answer_for_nothing() public {
        vm.expectRevert(abi.encodeWithSelector(IMetisInference.PaymentRequired.selector, MODEL));
        this.askDirectly();
    }

    function test_a_quota_pays_too() public {
        vm.prank(OWNER);
        uint256 token = shares.mint(classId, address(this), 1_000_000, 0, 0);
        (bytes memory text, uint256 price) = MetisPaid.ask(MetisPaid.quota(token), MODEL, PROMPT, 16);
        require(price == 0 && keccak256(text) == keccak256("Trees."));
        require(shares.valueOf(token) < 1_000_000);
    }

    function test_leaves_of_a_models_files_can_be_shown() public {
        bytes memory file = "the only leaf";
        registry.mockFiles(MODEL, MetisMerkle.hashOf(file), uint64(file.length), 0, 0);
        require(MetisMerkle.isInWeights(MODEL, 0, file, new bytes32[](0)));
        require(!MetisMerkle.isInWeights(MODEL, 1, file, new bytes32[](0)));
        require(!MetisMerkle.isInTokenizer(MODEL, 0, file, new bytes32[](0)));
    }

    function askDirectly() external view {
        MetisAI.generate(MODEL, PROMPT, 16, MetisAI.greedy(), new uint32[](0));
    }
}
