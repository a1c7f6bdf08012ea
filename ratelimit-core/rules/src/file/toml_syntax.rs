//! TOML, from the parser's table with its places.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::located::{Fault, Field, Located, Value};
use super::{NESTING_MAX, Problem, VALUES_MAX};

pub(super) fn parse(text: &str) -> Result<Located, Fault> {
    let mut lines = Lines { ends: text.match_indices('\n').map(|(at, _)| at).collect(), values: 0 };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Fault::new(lines.at(at), Problem::Syntax { told: error.message().to_owned() })
    })?;
    lines.table(1, table.get_ref(), 0)
}

struct Lines {
    /// Where each line ends, in bytes.
    ends: Vec<usize>,
    values: usize,
}

impl Lines {
    fn at(&self, byte: usize) -> usize {
        self.ends.partition_point(|end| *end < byte) + 1
    }

    fn table(&mut self, line: usize, table: &DeTable<'_>, depth: usize) -> Result<Located, Fault> {
        let fields = table.iter().map(|(name, value)| {
            let line = self.at(name.span().start);
            Ok(Field { line, name: name.get_ref().to_string(), value: self.value(value, depth + 1)? })
        });
        // In the order of the file, so that the first mistake is told first.
        let mut fields = fields.collect::<Result<Vec<_>, Fault>>()?;
        fields.sort_by_key(|field| field.line);
        Ok(Located { line, value: Value::Map(fields) })
    }

    fn value(&mut self, spanned: &Spanned<DeValue<'_>>, depth: usize) -> Result<Located, Fault> {
        let line = self.at(spanned.span().start);
        self.values = self.values.saturating_add(1);
        if self.values > VALUES_MAX {
            return Err(Fault::new(line, Problem::TooManyValues));
        }
        if depth > NESTING_MAX {
            return Err(Fault::new(line, Problem::TooDeep));
        }
        let value = match spanned.get_ref() {
            DeValue::String(text) => Value::Quoted(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Value::Plain(number.as_str().to_owned()),
            DeValue::Integer(_) => {
                return Err(Fault::new(line, Problem::Unsupported { what: "a number that is not decimal" }));
            }
            DeValue::Float(number) => Value::Plain(number.as_str().to_owned()),
            DeValue::Boolean(is) => Value::Plain(is.to_string()),
            DeValue::Datetime(when) => Value::Plain(when.to_string()),
            DeValue::Array(values) => {
                let values = values.iter().map(|value| self.value(value, depth + 1));
                Value::List(values.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => return self.table(line, table, depth),
        };
        Ok(Located { line, value })
    }
}
