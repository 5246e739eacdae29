use proptest::prelude::*;
use serde_json::json;

use super::*;

fn post(kind: &str, body: impl Into<Vec<u8>>) -> HttpRequest {
    HttpRequest {
        method: "POST".to_owned(),
        scheme: "https".to_owned(),
        host: "api.example".to_owned(),
        port: 443,
        path: "/graphql".to_owned(),
        query: None,
        headers: vec![("content-type".to_owned(), kind.as_bytes().to_vec())],
        body: body.into(),
    }
}

fn json_body(body: &Value) -> HttpRequest {
    post("application/json", body.to_string())
}

fn get(query: &str) -> HttpRequest {
    let mut request = post("application/json", "");
    request.method = "GET".to_owned();
    request.query = Some(query.to_owned());
    request
}

/// The root fields of everything that would run.
fn fields(request: &HttpRequest) -> Vec<String> {
    let found = operations(request).unwrap();
    let fields = found.into_iter().flat_map(|operation| operation.fields);
    fields.map(|field| field.name).collect()
}

fn of(document: &str) -> Result<Vec<Operation>, GraphqlError> {
    operations(&json_body(&json!({ "query": document })))
}

#[test]
fn no_way_of_writing_hides_the_field() {
    let delete = r#"mutation { volumeDelete(volumeId: "v") }"#;
    let encoded = "mutation%20%7B+volumeDelete%28volumeId%3A+%22v%22%29%7D";
    for request in [
        json_body(&json!({ "query": delete })),
        json_body(&json!({ "query": r#"mutation { harmless: volumeDelete(volumeId: "v") }"# })),
        json_body(
            &json!({ "query": r#"mutation { ...F } fragment F on Mutation { volumeDelete(volumeId: "v") }"# }),
        ),
        json_body(
            &json!({ "query": r#"mutation { ... on Mutation { ... { volumeDelete(volumeId: "v") } } }"# }),
        ),
        json_body(
            &json!({ "query": r#"mutation { volumeDelete(volumeId: "v") @skip(if: true) }"# }),
        ),
        json_body(
            &json!({ "query": "query A { me { id } } mutation B { volumeDelete(volumeId: \"v\") }", "operationName": "B" }),
        ),
        json_body(
            &json!({ "query": "mutation($v: String!) { volumeDelete(volumeId: $v) }", "variables": { "v": "v" } }),
        ),
        json_body(
            &json!({ "query": "mutation($v: String = \"v\") { volumeDelete(volumeId: $v) }" }),
        ),
        json_body(
            &json!({ "query": "mutation($v: String!) { volumeDelete(volumeId: $v) }", "variables": "{\"v\":\"v\"}" }),
        ),
        json_body(
            &json!({ "query": "# { me }\rmutation,{#x\n,,,volumeDelete\u{feff}(volumeId:\"\\u0076\"),}" }),
        ),
        json_body(&json!({ "query": "mutation { volumeDelete(volumeId: \"\"\"v\"\"\") }" })),
        post(
            "application/json",
            r#"{"query":"mutation { \u0076olumeDelete(volumeId: \u0022v\u0022) }"}"#,
        ),
        post(
            "application/json",
            format!("\u{feff}  {}", json!({ "query": delete })),
        ),
        post(
            "application/json",
            format!("{}{}", " ".repeat(20_000), json!({ "query": delete })),
        ),
        post(
            "application/json; charset=UTF-8",
            json!({ "query": delete }).to_string(),
        ),
        post("text/plain", json!({ "query": delete }).to_string()),
        post(
            "application/x-www-form-urlencoded",
            json!({ "query": delete }).to_string(),
        ),
        post(
            "application/x-www-form-urlencoded",
            format!("query={encoded}"),
        ),
        post("application/graphql", delete),
        get(&format!("query={encoded}")),
        json_body(&json!([{ "query": delete }])),
    ] {
        let shown = String::from_utf8_lossy(&request.body).into_owned();
        assert_eq!(fields(&request), ["volumeDelete"], "{shown}");
        let arguments = operations(&request).unwrap()[0].fields[0].arguments_json();
        assert_eq!(arguments, json!({ "volumeId": "v" }), "{shown}");
    }
}

#[test]
fn all_of_a_batch_and_all_fields_are_seen() {
    let batch = json!([{ "query": "{ me { id } }" }, { "query": "mutation { a b }" }]);
    assert_eq!(fields(&json_body(&batch)), ["me", "a", "b"]);
    let found = of("{ project(id: 1) { name secrets: variables { x } } }").unwrap();
    assert!(found[0].fields[0].mentions("variables"));
    assert!(!found[0].fields[0].mentions("secrets"));
}

#[test]
fn arguments_become_json() {
    let document = r#"mutation($on: Boolean, $list: [Int], $absent: String) {
        a(x: { state: DELETED, on: $on, gone: $absent, deep: [[$list, null, -1.5e3]] }, id: 99999999999999999999, t: "q\"\n")
    }"#;
    let body = json!({ "query": document, "variables": { "on": true, "list": [1] } });
    let found = operations(&json_body(&body)).unwrap();
    let arguments = found[0].fields[0].arguments_json();
    assert_eq!(
        arguments["x"],
        json!({ "state": "DELETED", "on": true, "deep": [[[1], null, -1500.0]] })
    );
    assert_eq!(arguments["t"], "q\"\n");
    assert!(arguments["id"].is_number());
}

#[test]
fn what_two_servers_could_read_differently_is_refused() {
    let delete = "mutation { volumeDelete(volumeId: 1) }";
    let mut with_url = json_body(&json!({ "query": "{ me }" }));
    with_url.query = Some("query=mutation%7Ba%7D".to_owned());
    let mut get_with_body = get("query=%7Bme%7D");
    get_with_body.body = b"{}".to_vec();
    let mut two_kinds = json_body(&json!({ "query": "{ me }" }));
    two_kinds
        .headers
        .push(("content-type".to_owned(), b"text/plain".to_vec()));
    for request in [
        with_url,
        get_with_body,
        two_kinds,
        post(
            "application/json",
            format!(r#"{{"query":"{{ me }}","query":"{delete}"}}"#),
        ),
        post(
            "application/json",
            format!(r#"{{"query":"{{ me }}","Query":"{delete}"}}"#),
        ),
        post(
            "application/json",
            format!(r#"{{"query":"{{ me }}","\u0071uery":"{delete}"}}"#),
        ),
        post(
            "application/json",
            r#"{"query":"mutation($p:JSON){a(p:$p)}","variables":{"p":{"isDeleted":false,"isDeleted":true}}}"#,
        ),
        post("application/json", r#"[{"query":"{me}","QUERY":"{me}"}]"#),
        json_body(&json!({ "Query": delete })),
        json_body(&json!({ "query": ["{ me }"] })),
        json_body(&json!({ "query": "{ me }", "operationName": 1 })),
        json_body(&json!({ "query": "{ me }", "operationName": "B" })),
        json_body(&json!({ "query": "query A { a } mutation B { b }" })),
        json_body(&json!({ "query": "query A { a } query A { b }", "operationName": "A" })),
        json_body(&json!({ "query": "{ a } mutation B { b }", "operationName": "B" })),
        json_body(&json!({ "query": "{ ...F } fragment F on Q { a } fragment F on Q { b }" })),
        json_body(&json!({ "query": "mutation { a(x: 1, x: 2) }" })),
        json_body(&json!({ "query": "mutation { a(x: { y: 1, y: 2 }) }" })),
        json_body(&json!({ "query": "mutation($v: Int = 1, $v: Int = 2) { a(x: $v) }" })),
        json_body(&json!({ "query": "{ me }", "variables": [1] })),
        json_body(&json!({ "query": "{ me }", "documentId": "x" })),
        json_body(
            &json!({ "query": "{ me }", "extensions": { "persistedQuery": { "sha256Hash": "x" } } }),
        ),
        get("query=%7Bme%7D&query=mutation%7Ba%7D"),
        get("query=%7Bme%7D&Query=mutation%7Ba%7D"),
    ] {
        let shown = String::from_utf8_lossy(&request.body).into_owned();
        let answer = operations(&request);
        assert!(
            matches!(answer, Err(GraphqlError::Ambiguous(_))),
            "{shown}: {answer:?}"
        );
    }
}

#[test]
fn what_is_not_looked_into_is_refused() {
    let body = json!({ "query": "{ me }" }).to_string();
    let mut gzip = post("application/json", body.clone());
    gzip.headers
        .push(("content-encoding".to_owned(), b"gzip".to_vec()));
    let mut put = post("application/json", body.clone());
    put.method = "PUT".to_owned();
    for request in [
        gzip,
        put,
        post("multipart/form-data; boundary=x", "--x"),
        post("application/json; charset=utf-16", body.clone()),
        post("application/octet-stream", body),
    ] {
        assert!(matches!(
            operations(&request),
            Err(GraphqlError::Encoding(_))
        ));
    }
    for stored in [
        json!({ "documentId": "x" }),
        json!({ "extensions": { "persistedQuery": {} } }),
        json!({ "query": null, "id": "7" }),
    ] {
        assert_eq!(
            operations(&json_body(&stored)),
            Err(GraphqlError::Stored),
            "{stored}"
        );
    }
}

#[test]
fn what_cannot_be_parsed_is_refused() {
    for body in [
        "",
        "{",
        "nonsense",
        "[]",
        "[1]",
        "\"x\"",
        "{}",
        r#"{"query":""}"#,
        r#"{"query":"{ me }"} x"#,
        r#"{"query":"{ me }"}{"query":"mutation { a }"}"#,
        r#"{"query":"mutation { a("}"#,
        r#"{"query":"mutation { }"}"#,
        r#"{"query":"fragment F on Q { a }"}"#,
        r#"{"query":"{ ...F }"}"#,
        r#"{"query":"{ ...F } fragment F on Q { ...F }"}"#,
        r#"{"query":"type A { a: Int }"}"#,
        r#"{"query":"mutation { a(x: \"unterminated) }"}"#,
        "{\"query\":\"{ a \\u0000 }\"}",
        r#"{"query":"{ me }","variables":"{"}"#,
    ] {
        let answer = operations(&post("application/json", body));
        assert!(
            matches!(answer, Err(GraphqlError::Malformed(_))),
            "{body}: {answer:?}"
        );
    }
    let mut bytes = br#"{"query":"{ me "#.to_vec();
    bytes.extend(b"\xff}\"}");
    assert!(operations(&post("application/json", bytes)).is_err());
}

#[test]
fn what_is_too_large_or_too_deep_is_refused() {
    let too_large = |answer: Result<Vec<Operation>, GraphqlError>| {
        assert!(
            matches!(answer, Err(GraphqlError::TooLarge(_))),
            "{answer:?}"
        );
    };
    too_large(of(&format!("{}a{}", "{a".repeat(5_000), "}".repeat(5_000))));
    too_large(of(&format!(
        "mutation {{ a(x: {}1{}) }}",
        "[".repeat(5_000),
        "]".repeat(5_000)
    )));
    too_large(of(&format!("{{ {} }}", "a ".repeat(200_000))));
    too_large(of(
        &"a".repeat(crate::limits::GRAPHQL_DOCUMENT_BYTES_MAX + 1)
    ));
    too_large(operations(&post(
        "application/json",
        format!("{}{}", "[".repeat(200), "]".repeat(200)),
    )));
    too_large(operations(&post(
        "application/json",
        vec![b' '; crate::limits::GRAPHQL_BODY_BYTES_MAX + 1],
    )));
    // A fragment that doubles itself through the next one: 2^30 fields from two kilobytes.
    let mut laughs = "{ ...F0 }".to_owned();
    for n in 0..30 {
        laughs.push_str(&format!(
            " fragment F{n} on Q {{ ...F{next} ...F{next} }}",
            next = n + 1
        ));
    }
    laughs.push_str(" fragment F30 on Q { a }");
    too_large(of(&laughs));
}

/// Something that means one root field, written in some way.
fn written() -> impl Strategy<Value = (String, String)> {
    let name = "[a-z][A-Za-z0-9_]{0,12}".prop_filter("not a keyword", |name| name != "on");
    let space = prop::sample::select(vec![
        " ", "\n", "\t", ",", " # c\n", "#x\r", "\u{feff}", " , ",
    ]);
    (name, space, 0..6_u8).prop_map(|(name, space, form)| {
        let s = space;
        let text = match form {
            0 => format!("{name}{s}"),
            1 => format!("alias: {name}{s}"),
            2 => format!("...{s}on{s}M{s}{{{s}{name}{s}}}"),
            3 => format!("...{s}{{{s}x:{name}{s}}}"),
            4 => format!("{name}{s}@include{s}(if:{s}false){s}"),
            _ => format!("{name}{s}({s}a:{s}\"}} # {{\"{s}){s}"),
        };
        (name, text)
    })
}

proptest! {
    #[test]
    fn every_field_is_found_however_it_is_written(parts in prop::collection::vec(written(), 1..6)) {
        let expected: Vec<&String> = parts.iter().map(|(name, _)| name).collect();
        let body: String = parts.iter().map(|(_, text)| format!("{text} ")).collect();
        let ordinary = !body.contains([',', '\u{feff}', '\r']) && !body.contains("# c");
        for document in [
            format!("mutation Q {{ {body} }}"),
            format!("fragment F on M {{ {body} }} mutation {{ ...F }}"),
        ] {
            // A strict parser may refuse odd spacing, but what it reads it must read rightly.
            match of(&document) {
                Ok(found) => {
                    let names: Vec<&String> = found[0].fields.iter().map(|f| &f.name).collect();
                    prop_assert_eq!(names, expected.clone());
                }
                Err(error) => prop_assert!(!ordinary, "{}: {}", document, error),
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, kind in 0..4_usize) {
        let kinds = ["application/json", "application/graphql", "application/x-www-form-urlencoded", "text/plain"];
        let _ = operations(&post(kinds[kind], bytes));
    }

    #[test]
    fn no_document_makes_the_reader_panic(document in r#"[{}()a-c:$!@."\\u#\[\]=|&0-9 \n]{0,80}"#) {
        let _ = of(&document);
        let _ = of(&format!("mutation {{ a(x: {document}) }}"));
    }

    #[test]
    fn json_without_doubles_is_read_as_it_is(text in "[a-z\"\\\\{}]{0,20}", number: i64) {
        let value = json!({ "a": text, "b": [number, null, true, { "c": number }] });
        prop_assert_eq!(strict_json(value.to_string().as_bytes()), Ok(value));
    }
}
