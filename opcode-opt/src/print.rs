//! Programs for people, beside the bytecode that they stand for.

use crate::{
    decode::instructions,
    fuse::TAKEN_IF_FALSE,
    program::{CELL, Header, Program},
    stream::{Kind, Mode, StreamOp},
};
use std::fmt::{self, Write as _};

/// A program that is not linked, and its code. Its `Display` is one line for each op: offset, gas, the op with its operands,
/// and the instructions.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    /// The program.
    pub program: &'a Program,
    /// The code that it was made from.
    pub code: &'a [u8],
}

/// Widest op that the columns leave room for.
const WIDTH: usize = 44;

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} instructions, {} ops, {} bytes of code, {} bytes of program",
            self.program.instructions(),
            self.program.ops(),
            self.code.len(),
            self.program.bytes()
        )?;
        for (cell, pc, len) in self.program.starts() {
            let Some(&op) = StreamOp::ALL.get(self.program.cells()[cell][0] as usize) else { continue };
            let header = Header(self.program.cells()[cell][1]);
            let operands = self.operands(op, cell, header).unwrap_or_default();
            let text = format!("{}{operands}", op.name());
            let mut line =
                format!("{pc:5}  {:5}  {text:WIDTH$}  {}", header.gas(), self.instructions(pc, len));
            line.truncate(line.trim_end().len());
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl Listing<'_> {
    /// What the header and the cells behind it say, for this kind of op.
    fn operands(&self, op: StreamOp, cell: usize, header: Header) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let mode = op.mode();
        match op.kind() {
            Kind::plain => {
                let byte = header.a();
                match crate::isa::Op::from_byte(byte) {
                    Some(op) => write!(text, " {}", op.mnemonic())?,
                    None => write!(text, " {byte:#04x}")?,
                }
            }
            Kind::select => {
                for entry in 0..usize::from(header.a()) {
                    let value = self.program.cells()[cell + 1 + entry / 2][entry % 2];
                    write!(
                        text,
                        " {:#010x}->{}",
                        value as u32,
                        self.destination(cell, (value >> 32) as u32)
                    )?;
                }
            }
            Kind::pop | Kind::pop_jump | Kind::swap_pop => write!(text, " {}", header.a())?,
            _ => {
                if matches!(mode, Mode::D | Mode::Ds | Mode::Id | Mode::Wd | Mode::Di | Mode::Dw | Mode::Dd) {
                    write!(text, " [{}]", header.a())?;
                }
                if mode == Mode::Dd {
                    write!(text, " [{}]", header.b() & !TAKEN_IF_FALSE)?;
                }
            }
        }
        if mode.is_wide() {
            let [a, b] = self.program.cells()[cell + 1];
            let [c, d] = self.program.cells()[cell + 2];
            write!(text, " {:#x}", alloy_primitives::U256::from_limbs([a, b, c, d]))?;
        } else if op.kind() == Kind::compare_branch && mode.has_immediate() {
            write!(text, " {:#x}", self.program.cells()[cell + 1][0])?;
        } else if mode.has_immediate() && !matches!(op.kind(), Kind::jump_to | Kind::fall | Kind::select) {
            write!(text, " {:#x}", header.immediate())?;
        }
        match op.kind() {
            Kind::compare_branch | Kind::branch => {
                let not = if header.b() & TAKEN_IF_FALSE == 0 { "" } else { "!" };
                write!(text, " {not}->{}", self.destination(cell, header.immediate()))?;
            }
            Kind::jump_to | Kind::fall => write!(text, " ->{}", self.destination(cell, header.immediate()))?,
            _ => {}
        }
        Ok(text)
    }

    /// The code offset that a distance leads to.
    fn destination(&self, cell: usize, distance: u32) -> usize {
        let cells = i64::from(distance as i32) / CELL as i64;
        self.program.pc(usize::try_from(cell as i64 + cells).unwrap_or(0))
    }

    /// The instructions in a range of the code.
    fn instructions(&self, pc: usize, len: usize) -> String {
        let Some(code) = self.code.get(pc..(pc + len).min(self.code.len())) else { return String::new() };
        let mut text = String::new();
        for instruction in instructions(code) {
            let name = instruction.op.map_or("(undefined)", |op| op.mnemonic());
            let separator = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{separator}{name}");
            if !instruction.immediate.is_empty() {
                let _ = write!(text, " {}", alloy_primitives::hex::encode_prefixed(instruction.immediate));
            }
        }
        text
    }
}
