//! Reads policy text: Cedar's syntax, our schema, and an id and a message on every policy.

use std::collections::BTreeSet;
use std::str::FromStr;

use cedar_policy::{PolicyId, PolicySet, Schema, ValidationMode, Validator};

use holdfast_core::ErrorChain;

use super::{LIMIT_POLICY_BYTES, Policy, PolicyError, one_line};

/// Reads and validates the policies of a text, each under its own `@id`.
pub(super) fn policies(text: &str) -> Result<PolicySet, PolicyError> {
    if text.len() > LIMIT_POLICY_BYTES {
        return Err(PolicyError::TooLong { bytes: text.len() });
    }
    let parsed = PolicySet::from_str(text)
        .map_err(|error| PolicyError::Syntax(one_line(&ErrorChain(&error).to_string())))?;
    let named = named(&parsed)?;
    let schema = Schema::from_str(Policy::schema_text())
        .map_err(|error| PolicyError::Schema(one_line(&ErrorChain(&error).to_string())))?;
    let validated = Validator::new(schema).validate(&named, ValidationMode::Strict);
    if !validated.validation_passed() {
        let mut errors: Vec<String> = validated
            .validation_errors()
            .map(ToString::to_string)
            .collect();
        errors.sort();
        return Err(PolicyError::Schema(one_line(&errors.join("; "))));
    }
    // A policy that can never hold is a mistake of whoever wrote it, and may be a forbid.
    let mut warnings: Vec<String> = validated
        .validation_warnings()
        .map(ToString::to_string)
        .collect();
    warnings.sort();
    if !warnings.is_empty() {
        return Err(PolicyError::Schema(one_line(&warnings.join("; "))));
    }
    Ok(named)
}

fn named(parsed: &PolicySet) -> Result<PolicySet, PolicyError> {
    if parsed.templates().next().is_some() {
        return Err(PolicyError::Annotation(
            "a policy is a template (`?principal` or `?resource`), which nothing would link".into(),
        ));
    }
    let mut ids = BTreeSet::new();
    let mut policies = Vec::new();
    for policy in parsed.policies() {
        let id = policy.annotation("id").unwrap_or_default();
        if id.is_empty() || id == super::HOUSE {
            return Err(PolicyError::Annotation(format!(
                "{} has no `@id(\"...\")` of its own",
                policy.id()
            )));
        }
        if policy.annotation("message").unwrap_or_default().is_empty() {
            return Err(PolicyError::Annotation(format!(
                "policy `{id}` has no `@message(\"...\")` to tell people why"
            )));
        }
        if !ids.insert(id.to_owned()) {
            return Err(PolicyError::Annotation(format!(
                "two policies have the id `{id}`"
            )));
        }
        policies.push(policy.new_id(PolicyId::new(id)));
    }
    PolicySet::from_policies(policies).map_err(|error| PolicyError::Annotation(error.to_string()))
}
