//! The Python library `http-sfv` reads the headers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use http::HeaderMap;
use tower_layers::headers::{HeaderStyle, PartitionKey, Quota, QuotaPolicy, QuotaUnit};

/// Prints each item as its value and its sorted parameters.
const READER: &str = "
import http_sfv, sys
for line in sys.argv[1:]:
    fields = http_sfv.List()
    fields.parse(line.encode('ascii'))
    print([(str(item.value), sorted((key, str(value)) for key, value in item.params.items())) for item in fields])
";

/// A Python that has the library: that of scripts/setup, which stands below the target directory, else the system's.
fn python() -> Option<PathBuf> {
    let has_it = |python: &PathBuf| {
        let mut probe = Command::new(python);
        probe.args(["-c", "import http_sfv"]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("judges/bin/python3");
    let found = [installed, PathBuf::from("python3")].into_iter().find(has_it);
    if found.is_none() {
        println!("skipped: needs python3 with http-sfv (scripts/setup installs it)");
    }
    found
}

#[test]
fn a_python_library_reads_the_headers() {
    let Some(python) = python() else { return };
    let odd = QuotaPolicy::new(r#"o"d\d, ;q=1"#.parse().expect("a name"), u64::MAX)
        .with_window(Duration::from_millis(1))
        .with_unit(QuotaUnit::ContentBytes)
        .with_partition_key(PartitionKey::new(b"who").expect("a key"));
    let plain = QuotaPolicy::new("plain".parse().expect("a name"), 3);
    let quota = |policy, remaining| Quota {
        policy,
        remaining,
        more_after: Duration::from_millis(2_001),
        reset_after: Duration::from_secs(9),
    };
    let mut headers = HeaderMap::new();
    HeaderStyle::DRAFT10.write(&mut headers, &[quota(&odd, 5), quota(&plain, 2)], 0);
    let lines = ["ratelimit-policy", "ratelimit"].map(|name| headers[name].to_str().expect("text"));
    let output = Command::new(python).args(["-c", READER]).args(lines).output().expect("python runs");
    assert!(output.status.success(), "{output:?}");
    let read = String::from_utf8(output.stdout).expect("text");
    let expected = concat!(
        r#"[('o"d\\d, ;q=1', [('pk', "b'who'"), ('q', '999999999999999'), ('qu', 'content-bytes'), ('w', '1')]), "#,
        r#"('plain', [('q', '3')])]"#,
        "\n",
        r#"[('o"d\\d, ;q=1', [('pk', "b'who'"), ('r', '5'), ('t', '3')]), ('plain', [('r', '2'), ('t', '3')])]"#,
        "\n"
    );
    assert_eq!(read, expected);
}
