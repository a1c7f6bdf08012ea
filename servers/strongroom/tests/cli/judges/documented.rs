//! Configurations as they stand in `docs/ratelimit.md`, with other ports.

/// A block of the documentation, to be changed where a test needs other values.
pub struct Documented(String);

impl Documented {
    /// The first fenced block of this language under this heading.
    pub fn block(heading: &str, language: &str) -> Self {
        const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ratelimit.md"));
        let section = PAGE.split("\n## ").find(|section| section.lines().next() == Some(heading));
        let section = section.unwrap_or_else(|| panic!("docs/ratelimit.md has no heading {heading}"));
        let fence = format!("\n```{language}\n");
        let block = section.split_once(&fence).and_then(|(_, rest)| rest.split_once("```"));
        Self(block.unwrap_or_else(|| panic!("no block of {language} under {heading}")).0.to_owned())
    }

    /// The same with other words for these, which must be there.
    pub fn with(self, changes: &[(&str, &str)]) -> Self {
        changes.iter().fold(self, |Self(text), (from, to)| {
            assert!(text.contains(from), "{from:?} is no longer in the documentation:\n{text}");
            Self(text.replace(from, to))
        })
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}
