//! The counter pages over HTTP: the list of today, a booking, and everything that people type.

use holdfast_testing::postgres;

use super::browser::Pages;
use super::office::{Office, until};

fn served() -> (Office, Pages) {
    let office = Office::fast(&postgres::newest().unwrap()).filled();
    let pages = Pages::serve(&office);
    (office, pages)
}

/// A name as it stands in the text of a page.
fn shown(name: &str) -> String {
    name.replace('\'', "&#39;")
}

#[test]
fn the_counter_list_of_today_shows_who_picks_up_and_who_returns() {
    for installation in postgres::all().unwrap() {
        let office = Office::fast(&installation).filled();
        let pages = Pages::serve(&office);
        let counters = pages.get("/");
        assert_eq!(counters.status, 200);
        let locations = office.sql("SELECT id, name FROM locations ORDER BY id");
        assert!(locations.len() > 3);
        for location in &locations {
            let link = format!("href=\"/counter/{}\"", location[0]);
            assert!(counters.text.contains(&link) && counters.text.contains(&shown(&location[1])));
        }
        // The counter with the most pickups today shows each of them by name.
        let today = "lower(during) AT TIME ZONE l.time_zone";
        let busiest = &office.sql(&format!(
            "SELECT l.id, count(*) FROM reservations r JOIN locations l ON l.id = r.location_id
             WHERE ({today})::date = (now() AT TIME ZONE l.time_zone)::date
             GROUP BY l.id ORDER BY 2 DESC, 1 LIMIT 1"
        ))[0];
        let names = office.sql(&format!(
            "SELECT c.full_name FROM reservations r JOIN locations l ON l.id = r.location_id
             JOIN customers c ON c.id = r.customer_id WHERE l.id = {}
             AND ({today})::date = (now() AT TIME ZONE l.time_zone)::date",
            busiest[0]
        ));
        let page = pages.get(&format!("/counter/{}", busiest[0]));
        assert_eq!(page.status, 200);
        assert!(page.text.contains("Today, "), "{}", page.text);
        assert!(!names.is_empty());
        for name in &names {
            assert!(
                page.text.contains(&shown(&name[0])),
                "{} is not listed",
                name[0]
            );
        }
        // Nothing from elsewhere runs on the pages, and nothing of them is kept.
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert_eq!(page.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn a_booking_made_on_the_page_is_in_the_books_and_on_the_list() {
    let (office, mut pages) = served();
    let made = pages.book("1", &[]);
    let place = made.leads_to().to_owned();
    let shown = pages.get(&place);
    assert_eq!(shown.status, 200);
    for part in ["Booked.", "Ann Lee", "ann@mail.example", "child seat"] {
        assert!(shown.text.contains(part), "{part}: {}", shown.text);
    }
    let id = place.split(['/', '?']).nth(2).unwrap();
    let row = &office.sql(&format!(
        "SELECT status, lower(during) AT TIME ZONE l.time_zone FROM reservations r
         JOIN locations l ON l.id = r.location_id WHERE r.id = '{id}'"
    ))[0];
    assert_eq!(row.as_slice(), ["booked", "2099-06-10 10:00:00"]);
    let mails = format!("SELECT count(*) FROM outbox WHERE reservation_id = '{id}'");
    assert_eq!(office.one(&mails), "1");
    let list = pages.get("/counter/1?day=2099-06-10");
    assert!(!list.text.contains("Ann Lee"), "a list 73 years away");
    // Paid, handed over and taken back.
    let amount = shown.value_of("name=\"amount\"");
    let payment = shown.value_of("/pay\">\n  <input type=\"hidden\" name=\"id\"");
    let pay = |amount: &str| {
        let fields = [
            ("id", payment.as_str()),
            ("amount", amount),
            ("method", "cash"),
        ];
        pages.post(&format!("/reservations/{id}/pay"), &fields)
    };
    let refused = pay("nothing");
    assert_eq!(refused.status, 422);
    // What was chosen stays chosen, so that cash is not entered as a card by the second press.
    let chosen = "value=\"cash\" selected";
    assert!(refused.text.contains(chosen), "{}", refused.text);
    for _ in 0..2 {
        assert!(pay(&amount).leads_to().ends_with("done=paid"));
    }
    let paid = format!("SELECT count(*) FROM payments WHERE reservation_id = '{id}'");
    assert_eq!(office.one(&paid), "1");
    for (change, status) in [("hand-over", "out"), ("take-back", "returned")] {
        let changed = pages.post(&format!("/reservations/{id}/{change}"), &[]);
        assert_eq!(changed.status, 303, "{changed:?}");
        let now = format!("SELECT status FROM reservations WHERE id = '{id}'");
        assert_eq!(office.one(&now), status);
    }
    assert_eq!(
        pages
            .post(&format!("/reservations/{id}/cancel"), &[])
            .status,
        422
    );
    pages.end();
    assert!(!office.path("ready.json").exists());
}

#[test]
fn a_form_sent_twice_makes_one_booking_and_a_taken_vehicle_is_said_to_be() {
    let (office, pages) = served();
    let form = pages.form("1");
    let fields: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let first = pages.post("/book/1", &fields);
    let again = pages.post("/book/1", &fields);
    assert_eq!(first.leads_to(), again.leads_to());
    let count = "SELECT count(*) FROM reservations WHERE lower(during) > '2099-01-01'";
    assert_eq!(office.one(count), "1");
    let taken = pages.book(
        "1",
        &[("email", "bob@mail.example"), ("from", "2099-06-11T10:00")],
    );
    assert_eq!(taken.status, 409, "{taken:?}");
    let notice = taken.notice();
    assert!(notice.contains("already booked"), "{notice}");
    assert!(notice.contains("Choose another vehicle"), "{notice}");
    assert_eq!(office.one(count), "1");
}

#[test]
fn what_is_missing_or_wrong_on_a_form_is_said_and_nothing_is_saved() {
    let (office, pages) = served();
    let before = office.one("SELECT count(*) FROM reservations");
    let long = "x".repeat(201);
    for (field, value, part) in [
        ("id", "", "damaged"),
        ("id", "1; DROP TABLE reservations", "damaged"),
        ("vehicle", "", "no vehicle is chosen"),
        ("vehicle", "1 OR 1=1", "no vehicle is chosen"),
        ("vehicle", "99999999999", "no vehicle is chosen"),
        ("from", "", "pickup is not a day"),
        ("from", "yesterday", "pickup is not a day"),
        ("from", "2099-02-30T10:00", "pickup is not a day"),
        ("from", "2001-01-01T10:00", "days needs a contract"),
        (
            "until",
            "2099-06-10T10:00",
            "return is not after the pickup",
        ),
        (
            "until",
            "2099-06-09T10:00",
            "return is not after the pickup",
        ),
        ("until", "2099-09-10T10:00", "days needs a contract"),
        ("until", "", "return is not a day"),
        ("name", "", "name is missing"),
        ("name", "  ", "name is missing"),
        ("name", &long, "longer than 200"),
        ("name", "Ann\u{7}Lee", "cannot be printed"),
        ("email", "", "e-mail address is not one"),
        ("email", "ann", "e-mail address is not one"),
        ("note", &long, "longer than 200"),
    ] {
        let page = pages.book("1", &[(field, value)]);
        assert_eq!(page.status, 422, "{field}={value}: {page:?}");
        let notice = page.notice().to_lowercase();
        assert!(notice.contains(part), "{field}={value}: {notice}");
        assert!(notice.contains("nothing was saved"), "{notice}");
        // What was typed is still on the form.
        if field != "name" {
            assert!(page.text.contains("value=\"Ann Lee\""), "{field}={value}");
        }
    }
    let past = pages.book(
        "1",
        &[("from", "2001-01-01T10:00"), ("until", "2001-01-02T10:00")],
    );
    assert!(past.notice().contains("in the past"), "{past:?}");
    assert_eq!(office.one("SELECT count(*) FROM reservations"), before);
}

#[test]
fn hostile_text_is_shown_as_text() {
    let (office, pages) = served();
    let name = "<script>alert('x')</script> & \"Bobby'); DROP TABLE customers;--\"";
    let escaped = "&#60;script&#62;alert(";
    let made = pages.book(
        "1",
        &[("name", name), ("note", "</dd><img src=x onerror=y>")],
    );
    let shown = pages.get(made.leads_to());
    assert!(shown.text.contains(escaped), "{}", shown.text);
    for raw in ["<script>", "<img src=x", "onerror=y>\""] {
        assert!(!shown.text.contains(raw), "{raw}: {}", shown.text);
    }
    let stored = office.one("SELECT full_name FROM customers WHERE email = 'ann@mail.example'");
    assert_eq!(stored, name);
    let refused = pages.book("1", &[("name", name), ("email", "\"><script>")]);
    assert_eq!(refused.status, 422);
    assert!(!refused.text.contains("<script>"), "{}", refused.text);
    for path in [
        "/counter/%3Cscript%3E",
        "/reservations/%3Cscript%3E",
        "/%3Cscript%3E",
    ] {
        let page = pages.get(path);
        assert_eq!(page.status, 404, "{path}");
        assert!(!page.text.contains("<script>"), "{path}");
    }
}

#[test]
fn addresses_that_mean_nothing_and_forms_of_other_sites_change_nothing() {
    let (office, pages) = served();
    for path in [
        "/counter/0",
        "/counter/-1",
        "/counter/1%20OR%201=1",
        "/fleet/999999",
        "/book/nothing",
        "/reservations/00000000-0000-4000-8000-000000000000",
        "/reservations/x",
        "/admin",
    ] {
        assert_eq!(pages.get(path).status, 404, "{path}");
    }
    for path in [
        "/counter/1?day=never",
        "/counter/1?day=9999-12-31",
        "/fleet/1?from=-1",
    ] {
        assert_eq!(pages.get(path).status, 200, "{path}");
    }
    let before = office.one("SELECT count(*) FROM reservations");
    let form = pages.form("1");
    let body: Vec<String> = form.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let body = body.join("&");
    for origin in ["Origin: http://evil.example", "Origin: null"] {
        let page = pages.curl("/book/1", &["-H", origin, "-d", &body]);
        assert_eq!(page.status, 403, "{origin}");
        assert!(page.text.contains("nothing was done"), "{}", page.text);
    }
    assert_eq!(office.one("SELECT count(*) FROM reservations"), before);
}

#[test]
fn a_year_beyond_the_books_is_refused_and_is_no_outage() {
    let (office, pages) = served();
    for (field, value) in [
        ("from", "-009000-01-01T10:00"),
        ("from", "1999-12-31T10:00"),
        ("until", "9999-12-31T23:59"),
    ] {
        let page = pages.book("1", &[(field, value)]);
        assert_eq!(page.status, 422, "{field}={value}: {page:?}");
        let notice = page.notice();
        assert!(notice.contains("between 2000 and 2199"), "{notice}");
    }
    // Both at the end of time: the driver cannot even write it down.
    let end = [("from", "9999-12-30T10:00"), ("until", "9999-12-31T23:59")];
    assert_eq!(pages.book("1", &end).status, 422);
    assert_eq!(pages.get("/health").status, 200);
    let late = "SELECT count(*) FROM reservations WHERE lower(during) > '2099-01-01'";
    assert_eq!(office.one(late), "0");
}

#[test]
fn a_counter_books_its_own_vehicles_only() {
    let (office, pages) = served();
    let elsewhere = office.one("SELECT min(id) FROM vehicles WHERE location_id <> 1");
    for vehicle in [elsewhere.as_str(), "99999", "0", "-1"] {
        let page = pages.book("1", &[("vehicle", vehicle)]);
        assert_eq!(page.status, 422, "{vehicle}: {page:?}");
        let notice = page.notice();
        assert!(notice.contains("not one of this counter"), "{notice}");
        assert!(page.text.contains("value=\"Ann Lee\""), "{vehicle}");
    }
    let form = pages.form("1");
    let fields: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
    for nowhere in ["999999", "x"] {
        let page = pages.post(&format!("/book/{nowhere}"), &fields);
        assert_eq!(page.status, 404, "{nowhere}");
        let said = page.text.contains("There is no such counter.");
        assert!(said && page.text.contains("Nothing was saved."), "{page:?}");
        assert!(!page.text.contains("Try again</button>"), "{nowhere}");
    }
    let late = "SELECT count(*) FROM reservations WHERE lower(during) > '2099-01-01'";
    assert_eq!(office.one(late), "0");
}

#[test]
fn what_no_form_sends_is_refused_with_a_page() {
    let (office, pages) = served();
    let before = office.one("SELECT count(*) FROM reservations");
    let id = office.one("SELECT id FROM reservations LIMIT 1");
    let long = office.path("long");
    std::fs::write(&long, "note=".to_owned() + &"x".repeat(100_000)).unwrap();
    let long = format!("@{}", long.display());
    let pay = format!("/reservations/{id}/pay");
    let json: &[&str] = &["-H", "Content-Type: application/json", "-d", "{}"];
    for (path, arguments, status) in [
        ("/book/1", &["--data-binary", &long][..], 413),
        ("/book/1", json, 415),
        ("/counter/%ff", &[], 400),
        (&pay, &[], 405),
        ("/", &["-X", "DELETE"], 405),
    ] {
        let page = pages.curl(path, arguments);
        assert_eq!(page.status, status, "{path}: {page:?}");
        assert!(page.text.contains("<h1>"), "{path}: {page:?}");
        assert!(page.text.contains("href=\"/\""), "{path}: {page:?}");
        assert_eq!(page.header("allow").is_some(), status == 405, "{path}");
        let policy = page.header("content-security-policy");
        assert!(policy.is_some(), "{path}: {page:?}");
    }
    assert_eq!(office.one("SELECT count(*) FROM reservations"), before);
    assert_eq!(pages.get("/counter/1").status, 200);
}

#[test]
fn days_that_are_over_are_not_offered_for_booking() {
    let (office, pages) = served();
    let past =
        office.one("SELECT (now() AT TIME ZONE time_zone)::date - 14 FROM locations WHERE id = 1");
    let fleet = pages.get(&format!("/fleet/1?from={past}"));
    assert_eq!(fleet.status, 200);
    assert!(fleet.text.contains("cell past"), "{}", fleet.text);
    assert!(!fleet.text.contains("href=\"/book/1?"), "{}", fleet.text);
    let today = pages.get("/fleet/1");
    assert!(today.text.contains("href=\"/book/1?"), "{}", today.text);
    assert!(!today.text.contains("cell past"), "{}", today.text);
    let form = pages.get(&format!("/book/1?from={past}"));
    let from = form.value_of("name=\"from\"");
    assert!(from > past && !from.starts_with(&past), "{from}");
}

#[test]
fn a_button_pressed_while_the_database_is_away_can_be_pressed_again() {
    for installation in postgres::all().unwrap() {
        let mut office = Office::empty(&installation).filled();
        let pages = Pages::serve(&office);
        let made = pages.book("1", &[]).leads_to().to_owned();
        let id = made.split(['/', '?']).nth(2).unwrap().to_owned();
        office.server.kill_9().unwrap();
        let path = format!("/reservations/{id}/hand-over");
        // This button sends no fields at all.
        let page = pages.post(&path, &[]);
        assert_eq!(page.status, 503, "{page:?}");
        assert!(page.text.contains("Nothing was saved"), "{}", page.text);
        assert!(page.text.contains("Try again</button>"), "{}", page.text);
        office.server.restart().unwrap();
        until("the pages serve again", || {
            pages.get("/health").status == 200
        });
        assert_eq!(pages.post(&path, &[]).status, 303);
        let now = format!("SELECT status FROM reservations WHERE id = '{id}'");
        assert_eq!(office.one(&now), "out");
    }
}
