//! The rows of the seeded office, as lines for COPY: each depends only on the plan and its own number.

use std::fmt::Write as _;

use jiff::civil::{Date, DateTime};
use jiff::{Span, ToSpan as _};

use super::words::{
    CITIES, COMPANY_FIRST, COMPANY_SECOND, FINDINGS, FIRST_NAMES, HISTORY_KINDS, LAST_NAMES,
    MEASURES, MODELS, PARTS, WISHES,
};
use crate::dice::Dice;

/// Numbers that decide everything: the same plan gives the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Seed of all dice.
    pub seed: u64,
    /// The day on which the office stands.
    pub today: Date,
    /// Companies, ids from 1.
    pub companies: u32,
    /// Counters of each company.
    pub locations_each: u32,
    /// Vehicles of each counter.
    pub vehicles_each: u32,
    /// Customers of each vehicle's counter, per vehicle.
    pub customers_per_vehicle: u32,
    /// Rows of history of each vehicle.
    pub history_per_vehicle: u32,
}

/// Lines for COPY of everything that belongs to some vehicles.
#[derive(Debug, Default)]
pub struct VehicleLines {
    /// Table `reservations`.
    pub reservations: Lines,
    /// Table `payments`.
    pub payments: Lines,
    /// Table `outbox`.
    pub outbox: Lines,
    /// Table `vehicle_history`.
    pub history: Lines,
}

/// Lines in PostgreSQL's text format.
///
/// # Source
/// <https://www.postgresql.org/docs/18/sql-copy.html>, section *Text Format*.
#[derive(Debug, Default)]
pub struct Lines {
    /// The text, complete lines.
    pub text: String,
    /// How many lines.
    pub rows: u64,
}

/// One person, as number `id` of the plan.
struct Person {
    name: String,
    email: String,
    phone: String,
}

impl Shape {
    /// Counters in all; ids from 1.
    pub fn locations(&self) -> u32 {
        self.companies * self.locations_each
    }

    /// Vehicles in all; ids from 1.
    pub fn vehicles(&self) -> u32 {
        self.locations() * self.vehicles_each
    }

    /// Customers of each company; their ids follow each other.
    fn customers_each(&self) -> u32 {
        self.locations_each * self.vehicles_each * self.customers_per_vehicle
    }

    /// Customers in all; ids from 1.
    pub fn customers(&self) -> u32 {
        self.companies * self.customers_each()
    }

    /// All companies.
    pub fn company_lines(&self) -> Lines {
        let mut lines = Lines::default();
        for id in 1..=self.companies {
            lines.row(&[&id.to_string(), &self.company_name(id), "USD"]);
        }
        lines
    }

    /// All counters.
    pub fn location_lines(&self) -> Lines {
        let mut lines = Lines::default();
        for id in 1..=self.locations() {
            let (city, zone, airport, area) = self.city(id);
            let number = (id - 1) % self.locations_each;
            let name = if number.is_multiple_of(2) {
                airport.to_owned()
            } else {
                format!("{city} Downtown")
            };
            let round = number / twice_cities();
            let name = if round == 0 {
                name
            } else {
                format!("{name} {}", round + 1)
            };
            let phone = format!("+1 {area} 555 {:04}", 100 + id % 100);
            lines.row(&[
                &id.to_string(),
                &self.company_of(id).to_string(),
                &name,
                city,
                zone,
                &phone,
            ]);
        }
        lines
    }

    /// All vehicles.
    pub fn vehicle_lines(&self) -> Lines {
        let mut lines = Lines::default();
        for id in 1..=self.vehicles() {
            let location = self.location_of(id);
            let (category, model, rate) = self.model(id);
            let plate = self.plate(id);
            lines.row(&[
                &id.to_string(),
                &self.company_of(location).to_string(),
                &location.to_string(),
                &plate,
                category,
                model,
                &rate.to_string(),
            ]);
        }
        lines
    }

    /// The customers with numbers `first..=last`.
    pub fn customer_lines(&self, first: u32, last: u32) -> Lines {
        let mut lines = Lines::default();
        for id in first..=last {
            let mut dice = Dice::new(self.seed, "customer", u64::from(id));
            let person = self.person(id);
            let licence = format!(
                "{}{:07}",
                dice.word(&["A", "D", "K", "S"]),
                dice.between(0, 9_999_999)
            );
            let created = self.today - Span::new().days(i64::from(dice.between(30, 2_000)));
            let company = (id - 1) / self.customers_each() + 1;
            lines.row(&[
                &id.to_string(),
                &company.to_string(),
                &person.name,
                &person.email,
                &person.phone,
                &licence,
                &format!("{created} 09:00:00+00"),
            ]);
        }
        lines
    }

    /// Adds everything that belongs to one vehicle.
    pub fn vehicle(&self, id: u32, out: &mut VehicleLines) {
        let mut dice = Dice::new(self.seed, "rentals", u64::from(id));
        let mut day = self.today - (40 + i64::from(dice.between(0, 3))).days();
        let last = self.today + 28.days();
        let mut number = 0;
        while day < last {
            let length = i64::from(dice.between(1, 3));
            let from = day.at(hour(&mut dice, 8), minute(&mut dice), 0, 0);
            let until = (day + length.days()).at(hour(&mut dice, 8), minute(&mut dice), 0, 0);
            number += 1;
            self.rental(&mut dice, (id, number), (from, until), out);
            day += (length + i64::from(dice.between(1, 3))).days();
        }
        for number in 1..=self.history_per_vehicle {
            self.history(id, number, &mut out.history);
        }
    }

    fn rental(
        &self,
        dice: &mut Dice,
        (vehicle, number): (u32, u32),
        (from, until): (DateTime, DateTime),
        out: &mut VehicleLines,
    ) {
        let location = self.location_of(vehicle);
        let (_, zone, _, _) = self.city(location);
        let (_, model, rate) = self.model(vehicle);
        let company = self.company_of(location);
        let customer =
            (company - 1) * self.customers_each() + dice.between(1, self.customers_each());
        let noon = self.today.at(10, 0, 0, 0);
        let cancelled = dice.chance(6);
        let status = match () {
            () if cancelled => "cancelled",
            () if until <= noon => "returned",
            () if from <= noon => "out",
            () => "booked",
        };
        let days = from
            .date()
            .until(until.date())
            .map_or(1, |span| i64::from(span.get_days()));
        let total = i64::from(rate) * days.max(1);
        let created = from.date() - i64::from(dice.between(1, 20)).days();
        let created = created
            .min(self.today - 1.day())
            .at(hour(dice, 8), minute(dice), 0, 0);
        let (id, during) = (
            dice.uuid(),
            format!("[\"{from} {zone}\",\"{until} {zone}\")"),
        );
        out.reservations.row(&[
            &id,
            &vehicle.to_string(),
            &location.to_string(),
            &customer.to_string(),
            &during,
            status,
            &total.to_string(),
            dice.word(WISHES),
            &format!("{created} {zone}"),
        ]);
        let number = u64::from(vehicle) * 1_000 + u64::from(number);
        let person = self.person(customer);
        let body = format!(
            "Dear {},\n\nThank you: your vehicle is reserved.\n\nVehicle: {model} ({})\nPickup: {from}\nReturn: {until}\n\n{}\n",
            person.name,
            self.plate(vehicle),
            self.company_name(company)
        );
        let sent = format!("{created} {zone}");
        let subject = "Your booking is confirmed";
        out.outbox.row(&[
            &number.to_string(),
            &id,
            &person.email,
            subject,
            &body,
            &sent,
            &sent,
        ]);
        if !cancelled && (status != "booked" || dice.chance(35)) {
            let method = dice.word(&["card", "card", "card", "cash", "transfer"]);
            let part = if dice.chance(80) { total } else { total / 2 };
            let paid = format!("{} {zone}", from.min(noon - 1.hour()));
            out.payments
                .row(&[&dice.uuid(), &id, &part.max(1).to_string(), method, &paid]);
        }
    }

    fn history(&self, vehicle: u32, number: u32, out: &mut Lines) {
        let mut dice = Dice::new(
            self.seed,
            "history",
            (u64::from(vehicle) << 32) | u64::from(number),
        );
        let at = self.today.at(6, 0, 0, 0) - i64::from(number).hours();
        let id = u64::from(vehicle) * 10_000_000 + u64::from(number);
        let kind = dice.word(HISTORY_KINDS);
        let mut note = String::new();
        let odometer = 90_000_u32.saturating_sub(number * 2);
        let _infallible = write!(note, "{kind} of {} at {odometer} km.", self.plate(vehicle));
        for _ in 0..dice.between(4, 7) {
            let (part, finding) = (dice.word(PARTS), dice.word(FINDINGS));
            let _infallible = write!(
                note,
                " {part}: {finding}, seen {} mm. ",
                dice.between(1, 400)
            );
            note.push_str(dice.word(MEASURES));
        }
        let mut tyre = || dice.between(16, 80);
        let tyres = [tyre(), tyre(), tyre(), tyre()];
        let (latitude, longitude) = (
            dice.between(25_000_000, 48_000_000),
            dice.between(70_000_000, 122_000_000),
        );
        // Names are letters, spaces and apostrophes, so nothing here needs escaping in JSON.
        let details = format!(
            "{{\"odometer_km\":{odometer},\"fuel_percent\":{},\"tyres_tenth_mm\":{tyres:?},\
             \"position\":{{\"lat_e6\":{latitude},\"lon_e6\":-{longitude}}},\"checked_by\":\"{}\",\"report\":\"{}\"}}",
            dice.between(5, 100),
            self.person(1 + vehicle % 40).name,
            dice.uuid(),
        );
        out.row(&[
            &id.to_string(),
            &vehicle.to_string(),
            &format!("{at}+00"),
            kind,
            &note,
            &details,
        ]);
    }

    fn company_name(&self, id: u32) -> String {
        let (first, second) = (usize_of(id - 1), usize_of(id - 1) / COMPANY_FIRST.len());
        let first_word = COMPANY_FIRST
            .get(first % COMPANY_FIRST.len())
            .copied()
            .unwrap_or("");
        let second_word = COMPANY_SECOND
            .get((first + second) % COMPANY_SECOND.len())
            .copied();
        let round = second / COMPANY_SECOND.len();
        let name = format!("{first_word} {}", second_word.unwrap_or(""));
        if round == 0 {
            name
        } else {
            format!("{name} {}", round + 1)
        }
    }

    fn company_of(&self, location: u32) -> u32 {
        (location - 1) / self.locations_each + 1
    }

    fn location_of(&self, vehicle: u32) -> u32 {
        (vehicle - 1) / self.vehicles_each + 1
    }

    fn city(&self, location: u32) -> (&'static str, &'static str, &'static str, u32) {
        let number = (location - 1) % self.locations_each / 2 + self.company_of(location) * 3 - 3;
        CITIES
            .get(usize_of(number) % CITIES.len())
            .copied()
            .unwrap_or(("", "UTC", "", 0))
    }

    fn model(&self, vehicle: u32) -> (&'static str, &'static str, u32) {
        let mut dice = Dice::new(self.seed, "model", u64::from(vehicle));
        dice.pick(MODELS).copied().unwrap_or(("compact", "", 3_900))
    }

    /// A plate that no other vehicle has.
    fn plate(&self, vehicle: u32) -> String {
        let mut dice = Dice::new(self.seed, "plate", u64::from(vehicle));
        let letter = |n: u32| char::from(b'A' + u8::try_from(n % 26).unwrap_or(0));
        let (a, b) = (letter(dice.between(0, 25)), letter(dice.between(0, 25)));
        format!("{a}{b}{}-{:04}", letter(vehicle / 10_000), vehicle % 10_000)
    }

    fn person(&self, id: u32) -> Person {
        let mut dice = Dice::new(self.seed, "person", u64::from(id));
        let (first, last) = (dice.word(FIRST_NAMES), dice.word(LAST_NAMES));
        let plain: String = last.chars().filter(char::is_ascii_alphabetic).collect();
        Person {
            name: format!("{first} {last}"),
            email: format!("{first}.{plain}.{id}@mail.example").to_lowercase(),
            phone: format!(
                "+1 {} 555 01{:02}",
                dice.between(201, 989),
                dice.between(0, 99)
            ),
        }
    }
}

impl VehicleLines {
    /// Bytes gathered so far.
    pub fn bytes(&self) -> usize {
        [
            &self.reservations,
            &self.payments,
            &self.outbox,
            &self.history,
        ]
        .iter()
        .map(|lines| lines.text.len())
        .sum()
    }
}

impl Lines {
    /// Adds one row, escaped.
    fn row(&mut self, fields: &[&str]) {
        for (number, field) in fields.iter().enumerate() {
            if number > 0 {
                self.text.push('\t');
            }
            if !field
                .bytes()
                .any(|byte| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t'))
            {
                self.text.push_str(field);
                continue;
            }
            for character in field.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '\n' => self.text.push_str("\\n"),
                    '\r' => self.text.push_str("\\r"),
                    '\t' => self.text.push_str("\\t"),
                    other => self.text.push(other),
                }
            }
        }
        self.text.push('\n');
        self.rows += 1;
    }
}

fn hour(dice: &mut Dice, first: u32) -> i8 {
    i8::try_from(dice.between(first, 18)).unwrap_or(12)
}

fn minute(dice: &mut Dice) -> i8 {
    i8::try_from(dice.between(0, 3) * 15).unwrap_or(0)
}

fn usize_of(number: u32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

fn twice_cities() -> u32 {
    u32::try_from(CITIES.len() * 2).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::civil::date;

    use super::{Lines, Shape, VehicleLines};

    const SHAPE: Shape = Shape {
        seed: 1,
        today: date(2026, 11, 24),
        companies: 120,
        locations_each: 43,
        vehicles_each: 2,
        customers_per_vehicle: 7,
        history_per_vehicle: 2,
    };

    fn column(lines: &Lines, columns: &[usize]) -> Vec<String> {
        let pick = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            columns
                .iter()
                .map(|column| fields[*column])
                .collect::<Vec<_>>()
                .join("|")
        };
        lines.text.lines().map(pick).collect()
    }

    #[test]
    fn names_and_plates_are_unique_even_in_a_large_office() {
        let cases = [
            column(&SHAPE.company_lines(), &[1]),
            column(&SHAPE.location_lines(), &[1, 2]),
            column(&SHAPE.vehicle_lines(), &[3]),
            column(&SHAPE.customer_lines(1, 5_000), &[3]),
        ];
        for names in cases {
            let distinct: BTreeSet<&String> = names.iter().collect();
            assert_eq!(distinct.len(), names.len());
        }
    }

    #[test]
    fn the_same_shape_gives_the_same_rows_and_another_seed_others() {
        let rows = |shape: Shape| {
            let mut lines = VehicleLines::default();
            (1..20).for_each(|vehicle| shape.vehicle(vehicle, &mut lines));
            [
                lines.reservations.text,
                lines.payments.text,
                lines.outbox.text,
                lines.history.text,
            ]
        };
        assert_eq!(rows(SHAPE), rows(SHAPE));
        assert_ne!(rows(SHAPE), rows(Shape { seed: 2, ..SHAPE }));
    }

    #[test]
    fn fields_are_escaped_for_copy() {
        let mut lines = Lines::default();
        lines.row(&["a\tb", "c\\d\r\n"]);
        assert_eq!(
            (lines.text.as_str(), lines.rows),
            ("a\\tb\tc\\\\d\\r\\n\n", 1)
        );
    }
}
