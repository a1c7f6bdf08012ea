//! Configuration: the TOML file, the environment, the flags.

use std::ffi::OsString;

use ledger_server::settings;

use crate::files::with_file;

/// The first byte chooses the layer: `e` and `f` = lines `NAME=VALUE` as variables or flags, otherwise a TOML file.
/// What is accepted resolves to the same values again.
pub fn configuration(bytes: &[u8]) -> bool {
    let none: [(OsString, OsString); 0] = [];
    let resolve = || match bytes.split_first() {
        Some((b'e', rest)) => {
            settings::resolve([], lines(rest).map(|(name, value)| (name.into(), value.into())), None)
        }
        Some((b'f', rest)) => settings::resolve(lines(rest), none.clone(), None),
        _ => with_file(bytes, |path| settings::resolve([], none.clone(), Some(path))),
    };
    let (first, second) = (resolve(), resolve());
    match (first, second) {
        (Ok((_, first)), Ok((_, second))) => {
            assert_eq!(format!("{first:?}"), format!("{second:?}"));
            true
        }
        (Err(first), Err(second)) => {
            assert_eq!(first.to_string(), second.to_string());
            assert!(!first.to_string().is_empty());
            false
        }
        (first, second) => panic!("resolved twice, {:?} and {:?}", first.is_ok(), second.is_ok()),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = (String, String)> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.lines().filter_map(pair).collect::<Vec<_>>().into_iter()
}
