//! Which node leads, as other nodes tell it.

use tonic::metadata::MetadataMap;

/// Longest URL that is taken from a hint, in bytes.
const URL_BYTES_MAX: usize = 1_024;

/// A node's word on who leads. Hints of a later term replace those of an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderHint {
    /// Raft term of its lead.
    pub term: u64,
    /// Where clients reach it.
    pub url: String,
}

impl LeaderHint {
    /// The hint in the header of an answer.
    pub(crate) fn from_header(metadata: &MetadataMap) -> Option<Self> {
        let mut parts = metadata.get(ledger_proto::LEADER_HEADER)?.to_str().ok()?.splitn(3, ' ');
        let term = parts.next()?.parse().ok()?;
        let _node_id: u64 = parts.next()?.parse().ok()?;
        Self::new(term, parts.next()?)
    }

    /// A hint with a URL that can be one.
    pub(crate) fn new(term: u64, url: &str) -> Option<Self> {
        let url = url.trim_end_matches('/');
        let fits =
            !url.is_empty() && url.len() <= URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self { term, url: url.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &'static str) -> Option<LeaderHint> {
        let mut metadata = MetadataMap::new();
        metadata.insert(ledger_proto::LEADER_HEADER, tonic::metadata::MetadataValue::from_static(text));
        LeaderHint::from_header(&metadata)
    }

    #[test]
    fn a_header_names_term_node_and_url() {
        let hint = LeaderHint { term: 7, url: "http://127.0.0.1:50051".to_owned() };
        assert_eq!(of("7 4511 http://127.0.0.1:50051"), Some(hint.clone()));
        assert_eq!(of("7 4511 http://127.0.0.1:50051/"), Some(hint));
    }

    #[test]
    fn what_is_no_hint_is_passed_over() {
        for text in
            ["", "7", "7 4511", "7 4511 ", "x 4511 http://h:1", "7 x http://h:1", "7 4511 http://h:1 more"]
        {
            assert_eq!(of(text), None, "{text:?}");
        }
        assert_eq!(LeaderHint::from_header(&MetadataMap::new()), None);
    }
}
