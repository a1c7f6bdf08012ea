//! The file of tokens.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ledger_server::tokens::TokenRegistry;
use service_kit::logs::{self, LogSettings};
use tracing_subscriber::layer::SubscriberExt;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged_by_opening(directory: &Path) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = logs::layer_to(&LogSettings::default(), move || writer.clone()).unwrap();
    let subscriber = tracing_subscriber::registry().with(vec![layer]);
    tracing::subscriber::with_default(subscriber, || TokenRegistry::open(directory, 1).unwrap());
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_new_token_for_a_ledger_that_had_some_is_worth_a_warning_and_a_first_start_is_not() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(logged_by_opening(directory.path()), "");
    std::fs::write(directory.path().join("state.db"), "a ledger").unwrap();
    assert_eq!(logged_by_opening(directory.path()), "", "the tokens are there");
    std::fs::remove_file(directory.path().join("tokens")).unwrap();
    let warning = logged_by_opening(directory.path());
    assert!(
        warning.contains("\"WARN\"") && warning.contains("administrator's token was minted"),
        "{warning}"
    );
    assert!(!warning.contains("sr_"), "the secret stays out of the log");
}
