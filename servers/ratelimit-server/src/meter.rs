//! What the server counts. Handles are made once, so that counting is an addition.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};

use crate::resp::Tally;

pub(crate) const DECISIONS: &str = "rate_limit_decisions_total";
const SECONDS: &str = "rate_limit_request_seconds";
const REFUSED: &str = "rate_limit_refused_total";

/// The name under which limits are counted that come with a request.
const AD_HOC: &str = "ad_hoc";

/// By which protocol a request came that the rules decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// gRPC.
    Rls,
    /// HTTP.
    Http,
}

impl Protocol {
    fn label(self) -> &'static str {
        match self {
            Self::Rls => "rls",
            Self::Http => "http",
        }
    }
}

/// The counters of the process' recorder.
#[derive(Clone)]
pub(crate) struct Meter {
    resp_allowed: Counter,
    resp_denied: Counter,
    resp_refused: Counter,
    resp_without_token: Counter,
    resp_broken: Counter,
    resp_seconds: Histogram,
    rls_seconds: Histogram,
    http_seconds: Histogram,
}

impl Meter {
    pub(crate) fn new() -> Self {
        describe_counter!(DECISIONS, "Decisions by rule and outcome, whatever other rules said.");
        describe_counter!(REFUSED, "Requests that were not decided, by protocol and reason.");
        describe_histogram!(SECONDS, "Time from reading to writing, for RESP of all that came at once.");
        let resp = |result| counter!(DECISIONS, "rule" => AD_HOC, "outcome" => result);
        Self {
            resp_allowed: resp("allowed"),
            resp_denied: resp("denied"),
            resp_refused: counter!(REFUSED, "protocol" => "resp", "reason" => "request"),
            resp_without_token: counter!(REFUSED, "protocol" => "resp", "reason" => "token"),
            resp_broken: counter!(REFUSED, "protocol" => "resp", "reason" => "protocol"),
            resp_seconds: histogram!(SECONDS, "protocol" => "resp"),
            rls_seconds: histogram!(SECONDS, "protocol" => "rls"),
            http_seconds: histogram!(SECONDS, "protocol" => "http"),
        }
    }

    /// What one batch of requests came to.
    pub(crate) fn resp_batch(&self, tally: Tally, elapsed: impl FnOnce() -> Duration) {
        let add = |counter: &Counter, count| {
            if count > 0 {
                counter.increment(count);
            }
        };
        add(&self.resp_allowed, tally.allowed);
        add(&self.resp_denied, tally.denied);
        add(&self.resp_refused, tally.refused);
        add(&self.resp_without_token, tally.without_token);
        if tally.allowed + tally.denied > 0 {
            self.resp_seconds.record(elapsed());
        }
    }

    /// A request was decided; its rules count the decision.
    pub(crate) fn decided(&self, protocol: Protocol, elapsed: Duration) {
        let seconds = match protocol {
            Protocol::Rls => &self.rls_seconds,
            Protocol::Http => &self.http_seconds,
        };
        seconds.record(elapsed);
    }

    /// A request was not decided.
    pub(crate) fn refused(&self, protocol: Protocol, reason: &'static str) {
        counter!(REFUSED, "protocol" => protocol.label(), "reason" => reason).increment(1);
    }

    /// Bytes that are not the protocol.
    pub(crate) fn resp_broken(&self) {
        self.resp_broken.increment(1);
    }
}
