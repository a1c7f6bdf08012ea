//! Series whose label values come and go: they are asked for when the page is made, and what is not told is not there.

use std::fmt::Write as _;

/// How a family's values are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesKind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
}

/// Series of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesFamily {
    /// The name.
    pub name: &'static str,
    /// How to read them.
    pub kind: SeriesKind,
    /// What they are.
    pub help: &'static str,
    /// Each by its labels, no two the same. Their number has to be bounded.
    pub series: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl SeriesFamily {
    /// Puts the series into a page: beside those of the same name, else behind everything.
    pub(crate) fn put_into(&self, page: &mut String) {
        let lines = self.lines();
        if lines.is_empty() {
            return;
        }
        let kind = match self.kind {
            SeriesKind::Counter => "counter",
            SeriesKind::Gauge => "gauge",
        };
        let head = format!("# TYPE {} {kind}\n", self.name);
        match page.find(&head) {
            // A family stands together: the text format asks for it.
            Some(at) => page.insert_str(at + head.len(), &lines),
            None => {
                let _ = write!(page, "# HELP {} {}\n{head}{lines}\n", self.name, self.help);
            }
        }
    }

    fn lines(&self) -> String {
        let mut lines = String::new();
        for (labels, value) in &self.series {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let _ = writeln!(lines, "{}{{{}}} {value}", self.name, labels.join(","));
        }
        lines
    }
}

/// As the text format wants label values.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(value: &str) -> SeriesFamily {
        SeriesFamily {
            name: "asked_total",
            kind: SeriesKind::Counter,
            help: "What was asked.",
            series: vec![(vec![("rule", value.to_owned())], 3.0)],
        }
    }

    #[test]
    fn series_stand_beside_those_of_their_name() {
        let mut page =
            "# TYPE asked_total counter\nasked_total{rule=\"a\"} 1\n\n# TYPE x gauge\nx 1\n".to_owned();
        family("b").put_into(&mut page);
        assert_eq!(
            page,
            "# TYPE asked_total counter\nasked_total{rule=\"b\"} 3\nasked_total{rule=\"a\"} 1\n\n# TYPE x gauge\nx 1\n"
        );
    }

    #[test]
    fn a_family_of_its_own_stands_behind_with_its_head_and_an_empty_one_nowhere() {
        let mut page = String::new();
        family("a\"b\\c\nd").put_into(&mut page);
        let head = "# HELP asked_total What was asked.\n# TYPE asked_total counter\n";
        assert_eq!(page, format!("{head}asked_total{{rule=\"a\\\"b\\\\c\\nd\"}} 3\n\n"));
        let mut empty = String::new();
        SeriesFamily { series: Vec::new(), ..family("a") }.put_into(&mut empty);
        assert_eq!(empty, "");
    }
}
