//! YAML, from the parser's events. Aliases are followed, within the number of values that a file may have.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::located::{Fault, Field, Located, Value};
use super::{NESTING_MAX, Problem, VALUES_MAX};

pub(super) fn parse(text: &str) -> Result<Located, Fault> {
    let mut reading = Reading::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            Fault::new(error.marker().line().max(1), Problem::Syntax { told: error.info().to_owned() })
        })?;
        reading.take(event, span)?;
    }
    Ok(reading.root.unwrap_or(Located { line: 1, value: Value::Nothing }))
}

#[derive(Default)]
struct Reading {
    open: Vec<Open>,
    /// Values that have a name, once they are complete.
    anchors: BTreeMap<usize, Located>,
    values: usize,
    root: Option<Located>,
}

struct Open {
    line: usize,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Located>),
    Map {
        fields: Vec<Field>,
        /// The lines of the names.
        lines: BTreeMap<String, usize>,
        /// The name whose value comes next.
        name: Option<(usize, String)>,
    },
}

impl Reading {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let line = span.start.line().max(1);
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(unsupported(line, "a second document in a file"))
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let repeated = known.ok_or_else(|| unsupported(line, "an alias of what it is part of"))?;
                self.put(Located { line, ..repeated }, 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain || is_text(tag.as_deref(), line)?;
                let value = match &*text {
                    _ if quoted => Value::Quoted(text.into_owned()),
                    "" | "~" | "null" | "Null" | "NULL" => Value::Nothing,
                    _ => Value::Plain(text.into_owned()),
                };
                self.put(Located { line, value }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                is_text(tag.as_deref(), line)?;
                self.open(Open { line, anchor, inside: Inside::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                is_text(tag.as_deref(), line)?;
                let inside = Inside::Map { fields: Vec::new(), lines: BTreeMap::new(), name: None };
                self.open(Open { line, anchor, inside })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { line, anchor, inside: Inside::List(values) }) => {
                    self.put(Located { line, value: Value::List(values) }, anchor)
                }
                Some(Open { line, anchor, inside: Inside::Map { fields, .. } }) => {
                    self.put(Located { line, value: Value::Map(fields) }, anchor)
                }
                None => Ok(()),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, open: Open) -> Result<(), Fault> {
        if self.open.len() >= NESTING_MAX {
            return Err(Fault::new(open.line, Problem::TooDeep));
        }
        let as_name =
            self.open.last().is_some_and(|open| matches!(&open.inside, Inside::Map { name: None, .. }));
        if as_name {
            return Err(unsupported(open.line, "a list or map as the name of a field"));
        }
        self.open.push(open);
        Ok(())
    }

    /// Puts a complete value where it belongs.
    fn put(&mut self, value: Located, anchor: usize) -> Result<(), Fault> {
        let line = value.line;
        self.values = self.values.saturating_add(match value.value {
            Value::List(_) | Value::Map(_) if anchor == 0 => 1,
            _ => value.count(),
        });
        if self.values > VALUES_MAX {
            return Err(Fault::new(line, Problem::TooManyValues));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.root = Some(value),
            Some(Inside::List(values)) => values.push(value),
            Some(Inside::Map { fields, lines, name }) => match name.take() {
                Some((line, name)) => fields.push(Field { line, name, value }),
                None => {
                    let (Value::Plain(text) | Value::Quoted(text)) = value.value else {
                        return Err(unsupported(line, "a field without a name"));
                    };
                    if let Some(first_line) = lines.insert(text.clone(), line) {
                        return Err(Fault::new(line, Problem::DuplicateField { field: text, first_line }));
                    }
                    *name = Some((line, text));
                }
            },
        }
        Ok(())
    }
}

/// Whether the tag says that the value is text. Of other tags only those are understood that say what is so anyway.
fn is_text(tag: Option<&Tag>, line: usize) -> Result<bool, Fault> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
        Some(tag) if tag.is_yaml_core_schema() => Ok(false),
        Some(_) => Err(unsupported(line, "a tag")),
    }
}

fn unsupported(line: usize, what: &'static str) -> Fault {
    Fault::new(line, Problem::Unsupported { what })
}
