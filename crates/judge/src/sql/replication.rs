//! Publications and subscriptions.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::list::CastNodeList;
use pg_raw_parse::nodes::DefElem;
use pg_raw_parse::raw::{AlterPublicationAction, AlterSubscriptionType};

use super::found::Found;
use super::name;

/// Judges the statements about publications and subscriptions.
///
/// Answers `false` when the node is none of them.
pub(super) fn judge<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::CreatePublicationStmt(x) => {
            let resource = publication(x.pubname());
            found.adds(resource, "it offers changes to subscribers");
        }
        Node::AlterPublicationStmt(x) => {
            let resource = publication(x.pubname());
            match x.action {
                AlterPublicationAction::AP_AddObjects if !x.pubobjects().is_empty() => {
                    found.adds(resource, "it offers more changes to subscribers");
                }
                _ => {
                    let because = "a copy kept by replication may no longer follow all changes";
                    found.does(Effect::Disarm, resource, because);
                }
            }
        }
        Node::CreateSubscriptionStmt(x) => {
            let resource = subscription(x.subname());
            let because = "the server connects to another one and takes its changes";
            found.needs_no_block |= makes_slot(x.options());
            found.does_for_good(Effect::Escape, Some(resource), because);
        }
        Node::AlterSubscriptionStmt(x) => {
            let resource = subscription(x.subname());
            let (effect, because) = match x.kind {
                AlterSubscriptionType::ALTER_SUBSCRIPTION_CONNECTION => {
                    (Effect::Escape, "the server connects to another one")
                }
                AlterSubscriptionType::ALTER_SUBSCRIPTION_REFRESH => {
                    found.needs_no_block = true;
                    (Effect::Write, "the tables of a subscription are read again")
                }
                _ => (
                    Effect::Disarm,
                    "a copy kept by replication may no longer follow all changes",
                ),
            };
            found.does_for_good(effect, Some(resource), because);
        }
        Node::DropSubscriptionStmt(x) => {
            let resource = subscription(x.subname());
            let because = "a copy kept by replication ends, and its slot is dropped";
            found.needs_no_block = true;
            found.does_for_good(Effect::Disarm, Some(resource), because);
        }
        _ => return false,
    }
    true
}

/// A slot on the other server is made unless the options say no, and not inside a transaction.
fn makes_slot(options: &CastNodeList<DefElem>) -> bool {
    !options.iter().any(|option| {
        matches!(option.defname(), Some("connect" | "create_slot"))
            && name::constant(option.arg()).is_some_and(|value| value == "false")
    })
}

fn publication(called: Option<&str>) -> Resource {
    Resource::new("pg:publication", called.unwrap_or_default())
}

fn subscription(called: Option<&str>) -> Resource {
    Resource::new("pg:subscription", called.unwrap_or_default())
}
