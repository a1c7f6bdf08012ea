//! What clients and operators of the rate limit server write: requests of the protocol of Redis, and rule files.

use std::time::Duration;

use ratelimit_core::{AdHoc, HashSecret, Nanos, TableSize};
use ratelimit_rules::{Engine, Epoch, RuleFile, Syntax, read_rules};
use request::{ARGUMENTS_MAX, Parsed, REQUEST_BYTES_MAX, parse};
use throttle::{Throttle, reply};

#[path = "../../servers/ratelimit-server/src/resp/request.rs"]
mod request;
#[path = "../../servers/ratelimit-server/src/resp/throttle.rs"]
mod throttle;

const NOW: Nanos = Nanos(1_000_000_000);
const SECRET: HashSecret = HashSecret([7; 16]);

/// What arrives on one connection. Accepted: some request of it was `CL.THROTTLE` and decided.
///
/// However the bytes are cut, they are the same requests; what is no request is refused as soon as it cannot become one;
/// a refused one leaves no key, and a decision keeps the reply's promises.
pub fn resp_requests(bytes: &[u8]) -> bool {
    let keys = AdHoc::new(TableSize { keys: 100, sketch_bytes: 0 }, SECRET).expect("memory");
    let (mut rest, mut decided) = (bytes, false);
    loop {
        let (arguments, taken) = match parse(rest) {
            Ok(Parsed::Request { arguments, bytes }) => (arguments, bytes),
            Ok(Parsed::Incomplete) => {
                assert!(rest.len() < REQUEST_BYTES_MAX, "waits for more than a request may have");
                return decided;
            }
            Err(error) => {
                assert!(error.to_string().starts_with("ERR "));
                return decided;
            }
        };
        assert!(taken > 0 && taken <= rest.len() && arguments.len() <= ARGUMENTS_MAX);
        let request = rest.get(..taken).expect("what was taken");
        for cut in (1..taken).step_by(taken / 16 + 1) {
            assert!(matches!(parse(&request[..cut]), Ok(Parsed::Incomplete)), "a part is a request: {cut}");
        }
        let encoded = encode(&arguments);
        match parse(&encoded) {
            Ok(Parsed::Request { arguments: again, bytes }) => {
                assert_eq!((&*again, bytes), (&*arguments, encoded.len()));
            }
            other => assert!(encoded.len() > REQUEST_BYTES_MAX, "{other:?}"),
        }
        if let [name, words @ ..] = &*arguments
            && name.eq_ignore_ascii_case(b"CL.THROTTLE")
        {
            decided |= throttled(words, &keys);
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
}

fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn throttled(words: &[&[u8]], keys: &AdHoc) -> bool {
    let before = keys.live_keys(NOW);
    let asked = Throttle::read(words).and_then(|asked| Ok((asked, asked.bucket.policy()?)));
    let Ok((asked, policy)) = asked else {
        assert_eq!(keys.live_keys(NOW), before, "an error left a key");
        return false;
    };
    let [limited, limit, remaining, retry, reset] = reply(&asked.decide(keys, &policy, NOW));
    assert!(limit > 0 && (0..=limit).contains(&remaining) && reset >= 0);
    assert!(if limited == 0 { retry == -1 } else { retry == -1 || retry > 0 }, "{limited} {retry}");
    true
}

/// A rule file: `t` and TOML, or YAML. Accepted: it has rules, and says the same when it is read again.
pub fn rule_file(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (syntax, text) = match text.strip_prefix("toml\n") {
        Some(text) => (Syntax::Toml, text),
        None => (Syntax::Yaml, text),
    };
    let read =
        || read_rules(&[RuleFile { name: "rules", text, syntax }], Epoch(Duration::from_secs(1_800_000_000)));
    let rules = match (read(), read()) {
        (Ok(rules), Ok(again)) => {
            assert!(rules == again, "read twice, two meanings");
            rules
        }
        (Err(error), Err(again)) => {
            assert_eq!(error.to_string(), again.to_string());
            // YAML ends a line with either of the two, too.
            let lines = text.matches(['\r', '\n']).count() + 1;
            assert!((1..=lines).contains(&error.line), "line {} of {text:?}", error.line);
            return false;
        }
        _ => panic!("read twice, two verdicts"),
    };
    let placed = rules.rules().len();
    let size = TableSize { keys: 1, sketch_bytes: 0 };
    // Refused only when there are more tables than there may be.
    if let Ok(engine) = Engine::new(rules, size, SECRET) {
        assert_eq!(engine.rules().len(), placed);
    }
    placed > 0
}
