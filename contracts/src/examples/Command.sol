// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title The words of a wallet command
/// @notice Reads the canonical commands that the default model writes, and nothing that only looks like one: words are
/// parted by exactly one space, numbers have one spelling.
library Command {
    /// @notice Not a plain decimal above zero with at most 18 decimals.
    /// @param amount The word.
    error BadAmount(string amount);

    /// @dev Whole digits of an amount, so that it fits into 256 bits with 18 decimals.
    uint256 private constant MAX_WHOLE_DIGITS = 59;
    uint256 private constant DECIMALS = 18;
    /// @dev Words of the longest command, and one more to see that there are too many.
    uint256 private constant MAX_WORDS = 6;

    /// @notice Splits at single spaces.
    /// @param text The command.
    /// @return words The words. None at all where one would be empty or there would be more than six.
    function split(bytes memory text) internal pure returns (string[] memory words) {
        words = new string[](MAX_WORDS);
        uint256 count = 0;
        uint256 start = 0;
        for (uint256 i = 0; i <= text.length; i++) {
            if (i < text.length && text[i] != " ") continue;
            if (i == start || count == MAX_WORDS) return new string[](0);
            words[count++] = string(_slice(text, start, i));
            start = i + 1;
        }
        assembly ("memory-safe") {
            mstore(words, count)
        }
    }

    /// @notice Reads an amount such as `12.5` in units of 10^-18.
    /// @param text Digits without needless zeros in front, and perhaps a point and 1 to 18 digits without needless zeros
    /// behind.
    /// @return amount The amount, above zero.
    function parseAmount(string memory text) internal pure returns (uint256 amount) {
        bytes memory b = bytes(text);
        uint256 point = 0;
        while (point < b.length && b[point] != ".") point++;
        bool whole = point == b.length;
        uint256 decimals = whole ? 0 : b.length - point - 1;
        bool wellFormed = point > 0 && point <= MAX_WHOLE_DIGITS && (point == 1 || b[0] != "0")
            && (whole || (decimals > 0 && b[b.length - 1] != "0")) && decimals <= DECIMALS;
        if (!wellFormed) revert BadAmount(text);
        for (uint256 i = 0; i < b.length; i++) {
            if (i == point) continue;
            if (!_isDigit(b[i])) revert BadAmount(text);
            amount = amount * 10 + uint8(b[i]) - 48;
        }
        amount *= 10 ** (DECIMALS - decimals);
        if (amount == 0) revert BadAmount(text);
    }

    /// @notice Reads a whole number.
    /// @param text Up to 77 digits without needless zeros in front.
    /// @return valid Whether the text is one.
    /// @return number The number.
    function parseNumber(string memory text) internal pure returns (bool valid, uint256 number) {
        bytes memory b = bytes(text);
        if (b.length == 0 || b.length > 77 || (b.length > 1 && b[0] == "0")) return (false, 0);
        for (uint256 i = 0; i < b.length; i++) {
            if (!_isDigit(b[i])) return (false, 0);
            number = number * 10 + uint8(b[i]) - 48;
        }
        return (true, number);
    }

    /// @notice Whether two words are the same.
    /// @param a One word.
    /// @param b Another.
    /// @return Whether they are.
    function same(string memory a, string memory b) internal pure returns (bool) {
        return keccak256(bytes(a)) == keccak256(bytes(b));
    }

    /// @dev ASCII only.
    function _isDigit(bytes1 c) private pure returns (bool) {
        return c >= "0" && c <= "9";
    }

    /// @dev The bytes from `start` to before `end`.
    function _slice(bytes memory text, uint256 start, uint256 end) private pure returns (bytes memory part) {
        part = new bytes(end - start);
        for (uint256 i = 0; i < part.length; i++) part[i] = text[start + i];
    }
}
