//! What operators see.

use metrics_exporter_prometheus::PrometheusBuilder;
use ratelimit_core::Enforcement;

use crate::buckets::{Calls, bucket, from, layer, status};

#[test]
fn decisions_are_counted_by_rule_and_outcome_and_shadows_apart() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let shadow = bucket("shadow", 1).with_enforcement(Enforcement::Shadow);
            let service = Calls::default().behind(&layer(vec![bucket("real", 2), shadow]));
            for _ in 0..5 {
                status(&service, from("a")).await;
            }
        });
    });
    let text = handle.render();
    let counted = |line: &str| assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    counted(r#"rate_limit_decisions_total{rule="real",outcome="allowed"} 2"#);
    counted(r#"rate_limit_decisions_total{rule="real",outcome="denied"} 3"#);
    counted(r#"rate_limit_decisions_total{rule="shadow",outcome="shadow_allowed"} 1"#);
    counted(r#"rate_limit_decisions_total{rule="shadow",outcome="shadow_denied"} 4"#);
    counted(r#"rate_limits_exceeded_total{rule="real"} 3"#);
}
