//! The labelled cases, as they are written down.

use holdfast_guard::lease::LeaseMode;

/// What has to come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// All of it works, and is done afterwards.
    Pass,
    /// Nothing is lost afterwards.
    Stop,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which session of the agent's.
    pub session: usize,
    pub what: String,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub file: String,
    pub name: String,
    pub mode: LeaseMode,
    pub label: Label,
    pub steps: Vec<Step>,
    /// Questions to the server afterwards, and the answers.
    pub checks: Vec<(String, String)>,
    /// It does harm to what no lease of its mode may touch, so it does none even without a door.
    pub by_rights: bool,
    /// Rows that it may change within the budget.
    pub budget: i64,
}

/// Rows that a lease may change in one transaction, and in an hour.
const BUDGETS: (i64, i64) = (100, 250);

/// Reads a file of cases.
///
/// A case begins with `= NAME` and goes on with lines `KEY: VALUE`; a line that begins with two
/// blanks continues the one before. `@2 q: SELECT 1` is a step of the second session.
pub fn read(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let label = match file {
        _ if file.starts_with("pass") => Label::Pass,
        _ => Label::Stop,
    };
    for line in text.lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("= ") {
            cases.push(Case {
                file: file.to_owned(),
                name: name.to_owned(),
                mode: LeaseMode::Schema,
                label,
                steps: Vec::new(),
                checks: Vec::new(),
                by_rights: false,
                budget: BUDGETS.0,
            });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with `= NAME`");
        if let Some(more) = line.strip_prefix("  ") {
            let step = case.steps.last_mut().expect("a step goes on");
            step.text += "\n";
            step.text += more;
            continue;
        }
        let (key, value) = line
            .split_once(": ")
            .or_else(|| line.strip_suffix(':').map(|key| (key, "")))
            .unwrap_or_else(|| panic!("{file}: {line}"));
        one(case, key, value);
    }
    cases
}

fn one(case: &mut Case, key: &str, value: &str) {
    let (session, key) = match key.strip_prefix('@') {
        Some(rest) => {
            let (number, key) = rest.split_once(' ').expect("@NUMBER KEY");
            (number.parse().expect("a number"), key)
        }
        None => (1, key),
    };
    match key {
        "mode" => {
            case.mode = match value {
                "data" => LeaseMode::Data,
                "read-only" => LeaseMode::ReadOnly,
                _ => LeaseMode::Schema,
            }
        }
        "check" => {
            let (question, answer) = value.rsplit_once(" => ").expect("QUESTION => ANSWER");
            case.checks.push((question.to_owned(), answer.to_owned()));
        }
        "by-rights" => case.by_rights = true,
        "hour" => case.budget = BUDGETS.1,
        _ => case.steps.push(Step {
            session,
            what: key.to_owned(),
            text: value.to_owned(),
        }),
    }
}

/// Returns all cases.
pub fn all() -> Vec<Case> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "cases"))
        .collect();
    files.sort();
    let cases: Vec<Case> = files
        .iter()
        .flat_map(|path| {
            let file = path.file_stem().unwrap().to_string_lossy().into_owned();
            read(&file, &std::fs::read_to_string(path).unwrap())
        })
        .collect();
    let mut names: Vec<String> = cases
        .iter()
        .map(|case| format!("{}/{}", case.file, case.name))
        .collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "two cases have one name");
    cases
}
