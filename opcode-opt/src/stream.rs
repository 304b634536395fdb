//! The instruction set of fused programs, as one table.
//!
//! A stream op is one or several instructions of the EVM at once. Its name says what it computes and where its operands
//! come from; [`Mode`] lists the sources. The interpreter takes its handlers from the same table, with
//! [`for_each_stream_op!`](crate::for_each_stream_op), so that an op without a handler does not compile.

use crate::isa::Op;

/// Where operands come from, the first operand (the one that the EVM has on top) first.
///
/// | letter | source |
/// |---|---|
/// | `S` | the stack, consumed |
/// | `R` | the stack with its two top words swapped (`SWAP1`) |
/// | `D` | a copy of a word further down (`DUPn`) |
/// | `I` | an immediate of at most 32 bits (`PUSHn`) |
/// | `W` | an immediate of 256 bits |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One operand from the stack.
    S,
    /// One operand, `DUPn op`.
    D,
    /// One operand, `PUSHn op`.
    I,
    /// One wide operand, `PUSHn op`.
    W,
    /// Both from the stack.
    Ss,
    /// `SWAP1 op`.
    Rs,
    /// `PUSHn op`.
    Is,
    /// `PUSHn op`, wide.
    Ws,
    /// `DUPn op`.
    Ds,
    /// `DUPn PUSHm op`.
    Id,
    /// `DUPn PUSHm op`, wide.
    Wd,
    /// `PUSHm DUPn op`.
    Di,
    /// `PUSHm DUPn op`, wide.
    Dw,
    /// `DUPn DUPm op`.
    Dd,
}

impl Mode {
    /// Whether an immediate of 256 bits follows the header.
    pub const fn is_wide(self) -> bool {
        matches!(self, Self::W | Self::Ws | Self::Wd | Self::Dw)
    }

    /// Whether it has an immediate of 32 bits.
    pub const fn has_immediate(self) -> bool {
        matches!(self, Self::I | Self::Is | Self::Id | Self::Di)
    }
}

/// What a stream op does with its operands; decides its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "the table's own words, which the interpreter matches on")]
pub enum Kind {
    /// Two words to one.
    binary,
    /// Compares two words and jumps to a known destination.
    compare_branch,
    /// Jumps to a known destination if a word is not zero (or is).
    branch,
    /// One word to one.
    unary,
    /// Reads memory.
    mload,
    /// Writes a word to memory.
    mstore,
    /// Writes a byte to memory.
    mstore8,
    /// Three words to one.
    ternary,
    /// EXP, whose gas depends on the exponent.
    exp,
    /// KECCAK256.
    keccak,
    /// SLOAD.
    sload,
    /// A constant; also what a run of constant instructions folds to.
    push,
    /// Copies a word.
    dup,
    /// Exchanges two words.
    swap,
    /// Drops words.
    pop,
    /// SWAPn POP: the top goes n down.
    swap_pop,
    /// Jumps to wherever the stack says.
    jump,
    /// Drops words, then jumps to wherever the stack says.
    pop_jump,
    /// SWAP1 JUMP.
    swap_jump,
    /// Jumps to a known destination.
    jump_to,
    /// Jumps to wherever the stack says, or not.
    jumpi,
    /// JUMPDESTs, up to the next op.
    fall,
    /// Reads what the frame knows.
    environment,
    /// A chain of `DUP1 PUSH4 EQ PUSHn JUMPI`.
    select,
    /// Any instruction, by revm's own implementation.
    plain,
}

/// Hands the table to a macro: `callback! { Name kind OP Mode, ... }`.
#[macro_export]
macro_rules! for_each_stream_op {
    ($callback:ident) => {
        $callback! {
            AddSs binary ADD Ss,
            AddIs binary ADD Is,
            AddWs binary ADD Ws,
            AddDs binary ADD Ds,
            AddId binary ADD Id,
            AddWd binary ADD Wd,
            AddDi binary ADD Di,
            AddDw binary ADD Dw,
            AddDd binary ADD Dd,
            MulSs binary MUL Ss,
            MulIs binary MUL Is,
            MulWs binary MUL Ws,
            MulDs binary MUL Ds,
            MulId binary MUL Id,
            MulWd binary MUL Wd,
            MulDi binary MUL Di,
            MulDw binary MUL Dw,
            MulDd binary MUL Dd,
            SubSs binary SUB Ss,
            SubRs binary SUB Rs,
            SubIs binary SUB Is,
            SubWs binary SUB Ws,
            SubDs binary SUB Ds,
            SubId binary SUB Id,
            SubWd binary SUB Wd,
            SubDi binary SUB Di,
            SubDw binary SUB Dw,
            SubDd binary SUB Dd,
            DivSs binary DIV Ss,
            DivRs binary DIV Rs,
            DivIs binary DIV Is,
            DivWs binary DIV Ws,
            DivDs binary DIV Ds,
            DivId binary DIV Id,
            DivWd binary DIV Wd,
            DivDi binary DIV Di,
            DivDw binary DIV Dw,
            DivDd binary DIV Dd,
            SdivSs binary SDIV Ss,
            SdivRs binary SDIV Rs,
            SdivIs binary SDIV Is,
            SdivDs binary SDIV Ds,
            SdivId binary SDIV Id,
            SdivDi binary SDIV Di,
            SdivDd binary SDIV Dd,
            ModSs binary MOD Ss,
            ModRs binary MOD Rs,
            ModIs binary MOD Is,
            ModWs binary MOD Ws,
            ModDs binary MOD Ds,
            ModId binary MOD Id,
            ModWd binary MOD Wd,
            ModDi binary MOD Di,
            ModDw binary MOD Dw,
            ModDd binary MOD Dd,
            SmodSs binary SMOD Ss,
            SmodRs binary SMOD Rs,
            SmodIs binary SMOD Is,
            SmodDs binary SMOD Ds,
            SmodId binary SMOD Id,
            SmodDi binary SMOD Di,
            SmodDd binary SMOD Dd,
            SignextendSs binary SIGNEXTEND Ss,
            SignextendRs binary SIGNEXTEND Rs,
            SignextendIs binary SIGNEXTEND Is,
            SignextendDs binary SIGNEXTEND Ds,
            SignextendId binary SIGNEXTEND Id,
            SignextendDi binary SIGNEXTEND Di,
            SignextendDd binary SIGNEXTEND Dd,
            LtSs binary LT Ss,
            LtRs binary LT Rs,
            LtIs binary LT Is,
            LtWs binary LT Ws,
            LtDs binary LT Ds,
            LtId binary LT Id,
            LtWd binary LT Wd,
            LtDi binary LT Di,
            LtDw binary LT Dw,
            LtDd binary LT Dd,
            GtSs binary GT Ss,
            GtRs binary GT Rs,
            GtIs binary GT Is,
            GtWs binary GT Ws,
            GtDs binary GT Ds,
            GtId binary GT Id,
            GtWd binary GT Wd,
            GtDi binary GT Di,
            GtDw binary GT Dw,
            GtDd binary GT Dd,
            SltSs binary SLT Ss,
            SltRs binary SLT Rs,
            SltIs binary SLT Is,
            SltDs binary SLT Ds,
            SltId binary SLT Id,
            SltDi binary SLT Di,
            SltDd binary SLT Dd,
            SgtSs binary SGT Ss,
            SgtRs binary SGT Rs,
            SgtIs binary SGT Is,
            SgtDs binary SGT Ds,
            SgtId binary SGT Id,
            SgtDi binary SGT Di,
            SgtDd binary SGT Dd,
            EqSs binary EQ Ss,
            EqIs binary EQ Is,
            EqWs binary EQ Ws,
            EqDs binary EQ Ds,
            EqId binary EQ Id,
            EqWd binary EQ Wd,
            EqDi binary EQ Di,
            EqDw binary EQ Dw,
            EqDd binary EQ Dd,
            AndSs binary AND Ss,
            AndIs binary AND Is,
            AndWs binary AND Ws,
            AndDs binary AND Ds,
            AndId binary AND Id,
            AndWd binary AND Wd,
            AndDi binary AND Di,
            AndDw binary AND Dw,
            AndDd binary AND Dd,
            OrSs binary OR Ss,
            OrIs binary OR Is,
            OrWs binary OR Ws,
            OrDs binary OR Ds,
            OrId binary OR Id,
            OrWd binary OR Wd,
            OrDi binary OR Di,
            OrDw binary OR Dw,
            OrDd binary OR Dd,
            XorSs binary XOR Ss,
            XorIs binary XOR Is,
            XorWs binary XOR Ws,
            XorDs binary XOR Ds,
            XorId binary XOR Id,
            XorWd binary XOR Wd,
            XorDi binary XOR Di,
            XorDw binary XOR Dw,
            XorDd binary XOR Dd,
            ByteSs binary BYTE Ss,
            ByteRs binary BYTE Rs,
            ByteIs binary BYTE Is,
            ByteDs binary BYTE Ds,
            ByteId binary BYTE Id,
            ByteDi binary BYTE Di,
            ByteDd binary BYTE Dd,
            ShlSs binary SHL Ss,
            ShlRs binary SHL Rs,
            ShlIs binary SHL Is,
            ShlDs binary SHL Ds,
            ShlId binary SHL Id,
            ShlDi binary SHL Di,
            ShlDd binary SHL Dd,
            ShrSs binary SHR Ss,
            ShrRs binary SHR Rs,
            ShrIs binary SHR Is,
            ShrDs binary SHR Ds,
            ShrId binary SHR Id,
            ShrDi binary SHR Di,
            ShrDd binary SHR Dd,
            SarSs binary SAR Ss,
            SarRs binary SAR Rs,
            SarIs binary SAR Is,
            SarDs binary SAR Ds,
            SarId binary SAR Id,
            SarDi binary SAR Di,
            SarDd binary SAR Dd,
            BrLtSs compare_branch LT Ss,
            BrLtRs compare_branch LT Rs,
            BrLtIs compare_branch LT Is,
            BrLtDs compare_branch LT Ds,
            BrLtId compare_branch LT Id,
            BrLtDi compare_branch LT Di,
            BrLtDd compare_branch LT Dd,
            BrGtSs compare_branch GT Ss,
            BrGtRs compare_branch GT Rs,
            BrGtIs compare_branch GT Is,
            BrGtDs compare_branch GT Ds,
            BrGtId compare_branch GT Id,
            BrGtDi compare_branch GT Di,
            BrGtDd compare_branch GT Dd,
            BrSltSs compare_branch SLT Ss,
            BrSltRs compare_branch SLT Rs,
            BrSltIs compare_branch SLT Is,
            BrSltDs compare_branch SLT Ds,
            BrSltId compare_branch SLT Id,
            BrSltDi compare_branch SLT Di,
            BrSltDd compare_branch SLT Dd,
            BrSgtSs compare_branch SGT Ss,
            BrSgtRs compare_branch SGT Rs,
            BrSgtIs compare_branch SGT Is,
            BrSgtDs compare_branch SGT Ds,
            BrSgtId compare_branch SGT Id,
            BrSgtDi compare_branch SGT Di,
            BrSgtDd compare_branch SGT Dd,
            BrEqSs compare_branch EQ Ss,
            BrEqIs compare_branch EQ Is,
            BrEqDs compare_branch EQ Ds,
            BrEqId compare_branch EQ Id,
            BrEqDi compare_branch EQ Di,
            BrEqDd compare_branch EQ Dd,
            BrS branch JUMPI S,
            BrD branch JUMPI D,
            IszeroS unary ISZERO S,
            IszeroD unary ISZERO D,
            NotS unary NOT S,
            NotD unary NOT D,
            CalldataloadS unary CALLDATALOAD S,
            CalldataloadI unary CALLDATALOAD I,
            CalldataloadD unary CALLDATALOAD D,
            MloadS mload MLOAD S,
            MloadI mload MLOAD I,
            MloadD mload MLOAD D,
            MstoreSs mstore MSTORE Ss,
            MstoreRs mstore MSTORE Rs,
            MstoreIs mstore MSTORE Is,
            MstoreDs mstore MSTORE Ds,
            MstoreId mstore MSTORE Id,
            MstoreDi mstore MSTORE Di,
            MstoreDd mstore MSTORE Dd,
            Mstore8Ss mstore8 MSTORE8 Ss,
            Addmod ternary ADDMOD S,
            Mulmod ternary MULMOD S,
            Exp exp EXP S,
            Keccak keccak KECCAK256 S,
            Sload sload SLOAD S,
            PushI push PUSH0 I,
            PushW push PUSH0 W,
            Dup1 dup DUP1 S,
            Dup2 dup DUP2 S,
            Dup3 dup DUP3 S,
            Dup4 dup DUP4 S,
            Dup5 dup DUP5 S,
            Dup6 dup DUP6 S,
            Dup7 dup DUP7 S,
            Dup8 dup DUP8 S,
            Dup9 dup DUP9 S,
            Dup10 dup DUP10 S,
            Dup11 dup DUP11 S,
            Dup12 dup DUP12 S,
            Dup13 dup DUP13 S,
            Dup14 dup DUP14 S,
            Dup15 dup DUP15 S,
            Dup16 dup DUP16 S,
            Swap1 swap SWAP1 S,
            Swap2 swap SWAP2 S,
            Swap3 swap SWAP3 S,
            Swap4 swap SWAP4 S,
            Swap5 swap SWAP5 S,
            Swap6 swap SWAP6 S,
            Swap7 swap SWAP7 S,
            Swap8 swap SWAP8 S,
            Swap9 swap SWAP9 S,
            Swap10 swap SWAP10 S,
            Swap11 swap SWAP11 S,
            Swap12 swap SWAP12 S,
            Swap13 swap SWAP13 S,
            Swap14 swap SWAP14 S,
            Swap15 swap SWAP15 S,
            Swap16 swap SWAP16 S,
            PopN pop POP S,
            SwapPop swap_pop POP D,
            Jump jump JUMP S,
            PopJump pop_jump JUMP D,
            SwapJump swap_jump JUMP D,
            JumpTo jump_to JUMP I,
            JumpI jumpi JUMPI S,
            Fall fall JUMPDEST I,
            Caller environment CALLER S,
            Address environment ADDRESS S,
            Callvalue environment CALLVALUE S,
            Calldatasize environment CALLDATASIZE S,
            Returndatasize environment RETURNDATASIZE S,
            Msize environment MSIZE S,
            Gas environment GAS S,
            Select select EQ I,
            Plain plain STOP S,
        }
    };
}

macro_rules! define {
    ($($name:ident $kind:ident $op:ident $mode:ident,)*) => {
        /// An op of a fused program.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        #[allow(missing_docs, reason = "named after instruction and operand sources; see `Mode`")]
        pub enum StreamOp {
            $($name,)*
        }

        impl StreamOp {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What it does with its operands.
            pub const fn kind(self) -> Kind {
                match self {
                    $(Self::$name => Kind::$kind,)*
                }
            }

            /// The instruction at its heart.
            pub const fn op(self) -> Op {
                match self {
                    $(Self::$name => Op::$op,)*
                }
            }

            /// Where its operands come from.
            pub const fn mode(self) -> Mode {
                match self {
                    $(Self::$name => Mode::$mode,)*
                }
            }

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The op of this kind, instruction and mode, if there is one.
            pub fn find(kind: Kind, op: Op, mode: Mode) -> Option<Self> {
                match (kind, op, mode) {
                    $((Kind::$kind, Op::$op, Mode::$mode) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

for_each_stream_op!(define);

impl StreamOp {
    /// Cells of 16 bytes that it takes, before the entries of a [`Kind::select`].
    pub const fn cells(self) -> usize {
        match self.kind() {
            Kind::compare_branch if self.mode().has_immediate() => 2,
            _ if self.mode().is_wide() => 3,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_is_found_by_what_it_is() {
        for &op in StreamOp::ALL {
            assert_eq!(StreamOp::find(op.kind(), op.op(), op.mode()), Some(op));
        }
        assert!(StreamOp::ALL.is_sorted() && StreamOp::ALL.len() < 512);
    }
}
