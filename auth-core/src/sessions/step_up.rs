use std::time::Duration;

use crate::records::AssuranceLevel;

/// What a sensitive operation asks for and a session does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("prove again who you are: level {level:?}, within the last {age_max:?}")]
pub struct StepUpNeeded {
    /// How well it has to be proved.
    pub level: AssuranceLevel,
    /// How long ago at most.
    pub age_max: Duration,
}
