//! The instruction set as data.

/// How control leaves an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To the destination on the stack.
    Jump,
    /// To the destination on the stack or to the next instruction.
    Branch,
    /// Out of the frame for good.
    Halt,
    /// Into another frame, and then to the next instruction.
    Frame,
}

/// What may be done with an instruction's gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GasClass {
    /// The static cost of the gas table in force, and nothing else.
    Static,
    /// A static cost, and one that depends on operands or memory. What runs out of gas here has had no effect that
    /// anybody can see.
    Dynamic,
    /// No cost may be moved across it: it reads the gas left, decides on it, or touches state that can be observed even where
    /// gas runs out afterwards.
    Boundary,
}

macro_rules! isa {
    ($($byte:literal $name:ident $inputs:literal $outputs:literal $immediate:literal $flow:ident $gas:ident)*) => {
        /// A defined instruction, of any fork. Its value is its byte.
        ///
        /// Whether a fork has it is for the interpreter to say.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(clippy::upper_case_acronyms, reason = "mnemonics are written in capitals everywhere")]
        pub enum Op {
            $(#[doc = concat!("`", stringify!($byte), "`")] $name = $byte,)*
        }

        impl Op {
            /// All instructions by ascending byte.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The instruction with this byte.
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name in the yellow paper and the EIPs.
            pub const fn mnemonic(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        inputs: $inputs,
                        outputs: $outputs,
                        immediate: $immediate,
                        flow: Flow::$flow,
                        gas: GasClass::$gas,
                    },)*
                }
            }
        }
    };
}

/// One row of the table, without the names.
#[derive(Clone, Copy)]
struct Row {
    inputs: u8,
    outputs: u8,
    immediate: u8,
    flow: Flow,
    gas: GasClass,
}

impl Op {
    /// The byte in code.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// Stack words that it takes. For DUPN, SWAPN and EXCHANGE the immediate decides:
    /// see [`Instruction::stack`](crate::Instruction::stack).
    pub const fn inputs(self) -> u8 {
        self.row().inputs
    }

    /// Stack words that it leaves.
    pub const fn outputs(self) -> u8 {
        self.row().outputs
    }

    /// Bytes after the instruction that belong to it.
    pub const fn immediate_size(self) -> u8 {
        self.row().immediate
    }

    /// How control leaves it.
    pub const fn flow(self) -> Flow {
        self.row().flow
    }

    /// What may be done with its gas.
    pub const fn gas_class(self) -> GasClass {
        self.row().gas
    }

    /// Whether the search for jump destinations steps over the immediate. It does for PUSH1 to PUSH32 only: the immediates of
    /// EIP-8024 are looked at, which is why a valid one is never JUMPDEST or PUSH.
    pub const fn hides_immediate(self) -> bool {
        matches!(self.byte(), 0x60..=0x7f)
    }
}

isa! {
    // byte, mnemonic, stack words in, stack words out, bytes of immediate, flow, gas
    0x00 STOP            0  0  0 Halt   Static
    0x01 ADD             2  1  0 Next   Static
    0x02 MUL             2  1  0 Next   Static
    0x03 SUB             2  1  0 Next   Static
    0x04 DIV             2  1  0 Next   Static
    0x05 SDIV            2  1  0 Next   Static
    0x06 MOD             2  1  0 Next   Static
    0x07 SMOD            2  1  0 Next   Static
    0x08 ADDMOD          3  1  0 Next   Static
    0x09 MULMOD          3  1  0 Next   Static
    0x0a EXP             2  1  0 Next   Dynamic
    0x0b SIGNEXTEND      2  1  0 Next   Static
    0x10 LT              2  1  0 Next   Static
    0x11 GT              2  1  0 Next   Static
    0x12 SLT             2  1  0 Next   Static
    0x13 SGT             2  1  0 Next   Static
    0x14 EQ              2  1  0 Next   Static
    0x15 ISZERO          1  1  0 Next   Static
    0x16 AND             2  1  0 Next   Static
    0x17 OR              2  1  0 Next   Static
    0x18 XOR             2  1  0 Next   Static
    0x19 NOT             1  1  0 Next   Static
    0x1a BYTE            2  1  0 Next   Static
    0x1b SHL             2  1  0 Next   Static
    0x1c SHR             2  1  0 Next   Static
    0x1d SAR             2  1  0 Next   Static
    0x1e CLZ             1  1  0 Next   Static
    0x20 KECCAK256       2  1  0 Next   Dynamic
    0x30 ADDRESS         0  1  0 Next   Static
    0x31 BALANCE         1  1  0 Next   Boundary
    0x32 ORIGIN          0  1  0 Next   Static
    0x33 CALLER          0  1  0 Next   Static
    0x34 CALLVALUE       0  1  0 Next   Static
    0x35 CALLDATALOAD    1  1  0 Next   Static
    0x36 CALLDATASIZE    0  1  0 Next   Static
    0x37 CALLDATACOPY    3  0  0 Next   Dynamic
    0x38 CODESIZE        0  1  0 Next   Static
    0x39 CODECOPY        3  0  0 Next   Dynamic
    0x3a GASPRICE        0  1  0 Next   Static
    0x3b EXTCODESIZE     1  1  0 Next   Boundary
    0x3c EXTCODECOPY     4  0  0 Next   Boundary
    0x3d RETURNDATASIZE  0  1  0 Next   Static
    0x3e RETURNDATACOPY  3  0  0 Next   Dynamic
    0x3f EXTCODEHASH     1  1  0 Next   Boundary
    0x40 BLOCKHASH       1  1  0 Next   Boundary
    0x41 COINBASE        0  1  0 Next   Static
    0x42 TIMESTAMP       0  1  0 Next   Static
    0x43 NUMBER          0  1  0 Next   Static
    0x44 DIFFICULTY      0  1  0 Next   Static
    0x45 GASLIMIT        0  1  0 Next   Static
    0x46 CHAINID         0  1  0 Next   Static
    0x47 SELFBALANCE     0  1  0 Next   Boundary
    0x48 BASEFEE         0  1  0 Next   Static
    0x49 BLOBHASH        1  1  0 Next   Static
    0x4a BLOBBASEFEE     0  1  0 Next   Static
    0x4b SLOTNUM         0  1  0 Next   Static
    0x50 POP             1  0  0 Next   Static
    0x51 MLOAD           1  1  0 Next   Dynamic
    0x52 MSTORE          2  0  0 Next   Dynamic
    0x53 MSTORE8         2  0  0 Next   Dynamic
    0x54 SLOAD           1  1  0 Next   Boundary
    0x55 SSTORE          2  0  0 Next   Boundary
    0x56 JUMP            1  0  0 Jump   Static
    0x57 JUMPI           2  0  0 Branch Static
    0x58 PC              0  1  0 Next   Static
    0x59 MSIZE           0  1  0 Next   Static
    0x5a GAS             0  1  0 Next   Boundary
    0x5b JUMPDEST        0  0  0 Next   Static
    0x5c TLOAD           1  1  0 Next   Boundary
    0x5d TSTORE          2  0  0 Next   Boundary
    0x5e MCOPY           3  0  0 Next   Dynamic
    0x5f PUSH0           0  1  0 Next   Static
    0x60 PUSH1           0  1  1 Next   Static
    0x61 PUSH2           0  1  2 Next   Static
    0x62 PUSH3           0  1  3 Next   Static
    0x63 PUSH4           0  1  4 Next   Static
    0x64 PUSH5           0  1  5 Next   Static
    0x65 PUSH6           0  1  6 Next   Static
    0x66 PUSH7           0  1  7 Next   Static
    0x67 PUSH8           0  1  8 Next   Static
    0x68 PUSH9           0  1  9 Next   Static
    0x69 PUSH10          0  1 10 Next   Static
    0x6a PUSH11          0  1 11 Next   Static
    0x6b PUSH12          0  1 12 Next   Static
    0x6c PUSH13          0  1 13 Next   Static
    0x6d PUSH14          0  1 14 Next   Static
    0x6e PUSH15          0  1 15 Next   Static
    0x6f PUSH16          0  1 16 Next   Static
    0x70 PUSH17          0  1 17 Next   Static
    0x71 PUSH18          0  1 18 Next   Static
    0x72 PUSH19          0  1 19 Next   Static
    0x73 PUSH20          0  1 20 Next   Static
    0x74 PUSH21          0  1 21 Next   Static
    0x75 PUSH22          0  1 22 Next   Static
    0x76 PUSH23          0  1 23 Next   Static
    0x77 PUSH24          0  1 24 Next   Static
    0x78 PUSH25          0  1 25 Next   Static
    0x79 PUSH26          0  1 26 Next   Static
    0x7a PUSH27          0  1 27 Next   Static
    0x7b PUSH28          0  1 28 Next   Static
    0x7c PUSH29          0  1 29 Next   Static
    0x7d PUSH30          0  1 30 Next   Static
    0x7e PUSH31          0  1 31 Next   Static
    0x7f PUSH32          0  1 32 Next   Static
    0x80 DUP1            1  2  0 Next   Static
    0x81 DUP2            2  3  0 Next   Static
    0x82 DUP3            3  4  0 Next   Static
    0x83 DUP4            4  5  0 Next   Static
    0x84 DUP5            5  6  0 Next   Static
    0x85 DUP6            6  7  0 Next   Static
    0x86 DUP7            7  8  0 Next   Static
    0x87 DUP8            8  9  0 Next   Static
    0x88 DUP9            9 10  0 Next   Static
    0x89 DUP10          10 11  0 Next   Static
    0x8a DUP11          11 12  0 Next   Static
    0x8b DUP12          12 13  0 Next   Static
    0x8c DUP13          13 14  0 Next   Static
    0x8d DUP14          14 15  0 Next   Static
    0x8e DUP15          15 16  0 Next   Static
    0x8f DUP16          16 17  0 Next   Static
    0x90 SWAP1           2  2  0 Next   Static
    0x91 SWAP2           3  3  0 Next   Static
    0x92 SWAP3           4  4  0 Next   Static
    0x93 SWAP4           5  5  0 Next   Static
    0x94 SWAP5           6  6  0 Next   Static
    0x95 SWAP6           7  7  0 Next   Static
    0x96 SWAP7           8  8  0 Next   Static
    0x97 SWAP8           9  9  0 Next   Static
    0x98 SWAP9          10 10  0 Next   Static
    0x99 SWAP10         11 11  0 Next   Static
    0x9a SWAP11         12 12  0 Next   Static
    0x9b SWAP12         13 13  0 Next   Static
    0x9c SWAP13         14 14  0 Next   Static
    0x9d SWAP14         15 15  0 Next   Static
    0x9e SWAP15         16 16  0 Next   Static
    0x9f SWAP16         17 17  0 Next   Static
    0xa0 LOG0            2  0  0 Next   Boundary
    0xa1 LOG1            3  0  0 Next   Boundary
    0xa2 LOG2            4  0  0 Next   Boundary
    0xa3 LOG3            5  0  0 Next   Boundary
    0xa4 LOG4            6  0  0 Next   Boundary
    0xe6 DUPN            0  1  1 Next   Static
    0xe7 SWAPN           0  0  1 Next   Static
    0xe8 EXCHANGE        0  0  1 Next   Static
    0xf0 CREATE          3  1  0 Frame  Boundary
    0xf1 CALL            7  1  0 Frame  Boundary
    0xf2 CALLCODE        7  1  0 Frame  Boundary
    0xf3 RETURN          2  0  0 Halt   Dynamic
    0xf4 DELEGATECALL    6  1  0 Frame  Boundary
    0xf5 CREATE2         4  1  0 Frame  Boundary
    0xfa STATICCALL      6  1  0 Frame  Boundary
    0xfd REVERT          2  0  0 Halt   Dynamic
    0xfe INVALID         0  0  0 Halt   Static
    0xff SELFDESTRUCT    1  0  0 Halt   Boundary
}

#[cfg(test)]
mod tests {
    use super::*;
    use revm::bytecode::opcode::OpCode;

    #[test]
    fn the_table_is_revms() {
        for byte in 0..=u8::MAX {
            let op = Op::from_byte(byte);
            let theirs = OpCode::new(byte);
            assert_eq!(op.is_some(), theirs.is_some(), "{byte:#04x}");
            let (Some(op), Some(theirs)) = (op, theirs) else { continue };
            let info = theirs.info();
            assert_eq!(op.byte(), byte);
            assert_eq!(op.mnemonic(), info.name());
            assert_eq!((op.inputs(), op.outputs()), (info.inputs(), info.outputs()), "{op:?}");
            assert_eq!(op.immediate_size(), info.immediate_size(), "{op:?}");
            assert_eq!(op.flow() == Flow::Halt, info.is_terminating(), "{op:?}");
        }
        assert!(Op::ALL.is_sorted());
    }

    #[test]
    fn whatever_leaves_the_frame_or_meets_a_call_is_a_boundary() {
        for op in Op::ALL {
            if op.flow() == Flow::Frame {
                assert_eq!(op.gas_class(), GasClass::Boundary, "{op:?}");
            }
        }
        assert_eq!(size_of::<Option<Op>>(), 1);
    }
}
