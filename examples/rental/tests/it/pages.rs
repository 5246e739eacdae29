//! The pages as a person at the counter meets them, and as somebody who plays with addresses does.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use holdfast_testing::postgres;
use holdfast_testing::process::Process;
use holdfast_testing::signals;
use serde_json::Value;

use crate::office::{LIMIT, Office};

/// The pages of an office, served.
struct Pages {
    url: String,
    serve: Process,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    location: String,
    body: String,
}

impl Pages {
    fn of(office: &Office) -> Self {
        let ready: PathBuf = office.dir.path().join("serve.json");
        let log = office.dir.path().join("serve.log");
        let mut serve = office.spawn("serve", &["--ready-file", ready.to_str().unwrap()], &log);
        serve.wait_for_file(&ready, LIMIT).unwrap();
        let told: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        let url = told["url"]
            .as_str()
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        Self { url, serve }
    }

    fn ask(&self, path: &str, more: &[&str]) -> Answer {
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "--max-time",
            "30",
            "-w",
            "\n%{http_code} %{redirect_url}",
        ]);
        let url = format!("{}{path}", self.url);
        let output = curl
            .args(more)
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, last) = text.rsplit_once('\n').unwrap();
        let (status, location) = last.split_once(' ').unwrap();
        Answer {
            status: status.parse().unwrap(),
            location: location.replace(&self.url, ""),
            body: body.to_owned(),
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(path, &[])
    }

    fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let pairs: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let arguments: Vec<&str> = pairs
            .iter()
            .flat_map(|pair| ["--data-urlencode", pair])
            .collect();
        self.ask(path, &arguments)
    }

    /// The value of a hidden field or of the first choice on a page.
    fn between(text: &str, before: &str) -> String {
        let (_, rest) = text
            .split_once(before)
            .unwrap_or_else(|| panic!("no `{before}`: {text}"));
        rest.split('"').next().unwrap().to_owned()
    }

    /// The fields of a booking that the empty form would make.
    fn booking(&self, location: &str, name: &str) -> Vec<(String, String)> {
        let form = self.get(&format!("/book/{location}"));
        assert_eq!(form.status, 200);
        let field = |name: &str| Self::between(&form.body, &format!("name=\"{name}\" value=\""));
        let id = field("id");
        let vehicle = Self::between(&form.body, "<option value=\"");
        let pairs = [
            ("id", id.as_str()),
            ("vehicle", vehicle.as_str()),
            ("from", "2027-03-01T10:00"),
            ("until", "2027-03-03T10:00"),
            ("name", name),
            ("email", "ann@mail.example"),
            ("phone", ""),
            ("note", ""),
        ];
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()
    }

    fn book(&self, location: &str, fields: &[(String, String)]) -> Answer {
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        self.post(&format!("/book/{location}"), &fields)
    }
}

fn set(fields: &[(String, String)], name: &str, value: &str) -> Vec<(String, String)> {
    let change = |(k, v): &(String, String)| match k == name {
        true => (k.clone(), value.to_owned()),
        false => (k.clone(), v.clone()),
    };
    fields.iter().map(change).collect()
}

fn first_counter(pages: &Pages) -> String {
    let home = pages.get("/");
    assert_eq!(home.status, 200, "{home:?}");
    Pages::between(&home.body, "href=\"/counter/")
}

#[test]
fn a_booking_made_on_the_page_is_in_the_books_once_and_nobody_else_gets_the_car() {
    for installation in postgres::all().unwrap() {
        let office = Office::seeded(&installation);
        let mut pages = Pages::of(&office);
        let counter = first_counter(&pages);
        let today = pages.get(&format!("/counter/{counter}"));
        assert_eq!(today.status, 200);
        assert!(today.body.contains("Pickups") && today.body.contains("Returns"));

        let hostile = "<script>alert('&')</script>";
        let fields = pages.booking(&counter, hostile);
        let made = pages.book(&counter, &fields);
        assert_eq!(made.status, 303, "{made:?}");
        let page = pages.get(&made.location);
        assert_eq!(page.status, 200);
        assert!(!page.body.contains("<script>alert"), "{}", page.body);
        assert!(page.body.contains("&#60;script&#62;"), "{}", page.body);
        // Sent again, as by a double click, it is the same booking.
        assert_eq!(pages.book(&counter, &fields).location, made.location);
        let id = &fields[0].1;
        let kept = office.sql(&format!(
            "SELECT count(*) FROM reservations WHERE id = '{id}'"
        ));
        assert_eq!(kept, [["1"]]);

        let other = set(&fields, "id", "00000000-0000-4000-8000-000000000001");
        let taken = pages.book(&counter, &set(&other, "name", "Bob"));
        assert_eq!(taken.status, 409, "{taken:?}");
        assert!(taken.body.contains("Bob"), "the form keeps what was typed");
        assert!(pages.serve.terminate(LIMIT).unwrap().success());
    }
}

#[test]
fn what_is_wrong_in_a_form_is_said_and_nothing_is_booked() {
    let office = Office::seeded(&postgres::oldest().unwrap());
    let pages = Pages::of(&office);
    let counter = first_counter(&pages);
    let good = pages.booking(&counter, "Ann");
    let count = || office.sql("SELECT count(*) FROM reservations");
    let before = count();
    for (field, value, words) in [
        ("vehicle", "", "no vehicle is chosen"),
        ("vehicle", "99999999", ""),
        ("from", "tomorrow", "the pickup is not a day and time"),
        (
            "until",
            "2027-02-30T10:00",
            "the return is not a day and time",
        ),
        ("until", "2027-02-01T10:00", ""),
        ("id", "../../etc", "load it again"),
        ("name", "", ""),
        ("email", "nobody", ""),
    ] {
        let answer = pages.book(&counter, &set(&good, field, value));
        assert!(
            (400..500).contains(&answer.status),
            "{field}={value}: {}",
            answer.status
        );
        assert!(
            answer.body.to_lowercase().contains(words),
            "{field}={value}: {}",
            answer.body
        );
    }
    let long = set(&good, "note", &"x".repeat(1 << 20));
    let file = office.dir.path().join("long");
    let body: Vec<String> = long.iter().map(|(k, v)| format!("{k}={v}")).collect();
    std::fs::write(&file, body.join("&")).unwrap();
    let data = format!("@{}", file.display());
    let path = format!("/book/{counter}");
    let long = pages.ask(&path, &["--data-binary", &data]);
    assert!((400..500).contains(&long.status), "{}", long.status);
    assert_eq!(count(), before);
    for path in [
        "/counter/0",
        "/counter/x",
        "/book/999999",
        "/reservations/none",
        "/nowhere",
    ] {
        let answer = pages.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("<h1"), "{path}: a page for people");
    }
    let foreign = [
        "-H",
        "Origin: https://elsewhere.example",
        "-H",
        "Sec-Fetch-Site: cross-site",
        "-d",
        "a=b",
    ];
    assert_eq!(pages.ask(&path, &foreign).status, 403);
}

#[test]
fn without_its_database_the_office_says_so_and_goes_on_when_it_is_back() {
    let mut office = Office::seeded(&postgres::newest().unwrap());
    let pages = Pages::of(&office);
    let counter = first_counter(&pages);
    let fields = pages.booking(&counter, "Ann");
    office.server.kill_9().unwrap();
    let page = pages.get(&format!("/counter/{counter}"));
    assert_eq!(page.status, 503, "{page:?}");
    let refused = pages.book(&counter, &fields);
    assert_eq!(refused.status, 503);
    assert!(
        refused.body.contains("Nothing was saved") && refused.body.contains("Ann"),
        "{}",
        refused.body
    );
    office.server.restart().unwrap();
    signals::wait_until(LIMIT, || {
        pages.get(&format!("/counter/{counter}")).status == 200
    })
    .unwrap();
    assert_eq!(pages.book(&counter, &fields).status, 303);
}
