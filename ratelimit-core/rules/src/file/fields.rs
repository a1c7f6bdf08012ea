//! The fields of a map, taken one by one; what is left over is not known.

use ratelimit_core::rules::TEXT_BYTES_MAX;

use super::Problem;
use super::located::{Fault, Field, Located, Value};

pub(super) struct Fields<'n> {
    pub line: usize,
    what: &'static str,
    left: Vec<&'n Field>,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// The fields of a map that is `what`.
    pub(super) fn of(located: &'n Located, what: &'static str) -> Result<Self, Fault> {
        let left = match &located.value {
            Value::Map(fields) => fields.iter().collect(),
            _ => return Err(wrong(located.line, what, "a map of fields")),
        };
        Ok(Self { line: located.line, what, left, known: Vec::new() })
    }

    /// The line of a field that was not taken yet and has a value.
    pub(super) fn line_of(&self, name: &str) -> Option<usize> {
        let field = self.left.iter().find(|field| field.name == name)?;
        (!matches!(field.value.value, Value::Nothing)).then_some(field.line)
    }

    /// The value of a field, and its line. A field without a value is none.
    pub(super) fn take(&mut self, name: &'static str) -> Option<&'n Located> {
        self.known.push(name);
        let index = self.left.iter().position(|field| field.name == name)?;
        let field = self.left.remove(index);
        (!matches!(field.value.value, Value::Nothing)).then_some(&field.value)
    }

    /// A text that is not empty.
    pub(super) fn name(&mut self, name: &'static str) -> Result<Option<(usize, String)>, Fault> {
        self.take(name)
            .map(|located| Ok((located.line, text(located, name)?)))
            .transpose()
            .map(|told| told.filter(|(_, told)| !told.is_empty()))
    }

    /// As [`name`](Self::name), of a field that has to be there.
    pub(super) fn needed_name(&mut self, name: &'static str) -> Result<(usize, String), Fault> {
        self.name(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn number(&mut self, name: &'static str) -> Result<Option<u64>, Fault> {
        self.take(name).map(|located| number(located, name)).transpose()
    }

    pub(super) fn needed_number(&mut self, name: &'static str) -> Result<u64, Fault> {
        self.number(name)?.ok_or_else(|| self.missing(name))
    }

    /// Whether a field says so; it does not when it is not there.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Fault> {
        let Some(located) = self.take(name) else { return Ok(false) };
        truth(located).ok_or_else(|| wrong(located.line, name, "true or false"))
    }

    /// Whether a field that was not taken yet says so.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.left.iter().any(|field| field.name == name && truth(&field.value) == Some(true))
    }

    pub(super) fn list(&mut self, name: &'static str) -> Result<Option<&'n [Located]>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Located { value: Value::List(values), .. }) => Ok(Some(values)),
            Some(located) => Err(wrong(located.line, name, "a list")),
        }
    }

    fn missing(&self, field: &'static str) -> Fault {
        Fault::new(self.line, Problem::Missing { field, what: self.what })
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self) -> Result<(), Fault> {
        match self.left.first() {
            None => Ok(()),
            Some(field) => {
                let (field_name, known) = (field.name.clone(), self.known.join(", "));
                let problem = Problem::UnknownField { field: field_name, what: self.what, known };
                Err(Fault::new(field.line, problem))
            }
        }
    }
}

fn truth(located: &Located) -> Option<bool> {
    let Value::Plain(text) = &located.value else { return None };
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A text; a number or a truth value is the text that it is written as.
pub(super) fn text(located: &Located, field: &'static str) -> Result<String, Fault> {
    match &located.value {
        Value::Plain(text) | Value::Quoted(text) if text.len() <= TEXT_BYTES_MAX => Ok(text.clone()),
        Value::Plain(text) | Value::Quoted(text) => {
            let problem = Problem::TextTooLong { field, bytes: text.len(), bytes_max: TEXT_BYTES_MAX };
            Err(Fault::new(located.line, problem))
        }
        Value::Nothing | Value::List(_) | Value::Map(_) => Err(wrong(located.line, field, "text")),
    }
}

pub(super) fn number(located: &Located, field: &'static str) -> Result<u64, Fault> {
    let digits = match &located.value {
        Value::Plain(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    digits.ok_or_else(|| wrong(located.line, field, "a whole number from 0 to 18446744073709551615"))
}

pub(super) fn wrong(line: usize, field: &'static str, wanted: &'static str) -> Fault {
    Fault::new(line, Problem::WrongKind { field, wanted })
}
