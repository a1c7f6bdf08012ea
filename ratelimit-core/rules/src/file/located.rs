//! Values, and the lines where they are: what both syntaxes are read into.

use super::Problem;

/// Something is wrong in a line.
#[derive(Debug)]
pub(super) struct Fault {
    pub line: usize,
    pub problem: Problem,
}

impl Fault {
    pub(super) fn new(line: usize, problem: Problem) -> Self {
        Self { line, problem }
    }
}

/// A value, and the line where it begins.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub line: usize,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Nothing,
    /// Text in quotes, or a block of it.
    Quoted(String),
    /// Anything else that is one word: a number, a truth value, text without quotes.
    Plain(String),
    List(Vec<Located>),
    Map(Vec<Field>),
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub line: usize,
    pub name: String,
    pub value: Located,
}

/// Bytes of text that count as one value more.
const TEXT_BYTES: usize = 64;

impl Located {
    /// How many values it is made of; long texts count as several.
    pub(super) fn count(&self) -> usize {
        let mut count = 0usize;
        let mut open = vec![self];
        while let Some(next) = open.pop() {
            count = count.saturating_add(1);
            match &next.value {
                Value::Nothing => {}
                Value::Quoted(text) | Value::Plain(text) => {
                    count = count.saturating_add(text.len() / TEXT_BYTES)
                }
                Value::List(values) => open.extend(values),
                Value::Map(fields) => {
                    open.extend(fields.iter().map(|field| &field.value));
                    let names = fields.iter().map(|field| field.name.len() / TEXT_BYTES);
                    count = names.fold(count, usize::saturating_add);
                }
            }
        }
        count
    }
}
