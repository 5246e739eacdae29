//! The pages while the database is away, cannot be written, or came back elsewhere.

use holdfast_testing::postgres;
use serde_json::Value;

use super::browser::{Page, Pages};
use super::office::{Office, until};

/// Longer than a page may take, for a machine with other things to do.
const SECONDS_MAX: f64 = 6.0;

fn health(pages: &Pages) -> (u16, Value) {
    let page = pages.get("/health");
    (page.status, serde_json::from_str(&page.text).unwrap())
}

fn is_trouble(page: &Page, office: &Office) {
    assert_eq!(page.status, 503, "{page:?}");
    assert!(page.seconds < SECONDS_MAX, "{page:?}");
    assert_eq!(page.header("retry-after"), Some("3"));
    let since = "cannot reach its database since";
    assert!(page.text.contains(since), "{}", page.text);
    assert!(
        !page.text.contains(office.server.password()),
        "{}",
        page.text
    );
}

#[test]
fn while_the_server_is_gone_every_page_says_so_and_serves_again_afterwards() {
    for installation in postgres::all().unwrap() {
        let mut office = Office::empty(&installation).filled();
        let pages = Pages::serve(&office);
        let (status, well) = health(&pages);
        assert_eq!(
            (status, &well["reads"], &well["writes"]),
            (200, &true.into(), &true.into())
        );
        let form = pages.form("1");
        let fields: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
        office.server.kill_9().unwrap();
        for path in ["/", "/counter/1", "/fleet/1", "/book/1"] {
            let page = pages.get(path);
            is_trouble(&page, &office);
            assert!(page.text.contains("http-equiv=\"refresh\""), "{path}");
        }
        let sent = pages.post("/book/1", &fields);
        is_trouble(&sent, &office);
        assert!(sent.text.contains("Nothing was saved"), "{}", sent.text);
        // The form is kept on the page: it can be sent again, and is carried out once.
        assert!(sent.text.contains("value=\"Ann Lee\""), "{}", sent.text);
        let (status, ill) = health(&pages);
        assert_eq!(
            (status, &ill["reads"], &ill["writes"]),
            (503, &false.into(), &false.into())
        );
        assert!(!ill["reason"].as_str().unwrap().is_empty());
        office.server.restart().unwrap();
        until("the pages serve again", || health(&pages).0 == 200);
        assert_eq!(pages.get("/counter/1").status, 200);
        let place = pages.post("/book/1", &fields);
        assert!(pages.get(place.leads_to()).text.contains("Ann Lee"));
    }
}

#[test]
fn a_database_that_can_only_be_read_shows_its_lists_and_takes_no_booking() {
    let office = Office::fast(&postgres::newest().unwrap()).filled();
    office.sql("ALTER DATABASE rental SET default_transaction_read_only = on");
    let pages = Pages::serve(&office);
    let (status, ill) = health(&pages);
    assert_eq!(
        (status, &ill["reads"], &ill["writes"]),
        (503, &true.into(), &false.into())
    );
    assert_eq!(pages.get("/counter/1").status, 200);
    let sent = pages.book("1", &[]);
    assert_eq!(sent.status, 503);
    assert!(
        sent.text.contains("can read but not write"),
        "{}",
        sent.text
    );
    assert!(sent.text.contains("Nothing was saved"), "{}", sent.text);
}

#[test]
fn dropped_tables_are_an_outage_and_not_an_empty_office() {
    let office = Office::fast(&postgres::oldest().unwrap()).filled();
    let pages = Pages::serve(&office);
    assert_eq!(pages.get("/").status, 200);
    office.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    is_trouble(&pages.get("/"), &office);
    is_trouble(&pages.get("/counter/1"), &office);
    assert_eq!(health(&pages).0, 503);
}

#[test]
fn a_database_that_came_back_elsewhere_is_found_by_its_new_url() {
    let mut office = Office::fast(&postgres::newest().unwrap()).filled();
    let elsewhere = Office::fast(&postgres::newest().unwrap()).filled();
    elsewhere.sql("UPDATE companies SET name = 'Elsewhere Rental' WHERE id = 1");
    let pages = Pages::serve(&office);
    assert!(!pages.get("/").text.contains("Elsewhere Rental"));
    office.server.kill_9().unwrap();
    is_trouble(&pages.get("/"), &office);
    std::fs::write(office.path("url"), elsewhere.url("rental")).unwrap();
    until("the pages have moved", || pages.get("/").status == 200);
    assert!(pages.get("/").text.contains("Elsewhere Rental"));
    assert_eq!(health(&pages).0, 200);
}
