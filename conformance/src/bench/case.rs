//! A contract to measure, and its JSON form.

use alloy_primitives::{Bytes, U256, hex};
use metis_vm::{SpecId, fork};
use revm::{interpreter::InstructionResult, state::Bytecode};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A contract to measure: what is executed, and what must come of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name, for people.
    pub name: String,
    /// The collection that it is from; it decides which geometric means the contract is part of.
    pub group: String,
    /// The runtime code.
    pub code: Bytes,
    /// The input of the call.
    pub calldata: Bytes,
    /// The contract's storage before the call: slot and value.
    pub storage: Vec<(U256, U256)>,
    /// The fork.
    pub spec: SpecId,
    /// How the frame must end.
    pub status: InstructionResult,
    /// What the frame must return.
    pub output: Bytes,
    /// The gas that the frame must use: without the transaction's own costs, and before refunds.
    pub gas_used: u64,
}

impl Case {
    /// The code with a jump table of its own: no two results share memory.
    pub fn bytecode(&self) -> Bytecode {
        Bytecode::new_legacy(self.code.clone())
    }
}

/// Why a file is not a list of contracts.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but no list.
    #[error("not a JSON array of contracts")]
    NotAnArray,
    /// A row without what it needs.
    #[error("row {row}: field `{field}`: {problem}")]
    Field {
        /// The row, counted from 1, with its name where it has one.
        row: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A row that is no object.
    #[error("row {0}: not a JSON object")]
    NotAnObject(usize),
}

/// Reads a JSON array of `{name, group, code_hex, calldata_hex, storage, expected_status, expected_return_hex, gas_used,
/// spec}`. Other fields are ignored, `storage` may be absent, and hexadecimal may begin with `0x`.
///
/// # Errors
/// [`CaseError`], which names the row and the field.
pub fn parse(text: &str) -> Result<Vec<Case>, CaseError> {
    let Value::Array(rows) = serde_json::from_str(text)? else { return Err(CaseError::NotAnArray) };
    rows.iter()
        .enumerate()
        .map(|(index, row)| {
            let fields = row.as_object().ok_or(CaseError::NotAnObject(index + 1))?;
            Row { number: index + 1, fields }.case()
        })
        .collect()
}

/// One row and its number, counted from 1.
struct Row<'a> {
    number: usize,
    fields: &'a Map<String, Value>,
}

impl Row<'_> {
    fn case(&self) -> Result<Case, CaseError> {
        let code = self.bytes("code_hex")?;
        if code.is_empty() {
            return Err(self.error("code_hex", "is empty: there is nothing to measure"));
        }
        Ok(Case {
            name: self.text("name")?.to_owned(),
            group: self.text("group")?.to_owned(),
            code,
            calldata: self.bytes("calldata_hex")?,
            storage: self.storage()?,
            spec: fork::parse(self.text("spec")?).map_err(|error| self.error("spec", error))?,
            status: self.status()?,
            output: self.bytes("expected_return_hex")?,
            gas_used: self
                .field("gas_used")?
                .as_u64()
                .ok_or_else(|| self.error("gas_used", "is not an unsigned 64-bit number"))?,
        })
    }

    fn field(&self, field: &'static str) -> Result<&Value, CaseError> {
        self.fields.get(field).ok_or_else(|| self.error(field, "is missing"))
    }

    fn text(&self, field: &'static str) -> Result<&str, CaseError> {
        self.field(field)?.as_str().ok_or_else(|| self.error(field, "is not a string"))
    }

    fn bytes(&self, field: &'static str) -> Result<Bytes, CaseError> {
        let bytes = hex::decode(self.text(field)?).map_err(|error| self.error(field, error))?;
        Ok(bytes.into())
    }

    fn storage(&self) -> Result<Vec<(U256, U256)>, CaseError> {
        const FIELD: &str = "storage";
        let slots = match self.fields.get(FIELD) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(value) => value.as_object().ok_or_else(|| self.error(FIELD, "is not an object"))?,
        };
        let word = |text: &str| {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            U256::from_str_radix(digits, 16).map_err(|error| self.error(FIELD, format!("`{text}`: {error}")))
        };
        slots
            .iter()
            .map(|(slot, value)| {
                let text = value.as_str().ok_or_else(|| {
                    self.error(FIELD, format!("the value of slot `{slot}` is not a string"))
                })?;
                Ok((word(slot)?, word(text)?))
            })
            .collect()
    }

    fn status(&self) -> Result<InstructionResult, CaseError> {
        const FIELD: &str = "expected_status";
        self.text(FIELD)?;
        InstructionResult::deserialize(self.field(FIELD)?).map_err(|error| self.error(FIELD, error))
    }

    fn error(&self, field: &'static str, problem: impl ToString) -> CaseError {
        let row = match self.fields.get("name").and_then(Value::as_str) {
            Some(name) => format!("{} (`{name}`)", self.number),
            None => self.number.to_string(),
        };
        CaseError::Field { row, field, problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row() -> Value {
        json!({
            "name": "answer", "group": "own", "code_hex": "0x602a5f5260205ff3", "calldata_hex": "ff",
            "storage": {"0x01": "ff"}, "expected_status": "Return", "expected_return_hex": "2a",
            "gas_used": 21, "spec": "PRAGUE", "licence": "ignored",
        })
    }

    fn refused(field: &str, value: Option<Value>) -> String {
        let mut row = row();
        match value {
            Some(value) => row[field] = value,
            None => drop(row.as_object_mut().unwrap().remove(field)),
        }
        parse(&json!([row]).to_string()).unwrap_err().to_string()
    }

    #[test]
    fn a_row_is_read_with_and_without_prefixes() {
        let cases = parse(&json!([row()]).to_string()).unwrap();
        let [case] = cases.as_slice() else { panic!("{cases:?}") };
        assert_eq!(case.code, Bytes::from_static(&[0x60, 0x2a, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3]));
        assert_eq!(case.calldata, Bytes::from_static(&[0xff]));
        assert_eq!(case.storage, [(U256::from(1), U256::from(255))]);
        assert_eq!((case.spec, case.status, case.gas_used), (SpecId::PRAGUE, InstructionResult::Return, 21));
    }

    #[test]
    fn storage_may_be_absent() {
        let mut row = row();
        row.as_object_mut().unwrap().remove("storage");
        assert!(parse(&json!([row]).to_string()).unwrap()[0].storage.is_empty());
    }

    #[test]
    fn errors_name_the_row_and_the_field() {
        for (field, value) in [
            ("code_hex", Some(json!("6"))),
            ("code_hex", Some(json!(""))),
            ("calldata_hex", Some(json!("zz"))),
            ("expected_return_hex", None),
            ("expected_status", Some(json!("Done"))),
            ("expected_status", Some(json!({"Stop": null}))),
            ("gas_used", Some(json!(-1))),
            ("gas_used", Some(json!("21"))),
            ("spec", Some(json!("Plague"))),
            ("storage", Some(json!([]))),
            ("storage", Some(json!({"0x00": 1}))),
            ("storage", Some(json!({"0x00": "f".repeat(65)}))),
        ] {
            let error = refused(field, value);
            assert!(error.starts_with(&format!("row 1 (`answer`): field `{field}`: ")), "{error}");
        }
        assert!(refused("name", None).starts_with("row 1: field `name`: is missing"));
    }

    #[test]
    fn what_is_no_list_of_objects_is_refused() {
        assert!(parse("[").unwrap_err().to_string().starts_with("not JSON: "));
        assert_eq!(parse("{}").unwrap_err().to_string(), "not a JSON array of contracts");
        assert_eq!(parse("[1]").unwrap_err().to_string(), "row 1: not a JSON object");
        assert!(parse("[]").unwrap().is_empty());
    }
}
