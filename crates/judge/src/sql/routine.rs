//! Functions and procedures, `DO` and `CALL`.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::list::CastNodeList;
use pg_raw_parse::nodes::{
    AlterFunctionStmt, CallStmt, CreateFunctionStmt, CreatePLangStmt, CreateTransformStmt, DefElem,
    DoStmt,
};

use super::found::Found;
use super::{body, functions, name, settings};

/// Judges `CREATE FUNCTION` and `CREATE PROCEDURE`; nothing of the body runs now.
pub(super) fn create<'a>(stmt: &'a CreateFunctionStmt, found: &mut Found<'a>) {
    let resource = Resource::new("pg:function", name::dotted(stmt.funcname()));
    match stmt.replace {
        true => found.does(
            Effect::Write,
            resource.clone(),
            "it makes or replaces a function",
        ),
        false => found.adds(resource.clone(), "it makes a function"),
    }
    if let Some(language) = text_of(stmt.options(), "language")
        && !is_trusted(&language)
    {
        let because = "it is written in a language that can do anything on the server";
        found.does(Effect::Escape, resource.clone(), because);
    }
    options(stmt.options(), &resource, found);
    for parameter in stmt.parameters() {
        functions::later(parameter.defexpr(), found);
    }
}

/// Judges `ALTER FUNCTION`.
pub(super) fn alter<'a>(stmt: &'a AlterFunctionStmt, found: &mut Found<'a>) {
    let called = stmt.func().map(|func| name::dotted(func.objname()));
    let resource = Resource::new("pg:function", called.unwrap_or_default());
    found.does(
        Effect::Write,
        resource.clone(),
        "how a function runs changes",
    );
    options(stmt.actions(), &resource, found);
}

fn options<'a>(options: &'a CastNodeList<DefElem>, resource: &Resource, found: &mut Found<'a>) {
    for option in options {
        match option.defname() {
            Some("security") if is_true(option.arg()) => {
                let because = "SECURITY DEFINER: whoever calls it acts as its owner";
                found.does(Effect::Escalate, resource.clone(), because);
            }
            Some("leakproof") if is_true(option.arg()) => {
                let because = "LEAKPROOF: it sees rows before row security does";
                found.does(Effect::Escalate, resource.clone(), because);
            }
            Some("support") => {
                let because = "a support function is C code inside of the planner";
                found.does(Effect::Escape, resource.clone(), because);
            }
            Some("set") => {
                if let Node::VariableSetStmt(stmt) = option.arg()
                    && settings::is_guarded(stmt.name().unwrap_or_default())
                {
                    settings::set(stmt, found);
                }
            }
            _ => {}
        }
    }
}

/// Judges `DO`: what can be seen in its body, and in any case that only execution can tell.
pub(super) fn block<'a>(stmt: &'a DoStmt, found: &mut Found<'a>) {
    let language = text_of(stmt.args(), "language").unwrap_or_else(|| "plpgsql".into());
    let resource = Resource::new("pg:language", language.clone());
    if !is_trusted(&language) || language == "sql" {
        let because = "it runs code that can do anything on the server";
        return found.does_for_good(Effect::Escape, Some(resource), because);
    }
    let because = "it runs a block of code; only execution can tell what it does";
    found.does(Effect::Write, resource, because);
    found.hidden = true;
    if let Some(body) = text_of(stmt.args(), "as") {
        body::judge(&body, found);
    }
}

/// Judges `CALL`.
pub(super) fn procedure<'a>(stmt: &'a CallStmt, found: &mut Found<'a>) {
    let Some(call) = stmt.funccall() else {
        return found.does_unnamed(Effect::Unknown, "it calls an unknown procedure");
    };
    let resource = Resource::new("pg:function", name::dotted(call.funcname()));
    let because = "it calls a procedure; only execution can tell what it does";
    found.does(Effect::Write, resource, because);
    found.hidden = true;
    found.visit(Node::FuncCall(call));
}

/// Judges `CREATE LANGUAGE`.
pub(super) fn language<'a>(stmt: &'a CreatePLangStmt, found: &mut Found<'a>) {
    let resource = Resource::new("pg:language", stmt.plname().unwrap_or_default());
    found.does(
        Effect::Escape,
        resource,
        "it makes a language, whose code is C code",
    );
}

/// Judges `CREATE TRANSFORM`.
pub(super) fn transform<'a>(stmt: &'a CreateTransformStmt, found: &mut Found<'a>) {
    let resource = Resource::new("pg:language", stmt.lang().unwrap_or_default());
    let because = "functions of a language see values through other code";
    found.does(Effect::Escalate, resource, because);
}

fn is_true(node: Node<'_>) -> bool {
    name::constant(node).is_some_and(|text| text == "true")
}

fn text_of(options: &CastNodeList<DefElem>, word: &str) -> Option<String> {
    let option = options.iter().find(|x| x.defname() == Some(word))?;
    match option.arg() {
        Node::NodeList(list) => list.iter().next().and_then(name::constant),
        other => name::constant(other),
    }
}

/// Languages whose code can reach nothing but the database.
fn is_trusted(language: &str) -> bool {
    matches!(
        language.to_ascii_lowercase().as_str(),
        "sql" | "plpgsql" | "plperl" | "pltcl" | "plv8" | "pllua"
    )
}
