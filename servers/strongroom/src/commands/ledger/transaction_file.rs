//! Operations as JSON, for `txn` and `import`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::relationship::Relationship;
use ledger_core::transaction::{Action, AssertTarget, Condition, Operation};
use serde::Deserialize;

use crate::ttl;

/// One operation as people write it. Which fields belong to which `op` is checked by [`OperationText::operation`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationText {
    op: Op,
    key: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    ttl: Option<String>,
    resource: Option<String>,
    relation: Option<String>,
    subject: Option<String>,
    #[serde(default)]
    if_absent: bool,
    #[serde(default)]
    if_exists: bool,
    if_version: Option<u64>,
    if_value: Option<String>,
    if_value_base64: Option<String>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Set an entity.
    #[default]
    Put,
    /// Delete an entity.
    Delete,
    /// Create a relationship.
    Relate,
    /// Delete a relationship.
    Unrelate,
    /// Check a condition, write nothing.
    Assert,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Relate => "relate",
            Self::Unrelate => "unrelate",
            Self::Assert => "assert",
        }
    }
}

impl OperationText {
    /// What to do.
    pub fn op(&self) -> Op {
        self.op
    }

    /// Whether it has a time to live.
    pub fn expires(&self) -> bool {
        self.ttl.is_some()
    }

    /// Whether a condition is given.
    pub fn is_conditional(&self) -> bool {
        let flags = self.if_absent || self.if_exists || self.if_version.is_some();
        flags || self.if_value.is_some() || self.if_value_base64.is_some()
    }

    /// The operation; times to live count from `base_ms`, unix milliseconds.
    pub fn operation(&self, base_ms: u64) -> Result<Operation, String> {
        self.refuse_foreign_fields()?;
        let action = match self.op {
            Op::Put => Action::SetEntity {
                key: self.key()?,
                value: self.value()?,
                expires_at_ms: match &self.ttl {
                    None => 0,
                    Some(text) => ttl::expires_at_ms(base_ms, ttl::parse(text)?)?,
                },
            },
            Op::Delete => Action::DeleteEntity { key: self.key()? },
            Op::Relate => Action::CreateRelationship(self.tuple()?),
            Op::Unrelate => Action::DeleteRelationship(self.tuple()?),
            Op::Assert if self.key.is_some() => Action::Assert(AssertTarget::Entity(self.key()?)),
            Op::Assert => Action::Assert(AssertTarget::Relationship(self.tuple()?)),
        };
        Ok(Operation { action, condition: self.condition()? })
    }

    fn refuse_foreign_fields(&self) -> Result<(), String> {
        let on_tuple = self.resource.is_some() || self.relation.is_some() || self.subject.is_some();
        let on_value = self.value.is_some() || self.value_base64.is_some() || self.ttl.is_some();
        let name = self.op.name();
        match self.op {
            Op::Put | Op::Delete if on_tuple => {
                Err(format!("{name} has a key, no resource, relation and subject"))
            }
            Op::Relate | Op::Unrelate if self.key.is_some() => {
                Err(format!("{name} has resource, relation and subject, no key"))
            }
            Op::Assert if on_tuple && self.key.is_some() => {
                Err("assert has a key or a relationship, not both".to_owned())
            }
            Op::Put => Ok(()),
            _ if on_value => Err(format!("{name} has no value, value_base64 and ttl")),
            _ => Ok(()),
        }
    }

    fn key(&self) -> Result<EntityKey, String> {
        let key = self.key.as_deref().ok_or_else(|| format!("{} needs a key", self.op.name()))?;
        EntityKey::new(key).map_err(|error| error.to_string())
    }

    fn value(&self) -> Result<EntityValue, String> {
        let value = text_or_base64("value", self.value.as_deref(), self.value_base64.as_deref())?;
        EntityValue::new(value.ok_or("put needs a value or a value_base64")?)
            .map_err(|error| error.to_string())
    }

    fn tuple(&self) -> Result<Relationship, String> {
        let part = |name: &str, part: &Option<String>| {
            part.clone().ok_or_else(|| format!("{} needs a {name}", self.op.name()))
        };
        Ok(Relationship {
            resource: super::resource(&part("resource", &self.resource)?)?,
            relation: super::relation(&part("relation", &self.relation)?)?,
            subject: super::subject(&part("subject", &self.subject)?)?,
        })
    }

    fn condition(&self) -> Result<Option<Condition>, String> {
        let value = text_or_base64("if_value", self.if_value.as_deref(), self.if_value_base64.as_deref())?;
        let value = value.map(EntityValue::new).transpose().map_err(|error| error.to_string())?;
        let mut given: Vec<Condition> = Vec::new();
        given.extend(self.if_absent.then_some(Condition::MustNotExist));
        given.extend(self.if_exists.then_some(Condition::MustExist));
        given.extend(self.if_version.map(Condition::VersionEquals));
        given.extend(value.map(Condition::ValueEquals));
        if given.len() > 1 {
            return Err("an operation has at most one condition".to_owned());
        }
        Ok(given.pop())
    }
}

fn text_or_base64(name: &str, text: Option<&str>, base64: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("give {name} or {name}_base64, not both")),
        (Some(text), None) => Ok(Some(text.as_bytes().to_vec())),
        (None, Some(base64)) => {
            let decoded =
                STANDARD.decode(base64).map_err(|error| format!("{name}_base64 is not base64: {error}"))?;
            Ok(Some(decoded))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Operation, String> {
        let text: OperationText = serde_json::from_str(json).map_err(|error| error.to_string())?;
        text.operation(1_000)
    }

    #[test]
    fn every_operation_has_its_own_fields() {
        for good in [
            r#"{"op":"put","key":"k","value":"v"}"#,
            r#"{"op":"put","key":"k","value_base64":"AP8=","ttl":"60s","if_absent":true}"#,
            r#"{"op":"delete","key":"k","if_version":3}"#,
            r#"{"op":"relate","resource":"doc:a","relation":"viewer","subject":"user:b"}"#,
            r#"{"op":"unrelate","resource":"doc:a","relation":"viewer","subject":"user:b"}"#,
            r#"{"op":"assert","key":"k","if_value":"v"}"#,
            r#"{"op":"assert","resource":"doc:a","relation":"viewer","subject":"user:b","if_exists":true}"#,
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for (bad, reason) in [
            (r#"{"op":"put","key":"k"}"#, "needs a value"),
            (r#"{"op":"put","value":"v"}"#, "needs a key"),
            (r#"{"op":"put","key":"k","value":"v","value_base64":""}"#, "not both"),
            (r#"{"op":"put","key":"k","value_base64":"*"}"#, "not base64"),
            (r#"{"op":"put","key":"k","value":"v","resource":"doc:a"}"#, "no resource"),
            (r#"{"op":"put","key":"k","value":"v","ttl":"soon"}"#, "not a duration"),
            (r#"{"op":"put","key":"k","value":"v","if_absent":true,"if_version":1}"#, "at most one"),
            (r#"{"op":"relate","key":"k"}"#, "no key"),
            (r#"{"op":"relate","resource":"doc:a","relation":"viewer"}"#, "needs a subject"),
            (r#"{"op":"delete","key":"k","value":"v"}"#, "no value"),
            (r#"{"op":"launch"}"#, "unknown variant"),
            (r#"{"op":"put","key":"k","value":"v","vaule":"w"}"#, "unknown field"),
            (r#"{"key":"k","value":"v"}"#, "missing field"),
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }

    #[test]
    fn a_time_to_live_counts_from_the_given_time() {
        let operation = parse(r#"{"op":"put","key":"k","value":"v","ttl":"60s"}"#).expect("good");
        assert!(matches!(operation.action, Action::SetEntity { expires_at_ms: 61_000, .. }));
    }
}
