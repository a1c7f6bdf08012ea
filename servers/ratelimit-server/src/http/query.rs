//! The question that a query is: `domain`, `hits`, `mode`, and the descriptors.
//!
//! `descriptors` has them as JSON, as the body of a `POST` does. Otherwise every further parameter is an entry of one
//! descriptor, in their order; `client_ip` without a value is the address of the client, as trusted proxies tell it. A
//! query without any entry asks about that address too.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;

use super::bodies::{CheckBody, DescriptorBody, EntryBody};
use super::problem::Refusal;
use crate::client_address::CLIENT_IP;

/// Parameters that are no entries.
const RESERVED: [&str; 4] = ["domain", "hits", "mode", "descriptors"];

/// With which status a denial is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// 429.
    #[default]
    Plain,
    /// 403: the module `auth_request` of nginx knows 401 and 403, and makes 500 of all others.
    Nginx,
}

/// Reads a query.
pub(super) fn read(query: &str, client: impl Fn() -> String) -> Result<(CheckBody, Mode), Refusal> {
    let mut body = CheckBody { domain: String::new(), descriptors: Vec::new(), hits: 1, grant: false };
    let (mut mode, mut entries, mut described) = (Mode::default(), Vec::new(), false);
    let mut given = BTreeSet::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let (key, value) = (decoded(name)?, decoded(value)?);
        // A proxy that writes the text of clients into a query lets them add parameters: none may replace its own.
        if let Some(name) = RESERVED.into_iter().find(|name| *name == key)
            && !given.insert(name)
        {
            return Err(Refusal::bad_request(format!("{name} is given twice")));
        }
        match key.as_str() {
            "domain" => body.domain = value,
            "hits" => {
                body.hits =
                    value.parse().map_err(|_| Refusal::bad_request("hits is a whole number from 0"))?;
            }
            "mode" => {
                mode = match value.as_str() {
                    "nginx" => Mode::Nginx,
                    "plain" => Mode::Plain,
                    _ => return Err(Refusal::bad_request("mode is plain or nginx")),
                }
            }
            "descriptors" => {
                let wrong =
                    |error| Refusal::bad_request(format!("descriptors are not as in a POST: {error}"));
                body.descriptors = serde_json::from_str(&value).map_err(wrong)?;
                described = true;
            }
            CLIENT_IP if value.is_empty() => entries.push(EntryBody { key, value: client() }),
            _ => entries.push(EntryBody { key, value }),
        }
    }
    if described && !entries.is_empty() {
        return Err(Refusal::bad_request(
            "give descriptors, or entries as parameters of their own, not both",
        ));
    }
    if !described {
        if entries.is_empty() {
            entries.push(EntryBody { key: CLIENT_IP.to_owned(), value: client() });
        }
        body.descriptors = vec![DescriptorBody { entries, hits: None }];
    }
    Ok((body, mode))
}

/// Domain and entries of a path: `DOMAIN/KEY=VALUE/KEY=VALUE`.
pub(super) fn read_path(path: &str) -> Result<(String, DescriptorBody), Refusal> {
    const FORM: &str = "use /v1/keys/DOMAIN/KEY=VALUE, with further KEY=VALUE behind slashes";
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let domain = decoded(segments.next().ok_or_else(|| Refusal::bad_request(FORM))?)?;
    let entry = |segment: &str| {
        let (key, value) = segment.split_once('=').ok_or_else(|| Refusal::bad_request(FORM))?;
        Ok(EntryBody { key: decoded(key)?, value: decoded(value)? })
    };
    let entries = segments.map(entry).collect::<Result<Vec<_>, Refusal>>()?;
    Ok((domain, DescriptorBody { entries, hits: Some(0) }))
}

/// As forms are encoded, with `+` for a space only in queries; here it stays, since addresses and paths may hold it.
fn decoded(text: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| Refusal::bad_request("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(query: &str) -> Vec<(String, String)> {
        let (body, _) = read(query, || "192.0.2.7".to_owned()).expect("a question");
        let entries = body.descriptors.into_iter().flat_map(|descriptor| descriptor.entries);
        entries.map(|entry| (entry.key, entry.value)).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn parameters_are_entries_in_their_order_and_the_client_is_filled_in() {
        assert_eq!(entries("domain=d"), pairs(&[("client_ip", "192.0.2.7")]));
        assert_eq!(
            entries("domain=d&user=a%2Fb&client_ip="),
            pairs(&[("user", "a/b"), ("client_ip", "192.0.2.7")])
        );
        assert_eq!(entries("domain=d&client_ip=203.0.113.9"), pairs(&[("client_ip", "203.0.113.9")]));
        let json = "domain=d&descriptors=%5B%7B%22entries%22:%5B%7B%22key%22:%22a%22,%22value%22:%22b%22%7D%5D%7D%5D";
        assert_eq!(entries(json), pairs(&[("a", "b")]));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for query in ["hits=x", "mode=apache", "descriptors=x", "a=%ff", "a=b&descriptors=[]", "hits=-1"] {
            assert!(read(query, String::new).is_err(), "{query}");
        }
        for query in [
            "domain=d&hits=1&hits=0",
            "domain=d&a=b&domain=e",
            "mode=nginx&mode=plain",
            "%64omain=d&domain=e",
        ] {
            assert!(read(query, String::new).is_err(), "{query}");
        }
        for path in ["", "d/client_ip", "d/%ff=1"] {
            assert!(read_path(path).is_err(), "{path}");
        }
        let (domain, body) = read_path("d/path=%2Fa/user=x=y").expect("a key");
        assert_eq!((domain.as_str(), body.entries[0].value.as_str()), ("d", "/a"));
        assert_eq!(body.entries[1].value, "x=y");
    }
}
