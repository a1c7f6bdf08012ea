//! The documentation says what the program does.

use std::path::Path;

use ratelimit_server::settings::{SERVER_NAME, table};
use service_kit::configuration::reference;

const BEGIN: &str = "<!-- rate limit settings: generated from the table, do not edit by hand -->\n";
const END: &str = "<!-- end of rate limit settings -->";

#[test]
fn the_committed_reference_of_settings_equals_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(&path).expect("readable");
    let (before, rest) = page.split_once(BEGIN).expect("the page has the marker");
    let (committed, after) = rest.split_once(END).expect("the page has the closing marker");
    let generated = format!("\n{}\n", reference(SERVER_NAME, table()));
    if std::env::var_os("UPDATE_DOCUMENTATION").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{generated}{END}{after}")).expect("written");
        return;
    }
    assert!(
        committed == generated,
        "run this test with UPDATE_DOCUMENTATION=1 and commit docs/configuration.md"
    );
}
