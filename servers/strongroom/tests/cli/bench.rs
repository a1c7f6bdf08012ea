//! The benchmark measures and cleans up.

use crate::harness::{Home, Server};

#[test]
fn every_operation_is_measured_as_one_json_object_per_round() {
    let home = Home::new();
    let _server = Server::dev(&home);
    for op in ["write", "read", "read-eventual", "txn100"] {
        let arguments = [
            "bench",
            "ledger",
            "--clients",
            "1,4",
            "--seconds",
            "1",
            "--warm-up",
            "50ms",
            "--op",
            op,
            "--keys",
            "200",
            "--json",
        ];
        let said = home.run(&arguments);
        assert_eq!(said.code, 0, "{said:?}");
        let rounds: Vec<serde_json::Value> =
            said.stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
        assert_eq!(rounds.len(), 2, "{said:?}");
        for (round, clients) in rounds.iter().zip([1, 4]) {
            assert_eq!(
                (&round["op"], &round["clients"], &round["errors"]),
                (&op.into(), &clients.into(), &0.into())
            );
            assert!(round["ops_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{round}");
            let us = |name: &str| round[name].as_u64().expect("microseconds");
            assert!(
                us("p50_us") > 0 && us("p50_us") <= us("p99_us") && us("p99_us") <= us("p999_us"),
                "{round}"
            );
            assert!(us("p999_us") <= us("max_us"), "{round}");
        }
    }
    assert_eq!(
        home.json(&["ledger", "namespace", "list"])["namespaces"],
        serde_json::json!([]),
        "nothing is left"
    );
}
