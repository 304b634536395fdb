//! Tables that a user has changed.

use super::choices::Choices;
use alloy_primitives::U256;
use revm::{
    context::Host,
    handler::instructions::EthInstructions,
    interpreter::{
        Instruction, InstructionContext, InstructionExecResult, InstructionResult,
        interpreter::EthInterpreter,
        interpreter_types::{Jumps, LegacyBytecode},
    },
};

type Context<'a, H> = InstructionContext<'a, H, EthInterpreter>;

fn nothing<H: Host>(_: Context<'_, H>) -> InstructionExecResult {
    Ok(())
}

fn push_seven<H: Host>(context: Context<'_, H>) -> InstructionExecResult {
    push(context, U256::from(7))
}

fn double<H: Host>(context: Context<'_, H>) -> InstructionExecResult {
    let Ok(word) = context.interpreter.stack.pop() else { return Err(InstructionResult::StackUnderflow) };
    push(context, word << 1)
}

fn push<H: Host>(context: Context<'_, H>, word: U256) -> InstructionExecResult {
    if context.interpreter.stack.push(word) { Ok(()) } else { Err(InstructionResult::StackOverflow) }
}

/// Goes on two bytes further, if there is code: revm itself does not look.
fn skip<H: Host>(context: Context<'_, H>) -> InstructionExecResult {
    let bytecode = &mut context.interpreter.bytecode;
    if bytecode.pc() + 1 < bytecode.bytecode_len() {
        bytecode.relative_jump(1);
    }
    Ok(())
}

fn stop<H: Host>(_: Context<'_, H>) -> InstructionExecResult {
    Err(InstructionResult::Stop)
}

/// What a user's instruction does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Replacement {
    Nothing,
    PushSeven,
    Double,
    Skip,
    Stop,
}

/// A change to the tables: of an instruction and its cost, or of its cost alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) byte: u8,
    pub(crate) replacement: Option<Replacement>,
    pub(crate) gas: u16,
}

impl Change {
    pub(crate) fn any(choices: &mut Choices<'_>) -> Self {
        use Replacement::*;
        let byte = match choices.below(4) {
            0 => choices.pick(&[0x00, 0x0c, 0x21, 0x56, 0x57, 0x5b, 0xf3, 0xfe, 0xa5, 0xff, 0xf1, 0xe6]),
            1 => choices.byte(),
            _ => choices
                .pick(&[0x01, 0x03, 0x10, 0x15, 0x16, 0x35, 0x50, 0x51, 0x52, 0x5a, 0x60, 0x61, 0x80, 0x90]),
        };
        // Where STOP goes on, revm itself runs off the end of the code.
        let replacements: &[_] =
            if byte == 0x00 { &[Stop] } else { &[Nothing, PushSeven, Double, Skip, Stop] };
        let replacement = choices.chance(160).then(|| choices.pick(replacements));
        let gas = choices.pick(&[0, 1, 3, 5, 300, 3, 65_535, 2]);
        Self { byte, replacement, gas }
    }

    pub(crate) fn apply<H: Host>(self, instructions: &mut EthInstructions<EthInterpreter, H>) {
        let Some(replacement) = self.replacement else { return instructions.insert_gas(self.byte, self.gas) };
        let instruction = match replacement {
            Replacement::Nothing => Instruction::new(nothing::<H>),
            Replacement::PushSeven => Instruction::new(push_seven::<H>),
            Replacement::Double => Instruction::new(double::<H>),
            Replacement::Skip => Instruction::new(skip::<H>),
            Replacement::Stop => Instruction::new(stop::<H>),
        };
        instructions.insert_instruction(self.byte, instruction, self.gas);
    }
}
