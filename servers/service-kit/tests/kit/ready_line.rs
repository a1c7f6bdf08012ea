use serde_json::{Value, json};
use service_kit::ready_line::{ReadyLine, ReadyNode, print_failed_start};

fn one_line(output: Vec<u8>) -> Value {
    let text = String::from_utf8(output).expect("UTF-8");
    assert_eq!(text.matches('\n').count(), 1);
    assert!(text.ends_with('\n'));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn only_what_runs_is_on_the_line() {
    let mut line = ReadyLine::new();
    line.ledger_url = Some("http://127.0.0.1:50051".to_owned());
    line.data_dir = Some("/a\nb".into());
    line.nodes = vec![ReadyNode::new(u64::MAX, "http://127.0.0.1:1".to_owned(), 7)];
    let mut output = Vec::new();
    line.print(&mut output).expect("memory");
    let expected = json!({
        "ready": true,
        "version": service_kit::BUILD.version,
        "pid": std::process::id(),
        "ledger_url": "http://127.0.0.1:50051",
        "data_dir": "/a\nb",
        "nodes": [{ "id": u64::MAX, "url": "http://127.0.0.1:1", "pid": 7 }],
    });
    assert_eq!(one_line(output), expected);
}

#[test]
fn a_failed_start_is_one_line_too() {
    let mut output = Vec::new();
    print_failed_start(&mut output, "port taken:\nuse --listen").expect("memory");
    assert_eq!(one_line(output), json!({ "ready": false, "error": "port taken:\nuse --listen" }));
}

#[test]
fn the_build_names_a_version_and_a_commit() {
    let build = service_kit::BUILD;
    assert!(build.version.split('.').count() >= 3, "{build:?}");
    let is_commit = build.commit.len() == 12 && build.commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_commit || build.commit == "unknown", "{build:?}");
    assert_eq!(service_kit::VERSION_WITH_COMMIT, format!("{} ({})", build.version, build.commit));
}
