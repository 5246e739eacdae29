//! No vehicle is booked twice, also when everybody wants it at once.

use std::time::Duration;

use holdfast_testing::postgres;
use jiff::civil::{DateTime, date};
use rental::database::{DatabaseUrl, UrlSource};
use rental::desk::{Booking, Customer, DeskError, Pool, Rental, StatusChange};
use rental::dice::uuid_v4;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;

use super::office::Office;

const LIMIT: Duration = Duration::from_secs(30);

fn booking(number: u128, from: DateTime, until: DateTime) -> Booking {
    Booking {
        id: uuid_v4(number),
        customer: Customer {
            full_name: format!("Customer {number}"),
            email: format!("c{number}@mail.example"),
            phone: String::new(),
        },
        rental: Rental {
            vehicle_id: 1,
            from,
            until,
        },
        note: String::new(),
    }
}

fn day(number: i8) -> DateTime {
    date(2099, 6, number).at(10, 0, 0, 0)
}

fn pool(office: &Office) -> Pool {
    let url = DatabaseUrl::parse(&office.url("rental")).unwrap();
    Pool::new(UrlSource::Fixed(url), 16, LIMIT)
}

async fn book(pool: &Pool, booking: &Booking) -> Result<(), DeskError> {
    pool.desk().await?.book(booking).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_the_same_vehicle_at_once_one_gets_it() {
    for installation in postgres::all().unwrap() {
        let office = tokio::task::spawn_blocking(move || Office::fast(&installation).filled())
            .await
            .unwrap();
        let pool = std::sync::Arc::new(pool(&office));
        let mut everybody = JoinSet::new();
        for number in 1..=24_u128 {
            let pool = pool.clone();
            // All of them overlap on the 10th; no two are equal.
            let first = 1 + i8::try_from(number % 9).unwrap();
            let wanted = booking(number, day(first), day(first + 10));
            everybody.spawn(async move { book(&pool, &wanted).await });
        }
        let (mut booked, mut taken) = (0, 0);
        while let Some(outcome) = everybody.join_next().await {
            match outcome.unwrap() {
                Ok(()) => booked += 1,
                Err(DeskError::Taken { .. } | DeskError::Busy) => taken += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((booked, taken), (1, 23));
        tokio::task::spawn_blocking(move || {
            let sql = "SELECT count(*) FROM reservations
                       WHERE vehicle_id = 1 AND lower(during) > '2099-01-01'";
            assert_eq!(office.one(sql), "1");
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vehicle_is_free_before_after_and_when_its_booking_is_cancelled() {
    let installation = postgres::newest().unwrap();
    let office = tokio::task::spawn_blocking(move || Office::fast(&installation).filled())
        .await
        .unwrap();
    let pool = pool(&office);
    let middle = booking(1, day(10), day(12));
    book(&pool, &middle).await.unwrap();
    // The same form sent twice is one booking; the same id for something else is refused.
    book(&pool, &middle).await.unwrap();
    for (from, until) in [(day(20), day(21)), (day(10), day(12).tomorrow().unwrap())] {
        let other = Booking {
            id: middle.id.clone(),
            ..booking(1, from, until)
        };
        assert!(book(&pool, &other).await.is_err(), "{from}");
    }
    for (number, from, until, free) in [
        (3, day(8), day(10), true),
        (4, day(12), day(14), true),
        (5, day(9), day(11), false),
        (6, day(10), day(12), false),
        (7, day(11), day(13), false),
        (8, day(1), day(28), false),
    ] {
        let outcome = book(&pool, &booking(number, from, until)).await;
        match outcome {
            Ok(()) => assert!(free, "{number}"),
            Err(DeskError::Taken { vehicle, .. }) => assert!(!free && !vehicle.is_empty()),
            Err(error) => panic!("{number}: {error}"),
        }
    }
    let mut desk = pool.desk().await.unwrap();
    desk.change(&middle.id, StatusChange::Cancel).await.unwrap();
    drop(desk);
    book(&pool, &booking(9, day(10), day(12))).await.unwrap();
    tokio::task::spawn_blocking(move || drop(office))
        .await
        .unwrap();
}

#[test]
fn the_database_itself_refuses_a_double_booking() {
    for installation in postgres::all().unwrap() {
        let office = Office::fast(&installation).filled();
        let insert = |from: &str, until: &str| {
            let sql = format!(
                "INSERT INTO reservations (id, vehicle_id, location_id, customer_id, during, total_cents)
                 SELECT gen_random_uuid(), 1, 1, 1, tstzrange('{from}', '{until}'), 1"
            );
            let outcome = office.try_sql("rental", &sql);
            outcome.err().and_then(|error| error.code().cloned())
        };
        assert_eq!(insert("2099-06-10", "2099-06-12"), None);
        let excluded = Some(SqlState::EXCLUSION_VIOLATION);
        assert_eq!(insert("2099-06-11", "2099-06-13"), excluded);
        assert_eq!(insert("2099-06-12", "2099-06-13"), None);
        let checked = Some(SqlState::CHECK_VIOLATION);
        assert_eq!(insert("2099-06-20", "2099-06-20"), checked);
    }
}
