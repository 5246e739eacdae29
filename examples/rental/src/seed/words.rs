//! The words from which customers, vehicles and notes are made.

/// First names.
pub const FIRST_NAMES: &[&str] = &[
    "Aaron", "Alice", "Amara", "Andre", "Beatriz", "Ben", "Carla", "Chen", "Daniela", "David",
    "Elena", "Emeka", "Fatima", "Frank", "Grace", "Hannah", "Hiroshi", "Ines", "Isaac", "Jamal",
    "Jana", "Jorge", "Karim", "Katrin", "Lena", "Liam", "Lucia", "Magnus", "Maria", "Mei", "Nadia",
    "Noah", "Olga", "Omar", "Paula", "Pedro", "Priya", "Quentin", "Rosa", "Ruth", "Samuel",
    "Sofia", "Tariq", "Teresa", "Uwe", "Vera", "Victor", "Wanda", "Yusuf", "Zoe",
];

/// Last names.
pub const LAST_NAMES: &[&str] = &[
    "Abe", "Adeyemi", "Almeida", "Baker", "Becker", "Brown", "Castillo", "Cohen", "Costa", "Diaz",
    "Dubois", "Evans", "Fischer", "Garcia", "Greene", "Haddad", "Hansen", "Ito", "Ivanov",
    "Jensen", "Johnson", "Kaya", "Kim", "Kowalski", "Larsen", "Lee", "Lopez", "Martin", "Mensah",
    "Miller", "Moreau", "Nguyen", "Novak", "O'Brien", "Okafor", "Olsen", "Park", "Patel", "Quinn",
    "Reyes", "Rossi", "Santos", "Schmidt", "Silva", "Smith", "Tanaka", "Torres", "Varga", "Weber",
    "Young",
];

/// First halves of company names.
pub const COMPANY_FIRST: &[&str] = &[
    "Prairie",
    "Harbor",
    "Blue Ridge",
    "Lone Pine",
    "Silver Lake",
    "Mesa",
    "Golden Gate",
    "Cascade",
    "Magnolia",
    "Granite",
    "Bayou",
    "Summit",
    "Redwood",
    "Coastal",
    "Heartland",
    "Sagebrush",
    "Juniper",
    "Maple",
    "Canyon",
    "Liberty",
];

/// Second halves of company names.
pub const COMPANY_SECOND: &[&str] = &[
    "Car Hire",
    "Rent-a-Car",
    "Auto Rental",
    "Wheels",
    "Mobility",
];

/// City, IANA time zone, airport, area code.
pub const CITIES: &[(&str, &str, &str, u32)] = &[
    ("Chicago", "America/Chicago", "O'Hare", 312),
    ("Denver", "America/Denver", "DEN Terminal", 303),
    ("Seattle", "America/Los_Angeles", "Sea-Tac", 206),
    ("Boston", "America/New_York", "Logan", 617),
    ("Austin", "America/Chicago", "Bergstrom", 512),
    ("Phoenix", "America/Phoenix", "Sky Harbor", 602),
    ("Portland", "America/Los_Angeles", "PDX", 503),
    ("Atlanta", "America/New_York", "Hartsfield", 404),
    ("Anchorage", "America/Anchorage", "Ted Stevens", 907),
    ("Honolulu", "Pacific/Honolulu", "Inouye", 808),
];

/// Category, model, cents for a day.
pub const MODELS: &[(&str, &str, u32)] = &[
    ("compact", "Kia Rio", 3_900),
    ("compact", "Toyota Yaris", 4_100),
    ("compact", "Nissan Versa", 3_800),
    ("sedan", "Toyota Camry", 5_600),
    ("sedan", "Honda Accord", 5_700),
    ("sedan", "Hyundai Sonata", 5_200),
    ("suv", "Ford Explorer", 8_300),
    ("suv", "Jeep Grand Cherokee", 8_900),
    ("suv", "Subaru Forester", 7_100),
    ("van", "Chrysler Pacifica", 9_400),
    ("van", "Ford Transit 350", 10_900),
    ("truck", "Ford F-150", 9_200),
    ("truck", "Ram 1500", 9_500),
    ("premium", "BMW 530e", 14_900),
    ("premium", "Tesla Model S", 16_500),
];

/// Wishes of customers.
pub const WISHES: &[&str] = &[
    "",
    "",
    "",
    "",
    "",
    "child seat",
    "two child seats",
    "winter tyres",
    "flight delayed, keep the car",
    "leaves the key at the hotel desk",
    "invoice to the company",
    "needs a charging cable",
    "second driver",
];

/// Kinds of vehicle history.
pub const HISTORY_KINDS: &[&str] = &[
    "inspection",
    "inspection",
    "wash",
    "service",
    "damage",
    "tyres",
    "telemetry",
];

/// Parts of a vehicle.
pub const PARTS: &[&str] = &[
    "front bumper",
    "rear bumper",
    "left mirror",
    "right mirror",
    "windscreen",
    "driver's door",
    "tailgate",
    "left rear wheel",
    "right front wheel",
    "roof",
    "bonnet",
    "sill",
    "passenger seat",
    "boot floor",
    "number plate",
];

/// What an inspector finds.
pub const FINDINGS: &[&str] = &[
    "no change since the last check",
    "scratch of a hand's width, polished out",
    "stone chip, filled",
    "small dent, noted on the sheet and shown to the customer",
    "cleaned, dry, no smell",
    "worn but within the limit",
    "replaced under warranty",
    "loose clip pressed back in place",
    "photo taken, customer has signed",
    "moisture under the mat, dried overnight",
    "old mark, already on the hand-over sheet",
];

/// What is done about it.
pub const MEASURES: &[&str] = &[
    "Released for rental.",
    "To be looked at again at the next return.",
    "Workshop booked, vehicle stays available.",
    "Deposit kept until the estimate is here.",
    "Insurance informed by e-mail.",
    "Nothing to do.",
    "Charged to the reservation and explained at the counter.",
    "Spare key is in the safe.",
];
