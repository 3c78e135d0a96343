// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

// RefusingToken answers false to every transfer and moves nothing: some tokens report failure so
// instead of reverting. A payout that reads only the receipt's status takes it for a payment.
contract RefusingToken {
    string public constant name = "Refusing Token";
    string public constant symbol = "NO";
    uint8 public constant decimals = 6;

    uint256 public constant totalSupply = 1_000_000_000 * 10 ** 6;
    mapping(address => uint256) public balanceOf;

    constructor() {
        balanceOf[msg.sender] = totalSupply;
    }

    function transfer(address, uint256) external pure returns (bool) {
        return false;
    }

    function transferFrom(address, address, uint256) external pure returns (bool) {
        return false;
    }
}
