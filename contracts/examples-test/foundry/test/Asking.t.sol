// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {ClassifierOracle} from "@metisvm/contracts/src/examples/ClassifierOracle.sol";
import {NpcDialogue} from "@metisvm/contracts/src/examples/NpcDialogue.sol";
import {MetisAI, Unfinished} from "@metisvm/contracts/src/MetisAI.sol";
import {MockInference} from "@metisvm/contracts/src/mocks/MockInference.sol";
import {MetisTest} from "@metisvm/contracts/src/mocks/MetisTest.sol";
import {IMetisInference, Message} from "@metisvm/contracts/src/interfaces/IMetisInference.sol";
import {Vm, VM} from "./Vm.sol";

/// @title A contract under test: it stores what a model says a text is about
contract Desk {
    mapping(bytes32 textHash => bytes) public noted;

    function note(bytes calldata text) external returns (bytes memory word) {
        word = MetisAI.ask(bytes.concat("Topic of: ", text), 8, "[a-z]{1,12}");
        noted[keccak256(text)] = word;
    }

    function likes(bytes calldata text) external view returns (bool) {
        return MetisAI.askYesNo(text);
    }

    function topic(bytes calldata text, bytes[] calldata topics) external view returns (uint256) {
        return MetisAI.classify(text, topics);
    }

    function like(bytes calldata text) external view returns (int32) {
        return MetisAI.embed(MetisAI.DEFAULT_MODEL, text)[0];
    }
}

/// @title How to test a contract that asks a model, without the VM
contract AskingTest is MetisTest {
    Vm private constant vm = Vm(VM);
    Desk private desk;

    function setUp() public {
        setUpMetis();
        desk = new Desk();
    }

    function test_a_prompt_has_the_answer_that_was_said() public {
        inference.mockText("Topic of: the match", "sport");
        inference.mockText("Topic of: the vote", "politics");
        require(keccak256(desk.note("the match")) == keccak256("sport"));
        require(keccak256(desk.noted(keccak256("the match"))) == keccak256("sport"));
        require(keccak256(desk.note("the vote")) == keccak256("politics"));
    }

    function test_a_prompt_that_was_not_foreseen_fails_the_test() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                MockInference.NotMocked.selector, IMetisInference.generateConstrained.selector, "Topic of: the match"
            )
        );
        desk.note("the match");
    }

    function test_an_answer_that_was_cut_off_reverts() public {
        inference.mockCutText("Topic of: the match", "spo");
        vm.expectRevert(abi.encodeWithSelector(Unfinished.selector, "spo"));
        desk.note("the match");
    }

    function test_errors_of_the_precompile_arrive() public {
        bytes memory error = abi.encodeWithSelector(IMetisInference.PromptTooLong.selector, 300, 128);
        inference.mockCallRevert(abi.encodePacked(IMetisInference.generateConstrained.selector), error);
        vm.expectRevert(error);
        desk.note("the match");
        // The prompt is more particular than the function.
        bytes memory stuck = abi.encodeWithSelector(IMetisInference.CannotSpell.selector, 3);
        bytes4 selector = IMetisInference.generateConstrained.selector;
        inference.mockPromptRevert(selector, keccak256("Topic of: the match"), stuck);
        vm.expectRevert(stuck);
        desk.note("the match");
    }

    function test_choices_and_scores_follow_the_text() public {
        inference.mockText("Do you like fish?", "yes");
        require(desk.likes("Do you like fish?"));
        bytes[] memory topics = new bytes[](3);
        topics[0] = "sport";
        topics[1] = "politics";
        topics[2] = "fish";
        inference.mockDefaultText("fish");
        require(desk.topic("the market", topics) == 2);
        // No model can answer with what is not among the options.
        vm.expectRevert(abi.encodeWithSelector(MockInference.NotAnOption.selector, "fish"));
        desk.likes("the market");
    }

    function test_what_a_function_returns_can_be_said_as_it_is() public {
        int32[] memory vector = new int32[](1);
        vector[0] = 65_536;
        inference.mockPrompt(IMetisInference.embed.selector, keccak256("fish"), abi.encode(vector));
        require(desk.like("fish") == 65_536);
        vector[0] = -1;
        inference.mockCall(abi.encodeCall(IMetisInference.embed, (bytes32(0), "fish")), abi.encode(vector));
        require(desk.like("fish") == -1);
        inference.mockReset();
        vm.expectRevert(
            abi.encodeWithSelector(MockInference.NotMocked.selector, IMetisInference.embed.selector, "fish")
        );
        desk.like("fish");
    }

    function test_an_example_of_the_package_runs_on_the_mock() public {
        bytes[] memory labels = new bytes[](2);
        labels[0] = " good";
        labels[1] = " bad";
        ClassifierOracle oracle = new ClassifierOracle("Review: ", "\nSentiment:", labels);
        inference.mockText("Review: fresh fish\nSentiment:", " good");
        vm.roll(77);
        require(oracle.classify(0, "fresh fish") == 0);
        ClassifierOracle.Answer memory answer = oracle.answerOf(0, keccak256("fresh fish"));
        require(answer.label == 0 && answer.blockNumber == 77);
    }

    function test_a_conversation_is_known_by_its_last_message() public {
        NpcDialogue npc = new NpcDialogue(0, "You sell fish.", 1, 16);
        require(npc.form() == NpcDialogue.Form.ChatWithSystem, "the mock chats");
        inference.mockText("Hello!", "Fish?");
        inference.mockText("Which?", "Cod.");
        Message[] memory history = new Message[](0);
        bytes memory answer = npc.say(history, "Hello!");
        require(keccak256(answer) == keccak256("Fish?"));
        history = npc.remember(history, "Hello!", answer);
        require(keccak256(npc.say(history, "Which?")) == keccak256("Cod."));

        // Unless the test says that the model does not.
        bytes memory refusal =
            abi.encodeWithSelector(IMetisInference.NotSupported.selector, IMetisInference.tokenizeChat.selector);
        inference.mockCallRevert(abi.encodePacked(IMetisInference.tokenizeChat.selector), refusal);
        npc = new NpcDialogue(0, "You sell fish.", 1, 16);
        require(npc.form() == NpcDialogue.Form.Transcript);
        inference.mockText("You sell fish.\nPlayer: Hello!\nYou:", " Fish?");
        require(keccak256(npc.say(new Message[](0), "Hello!")) == keccak256(" Fish?"));
    }

    function test_what_describes_a_model_needs_no_words() public {
        require(MetisAI.modelInfo(0).modelId != 0 && MetisAI.modelInfo(bytes32(uint256(7))).modelId == bytes32(uint256(7)));
        require(MetisAI.quote(0, 5, 5) > 0);
        require(IMetisInference(address(inference)).verifyBundle(0));
        require(IMetisInference(address(inference)).inferenceBaseFee() == 0);
        uint32[] memory ids = MetisAI.tokenize(0, "hi");
        inference.mockText("hi", "ho");
        (uint32[] memory tokens,) = MetisAI.generateTokens(0, ids, 4, MetisAI.greedy(), new uint32[](0));
        require(keccak256(MetisAI.detokenize(0, tokens)) == keccak256("ho"));
        ids[1] = 256;
        vm.expectRevert(abi.encodeWithSelector(IMetisInference.TokenOutOfRange.selector, 256, 256));
        inference.detokenize(0, ids);
    }

    function testFuzz_tokens_are_bytes(bytes calldata text) public view {
        uint32[] memory ids = MetisAI.tokenize(0, text);
        require(keccak256(MetisAI.detokenize(0, ids)) == keccak256(text));
    }
}
