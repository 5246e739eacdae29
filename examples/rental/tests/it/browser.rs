//! A person at the counter: curl, a form, a page.

use std::process::Command;

use holdfast_testing::process::Process;
use serde_json::Value;

use super::office::{LIMIT, Office};

/// The pages of an office, being served.
pub struct Pages {
    server: Process,
    pub url: String,
}

/// What was answered.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub headers: String,
    pub text: String,
    pub seconds: f64,
}

impl Pages {
    pub fn serve(office: &Office) -> Self {
        let ready = office.path("ready.json");
        let mut serve = office.rental(&["serve", "--ready-file"]);
        serve.arg(&ready);
        let mut server = Process::spawn(serve, &office.path("serve.log")).unwrap();
        server.wait_for_file(&ready, LIMIT).unwrap();
        let said: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        assert_eq!(said["pid"], server.pid());
        Self {
            server,
            url: said["url"].as_str().unwrap().to_owned(),
        }
    }

    /// Ends the server in order.
    pub fn end(&mut self) {
        assert!(self.server.terminate(LIMIT).unwrap().success());
    }

    pub fn get(&self, path: &str) -> Page {
        self.curl(path, &[])
    }

    /// Sends a form as a browser on these pages would.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let origin = format!("Origin: {}", self.url);
        let mut arguments = vec!["-H".to_owned(), origin];
        if fields.is_empty() {
            arguments.extend(["--data".to_owned(), String::new()]);
        }
        for (name, value) in fields {
            arguments.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.curl(path, &arguments)
    }

    pub fn curl(&self, path: &str, arguments: &[&str]) -> Page {
        let output = Command::new("curl")
            .args(["-sS", "-i", "--max-time", "20", "--noproxy", "*"])
            .args(["-w", "\n%{http_code} %{time_total}"])
            .arg(format!("{}{path}", self.url))
            .args(arguments)
            .output()
            .expect("curl is installed");
        let said = String::from_utf8(output.stdout).unwrap();
        let (whole, numbers) = said.rsplit_once('\n').unwrap();
        let (headers, text) = whole.split_once("\r\n\r\n").unwrap_or((whole, ""));
        let (status, seconds) = numbers.split_once(' ').unwrap();
        Page {
            status: status.parse().unwrap(),
            headers: headers.to_owned(),
            text: text.to_owned(),
            seconds: seconds.parse().unwrap(),
        }
    }

    /// The booking form of a counter with everything that a good booking needs.
    pub fn form(&self, counter: &str) -> Vec<(&'static str, String)> {
        let page = self.get(&format!("/book/{counter}"));
        assert_eq!(page.status, 200, "{page:?}");
        vec![
            ("id", page.value_of("name=\"id\"")),
            ("vehicle", page.value_of("<option")),
            ("from", "2099-06-10T10:00".to_owned()),
            ("until", "2099-06-12T10:00".to_owned()),
            ("name", "Ann Lee".to_owned()),
            ("email", "ann@mail.example".to_owned()),
            ("phone", "555 0100".to_owned()),
            ("note", "child seat".to_owned()),
        ]
    }

    /// Sends a booking form with some of its fields changed; an empty value takes the field away.
    pub fn book(&self, counter: &str, changed: &[(&str, &str)]) -> Page {
        let form = self.form(counter);
        let value = |name: &'static str, good: &str| {
            let change = changed.iter().find(|(field, _)| *field == name);
            change.map_or(good.to_owned(), |(_, value)| (*value).to_owned())
        };
        let fields: Vec<(&str, String)> = form
            .iter()
            .map(|(name, good)| (*name, value(name, good)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.post(&format!("/book/{counter}"), &fields)
    }
}

impl Page {
    /// The attribute `value` of the first element with `mark` in it.
    pub fn value_of(&self, mark: &str) -> String {
        let (_, rest) = self.text.split_once(mark).expect(mark);
        let (_, rest) = rest.split_once("value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines();
        lines.find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Where a form that was carried out leads.
    pub fn leads_to(&self) -> &str {
        assert_eq!(self.status, 303, "{self:?}");
        self.header("location").unwrap()
    }

    /// The notice above a form that was not carried out.
    pub fn notice(&self) -> String {
        let from = self.text.find("role=\"alert\"").expect("a notice");
        let notice = &self.text[from..];
        notice[..notice.find("</div>").unwrap()].to_owned()
    }
}
