//! Names of things, as they were written.

use holdfast_core::Resource;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::nodes::{RangeVar, RoleSpec, TypeName};
use pg_raw_parse::raw::{ObjectType, RoleSpecType};
use pg_raw_parse::{ConstValue, Node};

/// Returns the name of a relation: `schema.name` when the schema was written.
pub(super) fn relation(var: &RangeVar) -> String {
    let parts = [var.catalogname(), var.schemaname(), var.relname()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(".")
}

/// Returns a relation as a table.
pub(super) fn table(var: &RangeVar) -> Resource {
    Resource::new("pg:table", relation(var))
}

/// Returns a relation as a table, or a table without a name.
pub(super) fn table_of(var: Option<&RangeVar>) -> Resource {
    var.map_or_else(|| Resource::new("pg:table", ""), table)
}

/// Tells whether a relation is written as one of the session's own temporary tables.
pub(super) fn is_temporary(var: &RangeVar) -> bool {
    u8::try_from(var.relpersistence) == Ok(b't')
        || var
            .schemaname()
            .is_some_and(|schema| schema == "pg_temp" || schema.starts_with("pg_temp_"))
}

/// Tells whether a relation belongs to the server's own catalog.
pub(super) fn is_catalog(var: &RangeVar) -> bool {
    match var.schemaname() {
        Some(schema) => schema == "pg_catalog" || schema == "pg_toast",
        None => var.relname().is_some_and(|name| {
            name.strip_prefix("pg_")
                .is_some_and(|rest| CATALOGS.split_ascii_whitespace().any(|word| word == rest))
        }),
    }
}

/// The catalogs, and the views on them that can be written to or hold secrets, without `pg_`.
///
/// # Source
/// <https://www.postgresql.org/docs/18/catalogs.html>
const CATALOGS: &str = "aggregate am amop amproc attrdef attribute auth_members authid cast class \
    collation constraint conversion database db_role_setting default_acl depend description enum \
    event_trigger extension foreign_data_wrapper foreign_server foreign_table index inherits \
    init_privs language largeobject largeobject_metadata namespace opclass operator opfamily \
    parameter_acl partitioned_table policy proc publication publication_namespace publication_rel \
    range replication_origin replication_slots rewrite seclabel sequence settings shadow shdepend \
    shdescription shseclabel statistic statistic_ext statistic_ext_data subscription \
    subscription_rel tablespace transform trigger ts_config ts_config_map ts_dict ts_parser \
    ts_template type user_mapping user_mappings user roles group";

/// Returns a list of name parts with dots between them.
pub(super) fn dotted(parts: &NodeList) -> String {
    let parts: Vec<&str> = parts.iter().filter_map(|part| part.as_str()).collect();
    parts.join(".")
}

/// Returns the name that a node of an object list holds.
pub(super) fn object(node: Node<'_>) -> String {
    match node {
        Node::String(text) => text.sval().unwrap_or_default().to_owned(),
        Node::NodeList(parts) => {
            let words: Vec<String> = parts
                .iter()
                .filter_map(|part| match part {
                    Node::String(text) => text.sval().map(str::to_owned),
                    Node::TypeName(name) => Some(type_name(name)),
                    _ => None,
                })
                .collect();
            words.join(".")
        }
        Node::TypeName(name) => type_name(name),
        Node::ObjectWithArgs(object) => dotted(object.objname()),
        Node::RangeVar(var) => relation(var),
        Node::RoleSpec(spec) => role(spec),
        _ => String::new(),
    }
}

/// Returns the name of a type without the grammar's own `pg_catalog.`.
pub(super) fn type_name(name: &TypeName) -> String {
    let parts: Vec<&str> = name.names().iter().filter_map(|part| part.sval()).collect();
    let joined = parts.join(".");
    joined
        .strip_prefix("pg_catalog.")
        .map_or(joined.clone(), str::to_owned)
}

/// Returns the name of a role.
pub(super) fn role(spec: &RoleSpec) -> String {
    match spec.roletype {
        RoleSpecType::ROLESPEC_CURRENT_ROLE => "current_role".into(),
        RoleSpecType::ROLESPEC_CURRENT_USER => "current_user".into(),
        RoleSpecType::ROLESPEC_SESSION_USER => "session_user".into(),
        RoleSpecType::ROLESPEC_PUBLIC => "public".into(),
        _ => spec.rolename().unwrap_or_default().to_owned(),
    }
}

/// Returns the value of a constant, also under casts and as a word of the grammar.
pub(super) fn constant(node: Node<'_>) -> Option<String> {
    let mut node = node;
    loop {
        match node {
            Node::A_Const(constant) => {
                return match constant.val()? {
                    ConstValue::Integer(number) => Some(number.to_string()),
                    ConstValue::Boolean(true) => Some("true".into()),
                    ConstValue::Boolean(false) => Some("false".into()),
                    ConstValue::Float(text)
                    | ConstValue::String(text)
                    | ConstValue::BitString(text) => Some(text.to_owned()),
                    _ => None,
                };
            }
            Node::String(text) => return text.sval().map(str::to_owned),
            Node::Integer(number) => return Some(number.ival.to_string()),
            Node::Float(number) => return number.fval().map(str::to_owned),
            Node::Boolean(value) => return Some(value.boolval.to_string()),
            Node::TypeName(name) => return Some(type_name(name)),
            Node::TypeCast(cast) => node = cast.arg(),
            _ => return None,
        }
    }
}

/// Returns the resource kind of an object type of the grammar.
pub(super) fn kind(object: ObjectType::Type) -> &'static str {
    use ObjectType as Of;
    match object {
        Of::OBJECT_TABLE | Of::OBJECT_COLUMN | Of::OBJECT_TABCONSTRAINT | Of::OBJECT_DEFAULT => {
            "pg:table"
        }
        Of::OBJECT_FOREIGN_TABLE => "pg:foreign_table",
        Of::OBJECT_VIEW => "pg:view",
        Of::OBJECT_MATVIEW => "pg:materialized_view",
        Of::OBJECT_INDEX => "pg:index",
        Of::OBJECT_SEQUENCE => "pg:sequence",
        Of::OBJECT_SCHEMA => "pg:schema",
        Of::OBJECT_DATABASE => "pg:database",
        Of::OBJECT_TABLESPACE => "pg:tablespace",
        Of::OBJECT_ROLE => "pg:role",
        Of::OBJECT_FUNCTION | Of::OBJECT_PROCEDURE | Of::OBJECT_ROUTINE | Of::OBJECT_AGGREGATE => {
            "pg:function"
        }
        Of::OBJECT_TYPE | Of::OBJECT_DOMAIN | Of::OBJECT_ATTRIBUTE | Of::OBJECT_DOMCONSTRAINT => {
            "pg:type"
        }
        Of::OBJECT_TRIGGER => "pg:trigger",
        Of::OBJECT_EVENT_TRIGGER => "pg:event_trigger",
        Of::OBJECT_RULE => "pg:rule",
        Of::OBJECT_POLICY => "pg:policy",
        Of::OBJECT_EXTENSION => "pg:extension",
        Of::OBJECT_PUBLICATION | Of::OBJECT_PUBLICATION_NAMESPACE | Of::OBJECT_PUBLICATION_REL => {
            "pg:publication"
        }
        Of::OBJECT_SUBSCRIPTION => "pg:subscription",
        Of::OBJECT_FDW | Of::OBJECT_FOREIGN_SERVER | Of::OBJECT_USER_MAPPING => "pg:foreign_server",
        Of::OBJECT_LARGEOBJECT => "pg:large_object",
        Of::OBJECT_PARAMETER_ACL => "pg:setting",
        _ => "pg:object",
    }
}
