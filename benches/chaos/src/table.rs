//! What a run comes to: one table of what happened, and what was wrong.

use std::fmt;

/// The end of a run.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What happened.
    pub table: Table,
    /// What was wrong, in words.
    pub problems: Vec<String>,
}

/// Rows of a name, a figure and a remark.
#[derive(Debug, Default)]
pub struct Table(Vec<(String, String, &'static str)>);

impl Table {
    /// A row.
    pub fn row(&mut self, name: impl Into<String>, figure: impl fmt::Display, remark: &'static str) {
        self.0.push((name.into(), figure.to_string(), remark));
    }
}

impl Verdict {
    /// A row whose number must not be zero: a run in which nothing happened proves nothing.
    pub fn happened(&mut self, name: &str, count: u64) {
        self.table.row(name, count, if count == 0 { "NOTHING" } else { "" });
        if count == 0 {
            self.problems.push(format!("nothing happened: {name} is 0 (run longer, or with another seed)"));
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        for (name, figure, remark) in &self.0 {
            writeln!(f, "{name:width$}  {figure:>12}  {remark}")?;
        }
        Ok(())
    }
}
